"""The chunked cross-entropy against PyTorch's, in value and gradient."""

import pytest
import torch
import torch.nn.functional as F

from anyorder.core.noise import Noise
from anyorder.processes import cross_entropy
from anyorder.processes.cross_entropy import token_nll

NOISE = Noise.of(2)


def problem(rows, columns, dtype=torch.float32, scale=5.0):
    grid = torch.arange(rows)[:, None], 0, torch.arange(columns)
    logits = (scale * NOISE.at("logits").normal(*grid)).to(dtype)
    tokens = (NOISE.at("tokens").uniform(torch.arange(rows)) * columns).long()
    weight = NOISE.at("weight").uniform(torch.arange(rows)).float()
    return logits, tokens, weight


@pytest.mark.parametrize("chunk", [1, 13, 26, 60, 1 << 22])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradient_are_those_of_float64(chunk, dtype, monkeypatch):
    monkeypatch.setattr(cross_entropy, "CHUNK", chunk)
    logits, tokens, weight = problem(7, 13, dtype)
    exact = logits.double().requires_grad_()
    expected = F.cross_entropy(exact, tokens, reduction="none")
    (expected * weight).sum().backward()
    logits.requires_grad_()
    before = logits.detach().clone()
    got = token_nll(logits, tokens)
    assert got.dtype == torch.float32
    (got * weight).sum().backward()
    assert logits.grad.dtype == dtype
    torch.testing.assert_close(got.double(), expected, atol=3e-6, rtol=1e-6)
    rounding = {torch.float32: 1e-6, torch.bfloat16: 2**-8}[dtype]
    torch.testing.assert_close(logits.grad.double(), exact.grad, atol=1e-9 + rounding * 1e-3, rtol=rounding)
    assert torch.equal(logits, before)


def test_large_logits_and_forbidden_tokens():
    logits = torch.tensor([[1e4, 0.0, -torch.inf], [-torch.inf, -64.0, -64.0]], requires_grad=True)
    nll = token_nll(logits, torch.tensor([1, 2]))
    torch.testing.assert_close(nll, torch.tensor([1e4, torch.log(torch.tensor(2.0)).item()]))
    nll.sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.5, -0.5]]))


def test_no_position_costs_nothing():
    logits = torch.zeros(0, 5, requires_grad=True)
    nll = token_nll(logits, torch.zeros(0, dtype=torch.int64))
    assert nll.shape == (0,)
    assert nll.dtype == torch.float32
    nll.sum().backward()
    assert logits.grad.shape == (0, 5)


def test_the_gradient_is_the_slope():
    logits, tokens, _ = problem(3, 4, scale=1.0)
    logits.requires_grad_()
    token_nll(logits, tokens).sum().backward()
    for i in range(3):
        for j in range(4):
            step = torch.zeros(3, 4)
            step[i, j] = 1e-2
            with torch.no_grad():
                slope = (token_nll(logits + step, tokens) - token_nll(logits - step, tokens)).sum() / 2e-2
            assert abs(slope - logits.grad[i, j]) < 1e-3
