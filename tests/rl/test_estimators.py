"""Estimators of the likelihood of finished answers: known answers, enumeration, pure functions of their noise."""

import math
from functools import partial

import pytest
import torch
from learnable import LearnableTable

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.likelihood.bound import Rows
from anyorder.likelihood.chain import chain_rule
from anyorder.likelihood.exact import any_order_mixture, nelbo_enumerated
from anyorder.rl.estimators import ESTIMATORS, Estimator
from anyorder.rl.estimators.coupled import coupled, coupled_views
from anyorder.rl.estimators.elbo import complementary, elbo, first_half
from anyorder.rl.estimators.one_step import one_step
from anyorder.rl.estimators.spg import Sandwich, sandwich
from anyorder.rl.estimators.trace import left_to_right, trace, trace_views
from anyorder.rl.estimators.views import score, view_logp
from anyorder.samplers.base import generate
from anyorder.samplers.presets import PRESETS
from anyorder.samplers.token import TokenRule
from anyorder.testing.laws import chi_square_p
from anyorder.testing.oracle import MarkovOracle, Oracle, RandomTable, states_of

SEED = Noise.of(65)
TABLE = RandomTable(3, SEED)
EVERY = {**ESTIMATORS, "sandwich": lambda model, rows, *, noise: sandwich(model, rows, noise=noise).upper}


def rows_of(x, *, target=None, row_id=None, segment=None):
    return Rows(
        tokens=x,
        target=torch.ones_like(x, dtype=torch.bool) if target is None else target,
        segment=segment,
        row_id=torch.arange(len(x)) if row_id is None else row_id,
    )


def repeated(x, n):
    """The same row n times, under different names."""
    return rows_of(x.expand(n, -1))


def subsets(length):
    return states_of(2, length).bool()


def copies():
    """Eight equal tokens out of four."""
    return MarkovOracle(torch.full((4,), 0.25).double(), torch.eye(4).double())


def test_copy_task():
    """Test T5: log p = log 1/4; tokens that are predicted apart from each other look independent."""
    x = torch.tensor([[2] * 8])
    exact = math.log(1 / 4)
    assert float(one_step(copies(), rows_of(x), noise=SEED).logp.sum()) == pytest.approx(-11.090355, abs=5e-7)
    assert float(left_to_right(copies(), rows_of(x), noise=SEED).logp.sum()) == pytest.approx(exact, rel=1e-12)
    mean = 0.0
    for masked in subsets(8):
        chance = 1 / 9 / math.comb(8, int(masked.sum()))
        mean += chance * float(score(copies(), rows_of(x), complementary(rows_of(x), masked[None])).logp.sum())
    assert mean == pytest.approx(-1.386294, abs=5e-7)


def test_coupled_weights_make_one_and_a_half_times_log_p_of_a_model_without_context():
    """By enumeration of the mask at several rates, and on average over the estimator's own noise."""
    law = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    model, x = MarkovOracle(law, law.expand(3, 3)), torch.tensor([[0, 2, 1]])
    logp = law.log()[x]
    for rate in (0.2, 0.5, 0.71):
        mean = torch.zeros(1, 3).double()
        for first in subsets(3):
            chance = rate ** int(first.sum()) * (1 - rate) ** int((~first).sum())
            views = coupled_views(rows_of(x), torch.tensor([rate], dtype=torch.float64), first[None])
            mean = mean + chance * score(model, rows_of(x), views).logp
        torch.testing.assert_close(mean, 1.5 * logp, rtol=1e-12, atol=0)
    many = coupled(model, repeated(x, 4000), noise=SEED).logp
    error = many.std(0) / math.sqrt(4000)
    assert bool(((many.mean(0) - 1.5 * logp[0]).abs() < 4 * error).all())


