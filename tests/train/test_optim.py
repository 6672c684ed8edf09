"""The learning-rate curve at its corners, and which parameters decay."""

import itertools
import math

import pytest
import torch

from anyorder.core.types import Vocab
from anyorder.models import ModelConfig, Transformer
from anyorder.train.config import OptimConfig
from anyorder.train.optim import lr_at, make_optimizer


def curve(num_steps, **values):
    config = OptimConfig(lr=1.0, **values)
    return [lr_at(step, num_steps, config) for step in range(num_steps)]


def test_warm_up_is_linear_and_ends_at_the_peak():
    for schedule in ("cosine", "wsd", "constant"):
        lr = curve(50, schedule=schedule, warmup_steps=10)
        assert lr[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
        assert lr[10] == pytest.approx(1.0)
        assert max(lr) == 1.0


def test_cosine_ends_exactly_at_the_floor():
    lr = curve(31, warmup_steps=10, min_lr_ratio=0.1)
    assert lr[-1] == pytest.approx(0.1)
    assert lr[20] == pytest.approx(0.55)  # half way down
    assert lr[15] == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi / 4)))
    assert all(a > b for a, b in itertools.pairwise(lr[10:]))


def test_wsd_is_flat_then_falls_in_a_line_to_the_floor():
    lr = curve(101, schedule="wsd", warmup_steps=10, decay_share=0.2, min_lr_ratio=0.1)
    assert lr[9:81] == pytest.approx([1.0] * 72)
    assert lr[80:] == pytest.approx([1 - 0.9 * i / 20 for i in range(21)])


def test_constant_stays():
    assert curve(30, schedule="constant", warmup_steps=0) == [1.0] * 30


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "constant"])
@pytest.mark.parametrize("num_steps", [1, 2, 5])
@pytest.mark.parametrize("warmup", [0, 1, 5, 100])
def test_short_runs_have_a_sane_rate(schedule, num_steps, warmup):
    lr = curve(num_steps, schedule=schedule, warmup_steps=warmup)
    assert all(0 < value <= 1 for value in lr)


def test_matrices_decay_norms_and_embeddings_do_not():
    model = Transformer(ModelConfig(num_layers=1), Vocab(size=5, mask_id=5, pad_id=6))
    optimizer = make_optimizer(model, OptimConfig(weight_decay=0.1, lr=0.5))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    shrunk = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    matrices = {"attn.qkv", "attn.out", "mlp.gate_up", "mlp.down"}
    assert shrunk == {"head.weight"} | {f"blocks.0.{name}.weight" for name in matrices}
    torch.testing.assert_close(model.head.weight.detach(), before["head.weight"] * (1 - 0.5 * 0.1))


def test_a_step_is_adamw_by_hand():
    """Two steps on one weight, from the paper (arXiv:1711.05101, algorithm 2)."""
    model = Transformer(ModelConfig(num_layers=1), Vocab(size=5, mask_id=5, pad_id=6))
    optimizer = make_optimizer(model, OptimConfig(weight_decay=0.1, lr=0.01, betas=(0.9, 0.95)))
    w, m, v = model.head.weight[0, 0].item(), 0.0, 0.0
    for t, g in ((1, 0.5), (2, -0.25)):
        for p in model.parameters():
            p.grad = torch.full_like(p, g)
        optimizer.step()
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        w = w * (1 - 0.01 * 0.1) - 0.01 * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.95**t)) + 1e-8)
    assert model.head.weight[0, 0].item() == pytest.approx(w, rel=1e-5, abs=1e-7)
