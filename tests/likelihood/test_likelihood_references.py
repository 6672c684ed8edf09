"""The estimators of public code: what they are right about, and what not."""

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.likelihood.bound import Rows, count_form
from anyorder.likelihood.by_count import loss_by_count
from anyorder.likelihood.exact import nelbo_enumerated
from anyorder.likelihood.references import llada_counts, llada_form, smdm_form
from anyorder.testing.laws import chi_square_p
from anyorder.testing.oracle import MarkovOracle, RandomTable

NOISE = Noise.of(5)
TABLE = RandomTable(3, Noise.of(2), scale=1.5)
X = torch.tensor([[0, 1, 2, 1, 0, 2], [2, 2, 0, 1, 1, 0]])
TARGET = torch.tensor([[0, 1, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1]]).bool()


def many(form, repeats, **values):
    """Estimates of the first row under many names."""
    rows = Rows(X[:1].repeat(repeats, 1), TARGET[:1].repeat(repeats, 1), None, torch.arange(repeats))
    return form(TABLE, rows, noise=NOISE, **values)


def test_smdms_estimator_is_unbiased():
    got = many(smdm_form, 400, draws=32)
    true = float(nelbo_enumerated(TABLE, X[:1], target=TARGET[:1]))
    assert abs(float(got.nats.mean()) - true) < 4 * float(got.nats.std()) / 20
    assert got.nfe == 32


def test_lladas_counts_are_uniform_only_where_their_group_fits():
    """Total variation from the uniform law: 0.25, 0.125 and 0, as counted by hand."""
    for size, batch, distance in (
        (4, 8, 0.25),
        (12, 8, 0.25),
        (2, 8, 0.125),
        (6, 8, 0.125),
        (4, 16, 0.125),
        (16, 8, 0.0),
    ):
        sizes = torch.full((4000,), size)
        drawn = llada_counts(sizes, torch.arange(4000), groups=1, batch=batch, noise=NOISE).flatten()
        share = torch.bincount(drawn, minlength=size + 1)[1:].double() / len(drawn)
        assert abs(float((share - 1 / size).abs().sum()) / 2 - distance) < 0.03, (size, batch)
    uniform = torch.full((4,), 0.25, dtype=torch.float64)
    drawn = llada_counts(torch.full((2000,), 4), torch.arange(2000), groups=1, batch=8, noise=NOISE)
    assert chi_square_p(torch.bincount(drawn.flatten(), minlength=5)[1:], uniform) < 1e-6


def test_lladas_estimator_is_biased_by_that_and_ours_is_not():
    """T = 6, B = 16: its toy case; the law by enumeration of k."""
    x = torch.tensor([[0, 1, 2, 1, 0, 2]])
    repeats = 500
    chain = MarkovOracle.random(3, noise=Noise.of(3))
    rows = Rows(x.repeat(repeats, 1), torch.ones(repeats, 6) > 0, None, torch.arange(repeats))
    true = float(nelbo_enumerated(chain, x))
    theirs = llada_form(chain, rows, draws=32, noise=NOISE)
    ours = count_form(chain, rows.tokens, target=rows.target, row_id=rows.row_id, draws=32, noise=NOISE)
    error = float(ours.nats.std()) / repeats**0.5
    assert abs(float(ours.nats.mean()) - true) < 4 * error
    counts = llada_counts(torch.full((3000,), 6), torch.arange(3000), groups=1, batch=16, noise=NOISE).flatten()
    share = torch.bincount(counts, minlength=7)[1:].double() / len(counts)
    curve = loss_by_count(
        chain, rows.tokens[:400], target=rows.target[:400], row_id=rows.row_id[:400], counts=range(1, 7), noise=NOISE
    )
    biased = 6 * float((share * torch.tensor([c.nats for c in curve], dtype=torch.float64)).sum())
    assert abs(float(theirs.nats.mean()) - biased) < 5 * float(theirs.nats.std()) / repeats**0.5 + 0.02


@pytest.mark.parametrize("form", [smdm_form, llada_form])
def test_groups_must_fit(form):
    with pytest.raises(ValueError, match="draws=24: must be a multiple of batch=16"):
        many(form, 1, draws=24)