def test_coupled_halves_complete_each_other_at_rates_in_range():
    rows = repeated(torch.tensor([[0, 1, 2, 0, 1, 2]]), 3000)
    rate = 0.2 + 0.6 * SEED.at("rate").uniform(rows.row_id)
    first = (SEED.at("mask").uniform(rows.row_id[:, None], 0, torch.arange(6)) < rate[:, None]) & rows.target
    whole, one, other = coupled_views(rows, rate, first)
    assert torch.equal(one.scored ^ other.scored, rows.target)
    assert not bool((one.scored & other.scored).any())
    assert bool(whole.scored.all())
    got, expected = coupled(TABLE, rows, noise=SEED), score(TABLE, rows, coupled_views(rows, rate, first))
    torch.testing.assert_close(got.logp, expected.logp, rtol=1e-12, atol=0)
    assert float(first.double().mean()) == pytest.approx(0.5, abs=0.02)
    assert float(first.double().mean(-1).var()) == pytest.approx(0.03 + (0.25 - 0.03) / 6, rel=0.1)  # U(.2, .8)


@pytest.mark.parametrize("length", [1, 2, 4])
def test_elbo_is_unbiased_token_by_token(length):
    """The mean over every set, each number n of masks equally likely, against the terms of the enumerated bound."""
    x = states_of(3, length)[[2, -1]]
    mean = torch.zeros(2, length).double()
    for masked in subsets(length):
        chance = 1 / (length + 1) / math.comb(length, int(masked.sum()))
        mean = mean + chance * score(TABLE, rows_of(x), complementary(rows_of(x), masked.expand(2, -1))).logp
    torch.testing.assert_close(mean, token_terms(TABLE, x, 0.0), rtol=1e-12, atol=0)
    torch.testing.assert_close(-mean.sum(-1), nelbo_enumerated(TABLE, x), rtol=1e-12, atol=0)


def token_terms(model, x, beta):
    """Each token's E log f (beta = 0), or 1/beta log E f^beta, over random orders, by enumerating what comes before."""
    size, out = x.shape[1], []
    for i in range(size):
        terms, chances = [], []
        for masked in subsets(size):
            if bool(masked[i]):
                n, at = int(masked.sum()), torch.zeros_like(x, dtype=torch.bool)
                at[:, i] = True
                canvas = Canvas.of(x.masked_fill(masked, model.vocab.mask_id), vocab=model.vocab)
                terms.append(model(canvas, at).log_softmax(-1).gather(-1, x[:, i, None])[:, 0])
                chances.append(1 / size / math.comb(size - 1, n - 1))
        logp, chance = torch.stack(terms, -1), torch.tensor(chances, dtype=torch.float64)
        out.append(logp @ chance if beta == 0 else ((beta * logp).exp() @ chance).log() / beta)
    return torch.stack(out, -1)


def test_sizes_and_sets_of_the_first_half_are_uniform():
    rows = repeated(torch.zeros(1, 4).long(), 20_000)
    first = first_half(rows, 0, noise=SEED, draws=1, group=1)
    sizes = torch.bincount(first.sum(-1), minlength=5)
    assert chi_square_p(sizes, torch.full((5,), 0.2).double()) > 1e-4
    code = (first * 2 ** torch.arange(4)).sum(-1)
    law = torch.tensor([1 / 5 / math.comb(4, c.bit_count()) for c in range(16)], dtype=torch.float64)
    assert chi_square_p(torch.bincount(code, minlength=16), law) > 1e-4


def test_numbers_of_masks_are_stratified_over_draws_and_groups():
    """Ten draws (5 rows of 2) share one comb: of 5 possible sizes each comes twice."""
    rows = repeated(torch.zeros(1, 4).long(), 10)
    each = [first_half(rows, k, noise=SEED, draws=2, group=5).sum(-1) for k in range(2)]
    for group in (slice(0, 5), slice(5, 10)):
        sizes = torch.cat([n[group] for n in each])
        assert torch.bincount(sizes, minlength=5).tolist() == [2] * 5


def test_draws_are_averaged_and_lower_the_variance():
    x = states_of(3, 4)[[40]]
    one = elbo(TABLE, repeated(x, 2000), noise=SEED)
    four = elbo(TABLE, repeated(x, 2000), noise=SEED, draws=4)
    for many in (one, four):
        total = many.logp.sum(-1)
        assert float((total.mean() + nelbo_enumerated(TABLE, x)).abs()) < 4 * float(total.std()) / math.sqrt(2000)
    assert float(four.logp.sum(-1).var()) < 0.26 * float(one.logp.sum(-1).var())
    assert int(one.nfe.max()) == 2
    assert int(four.nfe.max()) == 7  # of four evenly spread numbers of 0..4 at least one is 0 or 4: a single pass


