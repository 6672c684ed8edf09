"""Schedules for `Steered`: tables of knobs, made by hand as published, or read from the file of a learned one."""

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from anyorder.core.config import nearest
from anyorder.core.files import write_atomic
from anyorder.samplers.count import check_num_steps
from anyorder.samplers.look import Look
from anyorder.samplers.steered import KNOBS, Steered

EPS: Final = 1e-3  # AdaNAT's, which keeps its ramps off their ends
SETTINGS: Final = {"order", "score", "tempered", "without", "may_wait", "may_finish"}  # of `Steered`, in a file


@dataclass(frozen=True)
class Table:
    """The knobs of each step, the same for all rows.

    Args:
        rows: of each step ratio, rank temperature, temperature, guidance, as in `samplers.steered.Steering`.
    Raises:
        ValueError: no step, a ratio outside [0, 1], or another knob that is negative or not finite.
    """

    rows: tuple[tuple[float, float, float, float], ...]

    def __post_init__(self) -> None:
        check_num_steps(len(self.rows))
        for step, row in enumerate(self.rows):
            for knob, value in zip(KNOBS, row):
                if not 0.0 <= value < math.inf or (knob == "ratio" and value > 1.0):
                    legal = "in [0, 1]" if knob == "ratio" else ">= 0 and finite"
                    raise ValueError(f"schedule: step {step} has {knob}={value}; it must be {legal}")

    @property
    def num_steps(self) -> int:
        return len(self.rows)

    @property
    def tensor(self) -> Float[Tensor, "T 4"]:
        return torch.tensor(self.rows, dtype=torch.float64)

    def stretched(self, num_steps: int) -> "Table":
        """The same course in another number of steps: knobs as functions of the share of steps taken, linear between.

        The ratio is what a step ends with, and begins at 1; the others hold in the middle of a step.

        Raises:
            ValueError: num_steps < 1.
        """
        check_num_steps(num_steps)
        knobs, share = self.tensor, len(self.rows) / num_steps
        new = torch.arange(num_steps).double()
        ends = torch.cat([torch.ones(1, dtype=torch.float64), knobs[:, 0]])
        ratio = _between(ends, (new + 1) * share)
        others = [_between(knob, (new + 0.5) * share - 0.5) for knob in knobs[:, 1:].T]
        rows = torch.stack([ratio, *others], -1).tolist()
        return Table(tuple((r, m, s, w) for r, m, s, w in rows))

    def __call__(self, look: Look) -> Float[Tensor, "B 4"]:
        step = look.carry.step.clamp(max=self.num_steps - 1)
        return self.tensor.to(step.device)[step]


def _between(values: Float[Tensor, " N"], at: Float[Tensor, " M"]) -> Float[Tensor, " M"]:
    """Values at places that need not be whole: linear between neighbours, the first and last beyond the ends."""
    at = at.clamp(0.0, len(values) - 1.0)
    low = at.floor().long()
    high = (low + 1).clamp(max=len(values) - 1)
    return torch.lerp(values[low], values[high], at - low)


def write_schedule(path: Path, sampler: Steered) -> None:
    """A JSON file of a sampler steered by a table, which `read_schedule` and `--sampler FILE.json` take.

    Raises:
        ValueError: a sampler that something else steers.
    """
    if not isinstance(sampler.steering, Table):
        raise ValueError(f"schedule: {type(sampler.steering).__name__} is no table; write its mean as one")
    settings = {f.name: getattr(sampler, f.name) for f in dataclasses.fields(sampler) if f.name in SETTINGS}
    steps = [list(row) for row in sampler.steering.rows]
    held = {"anyorder": "schedule", "knobs": list(KNOBS), "steps": steps, "sampler": settings}
    write_atomic(path, json.dumps(held, indent=1) + "\n")


def read_schedule(path: Path) -> Steered:
    """The sampler of such a file.

    Raises:
        ValueError: no such file, or one that holds no legal schedule.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; name a schedule that `anyorder rl` wrote")
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        if held["anyorder"] != "schedule" or tuple(held["knobs"]) != KNOBS or not set(held["sampler"]) <= SETTINGS:
            raise KeyError
        steps = [tuple(float(value) for value in row) for row in held["steps"]]
        if any(len(row) != len(KNOBS) for row in steps):
            raise KeyError
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path}: holds no schedule; it must have the knobs {', '.join(KNOBS)} of each step") from None
    try:
        return Steered(Table(tuple(steps)), **held["sampler"])  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


Hand = Callable[[int, int], tuple[float, float, float, float]]  # step, number of steps -> knobs


def _cosine(step: int, num_steps: int) -> float:
    return math.cos(math.pi / 2 * (step + 1) / num_steps) if step + 1 < num_steps else 0.0


def _maskgit(step: int, num_steps: int) -> tuple[float, float, float, float]:
    return _cosine(step, num_steps), 4.5 * (1 - (step + 1) / num_steps), 1.0, 0.0


def _meissonic(step: int, num_steps: int) -> tuple[float, float, float, float]:
    return _cosine(step, num_steps), 2.0 * (1 - step / max(1, num_steps - 1)), 1.0, 8.0


def _show_o(step: int, num_steps: int) -> tuple[float, float, float, float]:
    left = math.prod(1 - k / num_steps for k in range(1, step + 2))  # multiplied into itself in each step
    return _cosine(step, num_steps), left, 1.0, 0.0


def _autonat(step: int, num_steps: int) -> tuple[float, float, float, float]:
    last = step + 1 == num_steps
    return _cosine(step, num_steps), 0.0 if last else 1 - step / num_steps, 1.0, (step + 1) / num_steps


def _adanat(step: int, num_steps: int) -> tuple[float, float, float, float]:
    done = (step + 1 - EPS) / num_steps
    return math.cos(math.pi / 2 * done), 1 - done, 1.0, (step + EPS) / num_steps


HANDS: Final[dict[str, Hand]] = {
    "maskgit": _maskgit,
    "meissonic": _meissonic,
    "show-o": _show_o,
    "autonat": _autonat,
    "adanat": _adanat,
}


def hand(name: str, num_steps: int, *, ranking: float = 1.0, guidance: float = 1.0) -> Table:
    """A schedule made by hand: all turn from many masks to none along a cosine.

    | name | rank temperature after step t of T, from 0 | guidance |
    |---|---|---|
    | maskgit | 4.5 (1 - (t + 1)/T) | 0 |
    | meissonic | 2 (1 - t/(T - 1)) | 8 (theirs is 1 + w = 9) |
    | show-o | product over k <= t + 1 of 1 - k/T: theirs multiplies into itself | 0 |
    | autonat | 1 - t/T, 0 in the last step | (t + 1)/T |
    | adanat | 1 - (t + 1)/T, all ramps kept 1e-3 off their ends | t/T |

    Args:
        ranking, guidance: times the second and the fourth column.
    Raises:
        ValueError: an unknown name, num_steps < 1, or a negative factor.
    Source:
        arXiv:2202.04200, arXiv:2410.08261, arXiv:2408.12528, arXiv:2406.05478, arXiv:2409.00342, and their public code.
    """
    if name not in HANDS:
        raise ValueError(f"schedule={name!r}: unknown; {nearest(name, HANDS)}")
    check_num_steps(num_steps)
    turned = [HANDS[name](step, num_steps) for step in range(num_steps)]
    return Table(tuple((r, m * ranking, s, w * guidance) for r, m, s, w in turned))
