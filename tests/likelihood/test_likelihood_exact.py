"""Enumerated bounds: perfect denoisers give -log p, imperfect ones obey Jensen; all against plain loops."""

import itertools
import math

import pytest
import torch

from anyorder.core.categorical import log_prob_of
from anyorder.core.noise import Noise
from anyorder.core.schedule import SCHEDULES
from anyorder.core.types import Canvas
from anyorder.likelihood.exact import any_order_mixture, nelbo_any_order, nelbo_enumerated
from anyorder.testing.laws import random_order_law, z_curve
from anyorder.testing.oracle import MarkovOracle, Oracle, RandomTable, states_of
from anyorder.testing.tiny import oracle_a, oracle_b

SEED = Noise.of(31)
ORACLES = [oracle_a(), oracle_b().joint(4), Oracle.random(3, 4, noise=SEED), Oracle.random(2, 5, noise=SEED)]


def masked_cross_entropy(denoiser, x: torch.Tensor, masked: tuple[int, ...]) -> float:
    """Sum of -log p over the masked positions of one row."""
    at = torch.zeros(1, len(x), dtype=torch.bool)
    at[0, list(masked)] = True
    canvas = Canvas.of(x.masked_fill(at[0], denoiser.vocab.mask_id)[None], vocab=denoiser.vocab)
    return -float(log_prob_of(denoiser(canvas, at), x[at[0]]).sum())


def orders_nll(denoiser, x: torch.Tensor, targets: list[int]) -> list[float]:
    """-log p of each order of writing the targets."""
    out = []
    for order in itertools.permutations(targets):
        total = 0.0
        for k, j in enumerate(order):
            masked = order[k:]
            at = torch.zeros(1, len(x), dtype=torch.bool)
            at[0, j] = True
            hidden = torch.isin(torch.arange(len(x)), torch.tensor(masked))
            canvas = Canvas.of(x.masked_fill(hidden, denoiser.vocab.mask_id)[None], vocab=denoiser.vocab)
            total -= float(log_prob_of(denoiser(canvas, at), x[j : j + 1]))
        out.append(total)
    return out


@pytest.mark.parametrize("oracle", ORACLES, ids=lambda o: f"{o.size}^{o.length}")
@pytest.mark.parametrize("form", [nelbo_enumerated, nelbo_any_order, any_order_mixture])
def test_a_perfect_denoiser_gives_minus_log_p(oracle, form):
    """Tests 1 and 24: every x with p(x) > 0."""
    x = oracle.states[oracle.table > 0]
    torch.testing.assert_close(form(oracle, x), -oracle.log_prob(x), rtol=0, atol=1e-12)


def test_impossible_rows_cost_infinity():
    x = torch.tensor([[1, 0]])
    assert nelbo_enumerated(oracle_a(), x).tolist() == [math.inf]
    assert any_order_mixture(oracle_a(), x).tolist() == [math.inf]


@pytest.mark.parametrize("denoiser", [RandomTable(3, SEED), MarkovOracle.random(3, noise=SEED)])
def test_against_plain_loops_over_orders(denoiser):
    x = states_of(3, 4)[[5, 40, 80]]
    nlls = torch.tensor([orders_nll(denoiser, row, [0, 1, 2, 3]) for row in x], dtype=torch.float64)
    torch.testing.assert_close(nelbo_any_order(denoiser, x), nlls.mean(-1), rtol=1e-12, atol=0)
    torch.testing.assert_close(nelbo_enumerated(denoiser, x), nlls.mean(-1), rtol=1e-12, atol=0)
    mixture = -(torch.logsumexp(-nlls, -1) - math.log(24))
    torch.testing.assert_close(any_order_mixture(denoiser, x), mixture, rtol=1e-12, atol=0)


def test_mixture_sums_to_one_and_is_below_the_bound():
    """Test 24, for a denoiser that fits no joint law."""
    table = RandomTable(3, SEED)
    x = states_of(3, 3)
    mixture, bound = any_order_mixture(table, x), nelbo_enumerated(table, x)
    assert float((-mixture).exp().sum()) == pytest.approx(1, abs=1e-12)
    assert bool((bound > mixture + 1e-6).all())
    torch.testing.assert_close((-mixture).exp(), random_order_law(table, 3), rtol=1e-12, atol=0)


