"""Masked diffusion: which tokens are hidden, and that the loss is the bound it says, by enumeration."""

import dataclasses
import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import stats

from anyorder.core.noise import Noise
from anyorder.core.schedule import (
    CosineMdlm,
    CosineSquared,
    Linear,
    Logarithmic,
    LogEmigm,
    LogLinear,
    OneMinusCosine,
    Poly,
)
from anyorder.core.types import Batch, take_rows
from anyorder.likelihood.exact import nelbo_enumerated
from anyorder.processes import MaskedDiffusion, ProcessConfig, smdm
from anyorder.testing.contracts import Leaf, copy_of, same
from anyorder.testing.oracle import Oracle, RandomTable, vocab_of

NOISE = Noise.of(21)
TABLE = RandomTable(3, Noise.of(4).at("table"), scale=2.0)
DRAWS = ["independent", "stratified", "antithetic"]
X0 = torch.tensor([2, 0, 1, 1])
FULL_SCHEDULES = [
    Linear(),
    LogLinear(0.0),
    OneMinusCosine(),
    CosineMdlm(0.0),
    CosineSquared(0.0),
    Poly(2.0),
    Poly(3.0),
    Logarithmic(),
    LogEmigm(2.0),
]


@dataclass(frozen=True)
class Given(Noise):
    """Uniforms of the test's choosing: one level per row, one number per row and position."""

    level: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    name: str | int = ""

    def at(self, name):
        return dataclasses.replace(self, name=name)

    def uniform(self, row, step=0, position=0):
        return self.level[row] if self.name == "level" else self.mask[row, position]


def given(level, mask):
    return Given(key=(0, 0), level=level.double(), mask=mask.double())


def copies(x0, count, *, target=None):
    where = torch.ones_like(x0, dtype=torch.bool) if target is None else target
    return Batch(x0.repeat(count, 1), where.repeat(count, 1), None, torch.arange(count))


def varied(rows):
    """Rows with prompts, padding, several documents, few targets and none; each row an example of its own."""
    tokens = (NOISE.at("tokens").uniform(torch.arange(rows)[:, None], 0, torch.arange(9)) * 3).long()
    target = NOISE.at("target").uniform(torch.arange(rows)[:, None], 0, torch.arange(9)) < 0.6
    segment = torch.tensor([1] * 4 + [2] * 3 + [0] * 2).repeat(rows, 1)
    target = target & (segment > 0)
    target[::7] = False
    return Batch(tokens.masked_fill(segment == 0, 4), target, segment, torch.arange(rows) + 10**12)


# Which tokens are hidden


@pytest.mark.parametrize("draw", DRAWS)
def test_count_form_masks_n_targets_with_n_uniform_and_weight_t_over_n(draw):
    batch = varied(13 * 3000)
    process = MaskedDiffusion(draw=draw, group=13)
    masked, weight = process.corrupt(batch, process.levels(batch.sample_id, noise=NOISE), noise=NOISE)
    assert not (masked & ~batch.target).any()
    sizes, n = batch.target.sum(-1), masked.sum(-1)
    assert ((n >= 1) == (sizes >= 1)).all()
    assert torch.equal(weight, torch.where(sizes > 0, sizes.double() / n.clamp(min=1), 0.0))
    for size in range(2, 8):
        seen = n[sizes == size]
        assert len(seen) > 300
        assert stats.chisquare(torch.bincount(seen, minlength=size + 1)[1:]).pvalue > 1e-4


def test_every_set_of_n_targets_is_equally_likely():
    batch = copies(X0, 60_000, target=torch.tensor([True, True, False, True]))
    process = MaskedDiffusion(draw="independent")
    masked, _ = process.corrupt(batch, torch.full((60_000,), 0.5, dtype=torch.float64), noise=NOISE)  # n = 2 of 3
    sets = torch.bincount((masked.long() * torch.tensor([8, 4, 2, 1])).sum(-1), minlength=16)
    assert sets.nonzero().squeeze(-1).tolist() == [5, 9, 12]
    assert stats.chisquare(sets[[5, 9, 12]]).pvalue > 1e-4


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_levels_at_the_edges_stay_between_one_and_all(size):
    level = torch.tensor([2.0**-64, 0.5, 1 - 2.0**-53])
    masked, _ = MaskedDiffusion().corrupt(copies(torch.zeros(size).long(), 3), level.double(), noise=NOISE)
    assert masked.sum(-1)[[0, 2]].tolist() == [1, size]


