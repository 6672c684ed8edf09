"""Studies: findings of the papers shown anew by one command, `anyorder study NAME`. Nothing heavy is imported here."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
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
    """A study by name: one line about it, and the module whose function `study` makes it."""

    about: str
    module: str

    def load(self) -> Callable[..., Findings]:
        made: Callable[..., Findings] = importlib.import_module(f"anyorder.studies.{self.module}").study
        return made


STUDIES = {
    "numerics": Study("the float32 Gumbel defect of joint ancestral sampling: its law, its size, its cure", "numerics"),
    "error-rates": Study("token and sequence error rates of parallel writing, with exact languages", "error_rates"),
}
