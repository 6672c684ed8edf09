"""The loss-by-mask-count curve: how hard is one masked token when n of a row's targets are masked.

Under a perfect denoiser the value at n masks is Z_{T-n}, and the sum over n = 1..T is the entropy (arXiv:2409.02908).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from anyorder.core.categorical import log_prob_of
from anyorder.core.noise import Noise, ranks
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas


@dataclass(frozen=True)
class CountLoss:
    """Mean nats per masked token at `num_masked` masks, and its standard error over rows."""

    num_masked: int
    nats: float
    stderr: float


@torch.no_grad()
def loss_by_count(
    model: Denoiser,
    tokens: Int[Tensor, "B L"],
    *,
    target: Bool[Tensor, "B L"],
    row_id: Int[Tensor, " B"],
    counts: Sequence[int],
    noise: Noise,
) -> list[CountLoss]:
    """One random mask set of each size per row, the larger sets holding the smaller ones; one pass per size.

    Raises:
        ValueError: a count below 1 or above the targets of some row.
    """
    most = int(target.sum(-1).min())
    if not counts or min(counts) < 1 or max(counts) > most:
        raise ValueError(f"counts={list(counts)}: must lie in 1..{most}, the targets of the shortest row")
    u = noise.at("mask").uniform(row_id[:, None], 0, torch.arange(tokens.shape[1], device=tokens.device))
    rank = ranks(u, target)
    curve = []
    for n in counts:
        masked = rank < n
        canvas = Canvas(
            x=tokens.masked_fill(masked, model.vocab.mask_id), fixed=~target, window=masked, segment=None, row_id=row_id
        )
        nll = -log_prob_of(model(canvas, masked), tokens[masked]).view(len(tokens), n).mean(-1)
        stderr = float(nll.std() / math.sqrt(len(nll))) if len(nll) > 1 else math.nan
        curve.append(CountLoss(n, float(nll.mean()), stderr))
    return curve
