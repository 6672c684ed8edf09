"""Laws over texts of different lengths, and the insertion model that is best for each, by enumeration."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from anyorder.core.types import Canvas, InsertionOut, Vocab

Text = tuple[int, ...]


@dataclass(frozen=True)
class Strings:
    """A law over finitely many texts.

    Args:
        chance: of each text, summing to 1; tokens are 0..size-1.
        size: K; end-of-document is token K, mask and padding lie beyond it.
    """

    chance: tuple[tuple[Text, float], ...]
    size: int

    @classmethod
    def of(cls, chance: Mapping[str, float]) -> "Strings":
        """From texts of letters, "a" being token 0."""
        rows = tuple((tuple(ord(c) - ord("a") for c in text), p) for text, p in chance.items())
        return cls(rows, 1 + max(t for text, _ in rows for t in text))

    @property
    def vocab(self) -> Vocab:
        return Vocab(size=self.size + 1, mask_id=self.size + 1, pad_id=self.size + 2, eos_id=self.size)

    def tilted(self) -> "Strings":
        """q proportional to p / (L + 1): what the published objective learns."""
        mass = [(text, p / (len(text) + 1)) for text, p in self.chance]
        total = math.fsum(p for _, p in mass)
        return Strings(tuple((text, p / total) for text, p in mass), self.size)

    @property
    def mean_length(self) -> float:
        return math.fsum(p * len(text) for text, p in self.chance)


@dataclass(frozen=True)
class InsertionOracle:
    """The insertion model that minimises the insertion loss for a law; answers depend on each document alone.

    Args:
        length_weight: as in `processes.Insertion`.
    """

    law: Strings
    length_weight: str = "len_plus_one"
    nfe: int = 1

    @property
    def vocab(self) -> Vocab:
        return self.law.vocab

    def answer(self, seen: Text) -> tuple[float, dict[tuple[int, int], float]]:
        """Chance that the text is complete, and of inserting token v after the first i tokens, given that it is not.

        Of a text that no text of the law contains: 1/2, and nothing.
        """
        return _answer(self.law, self.length_weight, seen)

    def insertion(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> InsertionOut:
        scores, stop = [], []
        for row, document in _documents(canvas):
            complete, inserts = self.answer(tuple(canvas.x[row, document[1:]].tolist()))
            stop.append(math.log(complete) - math.log1p(-complete) if 0 < complete < 1 else 700.0 * (2 * complete - 1))
            for i, position in enumerate(document):
                if at[row, position]:
                    scores.append([_log(inserts.get((i, v), 0.0)) for v in range(self.law.size)] + [-math.inf])
        logits = torch.tensor(scores, dtype=torch.float64).view(-1, self.vocab.size)
        return InsertionOut(
            _finite(logits), torch.eye(self.vocab.size, dtype=torch.float64), torch.tensor(stop).double()
        )

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        out = self.insertion(canvas, at)
        scores = out.states.clone()
        scores[:, self.law.size] = -math.inf
        place = (at.flatten().cumsum(0) - 1).view_as(at)
        for stop, (row, document) in zip(out.stop, _documents(canvas), strict=True):
            if at[row, document[0]]:
                scores[place[row, document[0]], self.law.size] = stop
        return scores


def _documents(canvas: Canvas) -> Iterator[tuple[int, list[int]]]:
    """The positions of each document, in reading order."""
    for row, marks in enumerate(canvas.valid.long() if canvas.segment is None else canvas.segment):
        for mark, run in itertools.groupby(range(len(marks)), key=lambda i: int(marks[i])):
            if mark > 0:
                yield row, list(run)


def _log(p: float) -> float:
    return math.log(p) if p > 0 else -math.inf


def _finite(logits: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
    """-inf as a number that survives a product with 0; its exponential is 0 all the same."""
    return logits.clamp(min=-1e4)


@cache
def _answer(law: Strings, length_weight: str, seen: Text) -> tuple[float, dict[tuple[int, int], float]]:
    complete = rest = 0.0
    inserts: dict[tuple[int, int], float] = {}
    for text, p in law.chance:
        length = len(text)
        weight = p / math.comb(length, len(seen)) if len(seen) <= length else 0.0
        weight /= 1.0 if length_weight == "len_plus_one" else length + 1
        for kept in itertools.combinations(range(length), len(seen)) if weight else ():
            if tuple(text[i] for i in kept) != seen:
                continue
            missing = length - len(seen)
            if not missing:
                complete += weight
                continue
            rest += weight
            for j in set(range(length)) - set(kept):
                where = (sum(i < j for i in kept), text[j])
                inserts[where] = inserts.get(where, 0.0) + weight / missing
    if complete + rest == 0.0:
        return 0.5, {}
    return complete / (complete + rest), {k: v / rest for k, v in inserts.items()}
