"""A schedule that is a policy: how many masks each step leaves, by a table or by whatever looks at the canvas."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anyorder.samplers.count import at_step
from anyorder.samplers.look import Look


@runtime_checkable
class Policy(Protocol):
    """Which share of the masks a row began with is left after each of its steps."""

    @property
    def num_steps(self) -> int: ...

    def left(self, look: Look) -> Float[Tensor, " B"]:
        """In [0, 1]; it may look at the canvas and the network's answer."""
        ...


@dataclass(frozen=True)
class Scheduled:
    """A policy decides: after a step floor(n0 left) masks are left, at least one fewer than before, none in the end.

    Source:
        arXiv:2512.22288 (Co-GRPO: the schedule is a policy beside the model's).
    """

    policy: Policy

    @property
    def one_at_a_time(self) -> bool:
        return False

    def chance(self, look: Look) -> None:
        return None

    def __call__(self, look: Look) -> Int[Tensor, " B"]:
        goal = (look.carry.start * self.policy.left(look).clamp(0.0, 1.0)).floor().long()
        last = look.carry.step >= self.policy.num_steps - 1
        return torch.where(last, look.left, (look.left - goal).clamp(min=1))


@dataclass(frozen=True)
class Shares:
    """A policy that is a table: the share of masks left after each step.

    Raises:
        ValueError: no entry, or one outside [0, 1].
    """

    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.shares or not all(0.0 <= share <= 1.0 for share in self.shares):
            raise ValueError(f"sampler.shares={list(self.shares)}: must be one or more shares in [0, 1]")

    @property
    def num_steps(self) -> int:
        return len(self.shares)

    def left(self, look: Look) -> Float[Tensor, " B"]:
        return at_step(torch.tensor(self.shares, dtype=torch.float64), look)
