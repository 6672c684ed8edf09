"""Monte-Carlo bounds: unbiased against enumeration, calibrated errors, independent of batch and chunks."""

import math

import pytest
import torch

from anyorder.core.noise import Noise, ranks
from anyorder.core.protocols import Denoiser
from anyorder.core.schedule import Logarithmic, LogLinear, OneMinusCosine, Poly
from anyorder.core.types import Canvas
from anyorder.likelihood.bound import count_form, strata, time_form
from anyorder.likelihood.exact import nelbo_enumerated
from anyorder.testing.laws import chi_square_p
from anyorder.testing.oracle import MarkovOracle, Oracle, RandomTable, states_of

SEED = Noise.of(41)
TABLE = RandomTable(3, SEED)


def everywhere(x: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(x, dtype=torch.bool)


def ids(x: torch.Tensor) -> torch.Tensor:
    return torch.arange(len(x))


@pytest.mark.parametrize("sizes", [1, 2, 3, 6, 12, 31])
@pytest.mark.parametrize("per_replicate", [1, 2, 8, 16])
def test_every_count_is_equally_likely(sizes, per_replicate):
    """The published rounding formula over-draws even counts by up to 25% (arXiv:2502.09992's code); ours is uniform."""
    level = strata(torch.arange(4000), draws=2 * per_replicate, replicates=2, noise=SEED.at("n"))
    n = 1 + (sizes * level).floor().long()
    assert int(n.min()) == 1
    assert int(n.max()) == sizes
    first = n[:, 0]  # one draw per row: independent
    assert chi_square_p(torch.bincount(first - 1, minlength=sizes), torch.full((sizes,), 1 / sizes).double()) > 1e-4
    last = n[:, -1]
    assert chi_square_p(torch.bincount(last - 1, minlength=sizes), torch.full((sizes,), 1 / sizes).double()) > 1e-4


@pytest.mark.parametrize("per_replicate", [1, 3, 8])
def test_strata_are_stratified_and_replicates_independent(per_replicate):
    """Test 21."""
    level = strata(torch.arange(2000), draws=2 * per_replicate, replicates=2, noise=SEED.at("s")).unflatten(-1, (2, -1))
    cells = (level * per_replicate).floor().sort(-1).values
    assert torch.equal(cells, torch.arange(per_replicate).expand_as(cells).double())
    first, second = level[:, 0, 0], level[:, 1, 0]
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.1
    assert bool((level >= 0).all() & (level < 1).all())


def test_every_set_of_positions_is_equally_likely():
    target = torch.tensor([1, 0, 1, 1, 1, 0]).bool().expand(20_000, -1)
    keys = SEED.at("k").uniform(torch.arange(20_000)[:, None], 0, torch.arange(6))
    masked = (ranks(keys, target) < 2) & target
    assert not bool((masked & ~target).any())
    code = (masked * 2 ** torch.arange(6)).sum(-1)
    kinds, counts = code.unique(return_counts=True)
    assert len(kinds) == 6
    assert chi_square_p(counts, torch.full((6,), 1 / 6).double()) > 1e-4


def test_count_form_mean_over_all_its_noise_is_the_bound():
    """Test 22, with the estimator's own weights: enumerate n and every set through its own selection rule."""
    x = states_of(3, 3)[[4, 22]]
    exact = nelbo_enumerated(TABLE, x)
    total = torch.zeros(2, dtype=torch.float64)
    for n in (1, 2, 3):
        sets = [s for s in states_of(2, 3).bool() if int(s.sum()) == n]
        for s in sets:
            keys = torch.where(s, 0.1, 0.9).double().expand(2, 3) + 0.01 * torch.arange(3)
            at = ranks(keys, everywhere(x)) < n
            assert torch.equal(at, s.expand(2, 3))
            canvas = Canvas.of(x.masked_fill(at, 3), vocab=TABLE.vocab)
            nll = -TABLE(canvas, at).gather(-1, x[at][:, None]).reshape(2, n).sum(-1)
            total += 3 / n * nll / len(sets) / 3
    torch.testing.assert_close(total, exact, rtol=1e-12, atol=0)


@pytest.mark.parametrize("form", ["count", "poly2", "cosine-like"])
def test_unbiased_and_calibrated(form):
    """z-scores of many rows: mean 0, variance that of Student's t with replicates - 1 degrees of freedom."""
    n, replicates = 1500, 8
    x = states_of(3, 4)[[50]].expand(n, -1)
    kwargs = {"target": everywhere(x), "row_id": ids(x), "draws": 32, "replicates": replicates, "rows_per_pass": 4096}
    if form == "count":
        got = count_form(TABLE, x, noise=SEED.at("z"), **kwargs)
    else:
        got = time_form(TABLE, x, noise=SEED.at("z"), schedule=Poly(2.0) if form == "poly2" else Poly(1.5), **kwargs)
    exact = float(nelbo_enumerated(TABLE, x[:1]))
    error = float(got.nats.std() / math.sqrt(n))
    assert abs(float(got.nats.mean()) - exact) < 4 * error
    assert float(got.stderr.square().mean().sqrt()) == pytest.approx(float(got.nats.std()), rel=0.1)
    if form == "count":
        z = (got.nats - exact) / got.stderr
        assert float(z.var()) == pytest.approx((replicates - 1) / (replicates - 3), rel=0.25)
    total = got.total()
    assert abs(total.nats - n * exact) < 4 * total.stderr
    assert total.stderr == pytest.approx(error * n, rel=0.1)
    assert total.num_tokens == 4 * n


@pytest.mark.parametrize("schedule", [LogLinear(0.0), OneMinusCosine(), Logarithmic()], ids=str)
def test_time_form_agrees_under_every_full_schedule(schedule):
    x = states_of(3, 4)[[50]].expand(800, -1)
    got = time_form(
        TABLE,
        x,
        target=everywhere(x),
        row_id=ids(x),
        draws=64,
        noise=SEED.at("t"),
        schedule=schedule,
        rows_per_pass=4096,
    )
    exact = float(nelbo_enumerated(TABLE, x[:1]))
    assert float(got.nats.mean()) == pytest.approx(exact, abs=4 * float(got.nats.std()) / math.sqrt(800))
    assert float(got.nats.std()) / math.sqrt(800) < 0.02 * exact


def test_stratification_pays():
    chain = MarkovOracle.random(4, noise=SEED)
    x = chain.sample(1, 16, noise=SEED.at("x")).expand(300, -1)
    kwargs = {"target": everywhere(x), "row_id": ids(x), "draws": 16, "rows_per_pass": 4096}
    wide = count_form(chain, x, noise=SEED.at("a"), replicates=16, **kwargs)  # one draw each: no strata
    fine = count_form(chain, x, noise=SEED.at("a"), replicates=2, **kwargs)
    timed = time_form(chain, x, noise=SEED.at("a"), replicates=2, schedule=Poly(2.0), **kwargs)
    assert float(fine.nats.var()) < 0.8 * float(wide.nats.var())
    assert float(fine.nats.var()) < 0.8 * float(timed.nats.var())


@pytest.mark.parametrize("form", [count_form, lambda *a, **k: time_form(*a, schedule=Poly(2.0), **k)])
def test_a_row_does_not_depend_on_its_batch(form):
    x = states_of(3, 4)[[3, 50, 71, 8]]
    target = torch.tensor([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0]]).bool()
    row_id = torch.tensor([9, 2, 2**40, 5])
    base = form(TABLE, x, target=target, row_id=row_id, draws=8, noise=SEED)
    assert base.num_tokens.tolist() == [4, 2, 0, 3]
    assert base.nfe == 8
    assert float(base.nats[2]) == float(base.stderr[2]) == 0
    for rows in ([1], [3, 0], [2, 1, 3, 0], [2]):
        for per_pass in (1, 5, 1000):
            part = form(
                TABLE, x[rows], target=target[rows], row_id=row_id[rows], draws=8, noise=SEED, rows_per_pass=per_pass
            )
            torch.testing.assert_close(part.nats, base.nats[rows], rtol=1e-13, atol=0)
            torch.testing.assert_close(part.stderr, base.stderr[rows], rtol=1e-9, atol=1e-14)
    other = form(TABLE, x, target=target, row_id=row_id + 1, draws=8, noise=SEED)
    assert not torch.equal(other.nats, base.nats)


