"""Infill sets: texts with stretches taken out, the same for every kind of model that fills them in.

A masked model reads masks in their place, and so how many they are; an insertion model reads what is left, with the
places that are open; an autoregressive model trained for it reads a mark for each gap (`data/fim.py`).

Source:
    arXiv:2505.05755: one segment or several, about 20 % of each text. Its own sets are not made here; the law of the
    segments is ours.
"""

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas, Vocab
from anyorder.data.shards import Shards


@dataclass(frozen=True)
class Stretch:
    """Consecutive tokens of a document: where they begin in it and how many they are."""

    document: int
    start: int
    size: int

    def read(self, shards: Shards) -> list[int]:
        """The tokens."""
        tokens: list[int] = shards.read(int(shards.starts[self.document]) + self.start, length=self.size).tolist()
        return tokens


@dataclass(frozen=True)
class Infill:
    """A text with gaps.

    Args:
        texts: the tokens before, between and behind the gaps, one piece more than gaps; only the outer may be empty.
        gaps: the tokens taken out, at least one in each.
        stretch: where the text stands in its corpus.
    """

    texts: tuple[tuple[int, ...], ...]
    gaps: tuple[tuple[int, ...], ...]
    stretch: Stretch

    def filled(self, gaps: Sequence[Sequence[int]]) -> list[int]:
        """The text with these tokens in the gaps."""
        first, *rest = self.texts
        return [*first, *(i for gap, text in zip(gaps, rest, strict=True) for i in (*gap, *text))]

    @property
    def tokens(self) -> list[int]:
        """The text as it was."""
        return self.filled(self.gaps)


@dataclass(frozen=True)
class InfillSets:
    """Held-out texts, for choosing settings and for reporting; no text is in both."""

    valid: list[Infill]
    test: list[Infill]


def stretches(shards: Shards, *, least: int, most: int) -> list[Stretch]:
    """All documents without their EOS, in consecutive pieces of at most `most` tokens, but for pieces under `least`.

    Raises:
        ValueError: not 1 <= least <= most.
    """
    if not 1 <= least <= most:
        raise ValueError(f"least={least}, most={most}: a text must have >= 1 tokens, and at most as many as the second")
    found = []
    for document in range(shards.num_documents):
        end = int(shards.starts[document + 1] - shards.starts[document]) - 1
        found += [Stretch(document, at, min(most, end - at)) for at in range(0, end, most)]
    return [s for s in found if s.size >= least]


def cut(tokens: Sequence[int], stretch: Stretch, *, missing: int, num_gaps: int, u: Sequence[float]) -> Infill:
    """A text with `missing` tokens taken out in `num_gaps` pieces, every way of doing so equally likely.

    Args:
        u: uniforms in (0, 1), 2 num_gaps - 1 of them.
    Raises:
        ValueError: a gap would be empty, two would touch, or nothing be left.
    """
    left = len(tokens) - missing
    if not 1 <= num_gaps <= missing or left < max(num_gaps - 1, 1):
        raise ValueError(
            f"num_gaps={num_gaps}: {missing} of {len(tokens)} tokens cannot be taken out in so many pieces; "
            "give fewer, or longer texts"
        )
    sizes = _parts(missing, u[num_gaps:])
    behind = _drawn(left + 1, u[:num_gaps])  # tokens that stay before each gap
    texts, gaps, at = [], [], 0
    for kept, size in zip([b - a for a, b in pairwise([0, *behind])], sizes):
        texts.append(tuple(tokens[at : at + kept]))
        gaps.append(tuple(tokens[at + kept : at + kept + size]))
        at += kept + size
    return Infill((*texts, tuple(tokens[at:])), tuple(gaps), stretch)


