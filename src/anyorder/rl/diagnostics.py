"""What to watch while a policy moves: how far from the one that drew the tokens, and how sure of itself."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from anyorder.core import dist
from anyorder.rl.kl import k3


@dataclass(frozen=True)
class Diagnostics:
    """Sums over tokens, float64 without gradient, so that parts add up (`+`) before anyone divides (`means`).

    Args:
        tokens: how many.
        clipped: of them without gradient, because their ratio has left the clip range in the direction of A.
        ratio: p / p_old, of the level the objective works on.
        old_kl: estimates of KL(p_old || p), each >= 0.
        penalty: the KL penalty to the reference before beta.
        surprisal: -log p. Its mean over tokens drawn from p is the entropy of p where they were drawn.
        farthest: largest |log p - log p_old| of a token; with the same weights it is numerical error alone.
    """

    tokens: Float[Tensor, ""]
    clipped: Float[Tensor, ""]
    ratio: Float[Tensor, ""]
    old_kl: Float[Tensor, ""]
    penalty: Float[Tensor, ""]
    surprisal: Float[Tensor, ""]
    farthest: Float[Tensor, ""]

    @classmethod
    def of(
        cls,
        logp: Float[Tensor, "B L"],
        log_ratio: Float[Tensor, "B L"],
        *,
        mask: Bool[Tensor, "B L"],
        ratio: Float[Tensor, "B L"],
        clipped: Bool[Tensor, "B L"],
        penalty: Float[Tensor, "B L"],
    ) -> "Diagnostics":
        """Of the tokens in `mask`; `log_ratio` is log p - log p_old of each token by itself."""

        def total(value: Tensor) -> Tensor:
            return torch.where(mask, value.detach().double(), 0.0).sum()

        far = torch.where(mask, log_ratio.detach().double().abs(), 0.0)
        return cls(
            tokens=mask.sum().double(),
            clipped=total(clipped),
            ratio=total(ratio),
            old_kl=total(k3(-log_ratio)),
            penalty=total(penalty),
            surprisal=total(-logp),
            farthest=far.max() if far.numel() else far.sum(),
        )

    def __add__(self, other: "Diagnostics") -> "Diagnostics":
        summed = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return Diagnostics(**summed | {"farthest": torch.maximum(self.farthest, other.farthest)})

    @classmethod
    def none(cls) -> "Diagnostics":
        """Of no token."""
        return cls(*[torch.zeros((), dtype=torch.float64) for _ in fields(cls)])

    def of_all_ranks(self) -> "Diagnostics":
        """The sums over ranks, on every rank; nothing new if there is one."""
        if dist.world() == 1:
            return self
        names = [f.name for f in fields(self)]
        each = torch.zeros(dist.world(), len(names), dtype=torch.float64)
        each[dist.rank()] = torch.stack([getattr(self, name) for name in names]).cpu()
        each = dist.all_sum(each)
        return Diagnostics(**dict(zip(names, each.sum(0))) | {"farthest": each[:, -1].max()})

    def means(self) -> dict[str, float]:
        """Per token: `clip_fraction`, `ratio`, `old_kl`, `penalty`, `entropy`; and `farthest`. 0 without tokens."""
        n = float(self.tokens.clamp(min=1))
        return {
            "clip_fraction": float(self.clipped) / n,
            "ratio": float(self.ratio) / n,
            "old_kl": float(self.old_kl) / n,
            "penalty": float(self.penalty) / n,
            "entropy": float(self.surprisal) / n,
            "farthest": float(self.farthest),
        }
