"""Exact likelihoods are laws: over all that can happen in a small game they sum to one, and generations follow them."""

import dataclasses
import itertools
from functools import cache

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.rl.advantage import Advantages
from anyorder.rl.bodies import StepTable
from anyorder.rl.config import ObjectiveConfig
from anyorder.rl.likelihood import counted, rescored
from anyorder.rl.policy import SchedulePolicy, squash, unsquash
from anyorder.rl.rollout import roll_out
from anyorder.rl.trajectory import NEVER, Trajectory
from anyorder.rl.update import model_gradients
from anyorder.samplers.schedules import Table
from anyorder.samplers.steered import Steered
from anyorder.testing.laws import chi_square_p
from anyorder.testing.oracle import RandomTable

NOISE = Noise.of(71)
MODEL = RandomTable(2, NOISE)
LENGTH = 5  # a prompt of one token, then four to write
TABLES = {
    (2, 2): Table(((0.5, 0.8, 0.6, 0.7), (0.0, 1.0, 1.3, 0.4))),
    (1, 2, 1): Table(((0.75, 1.5, 1.0, 0.0), (0.25, 0.6, 0.7, 1.1), (0.0, 0.5, 1.0, 0.3))),
}


def prompts(rows):
    x = torch.full((rows, LENGTH), MODEL.vocab.mask_id)
    x[:, 0] = 1
    return Canvas.of(x, vocab=MODEL.vocab)


def decisions(free, k, order, *, last):
    """All that a step can decide at its free positions: what is drawn, and the kept positions in order."""
    chosen = [tuple(free)] if last else list(itertools.permutations(free, k))
    for kept in chosen:
        drawn = free if order == "draw_first" else kept
        for tokens in itertools.product(range(MODEL.size), repeat=len(drawn)):
            yield dict(zip(drawn, tokens)), kept


def courses(counts, order, free=tuple(range(1, LENGTH))):
    """Every sequence of decisions."""
    if not counts:
        yield []
        return
    for drawn, kept in decisions(free, counts[0], order, last=len(counts) == 1):
        rest = tuple(i for i in free if i not in kept)
        for later in courses(counts[1:], order, rest):
            yield [(drawn, kept), *later]


@cache
def every_trajectory(counts, order):
    """As one batch, without recorded log-probabilities."""
    found = list(courses(counts, order))
    num_steps, rows = len(counts), len(found)
    final, written = torch.ones(rows, LENGTH).long(), torch.full((rows, LENGTH), NEVER)
    token, rank = (torch.full((num_steps, rows, LENGTH), -1) for _ in range(2))
    for row, course in enumerate(found):
        for t, (drawn, kept) in enumerate(course):
            for position, value in drawn.items():
                token[t, row, position] = value
            for place, position in enumerate(kept):
                rank[t, row, position], written[row, position] = place, t
                final[row, position] = drawn[position]
    zeros, knobs = torch.zeros(num_steps, rows, LENGTH).double(), torch.zeros(num_steps, rows, 4).double()
    return Trajectory(
        final=final,
        written=written,
        fixed=torch.arange(LENGTH).expand(rows, -1) == 0,
        segment=torch.ones(rows, LENGTH).long(),
        row_id=torch.arange(rows),
        token=token,
        logp=zeros,
        order_logp=zeros,
        rank=rank,
        setting=TABLES[counts].tensor[:, None].expand(num_steps, rows, 4),
        action=knobs,
        mean=knobs,
        feature=torch.zeros(num_steps, rows, 0),
        nfe=torch.zeros(rows).long(),
    )


def outcome(taken):
    """What came out, in which step, and in which place of it; in the last step all places are as good."""
    return torch.cat([taken.final, taken.written, *taken.rank[:-1]], -1)


GAMES = [
    ("augmented", "draw_first", "prob", False),
    ("augmented", "draw_first", "prob", True),
    ("position_first", "choose_first", "prob", False),
    ("position_first", "choose_first", "margin", True),
    ("position_first", "choose_first", "none", False),
]


