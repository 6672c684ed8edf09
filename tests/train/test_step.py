"""One optimiser step: sums divided once, whatever the parts; nothing changes when a number is not finite."""

from dataclasses import replace

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Batch, Loss, Vocab, take_rows
from anyorder.models import ModelConfig, Transformer
from anyorder.processes import Autoregressive, MaskedDiffusion
from anyorder.train.step import train_step

VOCAB = Vocab(size=5, mask_id=5, pad_id=6, eos_id=4)
NOISE = Noise.of(3)
PROCESSES = {"mdm": MaskedDiffusion(group=8), "arm": Autoregressive()}


def network(causal=False):
    size = ModelConfig(num_layers=2, num_heads=2, d_model=16, d_ff=32, causal=causal)
    model = Transformer(size, VOCAB)
    model.init_weights(NOISE.at("weights"))
    return model


def uneven_batch():
    """Eight rows with 0 to 6 targets: means of means would be wrong."""
    tokens = (NOISE.at("x").uniform(torch.arange(8)[:, None], 0, torch.arange(6)) * 5).long()
    target = torch.arange(6) < torch.tensor([6, 1, 0, 4, 2, 6, 3, 5])[:, None]
    return Batch(tokens, target, None, torch.arange(8))


def step(model, batches, *, process, clip=1e9, lr=1.0):
    """A gradient step of size 1: the change of the weights is the gradient."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return train_step(model, model, process=process, micro_batches=batches, noise=NOISE, optimizer=optimizer, clip=clip)


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("kind", PROCESSES)
def test_a_step_is_the_gradient_of_the_summed_loss_over_all_tokens(kind):
    process, batch = PROCESSES[kind], uneven_batch()
    model, twin = network(kind == "arm"), network(kind == "arm")
    result = step(model, [batch], process=process)
    loss = process.loss(twin, batch, noise=NOISE)
    (loss.total / 27).backward()
    gradient = torch.cat([p.grad.flatten() for p in twin.parameters()])
    torch.testing.assert_close(flat(twin) - flat(model), gradient, atol=1e-6, rtol=1e-4)
    assert result.num_tokens == 27
    assert result.nats == pytest.approx(float(loss.nelbo.sum()), rel=1e-6)
    assert result.grad_norm == pytest.approx(float(gradient.norm()), rel=1e-5)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("kind", PROCESSES)
@pytest.mark.parametrize("cuts", [[4, 4], [1, 1, 1, 5], [2, 1, 3, 2], [1] * 8])
def test_accumulation_is_one_large_batch(kind, cuts):
    batch, process = uneven_batch(), PROCESSES[kind]
    whole, parts = network(kind == "arm"), network(kind == "arm")
    rows = torch.arange(8).split(cuts)
    one = step(whole, [batch], process=process)
    many = step(parts, [take_rows(batch, r) for r in rows], process=process)
    torch.testing.assert_close(flat(parts), flat(whole), atol=1e-6, rtol=1e-5)
    assert many.num_tokens == one.num_tokens
    assert many.nats == pytest.approx(one.nats, rel=1e-6)


def test_the_gradient_is_clipped_by_its_norm_over_everything():
    model, clipped = network(), network()
    start = flat(model)
    norm = step(model, [uneven_batch()], process=PROCESSES["mdm"]).grad_norm
    result = step(clipped, [uneven_batch()], process=PROCESSES["mdm"], clip=norm / 10)
    assert result.grad_norm == pytest.approx(norm, rel=1e-6)  # as it was before clipping
    torch.testing.assert_close(start - flat(clipped), (start - flat(model)) / 10, atol=1e-7, rtol=1e-3)


def test_a_batch_without_targets_changes_nothing():
    model = network()
    before = flat(model)
    batch = replace(uneven_batch(), target=torch.zeros(8, 6, dtype=torch.bool))
    result = step(model, [batch], process=PROCESSES["mdm"])
    assert (result.nats, result.num_tokens, result.grad_norm) == (0.0, 0, 0.0)
    assert torch.equal(flat(model), before)


class Broken:
    """An objective with a finite or infinite value and a gradient that is not finite."""

    paper = "none"

    def __init__(self, value):
        self.value = value

    def loss(self, model, batch, *, noise):
        total = sum(p.sum() for p in model.parameters()) * float("inf")
        return Loss(total=total, nelbo=torch.full((8,), self.value), num_tokens=8)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "the loss became nan; lower optim.lr or train in float32"),
        (float("inf"), "the loss became inf"),
        (1.0, "the gradient's norm became (nan|inf); lower optim.lr or train in float32"),
    ],
)
def test_a_number_that_is_not_finite_stops_before_the_weights_change(value, message):
    model = network()
    before = flat(model)
    with pytest.raises(RuntimeError, match=message):
        step(model, [uneven_batch()], process=Broken(value))
    assert torch.equal(flat(model), before)
