"""Answers of questions: values against enumeration, common masks, stopping, and independence of the company."""

import itertools
import math

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.guidance.classifier_free import ClassifierFree
from anyorder.likelihood.bound import Rows, count_form
from anyorder.likelihood.chain import chain_rule, exact_causal, order_mixture
from anyorder.likelihood.conditional import Question, score_answers
from anyorder.likelihood.exact import any_order_mixture, nelbo_enumerated
from anyorder.likelihood.settle import lead_of, student_t_tail
from anyorder.likelihood.subsets import subset_form
from anyorder.testing.contracts import CountingDenoiser
from anyorder.testing.laws import order_law
from anyorder.testing.oracle import CausalView, MarkovOracle, RandomTable, states_of

NOISE = Noise.of(5)
TABLE = RandomTable(3, Noise.of(2), scale=1.5)
CHAIN = MarkovOracle.random(3, noise=Noise.of(3))
A = Question((0, 1, 2), ((1, 0, 2, 2, 1, 0), (2, 2), (0,), (1, 1, 0, 2, 1)))
B = Question((2,), ((1, 0, 0, 1, 2, 2, 1), (0, 2, 0, 1, 2, 2, 1)))
LONE = Question((), ((1, 2, 0),))


def enumerated(model, question):
    """The bound of each answer, by another route."""
    out = []
    for answer in question.answers:
        x = torch.tensor([question.prompt + answer])
        target = torch.arange(x.shape[1])[None] >= len(question.prompt)
        out.append(float(nelbo_enumerated(model, x, target=target)))
    return out


def test_values_are_unbiased_and_short_answers_exact():
    found = score_answers(TABLE, [A, B, LONE], draws=64, noise=NOISE)
    for question, got in zip((A, B, LONE), found):
        for nats, error, size, true in zip(
            got.nats, got.stderr, map(len, question.answers), enumerated(TABLE, question)
        ):
            assert abs(nats - true) <= 4 * error + 1e-9
            assert (error == 0) == (size <= 4)
        true = enumerated(TABLE, question)
        assert not got.settled or got.best == true.index(min(true))
    assert found[2].lead.nats == math.inf
    assert found[0].nfe == 64 + 3 + 1 + 64, "sampled, two tokens, one token, sampled"


def test_a_score_does_not_depend_on_its_company():
    alone = score_answers(TABLE, [A], noise=NOISE)[0]
    for company in ([B, A], [A, B, LONE], [LONE, A, A]):
        place = company.index(A)
        got = score_answers(TABLE, company, noise=NOISE, rows_per_pass=37)[place]
        assert got.nats == pytest.approx(alone.nats, abs=1e-9)
        assert (got.nfe, got.settled, got.best) == (alone.nfe, alone.settled, alone.best)


def test_masks_in_common_sharpen_the_difference():
    alike = Question((2, 0), ((1, 0, 0, 1, 2, 2, 1, 0), (1, 0, 0, 1, 2, 2, 1, 2)))
    got = score_answers(CHAIN, [alike], draws=64, noise=NOISE)[0]
    assert got.lead.stderr < 0.85 * math.hypot(*got.stderr)
    assert got.lead.nats == pytest.approx(abs(got.nats[0] - got.nats[1]))


def test_questions_stop_when_their_winner_is_settled():
    clear = Question((0, 1), ((0, 0, 0, 0, 0), (2, 2, 2, 2, 2)))
    close = Question((0, 1), ((0, 0, 1, 2, 2), (0, 0, 1, 2, 2)))
    sure = MarkovOracle(torch.tensor([0.8, 0.1, 0.1]).double(), torch.tensor([[0.8, 0.1, 0.1]] * 3).double())
    found = score_answers(sure, [clear, close], noise=NOISE)
    assert found[0].settled
    assert found[0].nfe == 16
    assert found[1].settled, "equal answers cannot be told apart by more draws"
    strict = score_answers(TABLE, [B], noise=NOISE, level=1e-12)[0]
    assert strict.nfe == 2 * 256
    assert not strict.settled


def test_wrong_winners_are_as_rare_as_stated():
    """Of a chain only the last token of a prompt matters; those before it give every question draws of its own."""
    answers = (1, 0, 0, 1, 2, 2, 1), (2, 2, 1, 0, 0, 0, 2)
    first, second = (float(CHAIN.log_prob(torch.tensor([[2, *answer]]))) for answer in answers)
    assert 0.05 < abs(first - second) < 0.1
    asked = [Question((*p, 2), answers) for p in itertools.islice(itertools.product(range(3), repeat=5), 100)]
    made = score_answers(CHAIN, asked, noise=NOISE, level=0.2, rows_per_pass=4096)
    wrong = sum(m.settled and m.best != (second > first) for m in made)
    assert wrong <= 0.2 * 100 + 3 * (0.16 * 100) ** 0.5
    assert sum(m.nfe for m in made) < 100 * 2 * 256, "nothing stopped early"


def test_chain_and_causal_are_exact():
    for estimator, model in (("chain", CHAIN), ("causal", CausalView(CHAIN))):
        got = score_answers(model, [A, B], estimator=estimator, noise=NOISE)
        for question, found in zip((A, B), got):
            for nats, answer in zip(found.nats, question.answers):
                path = (question.prompt[-1], *answer)
                assert nats == pytest.approx(
                    -sum(float(CHAIN.transition[a, b].log()) for a, b in itertools.pairwise(path))
                )
            assert found.settled
        assert got[0].nfe == (14 if estimator == "chain" else 4)