@pytest.mark.parametrize("beta", [1.0, 1.5, 4.0])
def test_upper_bound_by_enumeration(beta):
    """The mean inside its logarithm over every set, against the law of what comes before a token."""
    x = states_of(3, 3)[[5, 21]]
    rows, inside = rows_of(x), torch.zeros(2, 3).double()
    for masked in subsets(3):
        chance = 1 / 4 / math.comb(3, int(masked.sum()))
        for view in complementary(rows, masked.expand(2, -1)):
            power = (beta * view_logp(TABLE, rows, view)).exp()
            inside = inside + chance * view.weight[:, None] * torch.where(view.scored, power, 0.0)
    torch.testing.assert_close(inside.log() / beta, token_terms(TABLE, x, beta), rtol=1e-12, atol=0)


def test_the_sandwich_uses_these_terms():
    """One draw: token by token, weight * p^beta inside the logarithm, weight * log p outside."""
    x = states_of(3, 4)[[7, 50, 80]]
    rows = rows_of(x)
    got = sandwich(TABLE, rows, noise=SEED, beta=1.5)
    views = complementary(rows, first_half(rows, 0, noise=SEED, draws=1, group=1))
    weight = sum(torch.where(v.scored, v.weight[:, None], 0.0) for v in views)
    logp = sum(view_logp(TABLE, rows, v) for v in views)
    torch.testing.assert_close(got.lower, weight * logp, rtol=1e-12, atol=0)
    torch.testing.assert_close(got.upper, (weight * logp.exp() ** 1.5).log() / 1.5, rtol=1e-12, atol=1e-14)
    many = sandwich(TABLE, repeated(x[:1], 80), noise=SEED, beta=1.5, draws=64)
    torch.testing.assert_close(many.upper.mean(0), token_terms(TABLE, x[:1], 1.5)[0], rtol=0, atol=0.02)
    assert torch.equal(many.lower, elbo(TABLE, repeated(x[:1], 80), noise=SEED, draws=64).logp)


def test_upper_at_least_exact_at_least_lower():
    """For a joint law at any beta > 0; for conditionals that disagree once beta is the number of targets."""
    joint = Oracle.random(3, 3, noise=SEED)
    x = states_of(3, 3)
    exact = joint.log_prob(x)
    torch.testing.assert_close(token_terms(joint, x, 0.0).sum(-1), exact, rtol=1e-12, atol=0)
    for beta in (0.5, 1.0, 1.5):
        assert bool((token_terms(joint, x, beta).sum(-1) > exact).all())
    mixture = -any_order_mixture(TABLE, x)
    assert bool((token_terms(TABLE, x, 0.0).sum(-1) < mixture).all())
    assert bool((token_terms(TABLE, x, 3.0).sum(-1) > mixture).all())


def test_a_small_beta_is_no_upper_bound_where_conditionals_disagree():
    """Sure of both tokens from the left, of neither from the right: log p = log(1/2 + 1/20000)."""
    model = LearnableTable(torch.zeros(9, 2, 2).double(), 2)
    sure, unsure = torch.tensor([40.0, 0.0]).double(), torch.tensor([0.01, 0.99], dtype=torch.float64).log()
    model.logits[8, 0], model.logits[2, 1] = sure, sure  # (mask, mask) at 0; (0, mask) at 1
    model.logits[8, 1], model.logits[6, 0] = unsure, unsure  # (mask, mask) at 1; (mask, 0) at 0
    x = torch.tensor([[0, 0]])
    exact = -any_order_mixture(model, x)
    assert float(exact) == pytest.approx(math.log((1 + 1e-4) / 2), rel=1e-9)
    assert float(token_terms(model, x, 1.0).sum()) == pytest.approx(2 * math.log(1.01 / 2), rel=1e-9)
    assert float(token_terms(model, x, 1.0).sum()) < float(exact) < float(token_terms(model, x, 3.0).sum())


