"""Clipped policy objectives whose losses and gradients are sums over parts: sampler steps, micro-batches, ranks.

A part is any set of tokens of some rows. What a sum is divided by is a matter of lengths alone, known before the first
network pass, so each part's loss is computed, differentiated and dropped by itself.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.rl.diagnostics import Diagnostics
from anyorder.rl.kl import PENALTIES

LEVELS = ("token", "sequence")
NORMALISERS = ("grpo", "bnpo", "dr_grpo", "dapo")


@dataclass(frozen=True)
class Extent:
    """What one optimiser step holds, over all micro-batches and ranks.

    Args:
        rows: trajectories that teach anything.
        tokens: their scored tokens.
        max_length: the most tokens an answer of the run may have: a constant, or steps would differ in scale.
    """

    rows: int
    tokens: int
    max_length: int


def row_weights(lengths: Int[Tensor, " B"], *, normaliser: str, whole: Extent) -> Float[Tensor, " B"]:
    """What each token of a row counts in the loss, float64.

    | normaliser | weight of a token of row b | every optimiser step is |
    |---|---|---|
    | grpo | 1 / (rows * length_b) | a mean over rows of means over tokens |
    | bnpo | (B / rows) / tokens of these B rows | a mean over micro-batches (ranks) of means over tokens |
    | dr_grpo | 1 / (rows * max_length) | a sum over tokens, on one scale for all lengths |
    | dapo | 1 / tokens | a mean over tokens |

    Args:
        lengths: scored tokens of each row of one micro-batch, over all its parts.
    Raises:
        ValueError: an unknown normaliser.
    Source:
        arXiv:2402.03300 (GRPO), arXiv:2503.20783 (Dr. GRPO), arXiv:2503.14476 (DAPO); names as in TRL.
    """
    length = lengths.double()
    if normaliser == "grpo":
        return 1 / (whole.rows * length.clamp(min=1))
    if normaliser == "bnpo":
        return torch.full_like(length, len(length) / whole.rows) / length.sum().clamp(min=1)
    if normaliser == "dr_grpo":
        return torch.full_like(length, 1 / (whole.rows * whole.max_length))
    if normaliser == "dapo":
        return torch.full_like(length, 1 / max(whole.tokens, 1))
    raise ValueError(f"normaliser={normaliser!r}: must be one of {NORMALISERS}")


def mean_log_ratio(
    logp: Float[Tensor, "B L"], old_logp: Float[Tensor, "B L"], *, mask: Bool[Tensor, "B L"]
) -> Float[Tensor, " B"]:
    """The log of GSPO's ratio: the mean over a row's tokens of log p - log p_old, no gradient; 0 for empty rows.

    Source:
        arXiv:2507.18071, equation 7.
    """
    change = torch.where(mask, logp.detach() - old_logp, 0.0)
    return change.sum(-1) / mask.sum(-1).clamp(min=1)


@dataclass(frozen=True)
class Part:
    """A part's share of the loss and of the figures to watch.

    Args:
        loss: to be minimised; shares add up.
    """

    loss: Float[Tensor, ""]
    diagnostics: Diagnostics


@dataclass(frozen=True)
class Objective:
    """-min(ratio * A, clip(ratio, 1 - eps_low, 1 + eps_high) * A) + beta * KL penalty, summed over weighted tokens.

    Args:
        eps_low: how far below 1 a ratio may fall before its gradient stops (where A < 0).
        eps_high: how far above 1 it may rise (where A > 0); DAPO has it larger.
        level: "token": each token has its own ratio (GRPO). "sequence": a row has one, the geometric mean of its
            tokens' (GSPO; with an ELBO for the log-likelihood, ESPO).
        kl: "k1", "k2" or "k3", the penalty towards a reference policy, always per token.
        beta: its weight; 0 needs no reference.
    Source:
        arXiv:2402.03300, equation 3; arXiv:2507.18071, equation 5; arXiv:2503.14476 (two clips).
    """

    eps_low: float = 0.2
    eps_high: float = 0.2
    level: str = "token"
    kl: str = "k3"
    beta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eps_low < 1 or self.eps_high < 0:
            raise ValueError(
                f"eps_low={self.eps_low}, eps_high={self.eps_high}: eps_low must be in [0, 1), eps_high >= 0"
            )
        if self.level not in LEVELS or self.kl not in PENALTIES:
            raise ValueError(
                f"level={self.level!r}, kl={self.kl!r}: level must be one of {LEVELS}, kl one of {tuple(PENALTIES)}"
            )
        if self.beta < 0:
            raise ValueError(f"beta={self.beta}: must be >= 0; 0 leaves the KL penalty out")

    def part(
        self,
        logp: Float[Tensor, "B L"],
        *,
        old_logp: Float[Tensor, "B L"],
        mask: Bool[Tensor, "B L"],
        advantage: Float[Tensor, " B"],
        weight: Float[Tensor, " B"],
        row_log_ratio: Float[Tensor, " B"] | None = None,
        ref_logp: Float[Tensor, "B L"] | None = None,
    ) -> Part:
        """Loss of some tokens of some rows. Gradients reach the model through `logp` alone.

        With the token level, values and gradients of parts add up to those of the whole. So they do with the sequence
        level if every part is given the whole rows' `row_log_ratio`.

        Args:
            old_logp: under the policy that drew the tokens; `logp.detach()` in a first inner iteration.
            mask: the tokens of this part; values elsewhere are ignored.
            weight: of each row's tokens (`row_weights`).
            row_log_ratio: `mean_log_ratio` of the whole rows, for the sequence level; None: these tokens are whole
                rows.
            ref_logp: under the reference policy; needed where beta > 0, watched where beta = 0.
        Raises:
            ValueError: beta > 0 without a reference.
        """
        old_logp = old_logp.detach()
        log_ratio = torch.where(mask, logp - old_logp, 0.0)
        shared = log_ratio
        if self.level == "sequence":
            row = mean_log_ratio(logp, old_logp, mask=mask) if row_log_ratio is None else row_log_ratio.detach()
            shared = torch.where(mask, row[:, None] + logp - logp.detach(), 0.0)  # GSPO-token: the row's value
        ratio, a = shared.exp(), advantage[:, None]
        bounded = ratio.clamp(1 - self.eps_low, 1 + self.eps_high)
        term = -torch.minimum(ratio * a, bounded * a)
        penalty = torch.zeros_like(term)
        if ref_logp is not None:
            penalty = PENALTIES[self.kl](torch.where(mask, logp - ref_logp.detach(), 0.0))
            term = term + self.beta * penalty
        elif self.beta > 0:
            raise ValueError(f"beta={self.beta}: a KL penalty needs ref_logp; give it, or set beta to 0")
        loss = torch.where(mask, term * weight[:, None], 0.0).sum()
        watched = Diagnostics.of(
            logp, log_ratio, mask=mask, ratio=ratio, clipped=bounded * a < ratio * a, penalty=penalty
        )
        return Part(loss, watched)