def test_padding_and_documents_reach_the_model():
    chain = MarkovOracle.random(3, noise=SEED.at("doc"))
    a, b = chain.sample(2, 3, noise=SEED.at("ab"))
    pad = torch.tensor([chain.vocab.pad_id])
    packed = torch.cat([a, b, pad])[None]
    segment = torch.tensor([[1, 1, 1, 2, 2, 2, 0]])
    got = count_form(
        chain,
        packed,
        target=segment > 0,
        segment=segment,
        row_id=torch.tensor([0]),
        draws=4000,
        noise=SEED,
        rows_per_pass=4000,
    )
    exact = -float(chain.log_prob(torch.stack([a, b])).sum())
    assert abs(float(got.nats) - exact) < 4 * max(float(got.stderr), 0.01)
    assert int(got.num_tokens) == 6


class Counting:
    """A denoiser that counts the positions asked for and checks that they are masks."""

    def __init__(self, inner: Denoiser) -> None:
        self.inner, self.asked, self.rows = inner, 0, 0

    nfe = 1

    @property
    def vocab(self):
        return self.inner.vocab

    def __call__(self, canvas: Canvas, at: torch.Tensor) -> torch.Tensor:
        assert torch.equal(at, canvas.x == self.vocab.mask_id)
        assert not canvas.fixed.any(), "a visible target is no prompt"
        self.asked, self.rows = self.asked + int(at.sum()), self.rows + len(at)
        return self.inner(canvas, at)