def infill_sets(
    shards: Shards,
    *,
    noise: Noise,
    num_valid: int,
    num_test: int,
    share: float = 0.2,
    num_gaps: int = 1,
    least: int = 16,
    most: int = 256,
) -> InfillSets:
    """Texts of a corpus, drawn without replacement, in each of which a share of the tokens is missing.

    No document is cut short: a long one is several texts, of which each may be drawn. Equal texts are drawn once.

    Args:
        shards: a held-out split, so that no text was trained on.
        share: of the tokens of each text, rounded, at least one a gap. Published sets take out 20 %.
        num_gaps: 1 for a single segment; published sets of several do not say how many.
        least, most: tokens of a text.
    Raises:
        ValueError: a number outside its range, or fewer texts than are asked for.
    """
    if num_valid < 0 or num_test < 1 or not 0.0 < share < 1.0:
        raise ValueError(
            f"num_valid={num_valid}, num_test={num_test}, share={share}: must be >= 0, >= 1 and between 0 and 1"
        )
    every = stretches(shards, least=least, most=most)
    order = noise.at("texts").uniform(torch.arange(len(every))).argsort().tolist()
    found: list[Infill] = []
    seen: set[tuple[int, ...]] = set()
    for number in order:
        if len(found) == num_test + num_valid:
            break
        tokens = tuple(every[number].read(shards))
        if tokens not in seen:
            seen.add(tokens)
            missing = max(round(share * len(tokens)), num_gaps)
            u = noise.at("cuts").uniform(number, 0, torch.arange(2 * num_gaps - 1)).tolist()
            found.append(cut(tokens, every[number], missing=missing, num_gaps=num_gaps, u=u))
    if len(found) < num_test + num_valid:
        raise ValueError(
            f"num_test={num_test}, num_valid={num_valid}: the corpus has {len(found)} different texts of {least} to "
            f"{most} tokens; ask for fewer, or lower `least`"
        )
    return InfillSets(valid=found[num_test:], test=found[:num_test])


def masked(items: Sequence[Infill], *, vocab: Vocab) -> Canvas:
    """Rows with a mask for every missing token, padded at the end; `row_id` counts the items."""
    rows = [item.filled([[vocab.mask_id] * len(gap) for gap in item.gaps]) for item in items]
    x = _padded(rows, max(map(len, rows)), vocab.pad_id)
    return Canvas.of(x, vocab=vocab, segment=(x != vocab.pad_id).long())


def opened(items: Sequence[Infill], *, vocab: Vocab, room: int) -> Canvas:
    """Rows for an insertion model: EOS, then what is left; open behind every token before a gap, and nowhere else.

    Args:
        room: positions of padding behind the longest text, for what is inserted; a shorter one has more.
    Raises:
        ValueError: a vocabulary without EOS.
    """
    if vocab.eos_id is None:
        raise ValueError("vocab.eos_id=None: an insertion model begins with EOS; give the vocabulary one")
    rows = [[vocab.eos_id, *item.filled([[]] * len(item.gaps))] for item in items]
    x = _padded(rows, max(map(len, rows)) + room, vocab.pad_id)
    window = torch.zeros_like(x, dtype=torch.bool)
    for row, item in enumerate(items):
        window[row, torch.tensor([len(text) for text in item.texts[:-1]]).cumsum(0)] = True
    valid = x != vocab.pad_id
    return Canvas(x=x, fixed=valid, window=window, segment=valid.long(), row_id=torch.arange(len(items)))


def _padded(rows: list[list[int]], width: int, pad_id: int) -> Tensor:
    return torch.tensor([row + [pad_id] * (width - len(row)) for row in rows])


def _drawn(size: int, u: Sequence[float]) -> list[int]:
    """As many different numbers below `size` as there are uniforms, in order, every set equally likely."""
    found: list[int] = []
    for i, draw in enumerate(u):
        number = int(draw * (size - i))  # among those not yet drawn
        for other in found:
            number += number >= other
        insort(found, number)
    return found


def _parts(total: int, u: Sequence[float]) -> list[int]:
    """Numbers >= 1 that add up to `total`, one more than uniforms, every list of them equally likely."""
    return [b - a for a, b in pairwise([0, *(1 + i for i in _drawn(total - 1, u)), total])]
