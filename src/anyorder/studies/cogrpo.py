"""Co-GRPO: is a schedule that is learned with the model worth more than either alone?

Base models write images that prompts ask for (TinyGenEval), sudoku and countdown, in few steps. Every arm learns from
as many answers as the others and is measured at as many passes. Source: arXiv:2512.22288.
"""

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from anyorder.core.config import nearest
from anyorder.core.files import write_atomic
from anyorder.data.tasks import make_task
from anyorder.data.tasks.scenes import Scenes
from anyorder.models.config import ModelConfig
from anyorder.rl.loop import MODEL, SCHEDULE
from anyorder.rl.make import make_steered
from anyorder.samplers.schedules import HANDS, Table, read_schedule
from anyorder.samplers.steered import Steered
from anyorder.studies import Findings
from anyorder.studies.cogrpo_measure import Exam, measure, measured, subject
from anyorder.studies.cogrpo_report import checks, curve, pictures, show
from anyorder.studies.cogrpo_runs import ARMS, BASE, SEARCH, Topic, learn_arm, search_arm
from anyorder.studies.together import Job, do_all, train_all, workers

IMAGES: Final = 36  # of a sheet


@dataclass(frozen=True)
class Plan:
    """How much is learned and measured.

    Args:
        topics: with the exam of each.
        together: whether runs are made beside each other.
    """

    topics: tuple[tuple[Topic, Exam], ...]
    together: bool = True


MAIN: Final = ("model", "schedule", "joint")  # the arms that the question is about
LEARNING: Final[dict[str, Any]] = {
    "iterations": 160,
    "evaluate_every": 40,
    "save_every": 20,
    "lr_model": 5e-4,
    "lr_schedule": 3e-3,
}
TINY: Final = Plan(
    (
        (
            Topic(
                name="scenes",
                task="scenes:num_valid=240",
                practice="scenes:tasks=single+two+counting+colors,num_valid=240",
                model=ModelConfig(num_layers=3, num_heads=4, d_model=64, d_ff=192, max_length=64, local=True),
                steps=1500,
                rows=128,
                lr=3e-3,
                num_steps=4,
                arms=dict.fromkeys((*ARMS, SEARCH), 4) | dict.fromkeys(MAIN, 7),
                learning=LEARNING
                | {
                    "reward": "correct+dense",
                    "reward_shared": True,
                    "schedule": {"hand": "maskgit"},
                    "evaluate_problems": 240,
                },
            ),
            Exam(problems=600, steps=(2, 4, 8, 12, 16, 24, 36), fewer=180, prompts=24, answers=12, hands=tuple(HANDS)),
        ),
        (
            Topic(
                name="countdown",
                task="countdown:largest=9,num_valid=200",
                practice="countdown:largest=9,num_valid=200",
                model=ModelConfig(num_layers=3, num_heads=4, d_model=64, d_ff=192, max_length=64, local=True),
                steps=1500,
                rows=128,
                lr=3e-3,
                num_steps=4,
                arms=dict.fromkeys(MAIN, 3),
                learning=LEARNING | {"reward": "correct+0.2*format", "iterations": 100},
            ),
            Exam(problems=500, steps=(2, 4, 8), fewer=240, prompts=24, answers=12),
        ),
        (
            Topic(
                name="sudoku",
                task="sudoku",
                practice="sudoku",
                model=ModelConfig(num_layers=2, num_heads=4, d_model=32, d_ff=96, max_length=64, local=True),
                steps=300,
                rows=128,
                lr=3e-3,
                num_steps=2,
                arms=dict.fromkeys(MAIN, 3),
                learning=LEARNING | {"reward": "correct", "iterations": 100},
            ),
            Exam(problems=88, steps=(2, 4, 10), fewer=88, prompts=24, answers=12),
        ),
    )
)
QUICK: Final = Plan(
    tuple(
        (
            Topic(
                name=name,
                task=task,
                practice=task,
                model=ModelConfig(num_layers=1, num_heads=2, d_model=16, d_ff=16, max_length=64),
                steps=4,
                rows=8,
                lr=3e-3,
                num_steps=2,
                arms=arms,
                learning={"prompts": 2, "group": 3, "iterations": 2, "evaluate_every": 1, "evaluate_problems": 4},
            ),
            Exam(problems=12, steps=(2, 4), fewer=6, prompts=2, answers=3, hands=("adanat", "maskgit")),
        )
        for name, task, arms in (
            (
                "scenes",
                "scenes:grid=6,num_train=60,num_valid=12,num_test=24",
                dict.fromkeys((*ARMS, SEARCH), 1) | dict.fromkeys(MAIN, 2),
            ),
            ("countdown", "countdown:largest=9,num_train=60,num_valid=12,num_test=24", dict.fromkeys(MAIN, 1)),
        )
    ),
    together=False,
)
IMAGES_TOPIC, IMAGES_EXAM = TINY.topics[0]
PILOT: Final = Plan(
    (
        (
            replace(
                IMAGES_TOPIC,
                arms={"model": 5, "joint": 5},
                learning=IMAGES_TOPIC.learning | {"iterations": 320, "decay": 0.5},
            ),
            IMAGES_EXAM,
        ),
    )
)
SCALES: Final = {"tiny": TINY, "pilot": PILOT}


