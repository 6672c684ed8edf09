"""Sums of several rewards with weights."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from anyorder.rl.rewards.base import Reward, Samples


@final
@dataclass(frozen=True)
class Weighted:
    """The sum of weight times reward.

    Args:
        terms: weights and rewards, each of which knows its own malformed rows.
    """

    terms: tuple[tuple[float, Reward], ...]

    def __call__(self, samples: Samples) -> Float[Tensor, " B"]:
        return self.summed(self.values(samples))

    def values(self, samples: Samples) -> Float[Tensor, "K B"]:
        """Each reward by itself, without its weight."""
        return torch.stack([reward(samples) for _, reward in self.terms])

    def summed(self, values: Float[Tensor, "K B"]) -> Float[Tensor, " B"]:
        """The sum with the weights."""
        weight = torch.tensor([weight for weight, _ in self.terms], dtype=torch.float64, device=values.device)
        return (weight[:, None] * values).sum(0)
