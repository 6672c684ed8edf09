"""Every schedule: inverse, derivative, weight, against autograd and each other."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anyorder.core.protocols import Schedule
from anyorder.core.schedule import (
    SCHEDULES,
    Clipped,
    CosineMdlm,
    CosineSquared,
    ExpEmigm,
    Geometric,
    Linear,
    Logarithmic,
    LogEmigm,
    LogLinear,
    OneMinusCosine,
    Poly,
)

MORE = [Poly(0.5), Poly(3.0), LogLinear(0.0), CosineMdlm(0.0), CosineSquared(1e-2), Geometric(1e-3, 5.0), LogEmigm(2.0),
        ExpEmigm(8.0), Clipped(Linear(), 0.005), Clipped(Poly(2.0))]  # fmt: skip
ALL = [make() for make in SCHEDULES.values()] + MORE
every = pytest.mark.parametrize("schedule", ALL, ids=str)


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@every
@given(st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=20))
@settings(max_examples=20)
def test_round_trip(schedule, times):
    torch.testing.assert_close(schedule.inverse(schedule.alpha(f64(*times))), f64(*times), rtol=0, atol=1e-9)


@every
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20))
@settings(max_examples=20)
def test_inverse_of_alpha_inside_the_range(schedule, shares):
    low, high = schedule.alpha(f64(1.0, 0.0))
    a = low + f64(*shares) * (high - low)
    t = schedule.inverse(a)
    assert bool((t >= 0).all() & (t <= 1).all())
    torch.testing.assert_close(schedule.alpha(t), a, rtol=0, atol=1e-9)


@every
def test_derivative_and_weight_agree_with_autograd(schedule):
    t = torch.linspace(1e-3, 0.999, 999, dtype=torch.float64, requires_grad=True)
    alpha = schedule.alpha(t)
    (slope,) = torch.autograd.grad(alpha.sum(), t)
    t = t.detach()
    torch.testing.assert_close(schedule.dalpha(t), slope, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(schedule.weight(t), (-slope / (1 - alpha)).detach(), rtol=1e-7, atol=0)


@every
def test_total_noise_grows_at_its_rate(schedule):
    """-log alpha grows by -alpha'/alpha: DILM's published schedule fails this by ln r (5 to 500: 4.6)."""
    t = torch.linspace(1e-3, 0.99, 500, dtype=torch.float64)
    h = 1e-6
    slope = (-schedule.alpha(t + h).log() + schedule.alpha(t - h).log()) / (2 * h)
    torch.testing.assert_close(-schedule.dalpha(t) / schedule.alpha(t), slope, rtol=1e-4, atol=1e-6)


@every
def test_shape_of_the_curve(schedule):
    assert isinstance(schedule, Schedule)
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    alpha = schedule.alpha(t)
    assert alpha.dtype == schedule.weight(t[1:]).dtype == torch.float64
    assert bool((alpha.diff() < 0).all())
    assert 0.99 < float(alpha[0]) <= 1
    assert -1e-15 <= float(alpha[-1]) < 0.02
    assert bool((schedule.weight(t[1:]) >= 0).all())


@every
def test_inverse_outside_the_range_is_the_nearest_end(schedule):
    assert schedule.inverse(f64(0.0, 1.0)).tolist() == pytest.approx([1.0, 0.0], abs=1e-7)


@pytest.mark.parametrize("schedule", [Linear(), LogLinear(), LogLinear(0.1)], ids=str)
def test_linear_weights_are_one_over_t(schedule):
    t = f64(1e-6, 0.1, 1.0)
    assert torch.equal(schedule.weight(t), 1 / t)


def test_weights_survive_small_t():
    """-alpha'/(1 - alpha) computed naively loses every digit here; weight t tends to gamma's power."""
    t = f64(1e-10)
    for schedule, exponent in ((CosineMdlm(), 2), (CosineSquared(), 2), (OneMinusCosine(), 1), (Poly(2.0), 2)):
        assert float(schedule.weight(t) * t) == pytest.approx(exponent, rel=1e-6)
    for schedule in (Logarithmic(), ExpEmigm(), LogEmigm()):
        assert float(schedule.weight(t) * t) == pytest.approx(1, rel=1e-6)


def test_known_values():
    half = f64(0.5)
    assert float(OneMinusCosine().alpha(half)) == pytest.approx(1 - math.sqrt(0.5))
    assert float(CosineMdlm(1e-3).alpha(half)) == pytest.approx(1e-3 + 0.999 * math.sqrt(0.5))
    assert float(CosineSquared(1e-3).alpha(half)) == pytest.approx(1e-3 + 0.999 * 0.5)
    assert float(Poly(2.0).alpha(half)) == pytest.approx(0.75)
    assert float(Logarithmic().alpha(half)) == pytest.approx(1 - math.log2(1.5))
    assert float(Geometric(1e-4, 20.0).alpha(half)) == pytest.approx(math.exp(-math.sqrt(1e-4 * 20)))
    assert float(1 - ExpEmigm().alpha(f64(1.0))) == pytest.approx(0.9933, abs=1e-4)
    assert float(1 - LogEmigm().alpha(half)) == pytest.approx(math.log(1 + (math.e**5 - 1) / 2) / 5)
    assert float(Clipped(Linear(), 1e-4).alpha(f64(0.0))) == pytest.approx(1 - 1e-4, abs=1e-15)
    assert float(LogLinear(1e-3).weight(half)) == float(Linear().weight(half))


@pytest.mark.parametrize(
    "make",
    [lambda: Poly(0.0), lambda: Poly(math.inf), lambda: LogLinear(-1e-3), lambda: Clipped(Linear(), 0.5),
     lambda: Geometric(1.0, 0.5), lambda: ExpEmigm(-1.0), lambda: Geometric(0.0, 1.0)],
)  # fmt: skip
def test_bad_parameters_are_named(make):
    with pytest.raises(ValueError, match=r"^\w+=.*must be"):
        make()
