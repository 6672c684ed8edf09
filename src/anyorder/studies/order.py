"""In which order to write: puzzles where a masked model fails in random order and succeeds in one of its own choice.

Exact oracles show what the order alone does, trained models what it does when some subproblems were too hard to learn.
Source: arXiv:2502.06768.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.data.tasks import NaeSat, Sudoku, Task, make_task
from anyorder.data.tasks.sudoku import grids
from anyorder.studies import Check, Findings
from anyorder.studies.order_report import PICTURED, picture, show
from anyorder.studies.order_runs import (
    Excess,
    Recipe,
    Score,
    Trained,
    from_nothing,
    groups,
    imbalance,
    scores,
    task_of,
    trained,
)
from anyorder.testing.support import Support


@dataclass(frozen=True)
class Plan:
    """How much is trained and measured.

    Args:
        recipes: the runs, by the folder they are in.
        problems: of each group.
        times: each of them is written.
        passes: network passes allowed besides one per token.
        masked: bits masked of a NAE-SAT row where predictions are compared with exact ones.
    """

    recipes: dict[str, Recipe]
    problems: int = 256
    times: int = 1
    passes: tuple[int, ...] = (2, 4, 8)
    masked: tuple[int, ...] = (8, 16, 24, 32)


LISTED: Final = 20  # latents whose exact conditionals are found by listing all rows
ALIGNED: Final = 4  # passes, of which the first writes all latents from left to right: a quarter of the bits
SMALL_ZEBRA: Final = "attributes=2,slots=5,extra=0,relations==-!"  # minutes are not enough for all six kinds of clues
SMALL_NAE_SAT: Final = "nae-sat:latents=8,observations=24,num_train=20000,num_test=64"
FULL: Final = Plan(
    {
        "sudoku": Recipe("sudoku", "1M", rows=256, lr=2e-3, num_steps=900),
        "nae-sat": Recipe(SMALL_NAE_SAT, "0.3M", rows=128, lr=3e-3, num_steps=2500),
        "zebra": Recipe(f"zebra:{SMALL_ZEBRA},clue_sets=8000", "0.3M", rows=256, lr=3e-3, num_steps=2600),
    }
)
QUICK: Final = Plan(
    {
        "sudoku": Recipe("sudoku", "tiny", rows=64, lr=5e-3, num_steps=60),
        "nae-sat": Recipe("nae-sat:latents=5,observations=15,num_train=500,num_test=16", "tiny", 32, 5e-3, 20),
        "zebra": Recipe(f"zebra:{SMALL_ZEBRA},clue_sets=50", "tiny", rows=32, lr=5e-3, num_steps=20),
    },
    problems=24,
    times=1,
    passes=(2, 4),
    masked=(5, 15),
)


def study(*, quick: bool = False, run: Path | None = None, seed: int = 0, out: Path) -> Findings:
    """Train one model per task (or go on with it), write held-out problems in every order, compare.

    Args:
        quick: toy models, trained for seconds, of which nothing is expected.
        run: a finished masked diffusion run on one of the tasks, studied instead of training on that task.
        out: its folder; runs are trained in folders below it.
    Raises:
        ValueError: `run` is not such a run, or `out` holds runs of other settings.
    """
    plan, noise = QUICK if quick else FULL, Noise.of(seed).at("order")
    given = None if run is None else task_of(run)
    if given is not None and given not in plan.recipes:
        raise ValueError(f"{run}: was trained on {given}; this study is about {', '.join(plan.recipes)}")
    exact = from_oracles(plan, noise=noise.at("oracle"))
    found: list[Score] = []
    excess: list[Excess] = []
    for name, recipe in plan.recipes.items():
        made = trained(recipe, out / name, seed=seed, run=run if name == given else None)
        found += of_model(made, plan, noise=noise.at(name))
        if isinstance(made.task, NaeSat) and made.task.latents <= LISTED:
            excess = _imbalance(made, plan, noise=noise.at("imbalance"))
    payload: dict[str, Any] = {
        "quick": quick,
        "seed": seed,
        "plan": asdict(plan),
        "oracle": [asdict(s) for s in exact],
        "trained": [asdict(s) for s in found],
        "imbalance": [asdict(e) for e in excess],
    }
    aims = exact_checks(exact) + ([] if quick else trained_checks(found, excess))
    return Findings(show(exact, found, excess), payload, aims, picture(exact, found))


def from_oracles(plan: Plan, *, noise: Noise) -> list[Score]:
    """Exact denoisers of the laws of 4x4 grids and of NAE-SAT rows, writing from nothing, in every order."""
    found = []
    for name in ("sudoku", "nae-sat"):
        task, oracle = exact_of(make_task(plan.recipes[name].task))
        group = from_nothing(task, plan.problems)
        passes = (*plan.passes, None)
        found += scores(task, oracle, group, name="oracle", passes=passes, times=plan.times, noise=noise.at(name))
    return found


def exact_of(task: Task) -> tuple[Sudoku | NaeSat, Denoiser]:
    """A task with the exact denoiser of its rows."""
    assert isinstance(task, Sudoku | NaeSat)
    rows = grids() if isinstance(task, Sudoku) else task.every_row()
    return task, Support(rows, task.tokenizer.vocab)


def of_model(made: Trained, plan: Plan, *, noise: Noise) -> list[Score]:
    """A trained model on every group of its task's held-out problems."""
    found = []
    for group in groups(made.task, noise=made.noise, most=plan.problems):
        passes = (*plan.passes, None) if group.name in PICTURED else (None,)
        found += scores(
            made.task, made.model, group, name="trained", passes=passes, times=plan.times, noise=noise.at(group.name)
        )
    return found


