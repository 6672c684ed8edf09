"""The clipped objective: known answers, and parts that add up to the whole."""

import math

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.rl.advantage import group_advantages
from anyorder.rl.diagnostics import Diagnostics
from anyorder.rl.objective import NORMALISERS, Extent, Objective, mean_log_ratio, row_weights

NOISE = Noise.of(64)
B, L, V = 6, 5, 4
MASK = torch.arange(L) < torch.tensor([5, 3, 4, 1, 5, 2])[:, None]
LENGTHS = MASK.sum(-1)
WHOLE = Extent(rows=B, tokens=int(LENGTHS.sum()), max_length=L)
TOKENS = (NOISE.uniform(torch.arange(B)[:, None], 0, torch.arange(L)) * V).long()
REWARD = NOISE.uniform(torch.arange(B), 1)
ADVANTAGE = group_advantages(REWARD, size=3).value


def logits(step=2):
    return NOISE.normal(torch.arange(B)[:, None, None], step, torch.arange(L * V).view(L, V)).requires_grad_()


def logp_of(theta):
    return theta.log_softmax(-1).gather(-1, TOKENS[..., None]).squeeze(-1)


def old_logp(spread=0.4):
    """Log-probabilities under a policy nearby, so that some ratios leave the clip range on either side."""
    return logp_of(logits() + spread * NOISE.normal(torch.arange(B)[:, None, None], 3, torch.arange(L * V).view(L, V)))


def gradient(value, theta):
    (grad,) = torch.autograd.grad(value, theta, retain_graph=True)
    return grad


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_first_inner_iteration_is_reinforce(level):
    """Test T7: ratio 1, value 0 with centred advantages, the gradient of -mean of A log p."""
    theta = logits()
    logp, weight = logp_of(theta), row_weights(LENGTHS, normaliser="grpo", whole=WHOLE)
    made = Objective(level=level).part(logp, old_logp=logp.detach(), mask=MASK, advantage=ADVANTAGE, weight=weight)
    assert float(made.loss.detach()) == pytest.approx(0, abs=1e-15)
    seen = made.diagnostics.means()
    assert (seen["ratio"], seen["clip_fraction"], seen["old_kl"], seen["farthest"]) == (1.0, 0.0, 0.0, 0.0)
    reinforce = -((logp * MASK).sum(-1) / LENGTHS * ADVANTAGE).mean()
    torch.testing.assert_close(gradient(made.loss, theta), gradient(reinforce, theta), rtol=1e-12, atol=1e-15)
    same = Objective(level=level).part(logp, old_logp=logp, mask=MASK, advantage=ADVANTAGE, weight=weight)
    assert torch.equal(gradient(same.loss, theta), gradient(made.loss, theta))  # nothing flows into the old policy


def test_equal_rewards_have_no_gradient():
    """Test T7."""
    none = group_advantages(torch.full((B,), 0.1).double(), size=3)
    theta, weight = logits(), row_weights(LENGTHS, normaliser="dapo", whole=WHOLE)
    made = Objective().part(logp_of(theta), old_logp=old_logp(), mask=MASK, advantage=none.value, weight=weight)
    assert none.skipped == 2
    assert not bool(gradient(made.loss, theta).any())


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.1, 2.0, -2.2, -2.0),
        (1.5, 2.0, -2.6, 0.0),  # a good token that has risen enough
        (0.5, 2.0, -1.0, -2.0),  # a good token that has fallen is raised
        (0.5, -2.0, 1.8, 0.0),  # a bad token that has fallen enough
        (1.5, -2.0, 3.0, 2.0),  # a bad token that has risen is lowered, without bound
        (0.95, -2.0, 1.9, 2.0),
    ],
)
def test_the_clipped_term_and_its_slope(ratio, advantage, loss, slope):
    """eps_low = .1, eps_high = .3; the slope is by the ratio."""
    logp = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    one = torch.ones(1).double()
    made = Objective(eps_low=0.1, eps_high=0.3).part(
        logp, old_logp=torch.zeros(1, 1).double(), mask=torch.ones(1, 1).bool(), advantage=advantage * one, weight=one
    )
    assert float(made.loss.detach()) == pytest.approx(loss, rel=1e-12)
    assert float(gradient(made.loss, logp)) == pytest.approx(slope * ratio, rel=1e-12)
    assert made.diagnostics.means()["clip_fraction"] == float(slope == 0)


