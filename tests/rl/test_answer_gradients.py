"""Updates from finished answers: gradients by finite differences, the penalty towards a reference included."""

import pytest
import torch
from learnable import LearnableTable

from anyorder.core.noise import Noise
from anyorder.likelihood.bound import Rows
from anyorder.rl.advantage import group_advantages
from anyorder.rl.config import ObjectiveConfig
from anyorder.rl.estimators import ESTIMATORS
from anyorder.rl.objective import Extent
from anyorder.rl.update import answer_gradients
from anyorder.testing.oracle import states_of

NOISE = Noise.of(7)
SIZE, LENGTH = 2, 3


def tables():
    """One that learns, the one that wrote, and the reference: all different."""
    one, old, reference = (LearnableTable.random(SIZE, LENGTH, noise=NOISE.at(n)) for n in ("one", "old", "reference"))
    near = LearnableTable((old.logits + 0.1 * one.logits).detach().requires_grad_(), SIZE)
    return near, old, reference


def answers():
    """All eight rows; the first position of each is given."""
    x = states_of(SIZE, LENGTH)
    target = torch.ones_like(x, dtype=torch.bool)
    target[:, 0] = False
    return Rows(x, target, None, torch.arange(len(x)))


def penalty(log_ratio, kind):
    """Of log p - log ref, spelt out."""
    return {"k1": log_ratio, "k2": log_ratio**2 / 2, "k3": (-log_ratio).exp() - 1 + log_ratio}[kind]


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_gradients_of_the_loss_and_its_penalty_are_those_of_finite_differences(name, kind):
    model, old, reference = tables()
    rows, estimator = answers(), ESTIMATORS[name]
    config = ObjectiveConfig(beta=0.3, kl=kind, eps_low=0.9, eps_high=9.0)
    advantages = group_advantages(NOISE.at("reward").uniform(torch.arange(8)), size=4)

    def terms(table):
        with torch.no_grad():
            return estimator(table, rows, noise=NOISE.at("pass")).logp

    def loss(logits):
        logp = terms(LearnableTable(logits, SIZE))
        gain = (logp - terms(old)).exp() * advantages.value[:, None]
        each = torch.where(rows.target, -gain + 0.3 * penalty(logp - terms(reference), kind), 0.0)
        return float((each.sum(-1) / 2).mean())  # two tokens a row, eight rows

    found = answer_gradients(
        model,
        estimator,
        rows,
        advantages,
        noise=NOISE.at("pass"),
        config=config,
        rows_per_pass=3,
        old_logp=terms(old),
        reference=reference,
    )
    assert float(found.penalty) != 0.0
    gradient = model.logits.grad
    step = 1e-5
    for at in (gradient.abs() > 1e-9).nonzero()[::5].tolist():
        turned = torch.zeros_like(gradient)
        turned[tuple(at)] = step
        here = model.logits.detach()
        slope = (loss(here + turned) - loss(here - turned)) / (2 * step)
        assert float(gradient[tuple(at)]) == pytest.approx(slope, abs=1e-8)


def test_a_penalty_without_a_reference_is_refused():
    model, _, _ = tables()
    advantages = group_advantages(torch.arange(8.0).double(), size=4)
    with pytest.raises(ValueError, match="needs ref_logp"):
        answer_gradients(
            model,
            ESTIMATORS["elbo"],
            answers(),
            advantages,
            noise=NOISE,
            config=ObjectiveConfig(beta=0.1),
            rows_per_pass=8,
            old_logp=None,
        )


def test_one_constant_divides_the_sums_of_dr_grpo_however_long_these_answers_are():
    """A step of the short answers alone weighs each token as a step of all of them does."""
    model, _, _ = tables()
    advantages = group_advantages(torch.arange(8.0).double(), size=4)
    found = []
    for longest in (2, 6):
        model.logits.grad = None
        answer_gradients(
            model,
            ESTIMATORS["left-to-right"],
            answers(),
            advantages,
            noise=NOISE,
            config=ObjectiveConfig(normaliser="dr_grpo"),
            rows_per_pass=8,
            old_logp=None,
            whole=Extent(rows=8, tokens=16, max_length=longest),
        )
        found.append(model.logits.grad)
    torch.testing.assert_close(found[0], 3 * found[1])
