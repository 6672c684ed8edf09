"""Position rules: which open positions a row writes in a step."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.categorical import log_probs
from anyorder.samplers.look import Look

CHUNK = 256
TIE = 1e-4  # nats
SCORES: dict[str, Callable[[Float[Tensor, "N V"]], Float[Tensor, " N"]]] = {
    "prob": lambda logp: logp.amax(-1),  # of the most likely token
}


@dataclass(frozen=True)
class Uniform:
    """k open positions, every subset with the same chance: those with the smallest of independent uniforms."""

    def __call__(self, look: Look, k: Int[Tensor, " B"]) -> Bool[Tensor, "B L"]:
        return best(-look.u, k, allowed=look.open)


@dataclass(frozen=True)
class LeftToRight:
    """The first k open positions."""

    def __call__(self, look: Look, k: Int[Tensor, " B"]) -> Bool[Tensor, "B L"]:
        return look.open & (look.open.cumsum(-1) <= k[:, None])


@dataclass(frozen=True)
class Confidence:
    """The k open positions of which the network is surest, the leftmost among equals.

    Equal means within TIE: a network's rounding depends on the batch, and one with rotary positions says the same at
    every position of a row of masks, so that rounding alone would choose.

    Args:
        score: a name in `SCORES`, taken of the model's own law, before temperature and truncation.
    Raises:
        ValueError: a score that does not exist.
    Source:
        arXiv:2502.06768, section 4 (max-probability); arXiv:2202.04200 (MaskGIT) for the idea.
    """

    score: str = "prob"

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise ValueError(f"sampler.score={self.score!r}: must be one of {', '.join(SCORES)}")

    def __call__(self, look: Look, k: Int[Tensor, " B"]) -> Bool[Tensor, "B L"]:
        surest = torch.cat([SCORES[self.score](log_probs(rows)) for rows in torch.split(look.logits, CHUNK)])
        score = torch.zeros_like(look.open, dtype=torch.float64).index_put(look.open.nonzero(as_tuple=True), surest)
        return best(score, k, allowed=look.open, tie=TIE)


def best(
    score: Float[Tensor, "B L"], k: Int[Tensor, " B"], *, allowed: Bool[Tensor, "B L"], tie: float = 0.0
) -> Bool[Tensor, "B L"]:
    """The k allowed positions of highest score in each row (all of them if there are fewer).

    Args:
        tie: scores this close to the k-th best count as equal to it; among equals the leftmost win.
    """
    ranked = score.masked_fill(~allowed, -torch.inf).topk(min(max(int(k.max()), 1), score.shape[-1])).values
    last = (k[:, None] - 1).clamp(0, ranked.shape[-1] - 1)
    least = torch.where(k[:, None] > 0, ranked.gather(-1, last), torch.inf)
    sure = allowed & (score > least + tie)
    equal = allowed & ((score - least).abs() <= tie)
    return sure | (equal & (equal.cumsum(-1) <= (k - sure.sum(-1))[:, None]))
