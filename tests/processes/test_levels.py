"""Bell-shaped mask levels: the density, and that the reported bound stays unbiased under it."""

import math

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Batch
from anyorder.processes import MaskedDiffusion
from anyorder.processes.levels import bell_cdf, bell_quantile
from anyorder.testing.oracle import Oracle

NOISE = Noise.of(0).at("levels")
GRID = (torch.arange(100_000).double() + 0.5) / 100_000  # stands for a uniform number


def test_the_quantile_inverts_the_distribution():
    torch.testing.assert_close(bell_cdf(bell_quantile(GRID)), GRID)
    assert float(bell_quantile(torch.tensor([0.25]).double())) == pytest.approx(0.326352, abs=1e-6)


def test_mean_and_spread_are_those_of_beta_2_2():
    level = bell_quantile(GRID)
    assert float(level.mean()) == pytest.approx(0.5, abs=1e-9)
    assert float(level.std()) == pytest.approx(math.sqrt(0.05), abs=1e-4)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_importance_weights_give_back_uniform_counts(size):
    """Summed over the bell, each count n of T has the weight 1/n that it has under uniform counts: (1/T) T/n."""
    process, level = MaskedDiffusion(density="bell"), bell_quantile(GRID)
    num_targets = torch.full(GRID.shape, size)
    n = 1 + (level * size).floor().clamp(max=size - 1)
    weight = size / n / process.bell_density(level, num_targets)
    for count in range(1, size + 1):
        assert float((weight * (n == count)).mean()) == pytest.approx(1 / count, abs=2e-4)


def test_times_have_the_density_they_are_divided_by():
    process, level = MaskedDiffusion(form="time", density="bell"), bell_quantile(GRID)
    share = 1 / process.bell_density(level, torch.ones_like(level).long())
    middle = (level > 0.2) & (level < 0.7)
    assert float((share * middle).mean()) == pytest.approx(0.5, abs=1e-3)


def loss(process, sample_id):
    oracle = Oracle.random(3, 4, noise=Noise.of(0).at("joint"))
    tokens = oracle.states[:1].expand(len(sample_id), -1)
    batch = Batch(tokens=tokens, target=torch.ones_like(tokens).bool(), segment=None, sample_id=sample_id)
    return process.loss(oracle, batch, noise=NOISE), -float(oracle.log_prob(oracle.states[:1])[0])


@pytest.mark.parametrize("form", ["count", "time"])
def test_the_reported_bound_is_that_of_a_perfect_network(form):
    found, truth = loss(
        MaskedDiffusion(form=form, density="bell", draw="stratified", group=20_000), torch.arange(20_000)
    )
    stderr = float(found.nelbo.std()) / math.sqrt(20_000)
    assert abs(float(found.nelbo.mean()) - truth) < 4 * stderr


def test_the_trained_loss_is_another_and_later_groups_are_uniform():
    early, late = torch.arange(64), torch.arange(64) + 64
    bell = MaskedDiffusion(density="bell", bell_groups=1, group=64)
    plain = MaskedDiffusion(group=64)
    assert float(loss(bell, early)[0].total) != pytest.approx(float(loss(plain, early)[0].total))
    assert float(loss(bell, early)[0].total) != pytest.approx(float(loss(bell, early)[0].nelbo.sum()))
    for name in ("total", "nelbo"):
        assert torch.equal(getattr(loss(bell, late)[0], name), getattr(loss(plain, late)[0], name))
