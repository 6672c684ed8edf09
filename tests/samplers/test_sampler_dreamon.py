"""Masks that expand and are deleted: the law that is written, by following every row; limits and bookkeeping."""

import math
from dataclasses import dataclass

import pytest
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Batch, Canvas, Vocab, take_rows
from anyorder.processes.dreamon import DreamOn, length_states
from anyorder.samplers.base import generate, steps
from anyorder.samplers.certainty import negentropy
from anyorder.samplers.dreamon import ExpandAndDelete
from anyorder.testing.laws import chi_square_p

NOISE = Noise.of(14)
VOCAB = Vocab(size=5, mask_id=5, pad_id=6, eos_id=2)  # tokens 0 and 1; 3 is [expand], 4 [delete]
MASK = 5
Text = tuple[int, ...]


@dataclass(frozen=True)
class Table:
    """Logits that are a hash of the row and the position."""

    expand: float = 0.0
    delete: float = 0.0
    nfe: int = 1
    vocab: Vocab = VOCAB

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        code = torch.where(canvas.valid, (canvas.x + 1) * 8 ** torch.arange(canvas.x.shape[1]), 0).sum(-1)
        row, position = at.nonzero(as_tuple=True)
        logits = NOISE.at("table").normal(code[row][:, None], position[:, None], torch.arange(5))
        logits = logits + torch.tensor([0.0, 0.0, 0.0, self.expand, self.delete])
        return logits.index_fill(-1, torch.tensor([2]), -math.inf)


def blank(rows: int, *, given: Text, room: int) -> Canvas:
    x = torch.tensor([*given, *[VOCAB.pad_id] * room]).expand(rows, -1).contiguous()
    valid = x != VOCAB.pad_id
    return Canvas(x=x, fixed=valid & (x != MASK), window=valid, segment=valid.long(), row_id=torch.arange(rows))


def texts(canvas: Canvas) -> list[Text]:
    return [tuple(x[keep].tolist()) for x, keep in zip(canvas.x, canvas.valid)]


def law_of(model: Denoiser, given: Text, *, width: int, budget: int) -> dict[Text, float]:
    """Every row through all its steps, with lists instead of tensors."""
    expand, delete = length_states(model.vocab)
    now: dict[tuple[Text, int], float] = {(given, 0): 1.0}
    written: dict[Text, float] = {}
    while now:
        later: dict[tuple[Text, int], float] = {}
        for (text, spent), p in now.items():
            masks = [i for i, t in enumerate(text) if t == MASK]
            if not masks:
                written[text] = written.get(text, 0.0) + p
                continue
            canvas = blank(1, given=text, room=width - len(text))
            logits = model(canvas, canvas.x == MASK)
            if spent == budget or len(text) == width:
                logits[:, expand] = -math.inf
            place = int(negentropy(logits).argmax())
            i = masks[place]
            for v, q in enumerate(logits[place].softmax(-1).tolist()):
                middle = (MASK, MASK) if v == expand else () if v == delete else (v,)
                key = ((*text[:i], *middle, *text[i + 1 :]), spent + (v == expand))
                if q > 0:
                    later[key] = later.get(key, 0.0) + p * q
        now = later
    return written


def test_it_writes_its_enumerated_law() -> None:
    given, rows = (0, MASK, 1), 20_000
    sample = generate(ExpandAndDelete(budget=2), Table(), blank(rows, given=given, room=2), noise=NOISE)
    law = law_of(Table(), given, width=5, budget=2)
    assert math.fsum(law.values()) == pytest.approx(1.0)
    assert {len(text) for text in law} == {2, 3, 4, 5}
    found = texts(sample.canvas)
    assert set(found) <= law.keys()
    counts = torch.tensor([found.count(text) for text in law])
    assert chi_square_p(counts, torch.tensor(list(law.values()), dtype=torch.float64)) > 1e-4


