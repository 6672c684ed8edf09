"""The token rule: from logits and one uniform to a token and the chance it had."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anyorder.core import categorical

NO_DISTRIBUTION = (
    "the model's logits are nan, +inf or all -inf at a position to be written, so there is no distribution to draw a "
    "token from; lower the guidance if there is any, compute in float32, or check that the weights are finite"
)


@dataclass(frozen=True)
class TokenRule:
    """Temperature, then top-k, then top-p, then one draw by inverse CDF.

    Args:
        temperature: tau of p^(1/tau); 0 takes the most likely token (its log-probability is then 0: nothing is drawn).
        top_k: keep the k most likely tokens; 0 keeps all.
        top_p: keep the smallest set of most likely tokens with at least this mass; 1 keeps all.
        crossing: whether the token with which the mass reaches top_p is kept, as in `categorical.top_p`.
    Raises:
        ValueError: a value outside its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    crossing: bool = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < math.inf:
            raise ValueError(
                f"sampler.temperature={self.temperature}: must be >= 0 and finite; 0 is greedy, 1 the model's own law"
            )
        if self.top_k < 0:
            raise ValueError(f"sampler.top_k={self.top_k}: must be >= 0; 0 keeps every token")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"sampler.top_p={self.top_p}: must be in (0, 1]; 1 keeps every token")

    @property
    def exact(self) -> bool:
        """Whether tokens follow the model's own law."""
        return self.temperature == 1.0 and self.top_k == 0 and self.top_p == 1.0

    def law(self, logits: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
        """Logits of the law tokens are drawn from."""
        if self.temperature == 0.0:
            chosen = categorical.greedy(logits)[:, None]
            return torch.full_like(logits, -math.inf).scatter(-1, chosen, 0.0)
        return self.shape(logits)

    def shape(self, logits: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
        """Logits after temperature and truncation; at temperature 0, which has no distribution, after truncation."""
        scaled = logits if self.temperature in (0.0, 1.0) else categorical.temperature(logits, self.temperature)
        kept = categorical.top_k(scaled, self.top_k) if self.top_k else scaled
        return categorical.top_p(kept, self.top_p, crossing=self.crossing)

    def __call__(
        self, logits: Float[Tensor, "N V"], u: Float[Tensor, " N"]
    ) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"]]:
        """Tokens and their log-probabilities (nats, float64), one uniform each.

        Raises:
            RuntimeError: a row of logits is no distribution: nan, +inf, or nothing above -inf.
        """
        if self.temperature == 0.0:
            token = torch.where(logits.amax(-1).isfinite(), categorical.greedy(logits), -1)
            logp = torch.zeros_like(u)
        else:
            token, logp = categorical.draw_with_log_prob(self.law(logits), u)
        if bool((token < 0).any()):
            raise RuntimeError(NO_DISTRIBUTION)
        return token, logp