@pytest.mark.parametrize("schedule", [Linear(), Poly(2.0), OneMinusCosine()])
def test_time_form_masks_each_target_independently_with_chance_one_minus_alpha(schedule):
    batch = copies(X0, 40_000, target=torch.tensor([True, True, False, True]))
    process = MaskedDiffusion(form="time", schedule=schedule)
    level = torch.full((40_000,), 0.3, dtype=torch.float64)
    masked, weight = process.corrupt(batch, level, noise=NOISE)
    rate = 1 - float(schedule.alpha(level[:1]))
    assert torch.allclose(weight, schedule.weight(level))
    assert not masked[:, 2].any()
    counts = torch.bincount((masked[:, [0, 1, 3]].long() * torch.tensor([4, 2, 1])).sum(-1), minlength=8)
    bits = [bin(code).count("1") for code in range(8)]
    expected = [40_000 * rate**k * (1 - rate) ** (3 - k) for k in bits]
    assert stats.chisquare(counts, expected).pvalue > 1e-4


@pytest.mark.parametrize("form", ["count", "time"])
@pytest.mark.parametrize("draw", DRAWS)
def test_a_row_s_corruption_is_its_own(form, draw):
    batch, process = varied(30), MaskedDiffusion(form=form, draw=draw, group=10)
    before = copy_of(batch)
    level = process.levels(batch.sample_id, noise=NOISE)
    masked, weight = process.corrupt(batch, level, noise=NOISE)
    assert same(batch, before)
    for rows in (torch.tensor([5]), torch.tensor([29, 3, 11]), torch.arange(29, -1, -1)):
        part = take_rows(batch, rows)
        own = process.levels(part.sample_id, noise=NOISE)
        again, weights = process.corrupt(part, own, noise=NOISE)
        assert torch.equal(own, level[rows])
        assert torch.equal(again, masked[rows])
        assert torch.equal(weights, weight[rows])


# How rows share their levels


