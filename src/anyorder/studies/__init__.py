"""Studies: findings of the papers shown anew by one command, `anyorder study NAME`. Nothing heavy is imported here."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Check:
    """A figure and what it should be.

    Args:
        aim: the rule in words, as "<= 0.01".
        met: whether the value keeps it.
    """

    name: str
    value: float
    aim: str
    met: bool


@dataclass(frozen=True)
class Findings:
    """What a study found.

    Args:
        text: tables for people.
        payload: everything measured, for programs.
        checks: the study's aims.
        svg: its plot.
    """

    text: str
    payload: dict[str, Any]
    checks: list[Check] = field(default_factory=list)
    svg: str = ""


@dataclass(frozen=True)
class Study:
    """A study by name.

    Args:
        about: one line.
        module: where the function `study` that makes it is.
        trains: whether it trains models, and keeps its runs.
        scales: sizes it can be made at, the usual one first; none: there is one.
    """

    about: str
    module: str
    trains: bool = False
    scales: tuple[str, ...] = ()

    def make(self, *, quick: bool, scale: str | None, run: Path | None, seed: int, out: Path) -> Findings:
        """Its findings; a study that trains keeps its runs below `out`, the others write nothing.

        Raises:
            ValueError: a scale that the study does not have.
        """
        if scale is not None and scale not in self.scales:
            has = f"one of {', '.join(self.scales)}" if self.scales else "this study has one only; leave --scale out"
            raise ValueError(f"--scale {scale}: {has}")
        options: dict[str, Any] = {"quick": quick, "run": run, "seed": seed}
        if self.trains:
            options["out"] = out
        if self.scales:
            options["scale"] = scale or self.scales[0]
        study: Callable[..., Findings] = importlib.import_module(f"anyorder.studies.{self.module}").study
        return study(**options)


STUDIES = {
    "numerics": Study("the float32 Gumbel defect of joint ancestral sampling: its law, its size, its cure", "numerics"),
    "error-rates": Study("token and sequence error rates of parallel writing, with exact languages", "error_rates"),
    "order": Study(
        "in which order to write: puzzles that a masked model solves in one order and not in another",
        "order",
        trains=True,
    ),
    "planning": Study(
        "who finds the way through star graphs: ARM, MDM, ILM and Insertion Transformer of one size, equally tuned",
        "planning",
        trains=True,
        scales=("tiny", "paper"),
    ),
    "infilling": Study(
        "texts of unknown length: how long insertion models write, how likely texts are, gaps filled by all",
        "infilling",
        trains=True,
        scales=("tiny", "paper"),
    ),
    "cogrpo": Study(
        "model and schedule learned together from rewards, against either alone: images, countdown, sudoku",
        "cogrpo",
        trains=True,
        scales=("tiny", "pilot"),
    ),
    "likelihood-variance": Study(
        "how many passes a likelihood takes: estimators of public code beside ours", "likelihood_variance"
    ),
    "guidance": Study("classifier-free guidance: answers chosen and text written, by scale", "guidance"),
}
