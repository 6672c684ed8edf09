"""Documents in windows: every token once, one window equals the whole, context is read and not scored."""

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.likelihood.bound import count_form
from anyorder.likelihood.rolling import rolling, rolling_rows, windows
from anyorder.testing.oracle import CausalView, MarkovOracle, RandomTable

NOISE = Noise.of(3)
CHAIN = MarkovOracle.random(3, noise=NOISE.at("chain"))
TEXT = CHAIN.sample(1, 23, noise=NOISE.at("text"))[0].tolist()


@pytest.mark.parametrize(("length", "context"), [(5, 0), (5, 2), (5, 4), (23, 7), (30, 0), (1, 0)])
def test_every_token_is_scored_once_and_with_its_context(length, context):
    found = windows(23, length=length, context=context)
    scored = [i for w in found for i in range(w.fresh, w.end)]
    assert scored == list(range(23))
    assert all(w.end - w.begin <= length for w in found)
    assert all(w.fresh - w.begin == context for w in found[1:])
    assert found[0].begin == found[0].fresh == 0


def total(estimates):
    return sum(float(e.nats.sum()) for e in estimates)


def test_one_window_is_the_whole():
    x = torch.tensor([TEXT])
    exact = -float(CHAIN.log_prob(x))
    made = rolling(CausalView(CHAIN), TEXT, estimator="causal", length=23, draws=8, noise=NOISE)
    assert total(made) == pytest.approx(exact, abs=1e-9)
    table = RandomTable(3, Noise.of(2))
    one = rolling(table, TEXT, estimator="count", length=40, context=5, draws=16, noise=NOISE)
    whole = count_form(table, x, target=torch.ones_like(x, dtype=torch.bool), row_id=torch.tensor([0]), draws=16,
                       noise=NOISE)  # fmt: skip
    assert total(one) == float(whole.nats)


def test_context_makes_a_chain_exact_and_none_forgets():
    """A Markov chain needs one token of context: with it the windows add up to the whole document's -log p."""
    exact = -float(CHAIN.log_prob(torch.tensor([TEXT])))
    for estimator, model in (("causal", CausalView(CHAIN)), ("chain", CHAIN)):
        near = rolling(model, TEXT, estimator=estimator, length=6, context=1, draws=8, noise=NOISE, rows_at_once=2)
        assert total(near) == pytest.approx(exact, abs=1e-9)
        apart = rolling(model, TEXT, estimator=estimator, length=6, draws=8, noise=NOISE)
        parts = [TEXT[i : i + 6] for i in range(0, 23, 6)]
        assert total(apart) == pytest.approx(-sum(float(CHAIN.log_prob(torch.tensor([p]))) for p in parts), abs=1e-9)
        assert abs(total(apart) - exact) > 0.1


def test_the_bound_of_windows_is_unbiased_and_does_not_depend_on_the_batch():
    """Consistent conditionals: the bound of targets given their context is their -log p."""
    exact = -float(CHAIN.log_prob(torch.tensor([TEXT])))
    made = rolling(CHAIN, TEXT, estimator="count", length=8, context=2, draws=64, noise=NOISE)
    error = sum(float(e.stderr.square().sum()) for e in made) ** 0.5
    assert abs(total(made) - exact) < 4 * error
    assert 0 < error < 3
    single = rolling(CHAIN, TEXT, estimator="count", length=8, context=2, draws=64, noise=NOISE, rows_at_once=1)
    assert total(single) == pytest.approx(total(made), abs=1e-9)


def test_rows_are_named_by_their_window():
    rows = list(rolling_rows(TEXT, length=6, context=1, rows_at_once=2))
    names = torch.cat([r.row_id for r in rows])
    assert sorted(names.tolist()) == list(range(5))
    last = rows[-1]
    assert last.tokens.tolist() == [TEXT[20:]]
    assert last.target.tolist() == [[False, True, True]]


@pytest.mark.parametrize(
    ("ids", "options", "said"),
    [
        ([], {"length": 4}, "no tokens"),
        (TEXT, {"length": 4, "context": 4}, "context=4: must be between 0 and 3"),
        (TEXT, {"length": 4, "context": -1}, "context=-1"),
        (TEXT, {"length": 4, "estimator": "x"}, "estimator='x'"),
    ],
)
def test_bad_values_are_named(ids, options, said):
    given = {"estimator": "count", "draws": 8, "noise": NOISE, **options}
    with pytest.raises(ValueError, match=said):
        rolling(CHAIN, ids, **given)