def test_normalisers():
    """What each divides by, from its definition; the loss of every token is 1."""
    per_row = {n: row_weights(LENGTHS, normaliser=n, whole=WHOLE) for n in NORMALISERS}
    rows = {n: (w * LENGTHS).tolist() for n, w in per_row.items()}  # each row's share
    assert rows["grpo"] == pytest.approx([1 / 6] * 6)
    assert rows["bnpo"] == rows["dapo"] == pytest.approx([n / 20 for n in LENGTHS.tolist()])
    assert rows["dr_grpo"] == pytest.approx([n / 30 for n in LENGTHS.tolist()])
    with pytest.raises(ValueError, match=r"normaliser='mean': must be one of"):
        row_weights(LENGTHS, normaliser="mean", whole=WHOLE)


@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_micro_batches_add_up(normaliser):
    """Each normaliser's own idea of the whole: two micro-batches of three rows."""
    term = NOISE.normal(torch.arange(B)[:, None], 4, torch.arange(L))
    got = sum(
        float((row_weights(LENGTHS[part], normaliser=normaliser, whole=WHOLE)[:, None] * term[part] * MASK[part]).sum())
        for part in (slice(0, 3), slice(3, 6))
    )
    rows = (term * MASK).sum(-1)
    halves = rows.view(2, 3).sum(-1) / LENGTHS.view(2, 3).sum(-1)
    expected = {
        "grpo": (rows / LENGTHS).mean(),
        "bnpo": halves.mean(),
        "dr_grpo": rows.sum() / (B * L),
        "dapo": rows.sum() / LENGTHS.sum(),
    }
    assert got == pytest.approx(float(expected[normaliser]), rel=1e-12)


