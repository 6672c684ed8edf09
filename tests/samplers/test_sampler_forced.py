"""Likelihoods of samplers: they sum to one over all texts, for a network that is no law's conditional."""

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.likelihood.exact import nelbo_enumerated
from anyorder.samplers.adaptive import EntropyBound, Factor, Threshold
from anyorder.samplers.base import generate
from anyorder.samplers.count import One, PerStep, Quota
from anyorder.samplers.forced import Forced
from anyorder.samplers.plan import Planned
from anyorder.samplers.position import Confidence, HighestEntropy, LeftToRight, Uniform
from anyorder.samplers.token import TokenRule
from anyorder.samplers.unmask import Unmask
from anyorder.testing.contracts import blank
from anyorder.testing.laws import chi_square_p, order_law
from anyorder.testing.oracle import MarkovOracle, RandomTable, states_of

NOISE = Noise.of(23)
TABLE = RandomTable(3, NOISE.at("table"), scale=1.5)
X0 = states_of(3, 4)


def log_prob(sampler, model=TABLE, x0=X0, row_id=None, noise=NOISE):
    canvas = blank(model.vocab, len(x0), x0.shape[1])
    ids = canvas.row_id if row_id is None else row_id
    canvas = Canvas(canvas.x, canvas.fixed, canvas.window, None, ids)
    sample = generate(Forced(sampler, x0, ids), model, canvas, noise=noise)
    assert torch.equal(sample.canvas.x, x0)
    return sample.logp


POLICIES = {
    "surest first": Unmask(One(), Confidence("prob")),
    "largest margin": Unmask(One(), Confidence("margin")),
    "lowest entropy, two at a time": Unmask(PerStep(2), Confidence("entropy")),
    "highest entropy": Unmask(Quota(3), HighestEntropy()),
    "threshold": Unmask(Threshold(0.6), Confidence("prob")),
    "factor": Unmask(Factor(0.8), Confidence("prob")),
    "entropy bound": Unmask(EntropyBound(0.7), Confidence("entropy")),
    "planned, cool": Unmask(Planned((1, 3)), LeftToRight(), TokenRule(temperature=0.7)),
}


@pytest.mark.parametrize("name", POLICIES)
def test_the_likelihood_of_a_policy_is_a_law(name):
    assert float(log_prob(POLICIES[name]).exp().sum()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("name", ["surest first", "threshold", "entropy bound", "planned, cool"])
def test_and_the_law_is_the_one_the_policy_samples(name):
    law = log_prob(POLICIES[name]).exp()
    x = generate(POLICIES[name], TABLE, blank(TABLE.vocab, 60_000, 4), noise=NOISE).canvas.x
    counts = torch.bincount((x * torch.tensor([27, 9, 3, 1])).sum(-1), minlength=81)
    assert chi_square_p(counts, law / law.sum()) > 1e-4


def test_left_to_right_is_the_chain_rule():
    torch.testing.assert_close(
        log_prob(Unmask(One(), LeftToRight())).exp(), order_law(TABLE, [0, 1, 2, 3]), atol=1e-9, rtol=0
    )


def test_a_random_order_has_the_bound_as_its_mean():
    many = X0.repeat(196, 1)
    draws = -log_prob(Unmask(One(), Uniform()), x0=many, row_id=torch.arange(len(many))).view(196, -1)
    z = (draws.mean(0) - nelbo_enumerated(TABLE, X0)) / (draws.std(0) / 14)
    assert float(z.abs().max()) < 4.5


def test_a_perfect_denoiser_gives_log_p_in_any_order():
    chain = MarkovOracle.random(3, noise=NOISE.at("chain"))
    for name in ("surest first", "largest margin"):
        torch.testing.assert_close(log_prob(POLICIES[name], chain), chain.log_prob(X0), atol=1e-6, rtol=0)


def test_rows_are_found_by_their_names():
    ids = torch.arange(81).flip(0) * 7 + 3
    torch.testing.assert_close(log_prob(POLICIES["threshold"], row_id=ids), log_prob(POLICIES["threshold"]))


def test_drawing_first_has_no_such_likelihood():
    """Its positions depend on tokens that were drawn and thrown away, so forcing the text would not sum to one."""
    first = Unmask(One(), Confidence("drawn"), order="draw_first")
    with pytest.raises(ValueError, match="has no likelihood of this kind; use order='choose_first'"):
        Forced(first, X0, torch.arange(81))
