"""From a configuration and a model to the parts of a run: sampler, schedule policy, problems, reward."""

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from anyorder.core.config import nearest
from anyorder.core.noise import Noise
from anyorder.core.types import Canvas, take_rows
from anyorder.data.tasks import TASKS, Task, make_task
from anyorder.data.tasks.base import PracticeTask, Problems, ValidatedTask
from anyorder.models.transformer import Transformer
from anyorder.rl.bodies import Adaptive, Figures, StepTable
from anyorder.rl.config import RlConfig, ScheduleConfig
from anyorder.rl.counts import Counts
from anyorder.rl.estimators import ESTIMATORS
from anyorder.rl.likelihood import LIKELIHOODS, ORDERED, check_likelihood
from anyorder.rl.policy import Body, SchedulePolicy
from anyorder.rl.rewards import Reward, Weighted, make_reward
from anyorder.samplers.schedules import Table, hand, read_schedule
from anyorder.samplers.steered import Steered


@dataclass(frozen=True)
class Lesson:
    """What is asked, and what an answer is worth.

    Args:
        train: problems that are learned from.
        valid: problems that are evaluated on while learning; test problems are left to studies.
    """

    task: Task
    reward: Reward
    train: Problems
    valid: Problems

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest answer that is learned from."""
        return int(self.train.canvas.open(self.task.tokenizer.vocab).sum(-1).max())


def make_lesson(config: RlConfig) -> Lesson:
    """The task's problems and the reward.

    Raises:
        ValueError: a task without training problems or checker, or an unknown reward.
    """
    task, noise = make_task(config.task), Noise.of(config.seed).at("task")
    if not isinstance(task, PracticeTask):
        able = ", ".join(sorted(name for name, made in TASKS.items() if isinstance(made(), PracticeTask)))
        raise ValueError(f"task={config.task!r}: has no problems to learn from; tasks that have some: {able}")
    reward = make_reward(config.reward, task=task)
    if config.reward_scale and not isinstance(reward, Weighted):
        raise ValueError(f"reward_scale=true: reward={config.reward!r} is no sum of terms that could be scaled apart")
    valid = task.valid(noise=noise) if isinstance(task, ValidatedTask) else task.test(noise=noise)
    return Lesson(task, reward, task.train_problems(noise=noise), valid)


def make_table(config: ScheduleConfig) -> Table:
    """The schedule made by hand, or read from a file."""
    if config.hand.endswith(".json"):
        return table_of(Path(config.hand))
    return hand(config.hand, config.num_steps, ranking=config.ranking, guidance=config.guidance)


def make_steered(config: RlConfig) -> Steered:
    """The sampler under the schedule made by hand.

    Raises:
        ValueError: an unknown likelihood, or one that its steps do not have.
    """
    known = (*LIKELIHOODS, *ESTIMATORS)
    if config.likelihood not in known:
        raise ValueError(f"likelihood={config.likelihood!r}: unknown; {nearest(config.likelihood, known)}")
    if config.schedule.explore == "ratio" and config.likelihood not in ORDERED:
        raise ValueError(
            f"schedule.explore='ratio': the other knobs are learned through an exact likelihood, which "
            f"likelihood={config.likelihood!r} is not; use augmented, or position_first with choose_first"
        )
    sampler = Steered(make_table(config.schedule), **config.sampler.model_dump())
    if config.likelihood not in ESTIMATORS:
        check_likelihood(config.likelihood, sampler)
    return sampler


def make_policy(config: RlConfig, model: nn.Module, task: Task) -> SchedulePolicy:
    """The schedule policy, which begins as the schedule made by hand.

    Raises:
        ValueError: a body that needs what model or task do not have.
    """
    c, noise = config.schedule, Noise.of(config.seed).at("policy")
    table = make_table(c)
    prices = None if config.step_price_max is None else (config.step_price, config.step_price_max)
    return SchedulePolicy(
        table,
        _body(c, table.num_steps, model, task, noise, priced=prices is not None),
        std=c.std,
        explore=c.explore,
        counts=Counts(c.concentration) if c.counts else None,
        may_finish=config.sampler.may_finish,
        prices=prices,
    )


def _body(c: ScheduleConfig, num_steps: int, model: nn.Module, task: Task, noise: Noise, *, priced: bool) -> Body:
    if c.body == "table":
        return StepTable(num_steps, priced=priced)
    if c.body == "figures":
        return Figures(num_steps, width=c.width, priced=priced, noise=noise)
    side = getattr(task, "grid", None)
    if not isinstance(model, Transformer) or model.config.causal or not isinstance(side, int):
        raise ValueError(
            "schedule.body=adaptive: sees the states of a masked model of ours on a token grid, as task scenes has; "
            "use 'figures' or 'table'"
        )
    tower = copy.deepcopy(model).requires_grad_(False).eval()
    return Adaptive(tower, (side, side), priced=priced, noise=noise)


def asked(problems: Problems, rows: torch.Tensor, *, group: int, first: int = 0) -> tuple[Problems, Canvas]:
    """Some problems, each as often as a group has members; rows are named from `first`."""
    chosen = take_rows(problems, rows.repeat_interleave(group))
    ids = torch.arange(first, first + len(rows) * group, device=rows.device)
    canvas = chosen.canvas
    return chosen, Canvas(canvas.x, canvas.fixed, canvas.window, canvas.segment, ids)


def table_of(path: Path) -> Table:
    """The schedule of a file; what else the file says of the sampler is left to the configuration."""
    steering = read_schedule(path).steering
    assert isinstance(steering, Table)
    return steering
