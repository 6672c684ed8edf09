"""What a model writes under a schedule: right answers by number of steps, and how much alike answers are."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from anyorder.core.files import read_object, write_atomic
from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import take_rows
from anyorder.data.tasks import Task, make_task
from anyorder.data.tasks.base import Problems
from anyorder.data.tasks.scenes import Scenes
from anyorder.hub.find import model_folder
from anyorder.hub.load import load_model
from anyorder.rl.make import asked
from anyorder.samplers.base import generate
from anyorder.samplers.schedules import Table, hand
from anyorder.samplers.steered import Steered

MEASURED: Final = "measured.json"
AT_ONCE: Final = 200  # rows


@dataclass(frozen=True)
class Exam:
    """What is measured.

    Args:
        problems: test problems at the schedule's own number of steps.
        steps: other numbers of steps, by `Table.stretched`, on the first `fewer` problems.
        hands: schedules made by hand, measured at the own number of steps.
        prompts, answers: test problems answered so many times each, for diversity.
    """

    problems: int
    steps: tuple[int, ...]
    fewer: int
    prompts: int
    answers: int
    hands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """Of one arm and seed.

    Args:
        reward: share of test problems answered rightly; by kind, where the task has kinds.
        by_steps: the same on fewer problems, by number of steps.
        by_hand: the same under schedules made by hand.
        distinct: share of different answers among those to a problem.
        entropy: bits a written position, over the answers to a problem, mean.
    """

    topic: str
    arm: str
    seed: int
    reward: float
    distinct: float
    entropy: float
    knobs: list[list[float]]
    by_kind: dict[str, float] = field(default_factory=dict)
    by_steps: dict[int, float] = field(default_factory=dict)
    by_hand: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """A model under a sampler, and the test problems of its seed."""

    task: Task
    problems: Problems
    model: Denoiser
    sampler: Steered
    noise: Noise

    def write(self, table: Table, count: int, *, each: int = 1) -> tuple[Problems, Int[Tensor, "B L"]]:
        """Answers to the first so many problems, `each` of each; an answer is the same whoever is asked beside it."""
        chosen, canvas = asked(self.problems, torch.arange(min(count, len(self.problems.x0))), group=each)
        sampler = dataclasses.replace(self.sampler, steering=table)
        parts = [
            generate(sampler, self.model, take_rows(canvas, rows), noise=self.noise).canvas.x
            for rows in torch.split(torch.arange(len(canvas.x)), AT_ONCE)
        ]
        return chosen, torch.cat(parts)

    def right(self, table: Table, count: int) -> Bool[Tensor, " B"]:
        """Which of the first so many problems are answered rightly."""
        return self.task.correct(*self.write(table, count))


def subject(task: str, place: Path, sampler: Steered, *, seed: int) -> Subject:
    """The model of a folder on the test problems of a seed."""
    made = make_task(task)
    model = load_model(model_folder(place)).model
    noise = Noise.of(seed)
    return Subject(made, made.test(noise=noise.at("task")), model, sampler, noise.at("cogrpo exam"))


def measure(
    exam: Exam, names: tuple[str, str, int], task: str, place: Path, sampler: Steered, folder: Path, *, quiet: bool
) -> None:
    """Measure, and leave what was found in the folder; what is there of the same exam is left as it is.

    Args:
        names: topic, arm, seed.
        place: of the model.
    """
    del quiet  # it is over in a minute
    asked_of = {"exam": json.loads(json.dumps(asdict(exam))), "task": task}
    path = folder / MEASURED
    if path.exists() and {k: v for k, v in _held(path).items() if k in asked_of} == asked_of:
        return
    found = examined(exam, names, subject(task, place, sampler, seed=names[2]))
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(asked_of | {"found": asdict(found)}, indent=1) + "\n")


def _held(path: Path) -> dict[str, Any]:
    return read_object(path, way_out="delete it and run the study again")


def measured(folder: Path) -> Measured:
    """What `measure` left."""
    found = _held(folder / MEASURED)["found"]
    return Measured(**found | {"by_steps": {int(k): v for k, v in found["by_steps"].items()}})


def examined(exam: Exam, names: tuple[str, str, int], who: Subject) -> Measured:
    """The whole exam."""
    own = who.sampler.steering
    assert isinstance(own, Table)
    right = who.right(own, exam.problems)
    kinds = who.task.kinds(take_rows(who.problems, torch.arange(len(right)))) if isinstance(who.task, Scenes) else []
    distinct, entropy = diversity(who, own, exam)
    topic, arm, seed = names
    return Measured(
        topic=topic,
        arm=arm,
        seed=seed,
        reward=share(right),
        distinct=distinct,
        entropy=entropy,
        knobs=[list(row) for row in own.rows],
        by_kind={k: share(right[torch.tensor([x == k for x in kinds])]) for k in dict.fromkeys(kinds)},
        by_steps={t: share(who.right(own.stretched(t), exam.fewer)) for t in exam.steps},
        by_hand={h: share(who.right(hand(h, own.num_steps), exam.problems)) for h in exam.hands},
    )


def share(right: Bool[Tensor, " B"]) -> float:
    return float(right.double().mean())


def diversity(who: Subject, table: Table, exam: Exam) -> tuple[float, float]:
    """Share of different answers to a problem, and bits a position among them (of the sample, which errs low)."""
    chosen, x = who.write(table, exam.prompts, each=exam.answers)
    groups = x.view(-1, exam.answers, x.shape[-1])
    alike = sum(len(torch.unique(group, dim=0)) for group in groups) / (groups.shape[0] * exam.answers)
    counts = torch.nn.functional.one_hot(groups).sum(1).double() / exam.answers
    bits = -torch.special.xlogy(counts, counts).sum(-1) / torch.log(torch.tensor(2.0, dtype=torch.float64))
    free = ~chosen.canvas.fixed[:: exam.answers]
    return alike, float(bits[free].mean())


def interpolated(by_steps: Mapping[int, float], reward: float) -> float | None:
    """The number of steps at which a curve first reaches a reward, linear between its points; None if it never does."""
    points = sorted(by_steps.items())
    if points[0][1] >= reward:
        return float(points[0][0])
    for (left, low), (right, high) in pairwise(points):
        if low < reward <= high:
            return left + (right - left) * (reward - low) / (high - low)
    return None
