"""Held-out problems answered at the mean schedule: how good, how fast, and at which knobs, at every price of a pass."""

import torch
from jaxtyping import Float
from torch import Tensor

from anyorder.core.types import take_rows
from anyorder.data.tasks.base import Problems
from anyorder.rl.judge import Evaluation, Point, kinds
from anyorder.rl.make import asked
from anyorder.rl.parts import mean_table, turned
from anyorder.rl.practice import Stage
from anyorder.rl.rewards import Samples
from anyorder.rl.trajectory import Trajectory
from anyorder.samplers.schedules import Table


def examine(stage: Stage) -> Evaluation:
    """Held-out problems, answered once each, with the same noise every time and at every price.

    Rewards are those before the price is taken off. All figures but the frontier's are those of the lowest price.
    """
    prices, points, practice = stage.config.prices, [], None
    for price in prices:
        reward, taken = answered(stage, stage.lesson.valid, price)
        error = float(reward.std()) / len(reward) ** 0.5
        points.append(Point(price, float(reward.mean()), error, float(taken.nfe.double().mean())))
        if price == prices[0]:
            distinct = kinds(taken.final, group=len(reward)) / len(reward)
            first_ones = take_rows(stage.lesson.valid, torch.arange(len(reward)))
            correct = float(stage.lesson.task.correct(first_ones, taken.final.cpu()).double().mean())
    if stage.config.stop.max_gap is not None:
        practice = float(answered(stage, stage.lesson.train, prices[0])[0].mean())
    first = points[0]
    frontier = tuple(points) if len(points) > 1 else ()
    return Evaluation(first.reward, first.stderr, correct, distinct, first.nfe, practice, frontier)


def schedules(stage: Stage) -> dict[float, Table]:
    """The mean schedule at every price, on held-out problems."""
    num_steps = stage.sampler.steering.num_steps
    return {
        price: mean_table(turned(answered(stage, stage.lesson.valid, price)[1], num_steps))
        for price in stage.config.prices
    }


def answered(stage: Stage, problems: Problems, price: float) -> tuple[Float[Tensor, " B"], Trajectory]:
    """Rewards of the first so many problems."""
    count = min(stage.config.evaluate_problems, len(problems.x0))
    chosen, canvas = asked(problems, torch.arange(count), group=1)
    every = torch.full((count,), price, dtype=torch.float64)
    taken = stage.answer(canvas, noise=stage.noise.at("evaluate"), price=every)
    return stage.lesson.reward(Samples.of(taken.final.cpu(), chosen, task=stage.lesson.task)), taken