@pytest.mark.parametrize("counts", TABLES)
@pytest.mark.parametrize(("kind", "order", "score", "tempered"), GAMES)
def test_all_trajectories_sum_to_one_and_come_so_often(counts, kind, order, score, tempered):
    """Guided, at several temperatures; against frequencies of rows, of when each token came, and of its place then."""
    sampler = Steered(TABLES[counts], order=order, score=score, tempered=tempered)
    every = every_trajectory(counts, order)
    chance = sum(rescored(kind, sampler, MODEL, every, t).sum(-1) for t in range(len(counts))).exp()
    assert float(chance.sum()) == pytest.approx(1.0, abs=1e-12)
    n = 6000
    taken = roll_out(MODEL, sampler, prompts(n), noise=NOISE, policy=None, explore=False)
    cells = torch.cat([outcome(every), outcome(taken)])
    _, cell = torch.unique(cells, dim=0, return_inverse=True)
    law = torch.zeros(int(cell.max()) + 1, dtype=torch.float64).index_add(0, cell[: len(chance)], chance)
    seen = torch.bincount(cell[len(chance) :], minlength=len(law))
    assert chi_square_p(seen, law) > 1e-4


def test_orders_of_one_set_add_up_to_the_set_s_own_likelihood():
    """`Steered.log_prob` knows which positions were written, not in which order of the race."""
    counts = (2, 2)
    sampler, every = Steered(TABLES[counts], order="choose_first"), every_trajectory(counts, "choose_first")
    chance = rescored("position_first", sampler, MODEL, every, 0).sum(-1).exp()
    canvas = prompts(1)
    carry = sampler.init(canvas, vocab=MODEL.vocab)
    after = torch.where(every.fill(0) | every.fixed, every.final, MODEL.vocab.mask_id)
    for x in torch.unique(after, dim=0):
        same = (after == x).all(-1)
        orders, first = torch.unique(every.rank[0][same], dim=0, return_inverse=True)
        once = torch.stack([chance[same][first == i][0] for i in range(len(orders))])
        assert len(orders) == 2
        written = Canvas(x[None], canvas.fixed, canvas.window, None, canvas.row_id)
        assert float(once.sum().log()) == pytest.approx(
            float(sampler.log_prob(MODEL, canvas, carry, written)), abs=1e-12
        )


@pytest.mark.parametrize(("kind", "order", "score", "tempered"), GAMES)
def test_the_gradient_of_knobs_through_the_likelihood_is_that_of_the_expected_reward(kind, order, score, tempered):
    """Every trajectory by its chance, against central differences; the ratio, which decides the counts, gets none."""
    counts = (2, 2) if order == "draw_first" else (1, 2, 1)  # drawing all positions has eight times as many
    steps = len(counts)
    sampler = Steered(TABLES[counts], order=order, score=score, tempered=tempered)
    every = every_trajectory(counts, order)
    policy = SchedulePolicy(TABLES[counts], StepTable(steps), explore="ratio").double()
    reward = NOISE.at("reward").uniform(torch.arange(len(every.final)))

    def logp(added):
        with torch.no_grad():
            policy.body.added.copy_(added)
            hand = TABLES[counts].tensor
            knobs = torch.where(hand > 0, squash(unsquash(hand) + added), 0.0)  # what is off stays off
            setting = torch.cat([every.setting[..., :1], knobs[:, None, 1:].expand(steps, len(every.final), 3)], -1)
            under = dataclasses.replace(every, setting=setting)
            return torch.stack([rescored(kind, sampler, MODEL, under, t) for t in range(steps)])

    at, width = 0.3 * NOISE.at("added").normal(torch.arange(4 * steps)).view(steps, 4).double(), 1e-5
    want = torch.zeros(4 * steps, dtype=torch.float64)
    for i in range(4 * steps):
        step = torch.zeros(4 * steps, dtype=torch.float64).index_fill(0, torch.tensor([i]), width).view(steps, 4)
        up, down = (float((logp(at + s).sum((0, 2)).exp() * reward).sum()) for s in (step, -step))
        want[i] = (up - down) / (2 * width)
    drew = logp(at)
    tokens = sum(int(counted(kind, every, t).sum()) for t in range(steps))
    taken = dataclasses.replace(every, logp=drew)  # order_logp is 0 there: nothing but their sum is read
    weight = drew.sum((0, 2)).exp() * reward * tokens  # which the normaliser divides by
    model_gradients(
        MODEL,
        sampler,
        taken,
        Advantages(weight, torch.tensor([True])),
        kind=kind,
        config=ObjectiveConfig(normaliser="dapo"),
        rows_per_pass=len(weight),
        policy=policy,
    )
    found = -policy.body.added.grad
    torch.testing.assert_close(found.flatten(), want, rtol=1e-6, atol=1e-9)
    assert found[:, 0].abs().max() == 0
    assert found[:, 1:].abs().max() > 1e-3
