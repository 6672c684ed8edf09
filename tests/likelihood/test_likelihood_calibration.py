"""Stated standard errors: over 1000 seeds, value less truth over the stated error has unit variance.

An error made of R independent estimates has R - 1 degrees of freedom, so the variance is that of Student's t. Seeds are
names of rows, questions or documents, so 1000 of them are one call.
"""

import itertools
import math

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.schedule import Linear, Poly
from anyorder.core.types import Canvas
from anyorder.likelihood.bound import Rows, count_form, time_form
from anyorder.likelihood.by_count import loss_by_count
from anyorder.likelihood.chain import order_mixture
from anyorder.likelihood.conditional import Question, score_answers
from anyorder.likelihood.exact import any_order_mixture, nelbo_enumerated
from anyorder.likelihood.references import llada_form, smdm_form
from anyorder.likelihood.rolling import rolling
from anyorder.testing.oracle import MarkovOracle, RandomTable, states_of

SEEDS = 1000
NOISE = Noise.of(9)
TABLE = RandomTable(3, Noise.of(2), scale=1.5)
X = torch.tensor([[0, 1, 2, 1]])
ROWS = Rows(X.expand(SEEDS, -1), torch.ones(SEEDS, 4) > 0, None, torch.arange(SEEDS))
BOUND, MIXTURE = float(nelbo_enumerated(TABLE, X)), float(any_order_mixture(TABLE, X))
PLACED = {"target": ROWS.target, "row_id": ROWS.row_id, "noise": NOISE, "rows_per_pass": 8192}
R = 16  # independent estimates behind an error


def students(replicates):
    """Variance of a z-score whose error comes from so many independent estimates."""
    return (replicates - 1) / (replicates - 3)


def check(values, errors, truth, *, replicates):
    """No bias that so many seeds could show, and z-scores of the variance they should have, to four errors of it."""
    kurtosis = 3 + 6 / (replicates - 5)  # of Student's t
    error = students(replicates) * math.sqrt((kurtosis - 1) / len(values))  # 0.06 of 1000 seeds
    assert abs(float((values - truth).mean())) < 4 * float((values - truth).std()) / math.sqrt(len(values))
    assert float(((values - truth) / errors).var()) == pytest.approx(students(replicates), abs=4 * error)


FORMS = {
    "count_form": lambda: count_form(TABLE, ROWS.tokens, draws=4 * R, replicates=R, **PLACED),
    "time_form": lambda: time_form(TABLE, ROWS.tokens, draws=4 * R, replicates=R, schedule=Poly(3.0), **PLACED),
    "llada_form": lambda: llada_form(TABLE, ROWS, draws=4 * R, batch=4, noise=NOISE, rows_per_pass=8192),
}


@pytest.mark.parametrize("form", FORMS)
def test_errors_of_the_bound(form):
    """LLaDA's counts are uniform here: its group of 4 fits 4 targets."""
    made = FORMS[form]()
    check(made.nats, made.stderr, BOUND, replicates=R)


@pytest.mark.parametrize("form", ["smdm_form", "time_form, linear"])
def test_weights_of_1_over_t_make_the_error_too_small(form):
    """Their variance is infinite: a rare small t is missing from value and error alike."""
    if form == "smdm_form":
        made = smdm_form(TABLE, ROWS, draws=4 * R, batch=4, noise=NOISE, rows_per_pass=8192)
    else:
        made = time_form(TABLE, ROWS.tokens, draws=4 * R, replicates=R, schedule=Linear(), **PLACED)
    assert 1.25 < float(((made.nats - BOUND) / made.stderr).var()) < 2.5


def test_errors_of_a_mixture_of_orders():
    """Of a logarithm of a mean, so to first order; its bias falls with 1/K, its error with the root."""
    half = {**PLACED, "target": ROWS.target[: SEEDS // 2], "row_id": ROWS.row_id[: SEEDS // 2]}
    made = order_mixture(TABLE, ROWS.tokens[: SEEDS // 2], orders=128, **half)
    z = (made.nats - MIXTURE) / made.stderr
    assert abs(float(z.mean())) < 0.25
    assert float(z.var()) == pytest.approx(1.0, abs=0.25)  # four errors


def test_errors_of_answers_and_of_the_lead_between_them():
    """Questions whose prompts differ draw noise of their own; each has a truth of its own."""
    answers = ((1, 0, 0, 1, 2), (0, 2, 0, 1, 1))
    asked = [Question(p, answers) for p in itertools.islice(itertools.product(range(3), repeat=7), SEEDS)]
    made = score_answers(TABLE, asked, draws=4 * R, noise=NOISE, rows_per_pass=8192)
    x = torch.tensor([[*q.prompt, *a] for q in asked for a in answers])
    truth = nelbo_enumerated(TABLE, x, target=(torch.arange(12) >= 7).expand_as(x)).view(SEEDS, 2)
    nats, errors = (torch.tensor([getattr(m, name) for m in made]).double() for name in ("nats", "stderr"))
    for one in (0, 1):
        check(nats[:, one], errors[:, one], truth[:, one], replicates=R)
    lead = torch.tensor([m.lead.nats * (-1) ** m.best for m in made]).double()
    check(lead, torch.tensor([m.lead.stderr for m in made]).double(), truth[:, 1] - truth[:, 0], replicates=R)


def test_errors_of_documents():
    """Three windows, whose variances add."""
    ids = [0, 1, 2, 1, 2, 0, 0, 1, 1, 0]
    truth = sum(float(nelbo_enumerated(TABLE, torch.tensor([ids[i : i + 4]]))) for i in (0, 4, 8))
    made = rolling(
        TABLE,
        [ids] * SEEDS,
        names=range(0, 3 * SEEDS, 3),
        estimator="count",
        length=4,
        draws=2 * R,
        replicates=R,
        noise=NOISE,
        rows_at_once=8192,
    )
    nats, errors = (torch.tensor([getattr(m, name) for m in made]).double() for name in ("nats", "stderr"))
    check(nats, errors, truth, replicates=R)


def test_errors_over_rows_of_the_loss_by_mask_count():
    """Each seed draws 64 texts of a chain; the truth is the mean over all texts and all sets of two masks."""
    chain, x = MarkovOracle.random(3, noise=Noise.of(3)), states_of(3, 4)
    truth = 0.0
    for pair in itertools.combinations(range(4), 2):
        at = torch.zeros_like(x, dtype=torch.bool).index_fill(1, torch.tensor(pair), True)
        nll = -chain(Canvas.of(x.masked_fill(at, 3), vocab=chain.vocab), at).gather(-1, x[at][:, None])
        truth += float(chain.log_prob(x).exp() @ nll.view(len(x), 2).mean(-1)) / 6
    seeds = SEEDS // 4
    texts = chain.sample(64 * seeds, 4, noise=NOISE.at("texts")).view(seeds, 64, 4)
    everywhere, ids = torch.ones(64, 4) > 0, torch.arange(64)
    made = [
        loss_by_count(chain, t, target=everywhere, row_id=ids + 64 * i, counts=[2], noise=NOISE)[0]
        for i, t in enumerate(texts)
    ]
    nats, errors = (torch.tensor([getattr(m, name) for m in made]).double() for name in ("nats", "stderr"))
    check(nats, errors, truth, replicates=64)
