"""Texts with gaps in tokens, and how rows that have them begin: with masks, or open where a gap is."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from anyorder.api.scoring import rows_at_once
from anyorder.api.values import GAP
from anyorder.core.device import canvas_device
from anyorder.core.noise import Noise
from anyorder.data.tokenizer import Tokenizer
from anyorder.likelihood.bound import Rows
from anyorder.likelihood.given import given_bound
from anyorder.likelihood.rows import rows_of
from anyorder.models.network import Network, own_block
from anyorder.samplers.insertion import Room
from anyorder.trace.record import RowStart

MOST_CHOICES = 64  # of lengths that are tried
DRAWS = 32  # masked copies of the given text for each


@dataclass(frozen=True)
class Gapped:
    """A text with gaps; gaps that follow each other are one.

    Args:
        texts: the tokens before, between and behind the gaps, one piece more than gaps.
        gaps: how many tokens each takes.
    """

    texts: tuple[tuple[int, ...], ...]
    gaps: tuple[Room, ...]

    @property
    def num_given(self) -> int:
        return sum(map(len, self.texts))

    def filled(self, sizes: Sequence[int], token: int) -> list[int]:
        """The row with so many of a token in each gap."""
        first, *rest = self.texts
        return [*first, *(i for size, text in zip(sizes, rest, strict=True) for i in (*[token] * size, *text))]


def gapped(parts: Sequence[str | GAP], tokenizer: Tokenizer) -> Gapped:
    """Texts and gaps in tokens; every piece of text is turned into tokens by itself.

    Raises:
        ValueError: no list, or no gap in it.
    """
    if isinstance(parts, str):
        raise ValueError('parts: must be a list of texts and gaps, as in ["text ", GAP(4), " more"]')
    texts: list[list[int]] = [[]]
    gaps: list[Room] = []
    for part in parts:
        if not isinstance(part, GAP):
            texts[-1] += tokenizer.encode(part)
        elif gaps and not texts[-1]:
            gaps[-1] = _together(gaps[-1], part.room)
        else:
            gaps.append(part.room)
            texts.append([])
    if not gaps:
        raise ValueError('parts: hold no gap, so there is nothing to write; add one, as in ["text ", GAP(4)]')
    return Gapped(tuple(map(tuple, texts)), tuple(gaps))


def _together(a: Room, b: Room) -> Room:
    return Room(a.least + b.least, None if a.most is None or b.most is None else a.most + b.most)


def grown_start(given: Gapped, *, length: int) -> RowStart:
    """A row of an insertion model: the given tokens, open where the gaps are.

    Args:
        length: the most tokens of a row.
    Raises:
        ValueError: no room for what the gaps ask for, or for any token.
    """
    least, most = sum(gap.least for gap in given.gaps), [gap.most for gap in given.gaps]
    if given.num_given + max(least, 1) > length:
        what = f"{given.num_given} tokens of text" + (f" and at least {least} in gaps" if least else "")
        raise ValueError(f"the row has {what}, the model writes rows of at most {length}; shorten text or gaps")
    room = length - given.num_given
    bounded = [m for m in most if m is not None]
    wanted = sum(bounded) if len(bounded) == len(most) else room
    places = itertools.accumulate(map(len, given.texts[:-1]))
    row = given.filled([0] * len(given.gaps), 0)
    return RowStart(row=0, tokens=tuple(row), open=tuple(places), length=given.num_given + min(room, wanted))


def masked_start(given: Gapped, model: Network, *, length: int, seed: int) -> RowStart:
    """A row of a model that writes masks: as many as each gap has tokens.

    The length of a gap that may have several is the one under which the given tokens are likeliest, with the gap
    unwritten (`given_bound`); of several such gaps it is the likeliest combination.

    Args:
        length: the longest row the model reads.
    Raises:
        ValueError: a gap of any length, too many combinations, a row that is too long, or an autoregressive model that
            would have to choose, or to see the text after a gap; or one with blocks of its own and text in a later one.
    """
    ranges = [range(gap.least, gap.most + 1) for gap in given.gaps if gap.most is not None]
    if model.config.causal and any(given.texts[1:]):
        raise ValueError(
            "parts: an autoregressive model cannot see the text after a gap; use a masked diffusion model, "
            "or end with the gap"
        )
    if len(ranges) < len(given.gaps):
        raise ValueError(
            "parts: only an insertion model fills a gap of any length; name its tokens, as in GAP(4) or GAP(2, 6), on "
            "the command line [[4]] or [[2-6]]"
        )
    longest = given.num_given + sum(r[-1] for r in ranges)
    if longest > length:
        raise ValueError(f"the row has {longest} tokens, the model reads {length}; shorten text or gaps")
    sizes = [r[0] for r in ranges]
    if any(len(r) > 1 for r in ranges):
        sizes = _likeliest(given, ranges, model, noise=Noise.of(seed).at("gap length"))
    row, mask = given.filled(sizes, model.vocab.mask_id), model.vocab.mask_id
    own = own_block(model)
    if own is not None:
        last = max((i for i, token in enumerate(row) if token != mask), default=0)
        if row.index(mask) // own < last // own:
            raise ValueError(
                f"parts: the model sees nothing behind the block of {own} tokens it writes, and text stands there; use "
                "another masked diffusion model, or end with the gap"
            )
    return RowStart(row=0, tokens=tuple(row))


def _likeliest(given: Gapped, ranges: Sequence[range], model: Network, *, noise: Noise) -> list[int]:
    """The lengths under which the given tokens are likeliest, the first among equals; ValueError as `masked_start`."""
    if model.config.causal or not given.num_given:
        why = "an autoregressive model reads" if model.config.causal else "there is"
        raise ValueError(
            f"parts: {why} nothing by which to choose a gap's length; name one number of tokens, as in GAP(4)"
        )
    number = math.prod(map(len, ranges))
    if number > MOST_CHOICES:
        raise ValueError(f"parts: {number} combinations of gap lengths, at most {MOST_CHOICES} are tried; narrow them")
    choices = list(itertools.product(*ranges))
    mask = model.vocab.mask_id
    rows = [given.filled(sizes, mask) for sizes in choices]
    held = rows_of(rows, begins=[0] * number, row_id=[0] * number, device=canvas_device(model.rope_cos.device))
    target = held.target & (held.tokens != mask)
    at_once = rows_at_once(held.tokens.shape[1], vocab_size=model.vocab.size)
    with torch.no_grad():
        nats = given_bound(
            model, Rows(held.tokens, target, held.segment, held.row_id), draws=DRAWS, noise=noise, rows_per_pass=at_once
        )
    return list(choices[int(nats.argmin())])
