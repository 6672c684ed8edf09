"""The Insertion Transformer's loss and its network, against a dense reference."""

import dataclasses
import math

import pytest
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.types import Batch, Canvas, InsertionOut, Vocab
from anyorder.likelihood.insertion import insertion_bound
from anyorder.models.config import SIZES, ModelConfig
from anyorder.models.inserter import Inserter
from anyorder.processes.slots import Slots, middle_weight, slot_nll
from anyorder.processes.thin import documents, thin
from anyorder.samplers.base import generate
from anyorder.samplers.insertion import Insert
from anyorder.samplers.token import TokenRule

NOISE = Noise.of(8)
VOCAB = Vocab(size=6, mask_id=6, pad_id=7, eos_id=5)


def batch() -> Batch:
    tokens = torch.tensor([[0, 1, 1, 2, 3, 3], [4, 0, 4, 0, 5, 7]])
    return Batch(tokens, tokens != 7, (tokens != 7).long(), torch.arange(2))


def network() -> Inserter:
    config = SIZES["tiny"].model_copy(update={"max_length": 16, "insertion": True, "slots": True})
    model = Inserter(config, VOCAB)
    model.init_weights(NOISE)
    return model


def test_loss_is_the_dense_reference() -> None:
    given = documents(batch(), vocab=VOCAB)
    for n in (0, 2, 4):
        thinned = thin(batch(), given, torch.tensor([n, n]), vocab=VOCAB, noise=NOISE.at(n))
        named = len(thinned.document)
        scores = NOISE.at("s").normal(torch.arange(named)[:, None], n, torch.arange(6))
        out = InsertionOut(scores, torch.eye(6, dtype=torch.float64), torch.zeros(2))
        want = []
        logp = scores.log_softmax(-1)
        for i in range(named):
            tokens = thinned.token[thinned.gap == i].tolist()
            want.append(-sum(float(logp[i, t]) for t in [*tokens, 5]) / (len(tokens) + 1))
        got = slot_nll(out, thinned, eos_id=5, eos_weight=1.0)
        assert got.tolist() == pytest.approx(want, abs=1e-9)


def test_tree_weights() -> None:
    three = middle_weight(torch.tensor([0, 0, 0]), tau=1.0)
    assert three.tolist() == pytest.approx([0.211942, 0.576117, 0.211942], abs=1e-6)
    gaps = torch.tensor([2, 0, 0, 2, 2, 5, 0, 0])
    assert middle_weight(gaps, tau=1e9).tolist() == pytest.approx([1 / 3, 1 / 4, 1 / 4, 1 / 3, 1 / 3, 1, 1 / 4, 1 / 4])
    assert middle_weight(gaps, tau=1e-3).tolist() == pytest.approx([0, 0, 0.5, 1, 0, 1, 0.5, 0])


def test_tree_loss_is_the_dense_reference_and_uniform_for_a_large_tau() -> None:
    given = documents(batch(), vocab=VOCAB)
    thinned = thin(batch(), given, torch.tensor([5, 3]), vocab=VOCAB, noise=NOISE)
    named = len(thinned.document)
    scores = NOISE.at("s").normal(torch.arange(named)[:, None], 0, torch.arange(6))
    out = InsertionOut(scores, torch.eye(6, dtype=torch.float64), torch.zeros(2))
    want, logp = [], scores.log_softmax(-1)
    for i in range(named):
        tokens = thinned.token[thinned.gap == i].tolist()
        m = len(tokens)
        raw = [math.exp(-abs((m - 1) / 2 - k) / 0.7) for k in range(m)]
        tree = sum(m * w / sum(raw) * float(logp[i, t]) for w, t in zip(raw, tokens))
        want.append(-(tree + float(logp[i, 5])) / (m + 1))
    assert max((thinned.gap == i).sum() for i in range(named)) >= 3
    got = slot_nll(out, thinned, eos_id=5, eos_weight=1.0, tau=0.7)
    assert got.tolist() == pytest.approx(want, abs=1e-9)
    uniform, flat = (slot_nll(out, thinned, eos_id=5, eos_weight=1.0, tau=tau) for tau in (None, 1e12))
    assert torch.allclose(uniform, flat, atol=1e-9)