def study(*, quick: bool = False, run: Path | None = None, seed: int = 0, out: Path, scale: str = "tiny") -> Findings:
    """Train base models, learn every arm from each, measure all on test problems.

    Args:
        quick: toy models, trained for seconds, of which nothing is expected.
        out: its folder; runs are made in folders below it, and sheets of images beside them.
        scale: "tiny", for two CPU cores; "pilot": model alone and both on images, from as many answers as the pilot.
    Raises:
        ValueError: `run` is given, an unknown scale, or `out` holds runs of other settings.
    """
    if run is not None:
        raise ValueError(f"--run {run}: the arms begin with models that the study trains alike; leave --run out")
    if scale not in SCALES:
        raise ValueError(f"--scale {scale}: unknown; {nearest(scale, SCALES)}")
    plan = QUICK if quick else SCALES[scale]
    at_once = workers() if plan.together else 1
    arms = [
        (topic, exam, arm, seed + number)
        for topic, exam in plan.topics
        for number in range(max(topic.arms.values()))
        for arm in (BASE, *topic.learned_at(number))
    ]
    train_all({folder_of(out, t, a, s): t.base(s) for t, _, a, s in arms if a == BASE}, at_once=at_once)
    do_all({folder_of(out, t, a, s): learning(t, a, s, out) for t, _, a, s in arms if a != BASE}, at_once=at_once)
    do_all({folder_of(out, t, a, s): examining(t, e, a, s, out) for t, e, a, s in arms}, at_once=at_once)
    found = [measured(folder_of(out, t, a, s)) for t, _, a, s in arms]
    curves = [
        curve(folder_of(out, t, a, s), topic=t.name, arm=a, seed=s) for t, _, a, s in arms if a not in (BASE, SEARCH)
    ]
    for topic, _ in plan.topics:
        for arm in (BASE, *topic.arms):
            draw(topic, arm, seed, out)
    payload: dict[str, Any] = {
        "quick": quick,
        "scale": scale,
        "seed": seed,
        "plan": plain(plan),
        "measured": [asdict(m) for m in found],
        "curves": [asdict(c) for c in curves],
    }
    return Findings(show(found, curves), payload, [] if quick else checks(found), pictures(found, curves))


def folder_of(out: Path, topic: Topic, arm: str, seed: int) -> Path:
    return out / f"{topic.name}-{arm}-seed{seed}"


def plain(plan: Plan) -> dict[str, Any]:
    """The plan for programs."""
    topics = [asdict(t) | {"model": t.model.model_dump(), "exam": asdict(e)} for t, e in plan.topics]
    return {"topics": topics}


def learning(topic: Topic, arm: str, seed: int, out: Path) -> Job:
    """What makes an arm."""
    config, base = topic.learned(arm, seed), folder_of(out, topic, BASE, seed)
    if arm == SEARCH:
        return partial(search_arm, config, topic.search(), base, folder_of(out, topic, arm, seed))
    return partial(learn_arm, config, base, folder_of(out, topic, arm, seed))


def made(topic: Topic, arm: str, seed: int, out: Path) -> tuple[Path, Steered]:
    """Where the model of an arm is, and its sampler: under what it learned, or else the schedule made by hand."""
    base, folder = folder_of(out, topic, BASE, seed), folder_of(out, topic, arm, seed)
    if arm == BASE:
        return base, make_steered(topic.learned(arm, seed))
    return folder if (folder / MODEL).is_dir() else base, read_schedule(folder / SCHEDULE)


def examining(topic: Topic, exam: Exam, arm: str, seed: int, out: Path) -> Job:
    """What measures an arm; schedules made by hand are tried with the base model."""
    place, sampler = made(topic, arm, seed, out)
    if arm != BASE:
        exam = replace(exam, hands=())
    names = (topic.name, arm, seed)
    return partial(measure, exam, names, topic.task, place, sampler, folder_of(out, topic, arm, seed))


def draw(topic: Topic, arm: str, seed: int, out: Path) -> None:
    """A sheet of the first images of a seed's test problems, right ones in green frames."""
    task = make_task(topic.task)
    if not isinstance(task, Scenes):
        return
    who = subject(topic.task, *made(topic, arm, seed, out), seed=seed)
    assert isinstance(who.sampler.steering, Table)
    chosen, x = who.write(who.sampler.steering, IMAGES)
    write_atomic(out / f"{topic.name}-{arm}.png", task.png(x, right=task.correct(chosen, x)))
