"""Filling gaps of held-out documents, by models of every kind."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas
from anyorder.data.fim import fim_gaps, fim_prompt
from anyorder.data.infill import Infill, opened
from anyorder.likelihood.bound import Rows
from anyorder.likelihood.given import given_bound
from anyorder.likelihood.rows import rows_of
from anyorder.processes.thin import end_of
from anyorder.samplers.causal import Causal
from anyorder.samplers.insertion import Insert
from anyorder.samplers.position import Confidence
from anyorder.samplers.token import TokenRule
from anyorder.samplers.unmask import Unmask
from anyorder.studies.infilling_runs import Trained
from anyorder.studies.infilling_write import ended, finished

Gaps = tuple[tuple[int, ...], ...]  # the tokens written into each gap of a text

WRITTEN: Final = 32  # most tokens that an ARM writes for all gaps of a text
LONGEST: Final = {1: 15, 2: 7}  # by number of gaps: lengths up to this are tried for each
DRAWN, LIKELIEST, PUBLISHED = "drawn", "likeliest", "published"
GREEDY: Final = TokenRule(temperature=0.0)
INSERTS: Final[dict[str, Insert]] = {
    DRAWN: Insert(),
    LIKELIEST: Insert(position=GREEDY, token=GREEDY, stop=0.5),
    PUBLISHED: Insert(position=TokenRule(top_k=1), token=TokenRule(top_p=0.2), stop=0.8),
}
UNMASKS: Final[dict[str, Unmask]] = {DRAWN: Unmask(), LIKELIEST: Unmask(position=Confidence("prob"), token=GREEDY)}
TOKENS: Final[dict[str, TokenRule]] = {DRAWN: TokenRule(), LIKELIEST: GREEDY}


@dataclass(frozen=True)
class Filled:
    """What a model wrote into the gaps of some texts.

    Args:
        sees: of each text.
        told: about the gaps' lengths.
        decoding: everything drawn from the model's law, its likeliest choices, or as published.
        gaps: of each text.
    """

    model: str
    sees: str
    told: str
    decoding: str
    gaps: list[Gaps]


def fill(models: Mapping[str, Trained], items: Sequence[Infill], *, draws: int, noise: Noise) -> list[Filled]:
    """The same texts filled in every way.

    Args:
        items: texts with the same number of gaps.
        draws: masked copies by which a masked model chooses a length.
    """
    ilm, mdm, arm, fim = (models[kind].model for kind in ("ilm", "mdm", "arm", "arm-fim"))
    length = models["ilm"].max_length
    sized = [resized(item, likeliest_sizes(mdm, item, draws=draws, noise=noise.at("size").at(i)))
             for i, item in enumerate(items)]  # fmt: skip
    found = []
    for decoding, sampler in INSERTS.items():
        gaps = by_insertion(ilm, items, sampler, length=length, noise=noise.at("ilm").at(decoding))
        found.append(Filled("ILM", "both sides", "nothing", decoding, gaps))
    for decoding, unmask in UNMASKS.items():
        for told, rows in (("true length", items), ("nothing", sized)):
            gaps = by_unmasking(mdm, rows, unmask, noise=noise.at("mdm").at(decoding))
            found.append(Filled("MDM", "both sides", told, decoding, gaps))
    for decoding, token in TOKENS.items():
        gaps = by_fim(fim, items, token, length=length, noise=noise.at("fim").at(decoding))
        found.append(Filled("ARM-FIM", "both sides", "nothing", decoding, gaps))
        gaps = from_the_left(arm, items, token, noise=noise.at("arm").at(decoding))
        found.append(Filled("ARM", "the left", "true length", decoding, gaps))
    return found


def by_insertion(model: Denoiser, items: Sequence[Infill], sampler: Insert, *, length: int, noise: Noise) -> list[Gaps]:
    """Any number of tokens, none included, wherever a gap is open.

    Args:
        length: positions of the longest row the model reads.
    """
    longest = max(1 + sum(map(len, item.texts)) for item in items)
    canvas = opened(items, vocab=model.vocab, room=length - longest)
    return [
        _written(item, row[1:], fixed[1:])
        for item, (row, fixed) in zip(items, finished(sampler, model, canvas, noise=noise))
    ]


def by_unmasking(model: Denoiser, items: Sequence[Infill], sampler: Unmask, *, noise: Noise) -> list[Gaps]:
    """As many tokens as the items have in their gaps, behind whose last text end-of-document stands."""
    eos, mask = end_of(model.vocab), model.vocab.mask_id
    canvas = ended([item.filled([[mask] * len(gap) for gap in item.gaps]) for item in items], model)
    rows = finished(sampler, model, canvas, noise=noise)
    return [_written(item, row, fixed, never=eos) for item, (row, fixed) in zip(items, rows)]


def from_the_left(model: Denoiser, items: Sequence[Infill], token: TokenRule, *, noise: Noise) -> list[Gaps]:
    """As `by_unmasking`, from left to right by a model that does not see what is right of a token."""
    eos, mask = end_of(model.vocab), model.vocab.mask_id
    canvas = ended([item.filled([[mask] * len(gap) for gap in item.gaps]) for item in items], model)
    rows = finished(Causal(token), model, canvas, noise=noise)
    return [_written(item, row, fixed, never=eos) for item, (row, fixed) in zip(items, rows)]


def by_fim(model: Denoiser, items: Sequence[Infill], token: TokenRule, *, length: int, noise: Noise) -> list[Gaps]:
    """Prompts with a mark for each gap, and what the model writes behind them up to its mark for the last gap's end.

    Args:
        length: as in `by_insertion`.
    """
    prompts = [fim_prompt(item, vocab=model.vocab) for item in items]
    width = min(length, max(map(len, prompts)) + WRITTEN)
    size = torch.tensor([len(p) for p in prompts])[:, None]
    end = (size + WRITTEN).clamp(max=width)
    place = torch.arange(width)
    x = torch.tensor([[*p, *[model.vocab.mask_id] * (width - len(p))] for p in prompts])
    fixed = place < size  # a mark in a prompt is a mask that is never written
    valid = place < end
    canvas = Canvas(x=x, fixed=fixed, window=valid, segment=valid.long(), row_id=torch.arange(len(items)))
    one = all(len(item.gaps) == 1 for item in items)
    rows = finished(Causal(token, stop_at_eos=one), model, canvas, noise=noise)
    return [
        tuple(map(tuple, fim_gaps(row[len(p) :], vocab=model.vocab, num_gaps=len(item.gaps))))
        for item, p, (row, _) in zip(items, prompts, rows)
    ]


def likeliest_sizes(model: Denoiser, item: Infill, *, draws: int, noise: Noise) -> tuple[int, ...]:
    """The lengths of an item's gaps, up to `LONGEST`, under which a masked model finds the given text likeliest."""
    eos, mask = end_of(model.vocab), model.vocab.mask_id
    choices = list(itertools.product(range(LONGEST[len(item.gaps)] + 1), repeat=len(item.gaps)))
    ids = [[*item.filled([[mask] * n for n in sizes]), eos] for sizes in choices]
    rows = rows_of(ids, begins=[0] * len(ids), row_id=[0] * len(ids), device=None)
    target = rows.target & (rows.tokens != mask) & (rows.tokens != eos)
    with torch.no_grad():
        nats = given_bound(model, Rows(rows.tokens, target, rows.segment, rows.row_id), draws=draws, noise=noise)
    return choices[int(nats.argmin())]


def resized(item: Infill, sizes: Sequence[int]) -> Infill:
    """The item with gaps of other sizes, which hold nothing in particular."""
    return Infill(item.texts, tuple((0,) * n for n in sizes), item.stretch)


def _written(item: Infill, row: Sequence[int], fixed: Sequence[bool], *, never: int | None = None) -> Gaps:
    """What stands between the given tokens of a row, gap by gap, without one token that is no text."""
    behind = list(itertools.accumulate(map(len, item.texts[:-1])))
    gaps: list[list[int]] = [[] for _ in behind]
    given = 0
    for token, is_given in zip(row, fixed):
        if is_given:
            given += 1
        elif token != never:
            gaps[behind.index(given)].append(token)
    return tuple(map(tuple, gaps))
