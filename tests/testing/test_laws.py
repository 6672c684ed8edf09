"""Output laws by enumeration against their closed forms."""

import itertools
import math

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.schedule import CosineSquared, OneMinusCosine, Poly
from anyorder.samplers.plan import path_kl
from anyorder.testing.laws import (
    ancestral_law,
    chi_square_p,
    group_law,
    order_law,
    random_order_law,
    total_variation,
    z_curve,
)
from anyorder.testing.oracle import Oracle, RandomTable
from anyorder.testing.tiny import oracle_a, oracle_b, oracle_c

SEED = Noise.of(21)
Z_B = [0.693147, 0.468658, 0.366629, 0.303123, 0.259462, 0.227543]


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def uniform_grid(n: int) -> list[float]:
    return [i / n for i in range(n + 1)]


@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_ancestral_law_of_a(n):
    """Test 4: (1 - 1/N) p + (1/N) (.35, .35, .15, .15)."""
    law = ancestral_law(oracle_a(), 2, alphas=uniform_grid(n))
    torch.testing.assert_close(
        law, (1 - 1 / n) * oracle_a().table + f64(0.35, 0.35, 0.15, 0.15) / n, rtol=0, atol=1e-14
    )


def test_ancestral_law_of_a_known_value():
    expected = f64(0.425, 0.275, 0.075, 0.225)
    torch.testing.assert_close(ancestral_law(oracle_a(), 2, alphas=[0, 0.5, 1]), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("schedule", [OneMinusCosine(), Poly(3.0), CosineSquared(0.0)], ids=str)
def test_ancestral_law_of_a_on_any_schedule(schedule):
    """Test 4, general: 1/N becomes the sum of the squared alpha increments."""
    alphas = schedule.alpha(torch.linspace(1, 0, 6, dtype=torch.float64)).tolist()
    alphas[0], alphas[-1] = 0.0, 1.0
    c = sum((b - a) ** 2 for a, b in itertools.pairwise(alphas))
    law = ancestral_law(oracle_a(), 2, alphas=alphas)
    torch.testing.assert_close(law, (1 - c) * oracle_a().table + c * f64(0.35, 0.35, 0.15, 0.15), rtol=0, atol=1e-13)


@pytest.mark.parametrize(("length", "n"), [(2, 4), (3, 4), (5, 3), (6, 2)])
def test_copy_law(length, n):
    """Test 5: P(all equal) = 2 sum of (r + d/2)^L - r^L."""
    law = ancestral_law(oracle_c(length), length, alphas=uniform_grid(n))
    closed = 2 * sum((1 - (i + 1) / n + 0.5 / n) ** length - (1 - (i + 1) / n) ** length for i in range(n))
    assert float(law[0] + law[-1]) == pytest.approx(closed, abs=1e-13)
    if (length, n) == (2, 4):
        assert closed == pytest.approx(0.875)


def test_copy_law_formula_known_value():
    closed = 2 * sum((1 - (i + 1) / 16 + 1 / 32) ** 8 - (1 - (i + 1) / 16) ** 8 for i in range(16))
    assert closed == pytest.approx(0.8754264121, abs=1e-10)


def test_z_curve_known_values():
    z = z_curve(oracle_a())
    torch.testing.assert_close(z, f64(0.6520057413, 0.3776472728), rtol=0, atol=1e-10)
    assert float(z[0] - z[1]) == pytest.approx(0.27435846855026513, abs=1e-14)
    z = z_curve(oracle_b().joint(6))
    torch.testing.assert_close(z, f64(*Z_B), rtol=0, atol=6e-7)
    assert float(z.sum()) == pytest.approx(2.318562047517186, abs=1e-13)
    assert bool((z.diff() <= 0).all())


@pytest.mark.parametrize(
    ("groups", "kl"),
    [([6], 1.840321), ([3, 3], 0.670248), ([2, 2, 2], 0.319915), ([1, 2, 3], 0.221269), ([1, 1, 4], 0.309761),
     ([4, 1, 1], 0.941031), ([1] * 6, 0.0)],
)  # fmt: skip
def test_path_kl_of_b(groups, kl):
    """Test 6."""
    assert path_kl(z_curve(oracle_b().joint(6)), groups) == pytest.approx(kl, abs=6e-7)


@pytest.mark.parametrize("groups", [[4], [2, 2], [1, 3], [3, 1], [1, 1, 2], [1, 1, 1, 1]])
def test_path_kl_bounds_the_kl_of_the_law(groups):
    oracle = Oracle.random(2, 4, noise=SEED.at("kl"))
    law = group_law(oracle, 4, sizes=groups)
    kl = float((oracle.table * (oracle.table / law).log()).sum())
    assert -1e-12 <= kl <= path_kl(z_curve(oracle), groups) + 1e-12
    if len(groups) == 1:
        assert kl == pytest.approx(path_kl(z_curve(oracle), groups), abs=1e-12)
    if len(groups) == 4:
        assert kl == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("oracle", [oracle_a(), oracle_b().joint(4), Oracle.random(3, 3, noise=SEED)])
def test_one_at_a_time_is_exact_in_any_order(oracle):
    """Test 7."""
    assert total_variation(random_order_law(oracle, oracle.length), oracle.table) < 1e-14
    for order in itertools.permutations(range(oracle.length)):
        assert total_variation(order_law(oracle, order), oracle.table) < 1e-14


def test_product_laws_are_exact_at_any_step_count():
    """Test 8."""
    p, q = f64(0.2, 0.8), f64(0.7, 0.3)
    oracle = Oracle((p[:, None, None] * q[None, :, None] * p).flatten(), 2, 3)
    for law in (
        ancestral_law(oracle, 3, alphas=[0, 1]),
        group_law(oracle, 3, sizes=[3]),
        group_law(oracle, 3, sizes=[1, 2]),
    ):
        assert total_variation(law, oracle.table) < 1e-15


def test_ancestral_tends_to_the_random_order_law():
    table = RandomTable(2, SEED)
    limit = random_order_law(table, 3)
    gaps = [total_variation(ancestral_law(table, 3, alphas=uniform_grid(n)), limit) for n in (20, 40)]
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.1)


