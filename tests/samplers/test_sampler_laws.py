"""Output laws of the samplers against enumeration, on laws with known answers."""

import itertools
import math

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.schedule import Linear, OneMinusCosine, Poly
from anyorder.samplers.base import generate
from anyorder.samplers.blockwise import Blockwise
from anyorder.samplers.causal import Causal
from anyorder.samplers.count import Binomial, One, PerStep, expected_passes, flip_chance, opening_law
from anyorder.samplers.hitting import hitting_times
from anyorder.samplers.position import Confidence, LeftToRight
from anyorder.samplers.token import TokenRule
from anyorder.samplers.unmask import Unmask
from anyorder.testing.contracts import blank, check_exact, observed
from anyorder.testing.laws import ancestral_law, chi_square_p, group_law, order_law, random_order_law
from anyorder.testing.oracle import CausalView, Oracle, RandomTable, states_of
from anyorder.testing.tiny import oracle_a, oracle_b, oracle_c

NOISE = Noise.of(2409_02908)
TABLE = RandomTable(2, Noise.of(5).at("table"), scale=1.5)
ROWS = 60_000


def exact(sampler, model, law, length, rows=ROWS):
    check_exact(sampler, model, law, length=length, generate=generate, noise=NOISE, rows=rows)


def grid(schedule, num_steps):
    return schedule.alpha(torch.linspace(1, 0, num_steps + 1, dtype=torch.float64)).tolist()


@pytest.mark.parametrize("num_steps", [1, 2, 5])
@pytest.mark.parametrize("schedule", [Linear(), OneMinusCosine(), Poly(2.0)])
def test_ancestral_on_two_bits_has_its_closed_form(num_steps, schedule):
    d = torch.tensor(grid(schedule, num_steps), dtype=torch.float64).diff()
    lost = float((d**2).sum())  # chance that both bits open in one step
    law = (1 - lost) * oracle_a().table + lost * torch.tensor([0.35, 0.35, 0.15, 0.15], dtype=torch.float64)
    exact(Unmask(Binomial(num_steps, schedule)), oracle_a(), law, 2)


@pytest.mark.parametrize(("length", "num_steps", "value"), [(2, 4, 0.875), (8, 16, 0.8754264121)])
def test_ancestral_copies_a_bit_as_often_as_predicted(length, num_steps, value):
    d = torch.full((num_steps,), 1 / num_steps, dtype=torch.float64)
    r = 1 - d.cumsum(0)
    predicted = float(2 * ((r + d / 2) ** length - r**length).sum())
    assert predicted == pytest.approx(value, abs=1e-9)
    model = oracle_c(length)
    sample = generate(Unmask(Binomial(num_steps)), model, blank(model.vocab, 8000, length), noise=NOISE)
    equal = (sample.canvas.x == sample.canvas.x[:, :1]).all(-1).double().mean()
    assert abs(float(equal) - predicted) < 4 * math.sqrt(predicted * (1 - predicted) / 8000)


@pytest.mark.parametrize("num_steps", [1, 3])
def test_ancestral_law_of_an_inconsistent_model(num_steps):
    exact(Unmask(Binomial(num_steps)), TABLE, ancestral_law(TABLE, 4, alphas=grid(Linear(), num_steps)), 4)


def test_first_hitting_is_the_random_order_law_of_any_model():
    for model, law in (
        (oracle_a(), oracle_a().table),
        (oracle_b(), oracle_b().joint(4).table),
        (TABLE, random_order_law(TABLE, 4)),
    ):
        exact(Unmask(), model, law, int(math.log2(len(law))))


def test_left_to_right_is_the_law_of_its_order():
    exact(Unmask(One(), LeftToRight()), TABLE, order_law(TABLE, [0, 1, 2, 3]), 4)


def test_groups_of_two_have_the_group_law():
    exact(Unmask(PerStep(2)), TABLE, group_law(TABLE, 4, sizes=[2, 2]), 4)
    exact(Unmask(PerStep(3)), TABLE, group_law(TABLE, 4, sizes=[3, 1]), 4)


def test_blocks_are_written_in_order_and_their_inside_at_random():
    orders = [(a, b, c, d) for a, b in ((0, 1), (1, 0)) for c, d in ((2, 3), (3, 2))]
    law = torch.stack([order_law(TABLE, order) for order in orders]).mean(0)
    exact(Blockwise(Unmask(), 2), TABLE, law, 4)


