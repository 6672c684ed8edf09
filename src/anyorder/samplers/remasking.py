"""Paths of remasking samplers: how likely each step is to write a mask, and to send a token back to the mask.

Both chances follow from one pair (alpha, sigma) of each step, so that the share of masks stays on the schedule.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from anyorder.core.schedule import Linear
from anyorder.samplers.count import check_num_steps


@runtime_checkable
class Alpha(Protocol):
    """alpha(t), the chance that a token is visible at time t; every `Schedule` is one."""

    def alpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]: ...


@runtime_checkable
class Sigma(Protocol):
    """sigma of the steps from t to s, before it is cut to what the schedule allows."""

    def __call__(
        self, t: Float[Tensor, " N"], alpha_t: Float[Tensor, " N"], alpha_s: Float[Tensor, " N"]
    ) -> Float[Tensor, " N"]: ...


@dataclass(frozen=True)
class Cap:
    """sigma = eta, or the largest allowed.

    Raises:
        ValueError: eta outside [0, 1].
    Source:
        arXiv:2503.00307, section 4 (ReMDM-cap).
    """

    eta: float = 0.04

    def __post_init__(self) -> None:
        _check_share("eta", self.eta)

    def __call__(
        self, t: Float[Tensor, " N"], alpha_t: Float[Tensor, " N"], alpha_s: Float[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        return torch.full_like(t, self.eta)


@dataclass(frozen=True)
class Rescale:
    """sigma = eta times the largest allowed.

    Raises:
        ValueError: eta outside [0, 1].
    Source:
        arXiv:2503.00307, section 4 (ReMDM-rescale).
    """

    eta: float = 0.04

    def __post_init__(self) -> None:
        _check_share("eta", self.eta)

    def __call__(
        self, t: Float[Tensor, " N"], alpha_t: Float[Tensor, " N"], alpha_s: Float[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        return self.eta * sigma_max(alpha_t, alpha_s)


@dataclass(frozen=True)
class Corrector:
    """sigma = beta (alpha_s - alpha_t) / alpha_t with beta = scale (t (1 - t))^power; cut to the largest allowed.

    Scale 1 and power 0 is the forward-backward corrector; scale 10 and power 1/4 that of discrete flow matching.

    Raises:
        ValueError: scale or power < 0.
    Source:
        arXiv:2503.00307, section 3 (correctors as special cases of sigma).
    """

    scale: float = 1.0
    power: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("scale", self.scale), ("power", self.power)):
            if not value >= 0.0:
                raise ValueError(f"sampler.{name}={value}: must be >= 0; scale 1 and power 0 is forward-backward")

    def __call__(
        self, t: Float[Tensor, " N"], alpha_t: Float[Tensor, " N"], alpha_s: Float[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        return self.scale * (t * (1 - t)) ** self.power * (alpha_s - alpha_t) / alpha_t.clamp(min=TINY)


@dataclass(frozen=True)
class Psi:
    """sigma = (1 - kappa)(1 - alpha_s): kappa of the reverse step mixed with 1 - kappa of noising the prediction anew.

    Raises:
        ValueError: kappa outside [0, 1]; 1 is ancestral, 0 noises every position anew.
    Source:
        arXiv:2602.21185 (Psi-samplers); for masks the same family as arXiv:2503.00307.
    """

    kappa: float = 0.95

    def __post_init__(self) -> None:
        _check_share("kappa", self.kappa)

    def __call__(
        self, t: Float[Tensor, " N"], alpha_t: Float[Tensor, " N"], alpha_s: Float[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        return (1 - self.kappa) * (1 - alpha_s)


@dataclass(frozen=True)
class During:
    """`inner` in the steps that begin at a time in (end, start], no remasking outside.

    Raises:
        ValueError: unless 0 <= end < start <= 1.
    Source:
        arXiv:2503.00307, section 4 (ReMDM-switch: end 0; ReMDM-loop, with `Plateau`).
    """

    inner: Sigma = field(default_factory=Cap)
    start: float = 0.5
    end: float = 0.0

    def __post_init__(self) -> None:
        _check_times(self.start, self.end)

    def __call__(
        self, t: Float[Tensor, " N"], alpha_t: Float[Tensor, " N"], alpha_s: Float[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        return torch.where((t > self.end) & (t <= self.start), self.inner(t, alpha_t, alpha_s), 0.0)


@dataclass(frozen=True)
class Plateau:
    """alpha rises linearly to `level` at t = start, stays there until t = end, rises linearly to 1.

    Raises:
        ValueError: unless 0 <= end < start < 1 and 0 < level < 1.
    Source:
        arXiv:2503.00307, section 4 (ReMDM-loop).
    """

    start: float = 0.55
    end: float = 0.05
    level: float = 0.9

    def __post_init__(self) -> None:
        _check_times(self.start, self.end)
        if self.start == 1.0:
            raise ValueError("sampler.start=1.0: must be < 1; before it the positions are written")
        if not 0.0 < self.level < 1.0:
            raise ValueError(f"sampler.level={self.level}: must be in (0, 1), the share of visible tokens in the loop")

    def alpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        rising = self.level * (1 - t) / (1 - self.start)
        ending = 1 - (1 - self.level) * t / max(self.end, TINY)
        return torch.where(t > self.start, rising, torch.where(t > self.end, self.level, ending))


@dataclass(frozen=True)
class Remasking:
    """The grid of a remasking sampler, uniform from t=1 to 0; the last step writes everything and sends nothing back.

    A visible token goes back with chance sigma; a mask is written with chance
    (alpha_s - (1 - sigma) alpha_t) / (1 - alpha_t). With a perfect denoiser and chances that do not depend on the
    tokens, each position is visible with chance alpha_s after each step: the marginals of the noising process.

    Args:
        by_confidence: share sigma out over a row's written tokens, softmax of minus the probability each was drawn
            with. Masks are then written as in ancestral sampling, so more positions are masked than alpha says.
    Raises:
        ValueError: num_steps < 1.
    Source:
        arXiv:2503.00307, equations of section 3; `by_confidence`: section 4 (ReMDM-conf).
    """

    num_steps: int
    sigma: Sigma = field(default_factory=Cap)
    schedule: Alpha = field(default_factory=Linear)
    by_confidence: bool = False

    def __post_init__(self) -> None:
        check_num_steps(self.num_steps)

    @cached_property
    def times(self) -> Float[Tensor, " M"]:
        """The grid, from 1 to 0: one more than there are steps."""
        return torch.linspace(1.0, 0.0, self.num_steps + 1, dtype=torch.float64)

    @cached_property
    def back(self) -> Float[Tensor, " N"]:
        """sigma of each step."""
        alpha = self.schedule.alpha(self.times)
        wanted = self.sigma(self.times[:-1], alpha[:-1], alpha[1:])
        allowed = torch.minimum(wanted, sigma_max(alpha[:-1], alpha[1:]))
        return torch.cat([allowed[:-1], allowed.new_zeros(1)])

    @cached_property
    def write(self) -> Float[Tensor, " N"]:
        """Chance that a mask is written in each step."""
        alpha = self.schedule.alpha(self.times)
        sigma = torch.zeros_like(self.back) if self.by_confidence else self.back
        chance = (alpha[1:] - (1 - sigma) * alpha[:-1]) / (1 - alpha[:-1])
        return torch.cat([chance[:-1], chance.new_ones(1)])


TINY = torch.finfo(torch.float64).tiny


def sigma_max(alpha_t: Float[Tensor, " N"], alpha_s: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """min(1, (1 - alpha_s) / alpha_t): more would need masks to be written with a chance below 0 (arXiv:2503.00307)."""
    return ((1 - alpha_s) / alpha_t.clamp(min=TINY)).clamp(max=1.0)


def _check_share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"sampler.{name}={value}: must be in [0, 1]")


def _check_times(start: float, end: float) -> None:
    if not 0.0 <= end < start <= 1.0:
        raise ValueError(f"sampler.start={start}, sampler.end={end}: must be 0 <= end < start <= 1; t runs from 1 to 0")