@dataclasses.dataclass(frozen=True)
class Middle:
    """Knows the text 0, 1, ..., size - 1 and puts the middle one of a gap's missing tokens there, the left of two."""

    size: int
    nfe: int = 1

    @property
    def vocab(self) -> Vocab:
        return Vocab(size=self.size + 1, mask_id=self.size + 1, pad_id=self.size + 2, eos_id=self.size)

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        scores = torch.full((*canvas.x.shape, self.size + 1), -math.inf)
        for x, valid, own in zip(canvas.x, canvas.valid, scores):
            seen = [-1, *x[valid].tolist()[1:], self.size]
            own[0, self.size] = 30.0 if len(seen) == self.size + 2 else -30.0
            for i in range(len(seen) - 1):
                if seen[i + 1] - seen[i] > 1:
                    own[i, (seen[i] + seen[i + 1]) // 2] = 0.0
        return scores[at]


@pytest.mark.parametrize("size", [1, 2, 7, 8, 15, 16])
def test_middles_first_fill_all_gaps_in_few_rounds(size: int) -> None:
    """floor(log2 n) + 1 rounds, and one pass to end."""
    x = torch.tensor([[size, *[size + 2] * (size + 1)]])
    valid = x != size + 2
    canvas = Canvas(x=x, fixed=valid, window=valid, segment=valid.long(), row_id=torch.arange(1))
    sample = generate(Insert(at_once=size), Middle(size), canvas, noise=NOISE)
    assert sample.canvas.x[0, 1:-1].tolist() == list(range(size))
    assert int(sample.nfe) == math.floor(math.log2(size)) + 1 + 1


def test_uniform_scores_cost_log_v_in_every_gap() -> None:
    model = network()
    with torch.no_grad():
        assert model.trunk.head is not None
        model.trunk.head.weight.zero_()
    loss = Slots().loss(model, batch(), noise=NOISE)
    assert loss.num_tokens == 10
    gaps = float(loss.total.detach()) / math.log(6)
    assert gaps == pytest.approx(round(gaps), abs=1e-4)


def test_answers_as_an_inserting_model() -> None:
    model = network().requires_grad_(False)
    x = torch.tensor([[5, 0, 1, 7, 7], [5, 2, 7, 7, 7]])
    valid = x != 7
    window = valid & (torch.arange(5) > 0)
    canvas = Canvas(x=x, fixed=valid, window=window, segment=valid.long(), row_id=torch.arange(2))
    out = model.insertion(canvas, window)
    logp = (out.states @ out.head.T).log_softmax(-1)
    said = model(canvas, valid)
    rows = torch.tensor([1, 2, 4])  # the open ones among the five asked
    assert torch.allclose(said[rows][:, :5], logp[:, :5], atol=1e-6)
    assert bool(torch.isneginf(said[rows][:, 5]).all())
    least = torch.stack([logp[:2, 5].min(), logp[2, 5]]).exp()
    assert torch.allclose(said[torch.tensor([0, 3]), 5].sigmoid(), least, atol=1e-5)


def test_writes_until_every_gap_is_closed() -> None:
    model = network().requires_grad_(False)
    x = torch.full((8, 9), 7)
    x[:, 0] = 5
    valid = x != 7
    canvas = Canvas(x=x, fixed=valid, window=valid, segment=valid.long(), row_id=torch.arange(8))
    sampler = Insert(position=TokenRule(temperature=0.0), stop=0.12)
    written = generate(sampler, model, canvas, noise=NOISE).canvas
    assert not bool((written.x[:, 1:] == 5).any())
    for row in range(8):
        if not written.valid[row].all():
            part = Canvas(
                x=written.x[row : row + 1], fixed=written.fixed[row : row + 1], window=written.window[row : row + 1],
                segment=written.segment[row : row + 1], row_id=torch.tensor([row]),
            )  # fmt: skip
            assert float(model(part, torch.arange(9)[None] == 0)[0, 5].sigmoid()) >= 0.12


def test_refusals() -> None:
    with pytest.raises(ValueError, match="eos_weight"):
        Slots(eos_weight=0.0)
    with pytest.raises(ValueError, match="tau=0"):
        Slots(tau=0.0)
    with pytest.raises(ValueError, match=r"set model\.insertion=True"):
        ModelConfig(slots=True)
    with pytest.raises(ValueError, match="no known likelihood"):
        insertion_bound(network(), batch().tokens, target=batch().target, row_id=torch.arange(2), draws=4, noise=NOISE)
