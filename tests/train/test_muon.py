"""Muon: orthogonal updates, a step by hand, fused matrices by parts, and runs that resume to the same bits."""

import shutil

import pytest
import torch
from torch import nn
from toy import config, data

from anyorder.core.noise import Noise
from anyorder.core.types import Vocab
from anyorder.models import ModelConfig, Transformer
from anyorder.train.config import OptimConfig
from anyorder.train.loop import train
from anyorder.train.muon import Muon, fused_rows, orthogonalize
from anyorder.train.optim import make_optimizer

VOCAB = Vocab(size=5, mask_id=5, pad_id=6)


def normal(*shape, name="x"):
    count = torch.Size(shape).numel()
    return Noise.of(0).at(name).normal(0, 0, torch.arange(count)).view(shape).float()


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (12, 5)])
def test_singular_values_come_near_one_and_vectors_stay(shape):
    x = normal(3, *shape)
    for before, after in zip(x, orthogonalize(x)):
        u, _, v = torch.linalg.svd(before, full_matrices=False)
        core = u.mT @ after @ v.mT
        values = core.diagonal()
        assert values.min() > 0.6
        assert values.max() < 1.25
        torch.testing.assert_close(core, values.diag(), atol=1e-4, rtol=0)


def test_a_matrix_alone_is_treated_as_in_a_batch_and_zero_stays_zero():
    x = normal(3, 4, 6)
    torch.testing.assert_close(orthogonalize(x)[1:2], orthogonalize(x[1:2]))
    assert orthogonalize(torch.zeros(1, 3, 5)).abs().max() == 0


def test_two_steps_by_hand():
    w, lr, decay = nn.Parameter(normal(4, 6)), 0.1, 0.5
    optimizer = Muon(
        [(w, [4])], [{"params": [nn.Parameter(torch.zeros(1))]}], lr=lr, betas=(0.9, 0.95), weight_decay=decay
    )
    expected, momentum = w.detach().clone(), torch.zeros(4, 6)
    for index in range(2):
        g = normal(4, 6, name=f"g{index}")
        w.grad = g.clone()
        optimizer.step()
        momentum = 0.95 * momentum + 0.05 * g
        ahead = 0.05 * g + 0.95 * momentum  # Nesterov
        x = ahead / ahead.norm()
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        expected = expected * (1 - lr * decay) - lr * 0.2 * 6**0.5 * x
    torch.testing.assert_close(w.detach(), expected, atol=1e-5, rtol=1e-4)


def test_queries_keys_values_gate_and_up_are_orthogonal_each_by_itself():
    model = Transformer(ModelConfig(num_layers=1, num_heads=4, num_kv_heads=2, d_model=16, d_ff=24), VOCAB)
    qkv, gate_up = model.blocks[0].attn.qkv.weight, model.blocks[0].mlp.gate_up.weight
    rows = fused_rows(model)
    assert rows == {id(qkv): [16, 8, 8], id(gate_up): [24, 24]}
    optimizer = make_optimizer(model, OptimConfig(kind="muon", lr=1.0, weight_decay=0.0))
    for p in model.parameters():
        p.grad = normal(*p.shape)
    before = qkv.detach().clone()
    optimizer.step()
    for part, size in zip((before - qkv.detach()).split([16, 8, 8]), (16, 8, 8)):
        values = torch.linalg.svdvals(part) / (0.2 * 16**0.5)
        assert len(values) == size
        assert ((values > 0.6) & (values < 1.25)).all()


def test_the_rest_is_adamw_and_one_rate_rules_both():
    """Embedding, head and norms move as under AdamW alone."""
    models = []
    for kind in ("adamw", "muon"):
        model = Transformer(ModelConfig(num_layers=1, d_model=16, d_ff=24), VOCAB)
        model.init_weights(Noise.of(0))
        optimizer = make_optimizer(model, OptimConfig(kind=kind, lr=0.5))
        for group in optimizer.param_groups:
            group["lr"] = 0.01
        for p in model.parameters():
            p.grad = normal(*p.shape)
        optimizer.step()
        optimizer.zero_grad()
        assert all(p.grad is None for p in model.parameters())
        models.append(dict(model.named_parameters()))
    inside = {name for name in models[0] if name.startswith("blocks.") and models[0][name].ndim == 2}
    for name in models[0]:
        assert torch.equal(models[0][name], models[1][name]) == (name not in inside), name


def test_a_run_goes_on_to_the_same_bits(tmp_path):
    settings = {"num_steps": 4, "save_every": 2, "keep": 9, "optim": {"kind": "muon", "lr": 1e-2, "warmup_steps": 1}}
    train(config(**settings), data(), tmp_path, quiet=True)
    whole = (tmp_path / "step_000004" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "step_000004")
    train(config(**settings), data(), tmp_path, quiet=True)
    assert (tmp_path / "step_000004" / "model.safetensors").read_bytes() == whole