def test_inconsistent_conditionals_expose_the_order():
    table = RandomTable(2, SEED)
    laws = [order_law(table, order) for order in itertools.permutations(range(3))]
    assert min(total_variation(a, b) for a, b in itertools.combinations(laws, 2)) > 1e-3
    torch.testing.assert_close(random_order_law(table, 3), torch.stack(laws).mean(0), rtol=1e-13, atol=0)


def test_two_positions_by_hand():
    """Group and ancestral laws of an inconsistent denoiser, written out for L = 2."""
    table = RandomTable(2, SEED.at("hand"))
    together, one_by_one = group_law(table, 2, sizes=[2]), random_order_law(table, 2)
    assert float((together - one_by_one).abs().max()) > 1e-3
    # two linear steps open both positions in one step with chance 1/4 + 1/4
    half = ancestral_law(table, 2, alphas=[0, 0.5, 1])
    torch.testing.assert_close(half, (together + one_by_one) / 2, rtol=1e-13, atol=0)
    # a first step of chance 1/4: together 1/16 or (both later) 9/16, one by one 6/16
    skew = ancestral_law(table, 2, alphas=[0, 0.25, 1])
    torch.testing.assert_close(skew, together * 10 / 16 + one_by_one * 6 / 16, rtol=1e-13, atol=0)


def test_laws_sum_to_one():
    table = RandomTable(3, SEED)
    for law in (
        ancestral_law(table, 3, alphas=[0.1, 0.3, 1.0]),
        group_law(table, 3, sizes=[2, 1]),
        order_law(table, [1, 0, 2]),
    ):
        assert float(law.sum()) == pytest.approx(1, abs=1e-13)


def test_bad_arguments_are_named():
    for alphas in ([0, 0.5], [0.5, 0.2, 1], [1]):
        with pytest.raises(ValueError, match="alphas="):
            ancestral_law(oracle_a(), 2, alphas=alphas)
    with pytest.raises(ValueError, match="sizes="):
        group_law(oracle_a(), 2, sizes=[1])
    with pytest.raises(ValueError, match="order="):
        order_law(oracle_a(), [0, 0])


def test_chi_square_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    counts, law = torch.tensor([480, 260, 150, 110]), f64(0.5, 0.25, 0.15, 0.1)
    exact = stats.chisquare(counts.numpy(), (law * 1000).numpy()).pvalue
    assert chi_square_p(counts, law) == pytest.approx(exact, rel=1e-10)
    assert chi_square_p(torch.tensor([500, 0, 300, 200]), law) < 1e-10
    assert chi_square_p(torch.tensor([1, 999]), f64(0.0, 1.0)) == 0
    assert chi_square_p(torch.tensor([0, 999]), f64(0.0, 1.0)) == 1
    rare = f64(0.5, 0.495, 0.003, 0.002)  # the last two cells are pooled
    assert chi_square_p(torch.tensor([500, 495, 0, 5]), rare) == pytest.approx(1)
    assert total_variation(f64(1, 0), f64(0, 1)) == 1
    assert math.isclose(total_variation(f64(0.5, 0.5), f64(0.25, 0.75)), 0.25)