def _imbalance(made: Trained, plan: Plan, *, noise: Noise) -> list[Excess]:
    """How far the model is from the exact denoiser, on held-out rows."""
    task, oracle = exact_of(made.task)
    assert isinstance(task, NaeSat)
    x0 = task.test(noise=made.noise).x0[: plan.problems]
    counts = [n for n in plan.masked if n <= task.size]
    return imbalance(task, made.model, oracle, x0=x0, counts=counts, noise=noise)


def exact_checks(exact: Sequence[Score]) -> list[Check]:
    """What holds of oracles, whatever is trained."""
    alone = min(s.share for s in exact if s.passes is None)
    few = {s.order: s.share for s in exact if (s.task, s.passes) == ("NaeSat", ALIGNED)}
    first, anywhere = few["left-to-right"], few["random"]
    return [
        Check("oracles, one token per pass: least share solved in any order", alone, "= 1", alone == 1.0),
        Check("NAE-SAT oracle, 4 passes: solved, latents first", first, "= 1", first == 1.0),
        Check("NAE-SAT oracle, 4 passes: solved, random order", anywhere, "<= 0.6", anywhere <= 0.6),
    ]


LEADS: Final = (  # task, group, the better order, the worse one, at least so much
    ("Sudoku", "6 clues", "margin", "random", 0.15),
    ("Sudoku", "4 clues, hard", "margin", "random", 0.3),
    ("NaeSat", "nothing given", "margin", "random", 0.15),
)


def trained_checks(found: Sequence[Score], excess: Sequence[Excess]) -> list[Check]:
    """What holds of models that have learned something; aims about what was not measured are left out."""
    share = {(s.task, s.group, s.order): s.share for s in found if s.passes is None}
    made = []
    for task, group, better, worse, least in LEADS:
        if (task, group, better) in share:
            made.append(
                (f"{task}, {group}: {better} - {worse}", share[task, group, better] - share[task, group, worse], least)
            )
    if excess:
        of = {kind: max(e.excess for e in excess if e.kind == kind) for kind in ("latents", "observations")}
        made.append(("NaeSat, most excess on latents / on observations", of["latents"] / of["observations"], 1.3))
    return [Check(name, value, f">= {least:g}", value >= least) for name, value, least in made]
