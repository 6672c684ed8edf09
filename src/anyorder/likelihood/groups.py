"""The likelihood of a row along the path of a grouped sampler: the measured cost of a schedule."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.categorical import log_prob_of
from anyorder.core.noise import Noise, ranks
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas


@torch.no_grad()
def group_nll(
    model: Denoiser,
    tokens: Int[Tensor, "B L"],
    *,
    groups: Sequence[int],
    row_id: Int[Tensor, " B"],
    noise: Noise,
) -> Float[Tensor, " B"]:
    """-log p of each row when groups of these sizes are drawn at once, in one random order per row; nats, float64.

    Its mean is the NELBO of the grouped sampler: the entropy plus `samplers.plan.path_kl` for a perfect denoiser. Rows
    share their orders between plans (the noise names row and position only), so that differences are sharp.

    Raises:
        ValueError: the groups do not add up to the row length.
    Source:
        arXiv:2409.02908, Prop. 3.1, with groups for single tokens.
    """
    length = tokens.shape[1]
    if sum(groups) != length:
        raise ValueError(f"groups={list(groups)}: add up to {sum(groups)}, must be {length}, the row length")
    u = noise.at("order").uniform(row_id[:, None], 0, torch.arange(length, device=tokens.device))
    rank = ranks(u, torch.ones_like(tokens, dtype=torch.bool))
    nats = torch.zeros(len(tokens), dtype=torch.float64, device=tokens.device)
    start = 0
    for size in groups:
        nats = nats + _group(model, tokens, rank >= start, (rank >= start) & (rank < start + size), row_id)
        start += size
    return nats


def _group(
    model: Denoiser,
    tokens: Int[Tensor, "B L"],
    masked: Bool[Tensor, "B L"],
    at: Bool[Tensor, "B L"],
    row_id: Int[Tensor, " B"],
) -> Float[Tensor, " B"]:
    """-log p of the tokens at `at` given what is not masked, summed per row."""
    x = tokens.masked_fill(masked, model.vocab.mask_id)
    canvas = Canvas(x=x, fixed=torch.zeros_like(masked), window=masked, segment=None, row_id=row_id)
    return -log_prob_of(model(canvas, at), tokens[at]).view(len(tokens), -1).sum(-1)
