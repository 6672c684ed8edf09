"""Training itself: a table of free parameters under the insertion loss comes to write the law that was derived."""

import itertools
import math

import pytest
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.types import Batch, Canvas, InsertionOut
from anyorder.likelihood.insertion import insertion_exact
from anyorder.processes.insertion import Insertion
from anyorder.testing.strings import Strings, Text

NOISE = Noise.of(2)
LAW = Strings.of({"a": 0.25, "ab": 0.25, "abc": 0.25, "ba": 0.125, "aabb": 0.125})


class Table:
    """An insertion model with a parameter for everything it can say of every text that can be left."""

    nfe = 1

    def __init__(self, law: Strings) -> None:
        self.vocab = law.vocab
        lefts = {tuple(text[i] for i in kept)
                 for text, _ in law.chance
                 for size in range(len(text) + 1)
                 for kept in itertools.combinations(range(len(text)), size)}  # fmt: skip
        self.row: dict[Text, int] = {}
        at = 0
        for left in sorted(lefts):
            self.row[left] = at
            at += len(left) + 1
        self.scores = torch.zeros(at, law.size + 1, requires_grad=True)
        self.stop = torch.zeros(at, requires_grad=True)

    def insertion(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> InsertionOut:
        assert canvas.segment is not None
        own = torch.zeros_like(canvas.x)
        first = []
        for row, marks in enumerate(canvas.segment.tolist()):
            for mark, run in itertools.groupby(range(len(marks)), key=marks.__getitem__):
                places = list(run)
                if mark:
                    begin = self.row[tuple(canvas.x[row, places[1:]].tolist())]
                    own[row, places] = torch.arange(begin, begin + len(places))
                    first.append(begin)
        return InsertionOut(self.scores[own[at]], torch.eye(self.vocab.size), self.stop[torch.tensor(first)])

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        raise NotImplementedError  # likelihood and training do not ask


@pytest.mark.parametrize("weight", ["len_plus_one", "document"])
def test_training_ends_at_the_derived_law(weight: str) -> None:
    table = Table(LAW)
    texts = [list(text) for text, p in LAW.chance for _ in range(round(32 * p))]
    width = max(map(len, texts))
    tokens = torch.tensor([t + [LAW.vocab.pad_id] * (width - len(t)) for t in texts])
    marks = (tokens != LAW.vocab.pad_id).long()
    process = Insertion(length_weight=weight, draw="independent")  # type: ignore[arg-type]
    steps = 260
    optimizer = torch.optim.Adam([table.scores, table.stop], lr=0.2)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.2 * (1 - step / steps)
        batch = Batch(tokens, marks > 0, marks, torch.arange(step * len(texts), (step + 1) * len(texts)))
        loss = process.loss(table, batch, noise=NOISE)
        optimizer.zero_grad()
        (loss.total / loss.num_tokens).backward()
        optimizer.step()
    want = dict((LAW if weight == "len_plus_one" else LAW.tilted()).chance)
    with torch.no_grad():
        got = {t: math.exp(-float(insertion_exact(table, torch.tensor([t]), row_id=torch.tensor([0])))) for t in want}
    assert got == pytest.approx(want, abs=0.03)
    other = dict((LAW.tilted() if weight == "len_plus_one" else LAW).chance)
    assert abs(got[0, 0, 1, 1] - want[0, 0, 1, 1]) < abs(got[0, 0, 1, 1] - other[0, 0, 1, 1])
