"""Exact likelihoods by the chain rule."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from anyorder.core.categorical import log_prob_of
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas
from anyorder.likelihood.bound import Estimate


def exact_causal(
    model: Denoiser,
    tokens: Int[Tensor, "B L"],
    *,
    target: Bool[Tensor, "B L"],
    segment: Int[Tensor, "B L"] | None = None,
    row_id: Int[Tensor, " B"] | None = None,
) -> Estimate:
    """-log p of each row's targets given what stands before them, in one pass of a left-to-right model; no error.

    For autoregressive models only: a masked model sees the visible neighbours on both sides, and what this function
    would return for it is a pseudo-likelihood, too good to be true.
    """
    ids = torch.arange(len(tokens), device=tokens.device) if row_id is None else row_id
    whole = torch.ones_like(target)
    canvas = Canvas(x=tokens, fixed=whole, window=whole, segment=segment, row_id=ids)
    nll = -log_prob_of(model(canvas, target), tokens[target])
    nats = torch.zeros(len(tokens), dtype=torch.float64, device=tokens.device)
    nats = nats.index_add(0, target.nonzero()[:, 0], nll)
    return Estimate(nats, torch.zeros_like(nats), target.sum(-1), nfe=model.nfe, estimator="exact_causal")
