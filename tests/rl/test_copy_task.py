"""The copy task: equal tokens, of which those revealed first are drawn apart from each other and the others copy.

A row succeeds if all N tokens come out equal. Of the k that the first step writes each is one of V with equal chances;
each later one copies with chance rho. So J = V^-(k - 1) rho^(N - k): the schedule decides k, the model rho.
"""

import dataclasses
import math

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.rl.bodies import StepTable
from anyorder.rl.likelihood import rescored
from anyorder.rl.policy import SchedulePolicy
from anyorder.rl.rollout import roll_out
from anyorder.samplers.look import Look
from anyorder.samplers.schedules import hand
from anyorder.samplers.steered import Steered
from anyorder.testing.oracle import vocab_of

NOISE = Noise.of(44)
V, N = 4, 8
VOCAB = vocab_of(V)


class Copies(torch.nn.Module):
    """Before anything is seen every token is as likely; then the first one seen is copied with chance rho."""

    nfe, vocab = 1, VOCAB

    def __init__(self, rho):
        super().__init__()
        self.rho = torch.nn.Parameter(torch.tensor(rho, dtype=torch.float64))

    def __call__(self, canvas, at):
        seen = canvas.x != VOCAB.mask_id
        first = canvas.x.gather(1, seen.long().argmax(-1, keepdim=True))
        law = torch.where(torch.arange(V) == first, self.rho, (1 - self.rho) / (V - 1))
        law = torch.where(seen.any(-1, keepdim=True), law, 1 / V)
        return law.log()[at.nonzero()[:, 0]]


def blank(rows, length=N):
    return Canvas.of(torch.full((rows, length), VOCAB.mask_id), vocab=VOCAB)


def steered(num_steps=2, order="choose_first"):
    """Positions in random order."""
    return Steered(hand("autonat", num_steps, guidance=0.0), order=order, score="none")


def policy(added=0.0, num_steps=2):
    """One that has learned to leave more masks after the first step."""
    made = SchedulePolicy(steered(num_steps).steering, StepTable(num_steps))
    made.body.added.data[0, 0] = added
    return made


def success(model, *, added=0.0, num_steps=2, length=N):
    """J, and how many tokens the first step writes: the chance of one way to succeed, times the number of ways.

    All orders have one chance, so the likelihood of any success that has the counts of a real generation will do.
    """
    sampler = steered(num_steps)
    taken = roll_out(model, sampler, blank(1, length), noise=NOISE, policy=policy(added, num_steps), explore=False)
    equal = dataclasses.replace(
        taken, final=torch.full_like(taken.final, 2), token=torch.where(taken.token >= 0, 2, taken.token)
    )
    logp = sum(rescored("position_first", sampler, model, equal, t).sum() for t in range(num_steps))
    counts = [int(taken.fill(t).sum()) for t in range(num_steps)]
    left = [length - sum(counts[:t]) for t in range(num_steps)]
    ways = V * math.prod(math.perm(n, k) for n, k in zip(left[:-1], counts))  # of the last step no order is told
    return (logp + math.log(ways)).exp(), counts[0]


def worth(model, **given):
    return float(success(model, **given)[0].detach())


@pytest.mark.parametrize(
    ("name", "rho", "added", "k", "expected"),
    [
        ("base", 0.6, 0.0, 3, 0.00486),
        ("schedule only", 0.6, 2.0, 1, 0.02799),
        ("model only", 1.0, 0.0, 3, 0.0625),
        ("both", 1.0, 2.0, 1, 1.0),
        ("base, good at copying", 0.9, 0.0, 3, 0.0625 * 0.9**5),
        ("schedule only, good at copying", 0.9, 2.0, 1, 0.478),
    ],
)
def test_what_each_arm_can_reach(name, rho, added, k, expected):
    """Test T4: the model's arm is not always ahead of the schedule's; both together are."""
    j, first = success(Copies(rho), added=added)
    assert first == k, name
    j = float(j.detach())
    assert j == pytest.approx(V ** -(k - 1) * rho ** (N - k), rel=1e-12)
    assert j == pytest.approx(expected, abs=5e-4 if rho == 0.9 else 5e-6)


def test_arms_in_order():
    """Test T4: both > each > none, whoever of the two is ahead."""
    for rho in (0.6, 0.9):
        none, schedule = (worth(Copies(rho), added=a) for a in (0.0, 2.0))
        model, both = (worth(Copies(1.0), added=a) for a in (0.0, 2.0))
        assert none < min(model, schedule) < max(model, schedule) < both == pytest.approx(1.0)
        assert (model > schedule) == (rho == 0.6)


@pytest.mark.parametrize(("rho", "added"), [(0.6, 0.0), (0.9, 2.0)])
def test_the_likelihood_s_gradient_is_that_of_the_closed_form(rho, added):
    model = Copies(rho)
    j, k = success(model, added=added)
    j.backward()
    assert float(model.rho.grad) == pytest.approx((N - k) * V ** -(k - 1) * rho ** (N - k - 1), rel=1e-12)


@pytest.mark.parametrize("order", ["draw_first", "choose_first"])
@pytest.mark.parametrize(("rho", "added"), [(1.0, 0.0), (0.6, 2.0), (0.9, 2.0)])
def test_so_many_generations_succeed(rho, added, order):
    n = 4000
    taken = roll_out(Copies(rho), steered(order=order), blank(n), noise=NOISE, policy=policy(added), explore=False)
    found = float((taken.final == taken.final[:, :1]).all(-1).double().mean())
    j = worth(Copies(rho), added=added)
    assert abs(found - j) < 4 * math.sqrt(j * (1 - j) / n)


@pytest.mark.parametrize(
    ("length", "num_steps", "expected"), [(8, 2, 1 / 16), (16, 4, 1 / 4), (16, 8, 1), (64, 8, 1 / 4), (64, 16, 1)]
)
def test_an_ideal_model_under_the_cosine(length, num_steps, expected):
    """Test T3."""
    assert worth(Copies(1.0), num_steps=num_steps, length=length) == pytest.approx(expected, rel=1e-9)


def test_first_counts_of_an_exploring_schedule():
    """Test T2: what a logit of N(0, .3^2) on the ratio makes of the first step."""
    grid = torch.linspace(-1.5, 1.5, 60_001, dtype=torch.float64)
    rows, action = len(grid), torch.zeros(len(grid), 4, dtype=torch.float64)
    action[:, 0] = grid
    canvas, turned = blank(rows), policy()
    look = Look(Copies(1.0), canvas, steered().init(canvas, vocab=VOCAB), NOISE)
    step = look.carry.step
    k = steered().how_many(look, turned.knobs(action, step))
    logp, _ = turned.log_prob(torch.zeros(rows, 0), step, action, left=look.left, start=look.left)
    chance = torch.zeros(9, dtype=torch.float64).index_add(0, k, logp.detach().softmax(0))
    assert chance[1:6].tolist() == pytest.approx([0.0002, 0.2343, 0.6571, 0.1067, 0.0017], abs=7e-5)