@pytest.mark.parametrize("draw", DRAWS)
def test_each_level_is_uniform_by_itself(draw):
    process = MaskedDiffusion(draw=draw, group=8)
    level = process.levels(torch.arange(8 * 4000), noise=NOISE).view(4000, 8)
    assert level.dtype == torch.float64
    assert ((level > 0) & (level < 1)).all()
    for place in (0, 3, 7) if draw != "stratified" else ():
        assert stats.kstest(level[:, place], "uniform").pvalue > 1e-4
    if draw == "stratified":  # uniform in its own stratum; over the group, uniform
        for place in (0, 3, 7):
            assert stats.kstest(level[:, place] * 8 - place, "uniform").pvalue > 1e-4
    pick = level[torch.arange(4000), torch.arange(4000) % 8]
    assert stats.kstest(pick, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("draw", ["stratified", "antithetic"])
def test_levels_of_a_group_are_spread_evenly(draw):
    level = MaskedDiffusion(draw=draw, group=16).levels(torch.arange(16 * 50), noise=NOISE).view(50, 16)
    cells = (level * 16).floor().sort(-1).values
    assert torch.equal(cells, torch.arange(16).double().expand(50, 16))
    if draw == "antithetic":
        gaps = level.sort(-1).values.diff(dim=-1)
        torch.testing.assert_close(gaps, torch.full_like(gaps, 1 / 16))


def test_spread_levels_have_less_variance_than_independent_ones():
    """The variance of a group's mean of u^2: (1/5 - 1/9)/G; about int f'^2 / (12 G^3); (f(1) - f(0))^2 / (12 G^2)."""
    variance = {}
    for draw in DRAWS:
        level = MaskedDiffusion(draw=draw, group=16).levels(torch.arange(16 * 4000), noise=NOISE).view(4000, 16)
        means = (level**2).mean(-1)
        assert abs(means.mean() - 1 / 3) < 4 * float(means.std()) / 4000**0.5
        variance[draw] = float(means.var())
    assert variance["independent"] == pytest.approx((1 / 5 - 1 / 9) / 16, rel=0.1)
    assert variance["stratified"] == pytest.approx(4 / 3 / 12 / 16**3, rel=0.1)
    assert variance["antithetic"] == pytest.approx(1 / 12 / 16**2, rel=0.1)


# The bound, exactly


def test_count_form_averages_to_the_enumerated_bound():
    """All counts n and all orders of the positions, each once: equality, not statistics."""
    orders = torch.tensor(list(itertools.permutations(range(4)))).double() / 8 + 0.1
    level = (torch.arange(4) + 0.5).repeat_interleave(len(orders)) / 4
    batch = copies(X0, len(level))
    loss = MaskedDiffusion(draw="independent").loss(TABLE, batch, noise=given(level, orders.repeat(4, 1)))
    expected = float(nelbo_enumerated(TABLE, X0[None]))
    assert float(loss.nelbo.double().mean()) == pytest.approx(expected, rel=1e-6)
    assert float(loss.total) / len(level) == pytest.approx(expected, rel=1e-5)
    assert loss.num_tokens == 4 * len(level)


def by_quadrature(process, model, x0, *, nodes=60):
    """Mean loss over t (Gauss-Legendre) and over all sets of masked positions with their chances."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    level = torch.tensor((points + 1) / 2)
    sets = torch.tensor(list(itertools.product([0, 1], repeat=len(x0)))).bool()
    row_level = level.repeat_interleave(len(sets))
    hidden = sets.repeat(nodes, 1)
    u = torch.where(hidden, 1e-30, 1 - 1e-15)
    loss = process.loss(model, copies(x0, len(row_level)), noise=given(row_level, u))
    t = process.t_min + (1 - process.t_min) * row_level
    alpha = process.schedule.alpha(t)[:, None]
    chance = torch.where(hidden, 1 - alpha, alpha).prod(-1)
    share = torch.tensor(weights / 2).repeat_interleave(len(sets)) * chance
    return float((share * loss.nelbo.double()).sum())


@pytest.mark.parametrize("schedule", FULL_SCHEDULES, ids=str)
def test_time_form_averages_to_the_enumerated_bound_under_every_schedule(schedule):
    process = MaskedDiffusion(form="time", schedule=schedule, draw="independent")
    expected = float(nelbo_enumerated(TABLE, X0[None]))
    assert by_quadrature(process, TABLE, X0) == pytest.approx(expected, rel=1e-6)


def test_a_perfect_denoiser_s_bound_is_minus_log_p():
    oracle = Oracle.random(3, 4, noise=NOISE.at("joint"))
    process = MaskedDiffusion(form="time", draw="independent")
    assert by_quadrature(process, oracle, X0) == pytest.approx(-float(oracle.log_prob(X0[None])), rel=1e-6)


def test_smdm_misses_the_easy_end_by_eps_times_the_difference():
    """The mean over [eps, 1] instead of [0, 1]: too high by eps (NELBO - f(0)), f(0) = loss with one token hidden."""
    exact = float(nelbo_enumerated(TABLE, X0[None]))
    alone = torch.eye(4).bool()
    last = MaskedDiffusion(draw="independent").loss(
        TABLE, copies(X0, 4), noise=given(torch.full((4,), 0.1), torch.where(alone, 0.1, 0.9))
    )
    f0 = float(last.nelbo.sum()) / 4  # weight T/1 on each, so the mean of the four is the sum of -log p
    bias = by_quadrature(smdm(), TABLE, X0) - exact
    assert smdm().t_min == 1e-3
    assert bias == pytest.approx(1e-3 * (exact - f0), rel=0.02, abs=2e-6)
    assert abs(bias) > 1e-5
    larger = by_quadrature(dataclasses.replace(smdm(), t_min=0.1), TABLE, X0) - exact
    assert abs(larger) > 20 * abs(bias)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize(
    "process", [MaskedDiffusion(), MaskedDiffusion(form="time", schedule=Poly(2.0))], ids=["n", "t"]
)
def test_the_bound_is_unbiased_with_real_noise_and_any_draw(process, draw):
    """Rows with a prompt; z over independent groups of 8."""
    target = torch.tensor([True, False, True, True])
    batch = copies(X0, 8 * 4000, target=target)
    loss = dataclasses.replace(process, draw=draw, group=8).loss(TABLE, batch, noise=NOISE.at("real"))
    means = loss.nelbo.double().view(4000, 8).mean(-1)
    expected = float(nelbo_enumerated(TABLE, X0[None], target=target[None]))
    assert abs(float(means.mean()) - expected) < 4 * float(means.std()) / 4000**0.5


# What is trained


def test_a_flat_weight_counts_every_masked_token_two():
    """Under a denoiser that knows nothing: T log V under nelbo and time form, (T + 1) log V under count form."""
    zero = Leaf(torch.zeros(20_000, 4, 3), vocab_of(3))
    batch = copies(X0, 20_000)
    for form, expected in (("count", 5.0), ("time", 4.0)):
        process = MaskedDiffusion(form=form, weight="flat", group=100)
        loss = process.loss(zero, batch, noise=NOISE)
        assert float(loss.total) / 20_000 / math.log(3) == pytest.approx(expected, rel=0.01)
        assert float(loss.nelbo.mean()) / math.log(3) == pytest.approx(4.0, rel=0.05)
        masked, _ = process.corrupt(batch, process.levels(batch.sample_id, noise=NOISE), noise=NOISE)
        assert float(loss.total) == pytest.approx(2 * math.log(3) * int(masked.sum()), rel=1e-5)


@pytest.mark.parametrize("weight", ["nelbo", "flat"])
@pytest.mark.parametrize("form", ["count", "time"])
def test_gradient_flows_through_masked_targets_only(form, weight):
    batch, process = varied(20), MaskedDiffusion(form=form, weight=weight, group=20)
    logits = torch.zeros(20, 9, 3, requires_grad=True)
    loss = process.loss(Leaf(logits, vocab_of(3)), batch, noise=NOISE)
    loss.total.backward()
    masked, row_weight = process.corrupt(batch, process.levels(batch.sample_id, noise=NOISE), noise=NOISE)
    scale = row_weight.float() if weight == "nelbo" else torch.full((20,), 2.0)
    one_hot = torch.nn.functional.one_hot(batch.tokens.clamp(max=2), 3)
    expected = (1 / 3 - one_hot) * masked[..., None] * scale[:, None, None]
    torch.testing.assert_close(logits.grad, expected)
    assert loss.num_tokens == int(batch.target.sum())
    assert loss.nelbo.shape == (20,)
    assert (loss.nelbo[~batch.target.any(-1)] == 0).all()
    assert not loss.nelbo.requires_grad


def test_the_network_reads_masks_at_masked_positions_and_truth_elsewhere():
    seen = []

    class Spy:
        nfe, vocab = 1, vocab_of(3)

        def __call__(self, canvas, at):
            seen.append((canvas, at))
            return torch.zeros(int(at.sum()), 3)

    batch = varied(10)
    MaskedDiffusion().loss(Spy(), batch, noise=NOISE)
    ((canvas, at),) = seen
    assert torch.equal(canvas.x == 3, at)
    assert torch.equal(canvas.x[~at], batch.tokens[~at])
    assert torch.equal(canvas.segment, batch.segment)


# Configuration


def test_a_configuration_builds_the_objective_it_names():
    process = ProcessConfig(form="time", schedule="poly", draw="stratified", t_min=0.1, weight="flat").build(group=5)
    expected = MaskedDiffusion(form="time", schedule=Poly(), draw="stratified", group=5, t_min=0.1, weight="flat")
    assert process == expected
    assert ProcessConfig(kind="arm").build(group=5).paper == "arXiv:2005.14165"
    with pytest.raises(ValueError, match=r"process.schedule='cosin': unknown; "):
        ProcessConfig(schedule="cosin").build(group=1)