def test_targets_differ_by_row_and_prompts_stay_visible():
    table = RandomTable(2, SEED)
    x = states_of(2, 4)[[3, 9, 14, 6]]
    target = torch.tensor([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]]).bool()
    got = nelbo_enumerated(table, x, target=target)
    for row, mask, value, any_order in zip(x, target, got, nelbo_any_order(table, x, target=target)):
        chosen = mask.nonzero().squeeze(-1).tolist()
        expected = sum(
            masked_cross_entropy(table, row, s) / (n * math.comb(len(chosen), n))
            for n in range(1, len(chosen) + 1)
            for s in itertools.combinations(chosen, n)
        )
        assert float(value) == pytest.approx(expected, abs=1e-12)
        assert float(any_order) == pytest.approx(expected, abs=1e-12)
    oracle = Oracle.random(2, 4, noise=SEED)
    prompt = torch.tensor([False, True, True, True]).expand(16, 4)
    first = oracle.table.reshape(2, 8).sum(-1, keepdim=True).expand(2, 8).flatten()
    conditional = (oracle.table / first).log()
    torch.testing.assert_close(nelbo_enumerated(oracle, oracle.states, target=prompt), -conditional)
    torch.testing.assert_close(any_order_mixture(oracle, oracle.states, target=prompt), -conditional)


def test_too_many_targets_are_refused():
    with pytest.raises(ValueError, match=r"^target: a row has 13 positions"):
        nelbo_enumerated(RandomTable(2, SEED), torch.zeros(1, 13, dtype=torch.int64))


def counts_of(denoiser, x: torch.Tensor) -> list[float]:
    """c_n = sum over sets of n masks of the masked cross-entropy."""
    length = len(x)
    return [
        sum(masked_cross_entropy(denoiser, x, s) for s in itertools.combinations(range(length), n))
        for n in range(length + 1)
    ]


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_bound_is_the_same_under_every_schedule(name):
    """Tests 2 and 20: quadrature of a.2 in t, for an imperfect denoiser; ends that a schedule leaves out are added."""
    schedule, x = SCHEDULES[name](), states_of(3, 3)[17]
    table = RandomTable(3, SEED)
    c = counts_of(table, x)
    node, share = gauss_legendre(400)
    # t = s^3 resolves the neighbourhood of 0, where a geometric sigma moves on a log scale
    t, jacobian = node**3, 3 * node**2
    gamma = 1 - schedule.alpha(t)
    density = sum(gamma**n * (1 - gamma) ** (3 - n) * c[n] for n in range(1, 4))
    inner = float((schedule.weight(t) * density * jacobian * share).sum())
    ends = 1 - schedule.alpha(torch.tensor([0.0, 1.0], dtype=torch.float64))
    outer = sum(piece(c, a, b) for a, b in ((0.0, float(ends[0])), (float(ends[1]), 1.0)))
    assert inner + outer == pytest.approx(float(nelbo_enumerated(table, x[None])), abs=1e-6)


def piece(c: list[float], low: float, high: float) -> float:
    """Integral over the mask rate g of (1/g) sum of g^n (1 - g)^(3 - n) c_n."""
    node, share = gauss_legendre(40)
    g = low + (high - low) * node
    return float((high - low) * (share * sum(g ** (n - 1) * (1 - g) ** (3 - n) * c[n] for n in range(1, 4))).sum())


def gauss_legendre(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Nodes and weights on [0, 1] (Golub-Welsch)."""
    k = torch.arange(1, n, dtype=torch.float64)
    off = k / (4 * k**2 - 1).sqrt()
    value, vector = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return (value + 1) / 2, vector[0] ** 2


@pytest.mark.parametrize("steps", [1, 2, 5, 50])
def test_finite_step_bound_of_a(steps):
    """Test 3: the T-step bound of a perfect denoiser is H + I / T on the linear grid."""
    oracle = oracle_a()
    total = 0.0
    for p, x in zip(oracle.table.tolist(), oracle.states):
        if p > 0:
            c = counts_of(oracle, x)
            for i in range(1, steps + 1):
                g, delta = i / steps, 1 / i
                total += p * delta * sum(g**n * (1 - g) ** (2 - n) * c[n] for n in (1, 2))
    information = 0.27435846855026513
    assert total == pytest.approx(1.0296530140645737 + information / steps, abs=1e-12)
    z = z_curve(oracle)
    assert information == pytest.approx(float(z[0] - z[1]), abs=1e-14)
