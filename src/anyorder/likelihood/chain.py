"""Exact likelihoods by the chain rule: of a left-to-right model in one pass, of any model in any order of writing."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.categorical import log_prob_of
from anyorder.core.dedup import ask_once
from anyorder.core.noise import Noise, ranks
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


def chain_rule(
    model: Denoiser,
    tokens: Int[Tensor, "B L"],
    *,
    target: Bool[Tensor, "B L"],
    segment: Int[Tensor, "B L"] | None = None,
    row_id: Int[Tensor, " B"] | None = None,
    order: Int[Tensor, "B L"] | None = None,
    rows_per_pass: int = 64,
) -> Estimate:
    """-log p of each row's targets written one by one in a given order, by any model; exact for that way of writing.

    Each token is predicted with the targets before it visible and those after it masked: T rows of a pass for T
    targets. Left to right this is the chain-rule estimator of SMDM.

    Args:
        order: when each target is written, any distinct numbers; None: from left to right.
        rows_per_pass: rows of one network pass.
    Source:
        arXiv:2410.18514, appendix C.2.
    """
    ids = torch.arange(len(tokens), device=tokens.device) if row_id is None else row_id
    position = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
    rank = ranks((position if order is None else order).double(), target)
    row, column = target.nonzero(as_tuple=True)
    nats = torch.zeros(len(tokens), dtype=torch.float64, device=tokens.device)
    for part in torch.split(torch.arange(len(row), device=tokens.device), rows_per_pass):
        r, c = row[part], column[part]
        masked = target[r] & (rank[r] >= rank[r, c][:, None])
        canvas = Canvas(
            x=tokens[r].masked_fill(masked, model.vocab.mask_id),
            fixed=~target[r],
            window=torch.ones_like(masked),
            segment=None if segment is None else segment[r],
            row_id=ids[r],
        )
        logits = ask_once(model, canvas, position[r] == c[:, None])
        nats = nats.index_add(0, r, -log_prob_of(logits, tokens[r, c]))
    sizes = target.sum(-1)
    passes = int(sizes.max()) * model.nfe if len(sizes) else 0
    return Estimate(nats, torch.zeros_like(nats), sizes, nfe=passes, estimator="chain_rule")


def order_mixture(
    model: Denoiser,
    tokens: Int[Tensor, "B L"],
    *,
    target: Bool[Tensor, "B L"],
    segment: Int[Tensor, "B L"] | None = None,
    row_id: Int[Tensor, " B"],
    orders: int,
    noise: Noise,
    rows_per_pass: int = 64,
) -> Estimate:
    """-log of the mean over random orders of the probability of writing the targets in them.

    The first-hitting sampler's own -log p is what it falls to with the number of orders; with one it is a draw of the
    bound. Its mean is never below that -log p (Jensen), so it bounds too, more tightly than the NELBO.

    Args:
        orders: K; T passes of a row each.
    Raises:
        ValueError: orders < 1.
    Source:
        arXiv:1509.00519 (importance-weighted bounds), with orders for latent variables.
    """
    if orders < 1:
        raise ValueError(f"orders={orders}: must be >= 1 random order of writing")
    single: list[Float[Tensor, " B"]] = []
    place = torch.arange(tokens.shape[1], device=tokens.device)
    for k in range(orders):
        u = noise.at("order").uniform(row_id[:, None], k, place)
        when = ranks(u, target)
        made = chain_rule(
            model, tokens, target=target, segment=segment, row_id=row_id, order=when, rows_per_pass=rows_per_pass
        )
        single.append(made.nats)
    every = torch.stack(single, -1)
    nats = math.log(orders) - (-every).logsumexp(-1)
    weight = (-every).softmax(-1)
    stderr = ((weight * orders - 1) ** 2).mean(-1).sqrt() / math.sqrt(max(orders - 1, 1))  # of a log of a mean
    if orders == 1:
        stderr = torch.full_like(nats, math.nan)
    sizes = target.sum(-1)
    passes = int(sizes.max()) * orders * model.nfe if len(sizes) else 0
    return Estimate(nats, stderr, sizes, nfe=passes, estimator="order_mixture")
