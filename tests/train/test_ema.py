"""The average of the weights is the sum it says, and lends itself without changing a bit."""

import pytest
import torch
from torch import nn

from anyorder.train.ema import Ema


def network():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    for i, p in enumerate(model.parameters()):
        p.data.copy_(torch.linspace(-1, 1, p.numel()).view(p.shape) + i)
    return model


def test_the_average_is_the_geometric_sum():
    model = network()
    start = {name: p.detach().clone().double() for name, p in model.named_parameters()}
    ema = Ema(model, decay=0.9)
    for step in range(1, 6):
        for p in model.parameters():
            p.data.add_(float(step))
        ema.update(model)
    moved, shift, expected = 0.0, 0.0, 0.0
    for step in range(1, 6):
        shift += step
        moved = 0.9 * moved + 0.1 * shift
    expected = moved
    for name, value in ema.weights.items():
        torch.testing.assert_close(value.double(), start[name] + expected, rtol=1e-6, atol=1e-6)


def test_updates_do_not_touch_the_model_nor_follow_it():
    model = network()
    ema = Ema(model, decay=0.5)
    before = [p.detach().clone() for p in model.parameters()]
    ema.update(model)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before))
    for p in model.parameters():
        p.data.zero_()
    assert all(torch.equal(a, b) for a, b in zip(ema.weights.values(), before))


@pytest.mark.parametrize("fails", [False, True])
def test_swapping_brings_every_bit_back(fails):
    model = network()
    ema = Ema(model, decay=0.5)
    for p in model.parameters():
        p.data.mul_(1 / 3)
    own = [p.detach().clone() for p in model.parameters()]
    average = {name: value.clone() for name, value in ema.weights.items()}
    places = [p.data_ptr() for p in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    try:
        with ema.swapped_in(model):
            assert all(torch.equal(p, average[name]) for name, p in model.named_parameters())
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert all(torch.equal(p, o) for p, o in zip(model.parameters(), own))
    assert [p.data_ptr() for p in model.parameters()] == places
    assert all(torch.equal(value, average[name]) for name, value in ema.weights.items())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert not any(torch.equal(p, o) for p, o in zip(model.parameters(), own))
    assert all(torch.equal(value, average[name]) for name, value in ema.weights.items())
