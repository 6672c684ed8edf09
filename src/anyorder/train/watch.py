"""Held-out validation: nats per token and bits per byte, with a standard error over rows; and loss by mask count."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Batch
from anyorder.likelihood.bound import count_form
from anyorder.likelihood.chain import exact_causal
from anyorder.likelihood.insertion import insertion_bound


@dataclass(frozen=True)
class Validation:
    """Held-out negative log-likelihood: exact for an ARM, an upper bound for an MDM or an ILM.

    Args:
        nats_per_token: summed nats over summed target tokens.
        stderr: its standard error over rows: which text was held out, and (MDM) which masks were drawn.
        bits_per_byte: the same in bits per UTF-8 byte; nan if the tokens have no bytes.
        bits_per_byte_stderr: its standard error.
        num_tokens: target tokens scored.
    """

    nats_per_token: float
    stderr: float
    bits_per_byte: float
    bits_per_byte_stderr: float
    num_tokens: int


@torch.no_grad()
def validate(
    model: Denoiser,
    batches: list[Batch],
    *,
    kind: str,
    draws: int,
    noise: Noise,
    bytes_per_token: Int[Tensor, " I"],
) -> Validation:
    """Score every target of the batches; ratio estimates with their (delta method) standard errors over rows."""
    nats, tokens, text_bytes = [], [], []
    for batch in batches:
        if kind == "arm":
            estimate = exact_causal(model, batch.tokens, target=batch.target, segment=batch.segment)
        else:
            estimator = insertion_bound if kind == "ilm" else count_form
            estimate = estimator(
                model,
                batch.tokens,
                target=batch.target,
                segment=batch.segment,
                row_id=batch.sample_id,
                draws=draws,
                replicates=2,
                noise=noise,
            )
        nats.append(estimate.nats.cpu())
        tokens.append(estimate.num_tokens.double().cpu())
        text_bytes.append((bytes_per_token[batch.tokens.cpu()] * batch.target.cpu()).sum(-1).double())
    y, n, b = torch.cat(nats), torch.cat(tokens), torch.cat(text_bytes)
    per_token, per_token_err = _ratio(y, n)
    per_byte, per_byte_err = _ratio(y, b)
    return Validation(per_token, per_token_err, per_byte / math.log(2), per_byte_err / math.log(2), int(n.sum()))


def _ratio(y: Tensor, x: Tensor) -> tuple[float, float]:
    """sum(y)/sum(x) and its standard error over independent rows."""
    if not x.sum() > 0:
        return math.nan, math.nan
    ratio = y.sum() / x.sum()
    if len(y) < 2:
        return float(ratio), math.nan
    spread = (y - ratio * x).square().sum() / (len(y) - 1)
    return float(ratio), float((len(y) * spread).sqrt() / x.sum())
