"""What to watch while a policy learns, and when to stop it."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from anyorder.rl.config import StopConfig
from anyorder.rl.diagnostics import Diagnostics


@dataclass(frozen=True)
class Judgement:
    """Figures of some generations.

    Args:
        reward, spread: mean, and standard deviation over all rows.
        distinct: share of different rows within groups; 1 if no two are alike.
        malformed: rows that are no whole answer.
        skipped: groups whose rewards are all equal, from which nothing is learned.
        nfe: network passes a row, mean.
    """

    reward: float
    spread: float
    distinct: float
    malformed: int
    skipped: int
    nfe: float


def kinds(final: Int[Tensor, "B L"], *, group: int) -> int:
    """Different rows, counted within groups."""
    return sum(len(torch.unique(rows, dim=0)) for rows in torch.split(final, group))


@dataclass(frozen=True)
class Point:
    """Quality and speed at one price of a pass: mean reward without the price, its standard error, passes a row."""

    price: float
    reward: float
    stderr: float
    nfe: float


@dataclass(frozen=True)
class Evaluation:
    """Problems answered once each at the mean schedule.

    Args:
        reward, stderr: mean over problems, and its standard error.
        correct: share of them that the task's own checker finds right, whatever the reward measures.
        distinct: share of different rows.
        practice: mean reward of as many training problems; None where nobody asked.
        frontier: one point for each price, where there are several; the figures above are those of the lowest.
    """

    reward: float
    stderr: float
    correct: float
    distinct: float
    nfe: float
    practice: float | None
    frontier: tuple[Point, ...] = ()


def reason_to_stop(
    stop: StopConfig, judgement: Judgement | None, diagnostics: Diagnostics | None, evaluation: Evaluation | None
) -> str | None:
    """Why to stop now, in one sentence; None to go on."""
    figures = {} if diagnostics is None else diagnostics.means()
    ratio = figures.get("ratio", 1.0)
    worst = max(ratio, 1 / ratio) if ratio > 0 else float("inf")
    gap = None
    if evaluation is not None and evaluation.practice is not None:
        gap = evaluation.practice - evaluation.reward
    tests = [
        ("max_kl", stop.max_kl, figures.get("old_kl"), True, "nats a token from the policy that drew"),
        ("max_ratio", stop.max_ratio, worst if figures else None, True, "times the old probability"),
        ("min_entropy", stop.min_entropy, figures.get("entropy"), False, "nats of entropy a written token"),
        (
            "min_distinct",
            stop.min_distinct,
            None if judgement is None else judgement.distinct,
            False,
            "of the rows of a group are different",
        ),
        ("max_gap", stop.max_gap, gap, True, "more reward on training problems than on held-out ones"),
    ]
    for name, limit, value, above, what in tests:
        if limit is not None and value is not None and (value > limit if above else value < limit):
            return f"stop.{name}={limit:g}: {value:.4g} {what}"
    return None
