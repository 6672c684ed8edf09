"""Revise rules: which written tokens go back to the mask, so that a sampler can change its mind."""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.samplers.look import CountRule, Look
from anyorder.samplers.remasking import Remasking


@runtime_checkable
class ReviseRule(Protocol):
    """Which of the tokens visible before a step go back to the mask in it."""

    @property
    def num_steps(self) -> int:
        """The number of steps in which anything can go back, the last one not counted; 0 for none."""
        ...

    def __call__(self, look: Look) -> Bool[Tensor, "B L"]:
        """Only tokens of `look.written`."""
        ...


@dataclass(frozen=True)
class Keep:
    """What is written stays."""

    num_steps: ClassVar[int] = 0

    def __call__(self, look: Look) -> Bool[Tensor, "B L"]:
        return torch.zeros_like(look.open)


@dataclass(frozen=True)
class ReMDM:
    """Each written token goes back with its step's chance, on its own; goes with `Written` of the same path.

    Source:
        arXiv:2503.00307 (ReMDM); which of its samplers, the path says.
    """

    path: Remasking

    @property
    def num_steps(self) -> int:
        return self.path.num_steps - 1

    def __call__(self, look: Look) -> Bool[Tensor, "B L"]:
        sigma = at_step(self.path.back, look)[:, None].expand(look.open.shape)
        if self.path.by_confidence:
            assert look.carry.logp is not None
            doubt = (-look.carry.logp.exp()).masked_fill(~look.written, -torch.inf)
            sigma = sigma * doubt.softmax(-1)
        row, position = (look.written & (sigma > 0)).nonzero(as_tuple=True)
        u = look.noise.at("revise").uniform(look.canvas.row_id[row], look.carry.step[row], position)
        return torch.zeros_like(look.open).index_put((row, position), u < sigma[row, position])


@dataclass(frozen=True)
class Written:
    """The count rule of `ReMDM`: every open position is written with its step's chance, on its own."""

    path: Remasking

    @property
    def one_at_a_time(self) -> bool:
        return False

    def __call__(self, look: Look) -> Int[Tensor, " B"]:
        return (look.open & (look.u < at_step(self.path.write, look)[:, None])).sum(-1)


def at_step(values: Float[Tensor, " N"], look: Look) -> Float[Tensor, " B"]:
    """The value of each row's step; the last one's beyond the end."""
    return values.to(look.carry.step.device)[look.carry.step.clamp(max=len(values) - 1)]


def check_paths(count: CountRule, revise: ReviseRule) -> None:
    """Raises ValueError unless the chances to write and to go back belong to one path."""
    writes = count.path if isinstance(count, Written) else None
    revises = revise.path if isinstance(revise, ReMDM) else None
    if writes != revises or (writes is None and not isinstance(revise, Keep)):
        raise ValueError(
            f"sampler.revise={type(revise).__name__}: needs count=Written(path) and revise=ReMDM(path) of one and the "
            f"same path, or revise=Keep(), not count={type(count).__name__}"
        )
