"""Growing rows by enumeration: the best model of a law, what a model writes, and its bound; for tiny languages."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from anyorder.core.growth import Growth, growth_of
from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas, Vocab
from anyorder.testing.strings import Strings, Text

NEVER = -1e4  # the log of 0 that survives a product with 0


@dataclass(frozen=True)
class Said:
    """Of one row: the chance that it is complete, the rate of each gap, the law behind each mask in reading order."""

    complete: float
    rates: tuple[float, ...]
    laws: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class GrowthOracle:
    """The growing model that minimises the loss of FlexMDM for a law.

    Args:
        rate: as in `processes.FlexMDM`.
    """

    law: Strings
    rate: float = 2.0
    nfe: int = 1

    @property
    def vocab(self) -> Vocab:
        return self.law.vocab

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N W"]:
        segment = canvas.valid.long() if canvas.segment is None else canvas.segment
        rows = []
        for x, marks, named in zip(canvas.x.tolist(), segment.tolist(), at.tolist()):
            for mark, run in itertools.groupby(range(len(x)), key=marks.__getitem__):
                places = list(run)
                if mark and any(named[i] for i in places):
                    said = _said(self.law, self.rate, tuple(x[i] for i in places[1:]))
                    rows += [row for i, row in zip(places, self._rows(said, [x[i] for i in places])) if named[i]]
        return torch.tensor(rows, dtype=torch.float64).view(-1, self.vocab.size + 2)

    def _rows(self, said: Said, x: Sequence[int]) -> list[list[float]]:
        """Tokens, rate and stop at the beginning and at each token of a row."""
        laws = iter(said.laws)
        stop = math.log(max(said.complete, 1e-300)) - math.log(max(1 - said.complete, 1e-300))
        out = []
        for i, token in enumerate(x):
            law = next(laws) if token == self.vocab.mask_id else (1.0,) * self.law.size
            out.append([*map(_log, law), -math.inf, max(_log(said.rates[i]), NEVER), stop])
        return out


@dataclass(frozen=True)
class RandomGrowth:
    """A growing model whose answers to different rows have nothing to do with each other."""

    size: int
    noise: Noise
    nfe: int = 1

    @property
    def vocab(self) -> Vocab:
        return Vocab(size=self.size + 1, mask_id=self.size + 1, pad_id=self.size + 2, eos_id=self.size)

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N W"]:
        segment = canvas.valid.long() if canvas.segment is None else canvas.segment
        position = torch.arange(segment.shape[1]).expand(segment.shape)
        begins = torch.ones_like(segment, dtype=torch.bool)
        begins[:, 1:] = segment[:, 1:] != segment[:, :-1]
        place = position - torch.where(begins, position, 0).cummax(-1).values
        document = (begins.flatten().cumsum(0) - 1).view_as(segment)
        sums = torch.zeros(int(document.max()) + 1, dtype=torch.int64)
        code = sums.index_add(0, document.flatten(), ((canvas.x + 1) * (self.size + 4) ** place).flatten())[document]
        said = self.noise.normal(code[at][:, None], place[at][:, None], torch.arange(self.size + 3))
        never = torch.arange(self.size + 3) == self.size  # end-of-document is no token
        return said.masked_fill(never, -math.inf)


def _log(p: float) -> float:
    return math.log(p) if p > 0 else -math.inf


@cache
def visits(rate: float, size: int, absent: int, masks: int) -> float:
    """Chance that a document is once in a state: certain of its `size` tokens absent, certain others masked, the rest
    clear. The next event is that of an absent token with weight `rate`, or of a masked one with weight 1.
    """
    clear = size - absent - masks
    if absent == size:
        return 1.0
    chance = 0.0
    if masks:  # the last event was that one of them came
        chance += masks * rate / (rate * (absent + 1) + masks - 1) * visits(rate, size, absent + 1, masks - 1)
    if clear:
        chance += clear / (rate * absent + masks + 1) * visits(rate, size, absent, masks + 1)
    return chance


@cache
def _said(law: Strings, rate: float, seen: Text) -> Said:
    mask, held = law.vocab.mask_id, len(seen)
    masks = [i for i, token in enumerate(seen) if token == mask]
    complete = rest = 0.0
    total = 0.0  # as `rest`, but by how long the state lasts
    rates = [0.0] * (held + 1)
    laws = [[0.0] * law.size for _ in masks]
    for text, p in law.chance:
        absent = len(text) - held
        for kept in itertools.combinations(range(len(text)), held) if absent >= 0 else ():
            if any(token not in (mask, text[i]) for i, token in zip(kept, seen)):
                continue
            often = p * visits(rate, len(text), absent, len(masks))
            if absent + len(masks) == 0:
                complete += often
                continue
            rest += often
            lasts = often / (rate * absent + len(masks))
            total += lasts
            edges = (-1, *kept, len(text))
            for gap, (left, right) in enumerate(itertools.pairwise(edges)):
                rates[gap] += lasts * rate * (right - left - 1)
            for own, i in zip(laws, masks):
                own[text[kept[i]]] += lasts
    if complete + rest == 0.0:  # a row that no text can give
        return Said(0.5, (1.0,) * (held + 1), ((1 / law.size,) * law.size,) * len(masks))
    scale = 1 / total if total else 0.0
    return Said(
        complete / (complete + rest),
        tuple(r * scale for r in rates),
        tuple(tuple(q * scale for q in own) for own in laws),
    )


def ask(model: Denoiser, seen: Sequence[Text]) -> list[Growth]:
    """What a model says of rows, one document each, at their beginning and at each of their tokens."""
    vocab, width = model.vocab, 1 + max(map(len, seen))
    assert vocab.eos_id is not None
    x = torch.tensor([[vocab.eos_id, *text, *[vocab.pad_id] * (width - 1 - len(text))] for text in seen])
    valid = x != vocab.pad_id
    canvas = Canvas(
        x=x, fixed=valid & (x != vocab.mask_id), window=valid, segment=valid.long(), row_id=torch.arange(len(x))
    )
    with torch.no_grad():
        said = growth_of(model(canvas, valid).double(), vocab)
    ends = valid.sum(-1).cumsum(0).tolist()
    return [
        Growth(said.tokens[a:b].log_softmax(-1), said.log_rate[a:b], said.stop[a:b])
        for a, b in itertools.pairwise([0, *ends])
    ]


def growth_law(model: Denoiser, *, longest: int, sure: bool = False) -> dict[Text, float]:
    """The law a growing model writes, one event at a time, by following every row through all its events.

    Args:
        longest: no mask is inserted into rows of this length.
        sure: the mask that is replaced is the one whose likeliest token is most probable, the leftmost of equals.
    """
    mask = model.vocab.mask_id
    now: dict[Text, float] = {(): 1.0}
    written: dict[Text, float] = {}
    while now:
        later: dict[Text, float] = {}
        for (seen, p), said in zip(now.items(), ask(model, list(now))):
            masks = [i for i, token in enumerate(seen) if token == mask]
            if not masks:
                ends = 1.0 if len(seen) == longest else float(said.stop[0].sigmoid())
                written[seen] = written.get(seen, 0.0) + p * ends
                p = p * (1 - ends)
            top = [round(float(said.tokens[i + 1].max()), 9) for i in masks]
            those = [masks[top.index(max(top))]] if sure and masks else masks
            events = {(*seen[:i], v, *seen[i + 1 :]): float(said.tokens[i + 1, v].exp()) * len(masks) / len(those)
                      for i in those for v in range(said.tokens.shape[1])}  # fmt: skip
            for gap in range(len(seen) + 1) if len(seen) < longest else ():
                after = (*seen[:gap], mask, *seen[gap:])
                events[after] = events.get(after, 0.0) + float(said.log_rate[gap].exp())
            total = math.fsum(events.values())
            for after, weight in events.items():
                if p * weight > 0:
                    later[after] = later.get(after, 0.0) + p * weight / total
        now = later
    return written


def growth_bound(model: Denoiser, text: Text, *, rate: float) -> float:
    """The mean of FlexMDM's bound on -log p of a text, over all 3^L states of its tokens; nats."""
    mask = model.vocab.mask_id
    value = 0.0
    states = list(itertools.product((0, 1, 2), repeat=len(text)))  # absent, masked, clear
    rows = [tuple(mask if s == 1 else v for s, v in zip(state, text) if s) for state in states]
    for state, said in zip(states, ask(model, rows)):
        absent, masks = state.count(0), state.count(1)
        true = rate * absent + masks
        often = visits(rate, len(text), absent, masks)
        if not masks:
            odds = float(said.stop[0])
            value += often * math.log1p(math.exp(-odds if true == 0 else odds))
        if true == 0:
            continue
        flow = float(said.log_rate.exp().sum()) + masks
        for j, s in enumerate(state):
            if s < 2:
                place = sum(x > 0 for x in state[:j])  # positions before the gap, or before the mask
                event = said.tokens[place + 1, text[j]] if s else said.log_rate[place]
                chance = (1.0 if s else rate) / true
                value += often * chance * (math.log(chance) - float(event) + math.log(flow))
    return value
