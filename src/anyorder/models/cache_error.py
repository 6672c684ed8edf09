"""What an approximate cache does to predictions, measured pass by pass."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from anyorder.core.categorical import log_probs
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas, Vocab

AT_ONCE = 1 << 22  # numbers compared at once; bounds the memory of a comparison


@dataclass(frozen=True)
class Reading:
    """One pass.

    Args:
        mean, max: over the named positions, of KL(without cache || with it); nats.
        changed: at how many positions another token is the likeliest.
    """

    positions: int
    mean: float
    max: float
    changed: int


class CacheError:
    """A denoiser that answers as the cached one does and asks the other one too: its `readings` tell how they differ.

    For measuring, not for writing: each call costs a full pass more, which `nfe` does not count.
    """

    def __init__(self, cached: Denoiser, exact: Denoiser) -> None:
        self.cached, self.exact = cached, exact
        self.readings: list[Reading] = []

    @property
    def nfe(self) -> int:
        return self.cached.nfe

    @property
    def vocab(self) -> Vocab:
        return self.cached.vocab

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        logits, exact = self.cached(canvas, at), self.exact(canvas, at)
        if len(logits):
            kl = kl_divergence(exact, logits)
            changed = int((exact.argmax(-1) != logits.argmax(-1)).sum())
            self.readings.append(Reading(len(kl), float(kl.mean()), float(kl.max()), changed))
        return logits

    @property
    def positions(self) -> int:
        """Predictions compared so far."""
        return sum(r.positions for r in self.readings)

    @property
    def mean(self) -> float:
        """Mean KL of all of them, nats; 0 before the first."""
        return sum(r.mean * r.positions for r in self.readings) / max(1, self.positions)

    @property
    def max(self) -> float:
        """The largest KL, nats; 0 before the first."""
        return max((r.max for r in self.readings), default=0.0)

    @property
    def changed(self) -> int:
        """At how many of them another token is the likeliest."""
        return sum(r.changed for r in self.readings)


def kl_divergence(true_logits: Float[Tensor, "N V"], logits: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
    """KL(p || q) of two laws given by their logits, nats, float64; infinite where q lacks a token that p has."""
    rows = max(1, AT_ONCE // logits.shape[-1])
    parts = [torch.zeros(0, dtype=torch.float64, device=logits.device)]
    for a, b in zip(torch.split(true_logits, rows), torch.split(logits, rows)):
        p, q = log_probs(a), log_probs(b)
        parts.append(torch.where(p == -torch.inf, 0.0, p.exp() * (p - q)).sum(-1).clamp(min=0.0))
    return torch.cat(parts)