def confidence_law(model, length):
    """Law of writing the surest position first, by recursion over canvases."""
    law = torch.zeros(model.vocab.size**length, dtype=torch.float64)

    def write(x, mass):
        masked = x == model.vocab.mask_id
        if not masked.any():
            law[int((x * model.vocab.size ** torch.arange(length - 1, -1, -1)).sum())] += mass
            return
        canvas = blank(model.vocab, 1, length)
        canvas = type(canvas).of(x, vocab=model.vocab)
        p = model(canvas, masked).softmax(-1)
        best = int(p.amax(-1).argmax())
        position = int(masked[0].nonzero()[best])
        for token in range(model.vocab.size):
            after = x.clone()
            after[0, position] = token
            write(after, mass * float(p[best, token]))

    write(torch.full((1, length), model.vocab.mask_id), 1.0)
    return law


def test_top_prob_writes_the_surest_position_first():
    law = confidence_law(TABLE, 3)
    assert (law - random_order_law(TABLE, 3)).abs().sum() > 0.02, "this table cannot tell the orders apart"
    exact(Unmask(One(), Confidence()), TABLE, law, 3)
    exact(Unmask(One(), Confidence()), oracle_b(), oracle_b().joint(4).table, 4)


def test_equal_scores_are_taken_from_the_left():
    law = torch.full((8,), 1 / 8, dtype=torch.float64)
    sample = generate(Unmask(One(), Confidence()), Oracle(law, 2, 3), blank(oracle_a().vocab, 5, 3), noise=NOISE)
    assert sample.order.tolist() == [[0, 1, 2]] * 5


@pytest.mark.parametrize(
    "sampler",
    [
        Unmask(Binomial(1)),
        Unmask(Binomial(3)),
        Unmask(PerStep(2)),
        Unmask(PerStep(2), LeftToRight()),
        Unmask(Binomial(2), Confidence()),
        Blockwise(Unmask(Binomial(2)), 2),
    ],
)
def test_a_product_law_survives_every_sampler(sampler):
    one = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]], dtype=torch.float64)
    joint = torch.einsum("i,j,k->ijk", *one).flatten()
    exact(sampler, Oracle(joint, 3, 3), joint, 3)


def test_causal_is_exact_for_a_model_that_reads_leftwards():
    exact(Causal(), CausalView(oracle_b()), oracle_b().joint(4).table, 4)


def test_causal_conditions_on_the_left_alone():
    model = oracle_b()
    x = torch.full((20_000, 3), 2)
    x[:, 2] = 1  # a prompt on the right, which a causal sampler does not see
    sample = generate(Causal(), model, type(blank(model.vocab, 1, 1)).of(x, vocab=model.vocab), noise=NOISE)
    counts = torch.bincount(sample.canvas.x[:, 0] * 2 + sample.canvas.x[:, 1], minlength=4)
    assert chi_square_p(counts, oracle_b().joint(2).table) > 1e-4


def test_the_order_of_first_hitting_is_uniform():
    sample = generate(Unmask(), TABLE, blank(TABLE.vocab, ROWS, 4), noise=NOISE)
    orders = {order: i for i, order in enumerate(itertools.permutations(range(4)))}
    seen = torch.bincount(torch.tensor([orders[tuple(o)] for o in sample.order.tolist()]), minlength=24)
    assert chi_square_p(seen, torch.full((24,), 1 / 24, dtype=torch.float64)) > 1e-4


def test_subsets_are_uniform():
    chosen = generate(Unmask(PerStep(2)), TABLE, blank(TABLE.vocab, ROWS, 4), noise=NOISE).order == 0
    pairs = torch.bincount((chosen * 2 ** torch.arange(4)).sum(-1), minlength=16)
    law = torch.tensor([1 / 6 if bin(i).count("1") == 2 else 0.0 for i in range(16)], dtype=torch.float64)
    assert chi_square_p(pairs, law) > 1e-4


