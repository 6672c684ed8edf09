"""Count rules: how many positions a row writes in a step."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anyorder.core.protocols import Schedule
from anyorder.core.schedule import Linear
from anyorder.samplers.look import Look


@dataclass(frozen=True)
class One:
    """One position per step: as many steps as positions, and no dependence between tokens is lost."""

    @property
    def one_at_a_time(self) -> bool:
        return True

    def chance(self, look: Look) -> None:
        return None

    def __call__(self, look: Look) -> Int[Tensor, " B"]:
        return torch.ones_like(look.left)


@dataclass(frozen=True)
class PerStep:
    """k positions per step, the rest in the last one.

    Raises:
        ValueError: k < 1.
    """

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"sampler.k={self.k}: must be >= 1; every step writes k positions")

    @property
    def one_at_a_time(self) -> bool:
        return self.k == 1

    def chance(self, look: Look) -> None:
        return None

    def __call__(self, look: Look) -> Int[Tensor, " B"]:
        return torch.full_like(look.left, self.k)


@dataclass(frozen=True)
class Binomial:
    """Ancestral sampling: every open position flips with probability delta on its own; the last step opens the rest.

    Raises:
        ValueError: num_steps < 1.
    Source:
        arXiv:2406.07524 and arXiv:2107.03006 (posterior of the absorbing process), on a uniform grid from t=1 to 0.
    """

    num_steps: int
    schedule: Schedule = field(default_factory=Linear)

    def __post_init__(self) -> None:
        check_num_steps(self.num_steps)

    @property
    def one_at_a_time(self) -> bool:
        return False

    def chance(self, look: Look) -> Float[Tensor, " B"]:
        return at_step(flip_chance(self.schedule, self.num_steps), look)

    def __call__(self, look: Look) -> Int[Tensor, " B"]:
        return flips(self.chance(look), look)


@dataclass(frozen=True)
class Quota:
    """A fixed plan: so many positions in each of num_steps steps, whatever the network says.

    Args:
        curve: a name of `CURVES`.
    Raises:
        ValueError: num_steps < 1, or an unknown curve.
    """

    num_steps: int
    curve: str = "even"

    def __post_init__(self) -> None:
        check_num_steps(self.num_steps)
        if self.curve not in CURVES:
            raise ValueError(f"sampler.curve={self.curve!r}: must be one of {', '.join(CURVES)}")

    @property
    def one_at_a_time(self) -> bool:
        return False

    def chance(self, look: Look) -> None:
        return None

    def __call__(self, look: Look) -> Int[Tensor, " B"]:
        step = look.carry.step.clamp(max=self.num_steps - 1)
        planned = CURVES[self.curve](look.carry.start, look.left, step, self.num_steps)
        return torch.where(step == self.num_steps - 1, look.left, planned)


def even(start: Tensor, left: Tensor, step: Tensor, num_steps: int) -> Tensor:
    """start // N in each step, one more in the first start % N of them (LLaDA, arXiv:2502.09992)."""
    return start // num_steps + (step < start % num_steps)


def cosine(start: Tensor, left: Tensor, step: Tensor, num_steps: int) -> Tensor:
    """Leave floor(start cos(pi/2 (i + 1)/N)) masks after step i, at least one fewer each time (arXiv:2202.04200)."""
    goal = (start * torch.cos(math.pi / 2 * (step + 1).double() / num_steps)).floor().long()
    return left - torch.minimum(goal.clamp(min=1), (left - 1).clamp(min=0))


def shrinking(start: Tensor, left: Tensor, step: Tensor, num_steps: int) -> Tensor:
    """floor(left (1 - s/t)) on t from 1 to 1e-3, what remains in the last step: Dream's own plan."""
    grid = torch.linspace(1.0, 1e-3, num_steps + 1, dtype=torch.float64, device=step.device)
    return (left * (1 - grid[step + 1] / grid[step])).floor().long()


Curve = Callable[
    [Tensor, Tensor, Tensor, int], Tensor
]  # masks at the start, masks left, step, num_steps -> how many now
CURVES: dict[str, Curve] = {"even": even, "cosine": cosine, "dream": shrinking}


def at_step(values: Float[Tensor, " N"], look: Look) -> Float[Tensor, " B"]:
    """The value of each row's step; the last one's beyond the end."""
    return values.to(look.carry.step.device)[look.carry.step.clamp(max=len(values) - 1)]


def flips(chance: Float[Tensor, " B"], look: Look) -> Int[Tensor, " B"]:
    """How many open positions flip, each on its own with its row's chance."""
    return (look.open & (look.u < chance[:, None])).sum(-1)


def check_num_steps(num_steps: int) -> None:
    """Raises ValueError unless num_steps >= 1."""
    if num_steps < 1:
        raise ValueError(f"sampler.num_steps={num_steps}: must be >= 1; the last step opens all that is left")


def flip_chance(schedule: Schedule, num_steps: int) -> Float[Tensor, " N"]:
    """delta = (alpha_s - alpha_t) / (1 - alpha_t) of each step on the uniform grid from t=1 to 0; 1 in the last."""
    alpha = schedule.alpha(torch.linspace(1.0, 0.0, num_steps + 1, dtype=torch.float64))
    delta = (alpha[1:] - alpha[:-1]) / (1 - alpha[:-1])
    return torch.cat([delta[:-1], delta.new_ones(1)])


def opening_law(schedule: Schedule, num_steps: int) -> Float[Tensor, " N"]:
    """Chance that a position is written in each step of `Binomial`: alpha_s - alpha_t if alpha runs from 0 to 1."""
    delta = flip_chance(schedule, num_steps)
    return delta * torch.cat([delta.new_ones(1), (1 - delta).cumprod(0)[:-1]])


def expected_passes(schedule: Schedule, num_steps: int, positions: int) -> float:
    """Expected steps of `Binomial` that write anything, which is what it costs when the others make no network pass.

    Args:
        positions: open positions of the row; of all rows together for the passes of a batch.
    Source:
        arXiv:2409.02908, appendix E: sum_i 1 - (1 - d_i)^positions.
    """
    return float((1 - (1 - opening_law(schedule, num_steps)) ** positions).sum())
