"""Documents in windows: every token once, one window equals the whole, context is read and not scored."""

import math

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.likelihood.bound import count_form
from anyorder.likelihood.rolling import rolling, windows
from anyorder.testing.contracts import CountingDenoiser
from anyorder.testing.oracle import CausalView, MarkovOracle, RandomTable

NOISE = Noise.of(3)
CHAIN = MarkovOracle.random(3, noise=NOISE.at("chain"))
TABLE = RandomTable(3, Noise.of(2))
TEXT = CHAIN.sample(1, 23, noise=NOISE.at("text"))[0].tolist()
TEXTS = [TEXT, TEXT[:5], TEXT[3:19], [1], TEXT[:20], TEXT[2:10] * 4]
NAMES = [5, 2**63 - 2, -7, 11, 2**62, 40]


@pytest.mark.parametrize(("length", "context"), [(5, 0), (5, 2), (5, 4), (23, 7), (30, 0), (1, 0)])
@pytest.mark.parametrize("given", [0, 1])
def test_every_token_is_scored_once_and_with_its_context(length, context, given):
    found = windows(23, length=length, context=context, given=given)
    scored = [i for w in found for i in range(w.fresh, w.end)]
    assert scored == list(range(given, 23))
    assert all(w.end - w.begin <= length for w in found)
    assert all(w.fresh - w.begin == context for w in found[1:])
    assert (found[0].begin, found[0].fresh) == (0, given)


def alone(model, ids, **values):
    """The document by itself."""
    (made,) = rolling(model, [ids], names=[0], **{"draws": 8, "noise": NOISE} | values)
    return made


def test_one_window_is_the_whole():
    x = torch.tensor([TEXT])
    exact = -float(CHAIN.log_prob(x))
    made = alone(CausalView(CHAIN), TEXT, estimator="causal", length=23)
    assert made.nats == pytest.approx(exact, abs=1e-9)
    assert (made.stderr, made.windows, made.nfe, made.num_tokens) == (0.0, 1, 1, 23)
    one = alone(TABLE, TEXT, estimator="count", length=40, context=5, draws=16)
    whole = count_form(
        TABLE, x, target=torch.ones_like(x, dtype=torch.bool), row_id=torch.tensor([0]), draws=16, noise=NOISE
    )
    assert (one.nats, one.stderr) == (float(whole.nats), float(whole.stderr))


def test_context_makes_a_chain_exact_and_none_forgets():
    """A Markov chain needs one token of context: with it the windows add up to the whole document's -log p."""
    exact = -float(CHAIN.log_prob(torch.tensor([TEXT])))
    for estimator, model in (("causal", CausalView(CHAIN)), ("chain", CHAIN)):
        near = alone(model, TEXT, estimator=estimator, length=6, context=1, rows_at_once=2)
        assert near.nats == pytest.approx(exact, abs=1e-9)
        apart = alone(model, TEXT, estimator=estimator, length=6)
        parts = [TEXT[i : i + 6] for i in range(0, 23, 6)]
        assert apart.nats == pytest.approx(-sum(float(CHAIN.log_prob(torch.tensor([p]))) for p in parts), abs=1e-9)
        assert abs(apart.nats - exact) > 0.1
        assert near.nfe == (23 if estimator == "chain" else 5)


def test_tokens_that_are_given_are_read_and_not_scored():
    made = alone(CHAIN, TEXT, estimator="chain", length=6, context=1, given=2)
    first = -float(CHAIN.log_prob(torch.tensor([TEXT[:2]])))
    assert made.nats == pytest.approx(-float(CHAIN.log_prob(torch.tensor([TEXT]))) - first, abs=1e-9)
    assert made.num_tokens == 21


def test_the_bound_of_windows_is_unbiased():
    """Consistent conditionals: the bound of targets given their context is their -log p."""
    exact = -float(CHAIN.log_prob(torch.tensor([TEXT])))
    made = alone(CHAIN, TEXT, estimator="count", length=8, context=2, draws=64)
    assert abs(made.nats - exact) < 4 * made.stderr
    assert 0 < made.stderr < 3


@pytest.mark.parametrize("estimator", ["count", "chain", "causal"])
def test_a_document_has_the_same_values_alone_and_together(estimator):
    model = CausalView(TABLE) if estimator == "causal" else TABLE
    how = {"estimator": estimator, "length": 8, "context": 2, "draws": 8, "noise": NOISE}
    together = rolling(model, TEXTS, names=NAMES, **how)
    for rows_at_once in (1, 5, 64):
        mixed = rolling(model, TEXTS[::-1], names=NAMES[::-1], rows_at_once=rows_at_once, **how)[::-1]
        for ids, name, a, b in zip(TEXTS, NAMES, together, mixed):
            (single,) = rolling(model, [ids], names=[name], rows_at_once=rows_at_once, **how)
            for other in (b, single):
                assert other.nats == pytest.approx(a.nats, abs=1e-9)
                assert other.stderr == pytest.approx(a.stderr, abs=1e-9)
                assert (other.windows, other.nfe, other.num_tokens) == (a.windows, a.nfe, a.num_tokens)


def test_windows_of_a_document_and_other_documents_draw_other_noise():
    same = [TEXT[:6] * 3, TEXT[:6] * 3]
    made = rolling(TABLE, same, names=[0, 2], estimator="count", length=6, draws=8, noise=NOISE)
    parts = [alone(TABLE, TEXT[:6], estimator="count", length=6, noise=NOISE)]
    parts += [
        rolling(TABLE, [TEXT[:6]], names=[n], estimator="count", length=6, draws=8, noise=NOISE)[0] for n in (1, 2)
    ]
    assert len({p.nats for p in parts}) == 3
    assert made[0].nats == pytest.approx(math.fsum(p.nats for p in parts))
    assert made[0].stderr == pytest.approx(math.sqrt(math.fsum(p.stderr**2 for p in parts)))
    assert made[0].nats != made[1].nats


def test_windows_of_all_documents_share_passes():
    counter = CountingDenoiser(TABLE)
    rolling(counter, TEXTS, names=NAMES, estimator="count", length=8, draws=8, noise=NOISE, rows_at_once=200)
    windows_ = sum(-(-len(t) // 8) for t in TEXTS)
    assert counter.calls == 1 + (windows_ * 8 > 200)
    single = CountingDenoiser(TABLE)
    for ids, name in zip(TEXTS, NAMES):
        rolling(single, [ids], names=[name], estimator="count", length=8, draws=8, noise=NOISE, rows_at_once=200)
    assert single.calls == len(TEXTS)


@pytest.mark.parametrize(
    ("ids", "options", "said"),
    [
        ([], {"length": 4}, "no tokens"),
        ([1], {"length": 4, "given": 1}, "no tokens"),
        (TEXT, {"length": 4, "context": 4}, "context=4: must be between 0 and 3"),
        (TEXT, {"length": 4, "context": -1}, "context=-1"),
        (TEXT, {"length": 4, "estimator": "x"}, "estimator='x'"),
    ],
)
def test_bad_values_are_named(ids, options, said):
    with pytest.raises(ValueError, match=said):
        alone(CHAIN, ids, **{"estimator": "count", **options})
