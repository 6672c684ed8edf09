"""Count rules that look at the prediction: write as many positions as the network is sure enough of, at least one."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anyorder.samplers.certainty import certainty
from anyorder.samplers.look import Look


@dataclass(frozen=True)
class Threshold:
    """All positions whose most likely token has probability tau or more.

    Raises:
        ValueError: tau outside [0, 1].
    Source:
        arXiv:2505.22618 (Fast-dLLM), confidence-aware decoding.
    """

    tau: float = 0.9
    score: ClassVar[str] = "prob"

    def __post_init__(self) -> None:
        if not 0.0 <= self.tau <= 1.0:
            raise ValueError(f"sampler.tau={self.tau}: must be in [0, 1]; 0 writes all at once, 1 one at a time")

    @property
    def one_at_a_time(self) -> bool:
        return False

    def chance(self, look: Look) -> None:
        return None

    def __call__(self, look: Look) -> Int[Tensor, " B"]:
        sure = (certainty(look, self.score).exp() >= self.tau) & look.open
        return sure.sum(-1).clamp(min=1)


@dataclass(frozen=True)
class Factor:
    """The n surest positions, n the largest for which each i <= n has c_(i) >= 1 - f/(i + 1), c sorted downwards.

    Raises:
        ValueError: f < 0.
    Source:
        arXiv:2505.22618 (Fast-dLLM), factor-based decoding: (n + 1)(1 - c_(n)) <= f.
    """

    f: float = 1.0
    score: ClassVar[str] = "prob"

    def __post_init__(self) -> None:
        if not self.f >= 0.0:
            raise ValueError(f"sampler.f={self.f}: must be >= 0; 0 writes one position at a time")

    @property
    def one_at_a_time(self) -> bool:
        return False

    def chance(self, look: Look) -> None:
        return None

    def __call__(self, look: Look) -> Int[Tensor, " B"]:
        c = descending(certainty(look, self.score).exp())
        n = torch.arange(1, c.shape[-1] + 1, device=c.device)
        return (c >= 1 - self.f / (n + 1)).long().cumprod(-1).sum(-1).clamp(min=1)


@dataclass(frozen=True)
class EntropyBound:
    """The positions of lowest entropy, as many as keep the sum of their entropies less the largest within gamma nats.

    That sum bounds the mutual information that drawing them independently loses.

    Raises:
        ValueError: gamma < 0.
    Source:
        arXiv:2505.24857 (EB-Sampler).
    """

    gamma: float = 0.1
    score: ClassVar[str] = "entropy"

    def __post_init__(self) -> None:
        if not self.gamma >= 0.0:
            raise ValueError(f"sampler.gamma={self.gamma}: must be >= 0 nats; 0 writes one position at a time")

    @property
    def one_at_a_time(self) -> bool:
        return False

    def chance(self, look: Look) -> None:
        return None

    def __call__(self, look: Look) -> Int[Tensor, " B"]:
        entropy = -descending(certainty(look, self.score))  # upwards; +inf where nothing is open
        lost = torch.cat([torch.zeros_like(entropy[:, :1]), entropy[:, :-1].cumsum(-1)], -1)
        return (lost <= self.gamma).sum(-1).clamp(min=1)


def descending(score: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
    """Each row's scores, the largest first."""
    return score.sort(-1, descending=True).values
