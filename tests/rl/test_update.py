"""Gradients that are added up step by step, against losses written down whole: off policy, clipped, with a penalty."""

import dataclasses
import itertools

import pytest
import torch
from learnable import LearnableTable

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.rl.advantage import group_advantages
from anyorder.rl.bodies import StepTable
from anyorder.rl.config import ObjectiveConfig
from anyorder.rl.counts import Counts
from anyorder.rl.likelihood import LIKELIHOODS, counted, recorded, rescored
from anyorder.rl.policy import SchedulePolicy
from anyorder.rl.rollout import roll_out
from anyorder.rl.update import model_gradients, schedule_gradients, schedule_terms
from anyorder.samplers.schedules import Table
from anyorder.samplers.steered import Steered
from anyorder.testing.oracle import vocab_of

NOISE = Noise.of(83)
SIZE, LENGTH, GROUP = 3, 4, 4
TABLE = Table(((0.6, 1.0, 1.0, 0.0), (0.3, 0.7, 0.8, 0.0), (0.0, 1.0, 1.2, 0.0)))


def moved(table, amount):
    """A table nearby."""
    shift = NOISE.at("moved").normal(torch.arange(table.logits.numel())).view(table.logits.shape)
    return LearnableTable((table.logits + amount * shift).detach().requires_grad_(), SIZE)


def record(kind="fill", *, std=1.5, counts=None):
    """Six groups under an exploring policy, whose rows end after one step, two or three; and who drew them."""
    model = LearnableTable.random(SIZE, LENGTH, noise=NOISE)
    sampler = Steered(TABLE, order=LIKELIHOODS[kind] or "draw_first", may_finish=True)
    policy = SchedulePolicy(TABLE, StepTable(3), std=std, counts=counts).double()
    x = torch.full((6 * GROUP, LENGTH), SIZE)
    x[:, 0] = torch.arange(6 * GROUP) // GROUP % SIZE
    canvas = Canvas.of(x, vocab=model.vocab)
    taken = roll_out(model, sampler, canvas, noise=NOISE, policy=policy, explore=True)
    return model, sampler, policy, taken


def advantages():
    """Of random rewards; two groups have no variance."""
    reward = NOISE.at("reward").uniform(torch.arange(6 * GROUP))
    reward[:GROUP], reward[3 * GROUP : 4 * GROUP] = 0.5, 0.1
    return group_advantages(reward, size=GROUP)


def clipped(ratio, a, low, high):
    return -torch.minimum(ratio * a, ratio.clamp(1 - low, 1 + high) * a)


def terms(kind, sampler, model, taken, row):
    """New, old and counted of one row, over all its steps."""
    found = []
    for t in range(taken.num_steps):
        some = taken.rows(torch.tensor([row]))
        if bool(some.live(t)):
            at = counted(kind, some, t)
            found.append((rescored(kind, sampler, model, some, t)[at], recorded(kind, some, t)[at]))
    return torch.cat([new for new, _ in found]), torch.cat([old for _, old in found])


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("kind", LIKELIHOODS)
def test_the_model_s_loss(kind, level):
    old, sampler, _, taken = record(kind)
    model, reference, weights = moved(old, 0.3), moved(old, -0.2), advantages()
    config = ObjectiveConfig(eps_low=0.1, eps_high=0.15, level=level, kl="k3", beta=0.4)
    rows = weights.live_rows.nonzero().squeeze(-1).tolist()
    assert len(rows) == 4 * GROUP
    loss, spans = 0.0, set()
    for row in rows:
        new, before = terms(kind, sampler, model, taken, row)
        apart = new - terms(kind, sampler, reference, taken, row)[0].detach()
        change = new - before if level == "token" else (new - before).mean()
        term = clipped(change.exp(), weights.value[row], 0.1, 0.15)
        loss = loss + (term.mean() + 0.4 * ((-apart).exp() - 1 + apart).mean()) / len(rows)
        spans.add(sum(bool(taken.live(t)[row]) for t in range(3)))
    assert spans == {1, 2, 3}
    (want,) = torch.autograd.grad(loss, model.logits)
    for rows_per_pass in (100, 3):
        model.logits.grad = None
        found = model_gradients(
            model,
            sampler,
            taken,
            weights,
            kind=kind,
            config=config,
            rows_per_pass=rows_per_pass,
            reference=reference,
        )
        assert 0 < found.means()["clip_fraction"] < 1
        torch.testing.assert_close(model.logits.grad, want, rtol=1e-9, atol=1e-14)


