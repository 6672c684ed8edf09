"""Masking schedules alpha(t), the chance that a token is still visible at time t, each named by its formula.

"Cosine" alone names three different curves in published code, so none is called that here. Every method maps float64 to
float64 elementwise. `weight` is written in the form that stays accurate for small t. `inverse` takes alpha in
[alpha(1), alpha(0)] and gives the nearest end for values outside. Source: samplers papers as named by each class.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from anyorder.core.protocols import Schedule

HALF_PI = math.pi / 2


def _unit(x: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    return x.clamp(0.0, 1.0)


def _positive(name: str, value: float) -> None:
    if not 0.0 < value < math.inf:
        raise ValueError(f"{name}={value}: must be > 0 and finite")


def _fraction(name: str, value: float) -> None:
    if not 0.0 <= value < 0.5:
        raise ValueError(f"{name}={value}: must be in [0, 0.5); 0 lets alpha fall to 0 (published values: 1e-3, 1e-4)")


@dataclass(frozen=True)
class Linear:
    """alpha = 1 - t, weight 1/t: SMDM, LLaDA and most others."""

    def alpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return 1 - t

    def dalpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return -torch.ones_like(t)

    def inverse(self, alpha: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return _unit(1 - alpha)

    def weight(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return 1 / t


@dataclass(frozen=True)
class LogLinear:
    """alpha = 1 - (1 - eps) t, whose weight is 1/t for every eps (MDLM, arXiv:2406.07524; Duo)."""

    eps: float = 1e-3

    def __post_init__(self) -> None:
        _fraction("eps", self.eps)

    def alpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return 1 - (1 - self.eps) * t

    def dalpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return torch.full_like(t, self.eps - 1)

    def inverse(self, alpha: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return _unit((1 - alpha) / (1 - self.eps))

    def weight(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return 1 / t


@dataclass(frozen=True)
class OneMinusCosine:
    """alpha = 1 - cos(pi/2 (1 - t)): the cosine schedule of MD4 (arXiv:2406.04329) and Duo."""

    def alpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return 2 * torch.sin(HALF_PI / 2 * (1 - t)) ** 2

    def dalpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return -HALF_PI * torch.sin(HALF_PI * (1 - t))

    def inverse(self, alpha: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return _unit(1 - 2 / HALF_PI * torch.asin(torch.sqrt(_unit(alpha / 2))))

    def weight(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return HALF_PI / torch.tan(HALF_PI * t)


@dataclass(frozen=True)
class CosineMdlm:
    """alpha = eps + (1 - eps) cos(pi t / 2): what MDLM's code (arXiv:2406.07524) calls cosine; not MD4's curve."""

    eps: float = 1e-3

    def __post_init__(self) -> None:
        _fraction("eps", self.eps)

    def alpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return self.eps + (1 - self.eps) * torch.cos(HALF_PI * t)

    def dalpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return -(1 - self.eps) * HALF_PI * torch.sin(HALF_PI * t)

    def inverse(self, alpha: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return _unit(2 / HALF_PI * torch.asin(torch.sqrt(_unit((1 - alpha) / (1 - self.eps) / 2))))

    def weight(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return HALF_PI / torch.tan(HALF_PI / 2 * t)


@dataclass(frozen=True)
class CosineSquared:
    """alpha = eps + (1 - eps) cos^2(pi t / 2) (MDLM's code, arXiv:2406.07524)."""

    eps: float = 1e-3

    def __post_init__(self) -> None:
        _fraction("eps", self.eps)

    def alpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return self.eps + (1 - self.eps) * torch.cos(HALF_PI * t) ** 2

    def dalpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return -(1 - self.eps) * HALF_PI * torch.sin(2 * HALF_PI * t)

    def inverse(self, alpha: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return _unit(torch.asin(torch.sqrt(_unit((1 - alpha) / (1 - self.eps)))) / HALF_PI)

    def weight(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return 2 * HALF_PI / torch.tan(HALF_PI * t)


@dataclass(frozen=True)
class Poly:
    """alpha = 1 - t^p, weight p/t (MD4, arXiv:2406.04329; BD3-LM's square is p = 2, its square root p = 1/2)."""

    p: float = 2.0

    def __post_init__(self) -> None:
        _positive("p", self.p)

    def alpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return 1 - t**self.p

    def dalpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return -self.p * t ** (self.p - 1)

    def inverse(self, alpha: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return _unit(1 - alpha) ** (1 / self.p)

    def weight(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return self.p / t


@dataclass(frozen=True)
class Logarithmic:
    """alpha = 1 - log2(1 + t) (BD3-LM, arXiv:2503.09573)."""

    def alpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return 1 - torch.log1p(t) / math.log(2)

    def dalpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return -1 / ((1 + t) * math.log(2))

    def inverse(self, alpha: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return _unit(torch.expm1((1 - alpha) * math.log(2)))

    def weight(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return 1 / ((1 + t) * torch.log1p(t))


@dataclass(frozen=True)
class Geometric:
    """alpha = exp(-sigma), sigma = sigma_min^(1-t) sigma_max^t (SEDD, arXiv:2310.16834; MDLM). alpha(0) < 1."""

    sigma_min: float = 1e-4
    sigma_max: float = 20.0

    def __post_init__(self) -> None:
        _positive("sigma_min", self.sigma_min)
        if not self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(f"sigma_max={self.sigma_max}: must be finite and above sigma_min={self.sigma_min}")

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def _sigma(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return self.sigma_min * torch.exp(self._log_ratio * t)

    def alpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return torch.exp(-self._sigma(t))

    def dalpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        sigma = self._sigma(t)
        return -self._log_ratio * sigma * torch.exp(-sigma)

    def inverse(self, alpha: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return _unit(torch.log(-torch.log(alpha) / self.sigma_min) / self._log_ratio)

    def weight(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        sigma = self._sigma(t)
        return self._log_ratio * sigma / torch.expm1(sigma)


@dataclass(frozen=True)
class ExpEmigm:
    """alpha = exp(-rate t): eMIGM's exponential schedule (arXiv:2503.07197). alpha(1) = exp(-rate) > 0."""

    rate: float = 5.0

    def __post_init__(self) -> None:
        _positive("rate", self.rate)

    def alpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return torch.exp(-self.rate * t)

    def dalpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return -self.rate * torch.exp(-self.rate * t)

    def inverse(self, alpha: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return _unit(-torch.log(alpha) / self.rate)

    def weight(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return self.rate / torch.expm1(self.rate * t)


@dataclass(frozen=True)
class LogEmigm:
    """alpha = 1 - log(1 + (e^rate - 1) t) / rate: eMIGM's logarithmic schedule (arXiv:2503.07197)."""

    rate: float = 5.0

    def __post_init__(self) -> None:
        _positive("rate", self.rate)

    @property
    def _c(self) -> float:
        return math.expm1(self.rate)

    def alpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return 1 - torch.log1p(self._c * t) / self.rate

    def dalpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return -self._c / (self.rate * (1 + self._c * t))

    def inverse(self, alpha: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return _unit(torch.expm1(self.rate * (1 - alpha)) / self._c)

    def weight(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return self._c / ((1 + self._c * t) * torch.log1p(self._c * t))


@dataclass(frozen=True)
class Clipped:
    """(1 - 2 eps) alpha + eps of another schedule: MD4's wrap (arXiv:2406.04329), which keeps alpha off 0 and 1.

    As alpha(0) = 1 - eps, a likelihood bound needs the reconstruction term of the tokens masked at t = 0 on top.
    """

    inner: Schedule = field(default_factory=OneMinusCosine)
    eps: float = 1e-4

    def __post_init__(self) -> None:
        _fraction("eps", self.eps)

    def alpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return (1 - 2 * self.eps) * self.inner.alpha(t) + self.eps

    def dalpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return (1 - 2 * self.eps) * self.inner.dalpha(t)

    def inverse(self, alpha: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return self.inner.inverse(_unit((alpha - self.eps) / (1 - 2 * self.eps)))

    def weight(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return -self.dalpha(t) / (1 - self.alpha(t))


SCHEDULES: dict[str, Callable[[], Schedule]] = {
    "linear": Linear,
    "log-linear": LogLinear,
    "one-minus-cosine": OneMinusCosine,
    "cosine-mdlm": CosineMdlm,
    "cosine-squared": CosineSquared,
    "poly": Poly,
    "logarithmic": Logarithmic,
    "geometric": Geometric,
    "exp-emigm": ExpEmigm,
    "log-emigm": LogEmigm,
    "clipped": Clipped,
}