def test_only_masked_positions_are_asked_for():
    x = states_of(3, 4)[:10]
    model = Counting(TABLE)
    kwargs = {"target": everywhere(x), "row_id": ids(x), "draws": 80, "noise": SEED, "rows_per_pass": 10}
    count_form(model, x, **kwargs)
    assert model.rows == 800
    assert model.asked == pytest.approx(800 * 2.5, rel=0.05)
    model = Counting(TABLE)
    time_form(model, x, schedule=Poly(4.0), **kwargs)
    assert model.rows < 700  # rows without masks never reach the network


def test_every_draw_of_a_uniform_model_costs_the_same():
    """T/n times n equal terms: each draw of the count form is exactly T log K, so its error is 0."""
    flat = MarkovOracle(torch.ones(3).double() / 3, torch.ones(3, 3).double() / 3)
    x = torch.zeros(2, 7, dtype=torch.int64)
    got = count_form(flat, x, target=everywhere(x), row_id=ids(x), draws=16, noise=SEED)
    torch.testing.assert_close(got.nats, 7 * math.log(3) * torch.ones(2).double(), rtol=1e-14, atol=0)
    assert float(got.stderr.max()) < 1e-14


def test_one_target_needs_one_draw_per_replicate():
    oracle = Oracle.random(3, 3, noise=SEED)
    x = oracle.states
    target = torch.tensor([False, False, True]).expand_as(x)
    got = count_form(oracle, x, target=target, row_id=ids(x), draws=2, replicates=2, noise=SEED)
    torch.testing.assert_close(got.nats, nelbo_enumerated(oracle, x, target=target), rtol=1e-12, atol=0)
    assert float(got.stderr.max()) < 1e-15


def test_total_units():
    x = states_of(3, 4)[:3]
    total = count_form(TABLE, x, target=everywhere(x), row_id=ids(x), draws=8, noise=SEED).total()
    assert total.per_token == pytest.approx(total.nats / 12)
    assert total.stderr_per_token == pytest.approx(total.stderr / 12)
    assert total.bits_per(24) == pytest.approx((total.nats / 24 / math.log(2), total.stderr / 24 / math.log(2)))
    nothing = count_form(TABLE, x, target=~everywhere(x), row_id=ids(x), draws=8, noise=SEED).total()
    assert (nothing.nats, nothing.stderr, nothing.num_tokens) == (0, 0, 0)
    assert math.isnan(nothing.per_token)


def test_bad_arguments_are_named():
    x = states_of(3, 2)
    for draws, replicates in ((0, 2), (4, 1), (5, 2)):
        with pytest.raises(ValueError, match=f"draws={draws}, replicates={replicates}"):
            count_form(TABLE, x, target=everywhere(x), row_id=ids(x), draws=draws, replicates=replicates, noise=SEED)
    with pytest.raises(ValueError, match=r"schedule=LogLinear\(eps=0.001\)"):
        time_form(TABLE, x, target=everywhere(x), row_id=ids(x), draws=4, noise=SEED, schedule=LogLinear())


def test_logits_that_are_no_distribution_are_said_and_not_summed():
    class Broken:
        nfe, vocab = 1, TABLE.vocab

        def __call__(self, canvas: Canvas, at: torch.Tensor) -> torch.Tensor:
            return torch.full_like(TABLE(canvas, at), torch.nan)

    x = torch.tensor([[0, 1, 2]])
    kwargs = {"target": everywhere(x), "row_id": ids(x), "draws": 4, "noise": SEED, "replicates": 2}
    with pytest.raises(RuntimeError, match=r"nan or \+inf at a token that is scored"):
        count_form(Broken(), x, **kwargs)