def test_the_chain_rule_is_the_law_of_its_order():
    x = states_of(3, 4)
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        when = torch.tensor(order).argsort().expand(x.shape)
        got = chain_rule(TABLE, x, target=torch.ones_like(x) > 0, order=when, rows_per_pass=50)
        torch.testing.assert_close((-got.nats).exp(), order_law(TABLE, order))
    assert got.nfe == 4


def test_a_mixture_of_orders_tightens_the_bound():
    x = torch.tensor([[0, 1, 2, 1], [2, 2, 0, 1]])
    target, ids = torch.ones_like(x) > 0, torch.arange(2)
    exact, bound = any_order_mixture(TABLE, x), nelbo_enumerated(TABLE, x)

    def mean(orders, count):
        """So many values of each text: every name of a row has orders of its own."""
        names, every = torch.arange(2 * count), x.repeat(count, 1)
        made = order_mixture(
            TABLE, every, target=every >= 0, row_id=names, orders=orders, noise=NOISE, rows_per_pass=999
        )
        return made.nats.view(count, 2)

    one, eight = mean(1, 400), mean(8, 100)
    for values, true in ((one, bound),):
        assert ((values.mean(0) - true).abs() < 4 * values.std(0) / len(values) ** 0.5).all()
    assert (eight.mean(0) < one.mean(0)).all()
    assert (eight.mean(0) > exact - 4 * eight.std(0) / 10).all()
    big = order_mixture(TABLE, x, target=target, row_id=ids, orders=200, noise=NOISE)
    assert ((big.nats - exact).abs() < 5 * big.stderr).all()
    assert order_mixture(TABLE, x, target=target, row_id=ids, orders=1, noise=NOISE).stderr.isnan().all()


def test_subsets_are_the_bound_without_draws():
    x = torch.tensor([[0, 1, 2, 1, 0], [2, 2, 0, 1, 0]])
    target = torch.tensor([[0, 1, 1, 0, 1], [1, 1, 0, 1, 0]]).bool()
    counter = CountingDenoiser(TABLE)
    got = subset_form(counter, Rows(x, target, None, torch.arange(2)), rows_per_pass=4)
    torch.testing.assert_close(got.nats, nelbo_enumerated(TABLE, x, target=target))
    assert got.nfe == 7 == counter.passes[0]
    with pytest.raises(ValueError, match="must have the same number"):
        subset_form(TABLE, Rows(x, target & (torch.arange(5) > 0), None, torch.arange(2)))


def test_one_token_answers_agree_whatever_the_estimator():
    """Of one token every estimator is its log-probability."""
    x, target, ids = torch.tensor([[0, 1, 2]]), torch.tensor([[False, False, True]]), torch.tensor([0])
    values = {
        float(count_form(TABLE, x, target=target, row_id=ids, draws=4, noise=NOISE).nats),
        float(chain_rule(TABLE, x, target=target).nats),
        float(subset_form(TABLE, Rows(x, target, None, ids)).nats),
        float(order_mixture(TABLE, x, target=target, row_id=ids, orders=3, noise=NOISE).nats),
        float(exact_causal(CausalView(TABLE), x, target=target).nats),
    }
    assert max(values) - min(values) < 1e-12


def test_guided_answers_are_scores_of_the_guided_model():
    guided = ClassifierFree(CHAIN, 1.0)
    got = score_answers(guided, [A], draws=8, noise=NOISE)[0]
    assert got.nfe == 2 * (8 + 3 + 1 + 8)
    assert got.nats[2] != pytest.approx(score_answers(CHAIN, [A], draws=8, noise=NOISE)[0].nats[2])


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_leads(scale):
    means = torch.tensor([[3.0, 3.2, 2.8, 3.0], [2.0, 2.1, 2.2, 1.7], [2.5, 2.4, 2.7, 2.4]]).double() * (scale or 0.5)
    lead = lead_of(means)
    assert lead.nats == pytest.approx(0.5 * (scale or 0.5))
    assert len(lead.p_values) == 2
    assert lead.p_values[0] < lead.p_values[1] < 0.05


def test_students_tail_has_known_values():
    stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 2, 3, 7, 8, 31):
        for t in (-3.0, -0.4, 0.0, 0.7, 2.5, 9.0):
            assert student_t_tail(t, freedom) == pytest.approx(float(stats.t.sf(t, freedom)), abs=1e-14)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"estimator": "guess"}, "estimator='guess': must be one of count, chain, causal"),
        ({"draws": 4}, "draws=4: must be a multiple of 4 from 8 on"),
        ({"draws": 10}, "draws=10: must be a multiple of 4 from 8 on"),
        ({"level": 0.0}, r"level=0.0: must be in \(0, 1\)"),
    ],
)
def test_bad_values_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        score_answers(TABLE, [A], noise=NOISE, **values)


def test_questions_need_answers():
    with pytest.raises(ValueError, match="there are none"):
        Question((1,), ())
    with pytest.raises(ValueError, match=r"answers\[1\]: has no tokens"):
        Question((1,), ((1,), ()))