def test_sandwich_takes_the_side_of_the_advantage():
    x = states_of(3, 4)[[7, 50, 80]]
    both = sandwich(TABLE, rows_of(x), noise=SEED)
    assert isinstance(both, Sandwich)
    made = both.toward(torch.tensor([1.0, -1.0, 0.0]).double()).logp
    assert torch.equal(made, torch.stack([both.lower[0], both.upper[1], both.upper[2]]))
    half = both.toward(torch.tensor([1.0, -1.0, 0.0]).double(), mix=0.5).logp
    torch.testing.assert_close(half[1], (both.lower[1] + both.upper[1]) / 2)
    assert torch.equal(half[0], both.lower[0])


def test_left_to_right_is_the_likelihood_of_writing_so():
    x = states_of(3, 3)
    got = left_to_right(TABLE, rows_of(x), noise=SEED)
    assert float(got.logp.sum(-1).exp().sum()) == pytest.approx(1, abs=1e-12)
    chain = chain_rule(TABLE, x, target=torch.ones_like(x, dtype=torch.bool))
    torch.testing.assert_close(got.logp.sum(-1), -chain.nats, rtol=1e-12, atol=0)
    assert got.nfe.tolist() == [3] * 27


@pytest.mark.parametrize("name", ["maskgit", "ancestral", "threshold"])
def test_trace_is_what_the_sampler_summed_up(name):
    """Fill-only log-likelihood of a trajectory, token by token, from its step map."""
    blank = torch.full((40, 7), TABLE.vocab.mask_id)
    blank[:, 2] = torch.arange(40) % 3  # a prompt in the middle
    canvas = Canvas.of(blank, vocab=TABLE.vocab)
    preset = PRESETS[name]
    sampler = preset.build(4 if preset.paced else None, TokenRule(), preset.settings)
    done = generate(sampler, TABLE, canvas, noise=SEED)
    rows = rows_of(done.canvas.x, target=blank == TABLE.vocab.mask_id)
    got = trace(TABLE, rows, step_map=done.order)
    torch.testing.assert_close(got.logp, done.token_logp, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(got.logp.sum(-1), done.logp, rtol=1e-9, atol=1e-12)
    different = torch.tensor([len(set(row.tolist()) - {-1}) for row in done.order])
    assert torch.equal(got.nfe, different)


def test_shrinkage_merges_steps_that_follow_each_other():
    step_map = torch.tensor([[9, 4, -1, 4, 0, 7, 2], [3, 3, -1, 3, 3, 3, 3]])
    target = step_map >= 0
    rows = rows_of(torch.zeros(2, 7).long(), target=target)
    scored = [v.scored.int().tolist() for v in trace_views(rows, step_map=step_map, shrink=2)]
    assert [s[0] for s in scored] == [[0, 0, 0, 0, 1, 0, 1], [0, 1, 0, 1, 0, 1, 0], [1, 0, 0, 0, 0, 0, 0]]
    assert [s[1] for s in scored] == [[1, 1, 0, 1, 1, 1, 1], [0] * 7, [0] * 7]
    masked = [v.masked[0].int().tolist() for v in trace_views(rows, step_map=step_map, shrink=2)]
    assert masked == [[1, 1, 0, 1, 1, 1, 1], [1, 1, 0, 1, 0, 1, 0], [1, 0, 0, 0, 0, 0, 0]]
    assert trace(TABLE, rows, step_map=step_map, shrink=2).nfe.tolist() == [3, 1]
    once = trace(TABLE, rows, step_map=step_map, shrink=100)
    torch.testing.assert_close(once.logp, one_step(TABLE, rows, noise=SEED, prompt_mask=0.0).logp)
    with pytest.raises(ValueError, match=r"shrink=0: must be >= 1"):
        trace(TABLE, rows, step_map=step_map, shrink=0)


def test_one_step_masks_the_answer_and_a_share_of_the_prompt():
    """What the model was shown, against the definition."""
    seen = []

    class Spy(LearnableTable):
        def __call__(self, canvas, at):
            seen.append((canvas, at))
            return super().__call__(canvas, at)

    spy = Spy(torch.zeros(3**5, 5, 2).double(), 2)
    x, target = torch.zeros(4000, 5).long(), torch.tensor([0, 0, 0, 1, 1]).bool().expand(4000, -1)
    segment = torch.tensor([0, 1, 1, 1, 1]).expand(4000, -1)  # padding is no prompt
    one_step(spy, rows_of(x, target=target, segment=segment), noise=SEED)
    ((canvas, at),) = seen
    masked = canvas.x == spy.vocab.mask_id
    assert torch.equal(at, target)
    assert bool(masked[:, 3:].all())
    assert not bool(masked[:, 0].any())
    assert masked[:, 1:3].double().mean(0).tolist() == pytest.approx([0.15, 0.15], abs=0.02)
    assert torch.equal(canvas.fixed, ~target)


@pytest.mark.parametrize("name", EVERY)
def test_same_row_alone_and_in_a_batch(name):
    x = states_of(3, 5)[torch.arange(0, 243, 31)]
    target = torch.ones_like(x, dtype=torch.bool)
    target[::2, :2] = False  # rows of different numbers of targets
    row_id = torch.arange(len(x)) + 100
    whole = EVERY[name](TABLE, rows_of(x, target=target, row_id=row_id), noise=SEED)
    whole = whole if isinstance(whole, torch.Tensor) else whole.logp
    assert not bool(whole[~target].any())
    for i in range(len(x)):
        alone = rows_of(x[i : i + 1], target=target[i : i + 1], row_id=row_id[i : i + 1])
        one = EVERY[name](TABLE, alone, noise=SEED)
        assert torch.equal(one if isinstance(one, torch.Tensor) else one.logp, whole[i : i + 1])


@pytest.mark.parametrize("name", EVERY)
def test_gradients_are_those_of_the_values(name):
    model, rows = LearnableTable.random(2, 3, noise=SEED), rows_of(states_of(2, 3)[[1, 6]])

    def value(logits):
        made = EVERY[name](LearnableTable(logits, 2), rows, noise=SEED.at("g"))
        return made if isinstance(made, torch.Tensor) else made.logp

    assert torch.autograd.gradcheck(value, (model.logits,), fast_mode=True)
    (grad,) = torch.autograd.grad(value(model.logits).sum(), model.logits)
    assert bool(grad.any())


def test_gradients_of_views_add_up():
    """One backward a view: what estimators that are sums of views owe to peak memory."""
    model, rows = LearnableTable.random(2, 3, noise=SEED), rows_of(states_of(2, 3)[[1, 6]])
    weight = torch.tensor([[1.0], [-2.0]]).double()
    whole = (weight * left_to_right(model, rows, noise=SEED).logp).sum()
    (expected,) = torch.autograd.grad(whole, model.logits)
    for view in trace_views(rows, step_map=torch.arange(3).expand(2, 3)):
        (weight * view.weight[:, None] * view_logp(model, rows, view)).sum().backward()
    torch.testing.assert_close(model.logits.grad, expected, rtol=1e-12, atol=0)


def test_nothing_to_score():
    x = torch.zeros(2, 3).long()
    target = torch.tensor([[0, 0, 0], [1, 1, 1]]).bool()
    for name, estimator in ESTIMATORS.items():
        assert isinstance(estimator, Estimator)
        made = estimator(TABLE, rows_of(x, target=target), noise=SEED)
        assert made.nfe[0] == 0, name
        assert not bool(made.logp[0].any()), name
        assert bool(made.logp[1].all()), name


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(one_step, prompt_mask=1.0), r"prompt_mask=1.0: must be in \[0, 1\)"),
        (partial(coupled, low=0.8, high=0.2), r"low=0.8, high=0.2"),
        (partial(elbo, draws=0), r"draws=0, group=1: both must be >= 1"),
        (partial(sandwich, beta=0.0), r"beta=0.0: must be > 0"),
    ],
)
def test_bad_options(call, message):
    with pytest.raises(ValueError, match=message):
        call(TABLE, rows_of(torch.zeros(1, 3).long()), noise=SEED)