def test_a_sequence_has_one_ratio_the_geometric_mean():
    """GSPO written down directly."""
    theta, old = logits(), old_logp()
    logp, weight = logp_of(theta), row_weights(LENGTHS, normaliser="grpo", whole=WHOLE)
    objective = Objective(eps_low=0.05, eps_high=0.05, level="sequence")
    made = objective.part(logp, old_logp=old, mask=MASK, advantage=ADVANTAGE, weight=weight)
    ratio = (((logp - old.detach()) * MASK).sum(-1) / LENGTHS).exp()
    direct = -torch.minimum(ratio * ADVANTAGE, ratio.clamp(0.95, 1.05) * ADVANTAGE).mean()
    assert 0 < made.diagnostics.means()["clip_fraction"] < 1
    torch.testing.assert_close(made.loss, direct, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient(made.loss, theta), gradient(direct, theta), rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("normaliser", NORMALISERS)
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_step_by_step_is_all_at_once(level, normaliser):
    """Three sampler steps write the tokens; gradients are added up one step at a time, each graph dropped."""
    objective = Objective(eps_low=0.1, eps_high=0.2, level=level, kl="k3", beta=0.05)
    theta, old, reference = logits(), old_logp().detach(), old_logp(0.7).detach()
    weight = row_weights(LENGTHS, normaliser=normaliser, whole=WHOLE)
    whole = objective.part(
        logp_of(theta), old_logp=old, mask=MASK, advantage=ADVANTAGE, weight=weight, ref_logp=reference
    )
    expected, seen = gradient(whole.loss, theta), whole.diagnostics.means()
    assert 0 < seen["clip_fraction"] < 1
    row = mean_log_ratio(logp_of(theta), old, mask=MASK)
    step = (NOISE.uniform(torch.arange(B)[:, None], 5, torch.arange(L)) * 3).long()
    total, watched = 0.0, []
    for k in range(3):
        at = MASK & (step == k)
        logp = torch.where(at, logp_of(theta), math.nan)  # nothing but the step's own tokens is known
        part = objective.part(
            logp, old_logp=old, mask=at, advantage=ADVANTAGE, weight=weight, row_log_ratio=row, ref_logp=reference
        )
        part.loss.backward()
        total += float(part.loss.detach())
        watched.append(part.diagnostics)
    assert total == pytest.approx(float(whole.loss.detach()), rel=1e-12)
    torch.testing.assert_close(theta.grad, expected, rtol=1e-10, atol=1e-15)
    assert (watched[0] + watched[1] + watched[2]).means() == pytest.approx(seen, rel=1e-12)


@pytest.mark.parametrize(
    ("kl", "penalty"),
    [
        ("k1", lambda new, ref: new - ref),
        ("k2", lambda new, ref: (new - ref) ** 2 / 2),
        ("k3", lambda new, ref: (ref - new).exp() - 1 - (ref - new)),
    ],
)
def test_penalty_is_weighted_like_the_loss_and_watched_without_beta(kl, penalty):
    theta, old, reference = logits(), old_logp(), old_logp(0.7)
    weight = row_weights(LENGTHS, normaliser="dapo", whole=WHOLE)

    def made(beta):
        return Objective(kl=kl, beta=beta).part(
            logp_of(theta), old_logp=old, mask=MASK, advantage=ADVANTAGE, weight=weight, ref_logp=reference
        )

    mean = float((penalty(logp_of(theta), reference) * MASK).sum().detach()) / int(LENGTHS.sum())
    assert float((made(0.5).loss - made(0.0).loss).detach()) == pytest.approx(0.5 * mean, rel=1e-10)
    assert made(0.0).diagnostics.means()["penalty"] == pytest.approx(mean, rel=1e-12)
    with pytest.raises(ValueError, match=r"beta=0.5: a KL penalty needs ref_logp"):
        Objective(beta=0.5).part(logp_of(theta), old_logp=old, mask=MASK, advantage=ADVANTAGE, weight=weight)


def test_diagnostics_from_their_definitions():
    theta, old = logits(), old_logp()
    logp = logp_of(theta).detach()
    weight = row_weights(LENGTHS, normaliser="dapo", whole=WHOLE)
    seen = Objective().part(logp, old_logp=old, mask=MASK, advantage=ADVANTAGE, weight=weight).diagnostics.means()
    change, a = (logp - old.detach())[MASK], ADVANTAGE[:, None].expand(B, L)[MASK]
    ratio = change.exp()
    out = ((ratio > 1.2) & (a > 0)) | ((ratio < 0.8) & (a < 0))
    assert seen["clip_fraction"] == float(out.double().mean())
    assert seen["ratio"] == pytest.approx(float(ratio.mean()), rel=1e-12)
    assert seen["old_kl"] == pytest.approx(float((ratio - 1 - change).mean()), rel=1e-9)
    assert seen["entropy"] == pytest.approx(-float(logp[MASK].mean()), rel=1e-12)
    assert seen["farthest"] == pytest.approx(float(change.abs().max()), rel=1e-12)
    none = (
        Objective()
        .part(logp, old_logp=old, mask=torch.zeros_like(MASK), advantage=ADVANTAGE, weight=weight)
        .diagnostics
    )
    assert isinstance(none, Diagnostics)
    assert set(none.means().values()) == {0.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps_low": 1.0}, r"eps_low=1.0.*must be in \[0, 1\)"),
        ({"eps_high": -0.1}, r"eps_high=-0.1"),
        ({"level": "word"}, r"level='word'.*'token', 'sequence'"),
        ({"kl": "k4"}, r"kl='k4'.*'k1', 'k2', 'k3'"),
        ({"beta": -1.0}, r"beta=-1.0: must be >= 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Objective(**options)