def test_the_schedule_s_loss():
    _, _, policy, taken = record()
    weights, std = advantages(), policy.std
    with torch.no_grad():
        drew = schedule_terms(policy, taken)[0]
        policy.body.added.copy_(0.4 * NOISE.at("added").normal(torch.arange(12)).view(3, 4))
    config = ObjectiveConfig(eps_low=0.1, eps_high=0.3, beta_schedule=0.7)
    rows = weights.live_rows.nonzero().squeeze(-1).tolist()
    loss = 0.0
    for row in rows:
        steps = [t for t in range(3) if bool(taken.live(t)[row])]
        for t in steps:
            mean, action = policy.body.added[t], taken.action[t, row]
            change = (action.square() - (action - mean).square()).sum() / (2 * std**2)  # it was drawn around 0
            kl = mean.square().sum() / (2 * std**2)
            term = clipped(change.exp(), weights.value[row], 0.1, 0.3) + 0.7 * kl
            loss = loss + term / len(steps) / len(rows)
    (want,) = torch.autograd.grad(loss, policy.body.added)
    found = schedule_gradients(policy, taken, weights, old_logp=drew, config=config)
    assert 0 < found.means()["clip_fraction"] < 1
    torch.testing.assert_close(policy.body.added.grad, want, rtol=1e-9, atol=1e-14)


def test_chances_of_all_counts_sum_to_one():
    """Of four steps over seven masks: every way to write at least one in each."""
    table = Table(((0.7, 1.0, 1.0, 0.0), (0.5, 1.0, 1.0, 0.0), (0.2, 1.0, 1.0, 0.0), (0.0, 1.0, 1.0, 0.0)))
    policy = SchedulePolicy(table, StepTable(4), counts=Counts(3.0)).double()
    with torch.no_grad():
        policy.body.added[:, 0] = torch.tensor([0.5, -1.0, 0.3, 0.0])
    ways = [c for c in itertools.product(range(1, 5), repeat=4) if sum(c) == 7]
    canvas = Canvas.of(torch.full((len(ways), 7), 5), vocab=Even.vocab)
    taken = roll_out(Even(), Steered(table), canvas, noise=NOISE, policy=policy, explore=False)
    counts = torch.tensor(ways)
    written = torch.stack([torch.arange(4).repeat_interleave(c) for c in counts])
    action = taken.mean.clone()
    action[..., 0] = counts.T.double()
    logp, _ = schedule_terms(policy, dataclasses.replace(taken, written=written, action=action))
    assert logp.shape == (20, 4)
    assert float(logp.sum(-1).exp().sum().detach()) == pytest.approx(1.0, abs=1e-12)
    assert not bool(logp[:, 3].any())  # what is left is written


class Even:
    """Every token is as likely."""

    nfe, vocab = 1, vocab_of(5)

    def __call__(self, canvas, at):
        return torch.zeros(int(at.sum()), self.vocab.size, dtype=torch.float64)


def test_nothing_is_added_where_no_group_has_variance():
    model, sampler, policy, taken = record()
    none = group_advantages(torch.ones(6 * GROUP, dtype=torch.float64), size=GROUP)
    config, old = ObjectiveConfig(), schedule_terms(policy, taken)[0].detach()
    assert model_gradients(model, sampler, taken, none, kind="fill", config=config, rows_per_pass=9) is None
    assert schedule_gradients(policy, taken, none, old_logp=old, config=config) is None
    assert model.logits.grad is None
    assert policy.body.added.grad is None
