"""How well a network predicts a text: windows of the text through an estimator of `anyorder.likelihood`."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from anyorder.api.values import Score
from anyorder.core.noise import Noise
from anyorder.likelihood.bound import Estimate, count_form
from anyorder.likelihood.chain import exact_causal
from anyorder.models.transformer import Transformer

REPLICATES = 4  # independent groups of draws behind a standard error
LOGITS_AT_ONCE = 1 << 26  # numbers; bounds the memory of one pass
ROWS_AT_ONCE = 64


def rows_at_once(length: int, *, vocab_size: int) -> int:
    """How many rows of this length go through a network together."""
    return max(1, min(ROWS_AT_ONCE, LOGITS_AT_ONCE // (length * vocab_size)))


def score_tokens(model: Transformer, ids: list[int], *, num_bytes: int, draws: int, noise: Noise) -> Score:
    """The score of a text of these tokens in windows of the model's length, each on its own.

    Args:
        draws: masked copies of each window; not used for a causal network.
    """
    estimates: list[Estimate] = []
    num_rows = 0
    for rows in _windows(ids, model):
        row_id = torch.arange(num_rows, num_rows + len(rows)).to(rows.device)
        estimates.append(_estimate(model, rows, row_id, draws=draws, noise=noise))
        num_rows += len(rows)
    return Score(
        nats=sum(float(e.nats.sum()) for e in estimates),
        stderr=math.sqrt(sum(float(e.stderr.square().sum()) for e in estimates)),
        num_tokens=len(ids),
        num_bytes=num_bytes,
        estimator=estimates[0].estimator,
        draws=1 if model.config.causal else draws,
        nfe=sum(e.nfe * len(e.nats) for e in estimates),
        windows=num_rows,
    )


def _windows(ids: list[int], model: Transformer) -> Iterator[Int[Tensor, "B L"]]:
    """Rows of the model's length, a few at a time, and what is left as a last, shorter row."""
    length, device = model.config.max_length, model.rope_cos.device
    whole = len(ids) // length * length
    if whole:
        yield from torch.split(
            torch.tensor(ids[:whole], device=device).view(-1, length), rows_at_once(length, vocab_size=model.vocab.size)
        )
    if whole < len(ids):
        yield torch.tensor([ids[whole:]], device=device)


def _estimate(
    model: Transformer,
    tokens: Int[Tensor, "B L"],
    row_id: Int[Tensor, " B"],
    *,
    draws: int,
    noise: Noise,
) -> Estimate:
    target = torch.ones_like(tokens, dtype=torch.bool)
    if model.config.causal:
        return exact_causal(model, tokens, target=target, row_id=row_id)
    return count_form(
        model,
        tokens,
        target=target,
        row_id=row_id,
        draws=draws,
        noise=noise,
        replicates=REPLICATES,
        rows_per_pass=rows_at_once(tokens.shape[1], vocab_size=model.vocab.size),
    )