def test_each_position_opens_by_the_schedule_on_its_own():
    schedule, num_steps = Poly(2.0), 4
    order = generate(Unmask(Binomial(num_steps, schedule)), TABLE, blank(TABLE.vocab, ROWS, 2), noise=NOISE).order
    d = torch.tensor(grid(schedule, num_steps), dtype=torch.float64).diff()
    torch.testing.assert_close(opening_law(schedule, num_steps), d)
    pairs = torch.bincount(order[:, 0] * num_steps + order[:, 1], minlength=num_steps**2)
    assert chi_square_p(pairs, torch.outer(d, d).flatten()) > 1e-4


@pytest.mark.parametrize("schedule", [Linear(), OneMinusCosine(), Poly(0.5)])
def test_hitting_times_are_order_statistics(schedule):
    stats = pytest.importorskip("scipy.stats")
    length, rows = 16, 20_000
    times = hitting_times(NOISE.at("times").uniform(torch.arange(rows)[:, None], 0, torch.arange(length)), schedule)
    assert (times.diff(dim=-1) < 0).all()
    gamma = (1 - schedule.alpha(times)).T
    for k in (0, 1, 7, 15):  # the event that leaves k masks
        assert stats.kstest(gamma[length - 1 - k].numpy(), stats.beta(k + 1, length - k).cdf).pvalue > 1e-4


@pytest.mark.parametrize(
    ("num_steps", "rows", "value"),
    [(1024, 1, 647.5), (2048, 1, 805.98), (10_000, 1, 973.36), (10_000, 4, 3361.0), (10_000, 16, 8057.3)],
)
def test_expected_passes_of_1024_positions(num_steps, rows, value):
    assert expected_passes(Linear(), num_steps, 1024 * rows) == pytest.approx(value, abs=0.06)


@pytest.mark.parametrize("schedule", [Linear(), OneMinusCosine()])
def test_passes_paid_are_those_expected(schedule):
    rows, length, num_steps = 4000, 5, 7
    nfe = generate(Unmask(Binomial(num_steps, schedule)), TABLE, blank(TABLE.vocab, rows, length), noise=NOISE).nfe
    error = nfe.double().std() / math.sqrt(rows)
    assert abs(nfe.double().mean() - expected_passes(schedule, num_steps, length)) < 4 * error


def test_the_last_step_opens_everything():
    for schedule in (Linear(), OneMinusCosine()):
        assert flip_chance(schedule, 3)[-1] == 1
        assert float(opening_law(schedule, 3).sum()) == pytest.approx(1)


@pytest.mark.parametrize(
    "token", [TokenRule(temperature=0.5), TokenRule(top_k=2), TokenRule(top_p=0.7), TokenRule(0.7, 2, 0.9)]
)
def test_tokens_follow_the_rule(token):
    p = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    expected = p ** (1 / token.temperature)
    if token.top_k:
        expected[token.top_k :] = 0
    expected = expected / expected.sum()
    expected = expected * (expected.cumsum(0) - expected < token.top_p)
    exact(Unmask(token=token), Oracle(p, 4, 1), expected / expected.sum(), 1, rows=20_000)


def test_greedy_takes_the_most_likely_and_draws_nothing():
    model = RandomTable(4, Noise.of(8))
    sample = generate(
        Unmask(One(), LeftToRight(), TokenRule(temperature=0.0)), model, blank(model.vocab, 1, 3), noise=NOISE
    )
    assert (sample.token_logp == 0).all()
    x = torch.full((1, 3), 4)
    for j in range(3):
        at = torch.arange(3)[None] == j
        x[0, j] = model(type(sample.canvas).of(x, vocab=model.vocab), at).argmax()
    assert torch.equal(sample.canvas.x, x)


def test_log_probability_of_a_sample_is_that_of_its_path():
    model = oracle_b()
    sample = generate(Unmask(), model, blank(model.vocab, 50, 6), noise=NOISE)
    torch.testing.assert_close(sample.logp, model.log_prob(sample.canvas.x), atol=1e-5, rtol=0)


def test_observed_counts_are_in_lexicographic_order():
    model = Oracle(torch.eye(8, dtype=torch.float64)[3], 2, 3)
    counts = observed(generate(Unmask(), model, blank(model.vocab, 9, 3), noise=NOISE), model.vocab)
    assert counts.tolist() == [0, 0, 0, 9, 0, 0, 0, 0]
    assert states_of(2, 3)[3].tolist() == [0, 1, 1]
