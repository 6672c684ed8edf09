"""Held-out validation: nats per token and bits per byte, with a standard error over rows; and loss by mask count."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Batch
from anyorder.likelihood.bound import count_form
from anyorder.likelihood.chain import exact_causal
from anyorder.likelihood.insertion import insertion_bound
from anyorder.processes.slots import Slots
from anyorder.processes.thin import documents


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
        value, count = score(model, batch, kind=kind, draws=draws, noise=noise)
        nats.append(value.double().cpu())
        tokens.append(count.double().cpu())
        text_bytes.append((bytes_per_token[batch.tokens.cpu()] * batch.target.cpu()).sum(-1).double())
    y, n, b = torch.cat(nats), torch.cat(tokens), torch.cat(text_bytes)
    per_token, per_token_err = _ratio(y, n)
    per_byte, per_byte_err = _ratio(y, b)
    return Validation(per_token, per_token_err, per_byte / math.log(2), per_byte_err / math.log(2), int(n.sum()))


def score(
    model: Denoiser, batch: Batch, *, kind: str, draws: int, noise: Noise
) -> tuple[Float[Tensor, " B"], Int[Tensor, " B"]]:
    """Nats of each row of a batch, and the tokens they are of, under a model of this kind of process.

    An Insertion Transformer, whose likelihood is unknown, has its loss.
    """
    if kind == "it":
        process = Slots(draw="independent")
        losses = [process.loss(model, batch, noise=noise.at(draw)).nelbo for draw in range(draws)]
        return torch.stack(losses).mean(0), documents(batch, vocab=model.vocab).body.sum(-1)
    if kind == "arm":
        estimate = exact_causal(model, batch.tokens, target=batch.target, segment=batch.segment)
    else:
        estimate = (insertion_bound if kind == "ilm" else count_form)(
            model,
            batch.tokens,
            target=batch.target,
            segment=batch.segment,
            row_id=batch.sample_id,
            draws=draws,
            replicates=2,
            noise=noise,
        )
    return estimate.nats, estimate.num_tokens


def _ratio(y: Tensor, x: Tensor) -> tuple[float, float]:
    """sum(y)/sum(x) and its standard error over independent rows."""
    if not x.sum() > 0:
        return math.nan, math.nan
    ratio = y.sum() / x.sum()
    if len(y) < 2:
        return float(ratio), math.nan
    spread = (y - ratio * x).square().sum() / (len(y) - 1)
    return float(ratio), float((len(y) * spread).sqrt() / x.sum())
