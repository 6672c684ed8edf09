"""The Insertion Transformer's loss and its network, against a dense reference."""

import math

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Batch, Canvas, InsertionOut, Vocab
from anyorder.likelihood.insertion import insertion_bound
from anyorder.models.config import SIZES, ModelConfig
from anyorder.models.inserter import Inserter
from anyorder.processes.slots import Slots, slot_nll
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
    with pytest.raises(ValueError, match=r"set model\.insertion=True"):
        ModelConfig(slots=True)
    with pytest.raises(ValueError, match="no known likelihood"):
        insertion_bound(network(), batch().tokens, target=batch().target, row_id=torch.arange(2), draws=4, noise=NOISE)