class Counted:
    """The model that is best for DreamOn's loss: weighted counts of what stood behind each mask of many rows."""

    nfe = 1
    vocab = VOCAB

    def __init__(self, law: dict[Text, float], process: DreamOn, rows: int) -> None:
        texts = [text for text, p in law.items() for _ in range(round(p * rows))]
        width = max(map(len, texts))
        tokens = torch.tensor([[*text, *[VOCAB.pad_id] * (width - len(text))] for text in texts])
        marks = (tokens != VOCAB.pad_id).long()
        batch = Batch(tokens, marks > 0, marks, torch.arange(len(texts)))
        made = process.corrupt(batch, vocab=VOCAB, noise=NOISE)
        self.counts: dict[Text, Float[Tensor, "L V"]] = {}
        weight = (
            torch.where(made.deleted, 1 / made.deleted.sum(-1, keepdim=True).clamp(min=1), 1.0) * (1 - made.t)[:, None]
        )
        for x, keep, masked, label, w in zip(made.canvas.x, made.canvas.valid, made.masked, made.label, weight):
            key, at = tuple(x[keep].tolist()), masked.nonzero().squeeze(-1)
            own = self.counts.setdefault(key, torch.zeros(len(key), VOCAB.size, dtype=torch.float64))
            own[at, label[at]] += w[at]

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        return torch.cat([self.counts[text].log()[named[: len(text)]] for text, named in zip(texts(canvas), at)])


def test_its_best_model_does_not_write_the_law_of_the_data() -> None:
    """Half "0", half "01": how often each is written depends on the number of masks at the beginning."""
    law = {(0,): 0.5, (0, 1): 0.5}
    best = Counted(law, DreamOn(deletions=2), 20_000)
    first = best(blank(1, given=(MASK,), room=0), torch.ones(1, 1, dtype=torch.bool))[0].softmax(-1)
    assert float(first[3]) == pytest.approx(1 / 9, abs=0.02)  # 1/12 x 1/4 merged against 1/6 of "0" alone
    for masks, share in ((1, 0.978), (2, 0.804)):
        written = law_of(best, (MASK,) * masks, width=4, budget=4)
        assert written.keys() == law.keys()
        assert written[0,] == pytest.approx(share, abs=0.03)


def test_budget_and_room_are_limits() -> None:
    greedy = Table(expand=50.0)
    for budget, room, size in ((0, 9, 3), (2, 9, 5), (9, 2, 5), (None, 4, 7)):
        sample = generate(ExpandAndDelete(budget=budget), greedy, blank(8, given=(0, MASK, 1), room=room), noise=NOISE)
        longest = int(sample.canvas.valid.sum(-1).max())
        assert longest == size
        assert not (sample.canvas.x == MASK).any()
    gone = generate(ExpandAndDelete(), Table(delete=50.0), blank(4, given=(0, MASK, MASK, 1), room=3), noise=NOISE)
    assert texts(gone.canvas) == [(0, 1)] * 4


def test_what_is_given_stays_and_what_is_known_moves_along() -> None:
    canvas = blank(64, given=(1, MASK, 0, MASK, 1), room=6)
    taken = list(steps(ExpandAndDelete(budget=4), Table(), canvas, noise=NOISE))
    sample = generate(ExpandAndDelete(budget=4), Table(), canvas, noise=NOISE)
    for b in range(64):
        kept = sample.canvas.valid[b] & (sample.order[b] < 0)
        assert sample.canvas.x[b][kept].tolist() == [1, 0, 1]
        assert bool((sample.token_logp[b] < 0).eq(sample.order[b] >= 0).all())
        assert int(sample.nfe[b]) == sum(int(step.nfe[b]) for step in taken)
        for when, step in enumerate(taken):
            here = (sample.order[b] <= when) & sample.canvas.valid[b]
            shown = step.canvas.valid[b] & (step.canvas.x[b] != MASK)
            assert sample.canvas.x[b][here].tolist() == step.canvas.x[b][shown].tolist()
    assert not sample.revised.any()


def test_a_row_is_the_same_in_any_batch() -> None:
    canvas = blank(8, given=(1, MASK, MASK), room=4)
    together = generate(ExpandAndDelete(), Table(), canvas, noise=NOISE)
    for i in range(8):
        alone = generate(ExpandAndDelete(), Table(), take_rows(canvas, torch.tensor([i])), noise=NOISE)
        assert torch.equal(alone.canvas.x[0], together.canvas.x[i])
        assert torch.equal(alone.order[0], together.order[i])


def test_refusals() -> None:
    assert not ExpandAndDelete().exact
    with pytest.raises(ValueError, match="budget=-1"):
        ExpandAndDelete(budget=-1)
    with pytest.raises(ValueError, match="segment 0"):
        ExpandAndDelete().init(Canvas.of(torch.tensor([[MASK]]), vocab=VOCAB), vocab=VOCAB)
