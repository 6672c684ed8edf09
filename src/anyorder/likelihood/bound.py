"""Unbiased Monte-Carlo estimates of the masked-diffusion bound, with honest standard errors.

The draws of a row are split into independent replicates; inside a replicate the noise levels are stratified, and the
spread of the replicate means gives the standard error. Noise is keyed by row_id: a row's estimate does not depend on
its batch. Logits are asked for at masked positions only and accumulated in float64.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.categorical import log_prob_of
from anyorder.core.dedup import ask_once
from anyorder.core.noise import Noise, ranks
from anyorder.core.protocols import Denoiser, Schedule
from anyorder.core.types import Canvas
from anyorder.likelihood.packing import packed


@dataclass(frozen=True)
class Total:
    """A sum over rows: nats, the standard error of the sum, and the tokens it counts."""

    nats: float
    stderr: float
    num_tokens: int

    @property
    def per_token(self) -> float:
        """Nats per token; nan without tokens."""
        return self.nats / self.num_tokens if self.num_tokens else math.nan

    @property
    def stderr_per_token(self) -> float:
        return self.stderr / self.num_tokens if self.num_tokens else math.nan

    def bits_per(self, units: int) -> tuple[float, float]:
        """Bits per unit of text (bytes, characters, ...) and the standard error."""
        return self.nats / units / math.log(2), self.stderr / units / math.log(2)


@dataclass(frozen=True)
class Estimate:
    """Negative log-likelihood, or a bound on it, of each row's targets.

    Args:
        nats: mean of the draws.
        stderr: Monte-Carlo standard error of `nats` given the row; 0 for exact values.
        num_tokens: target positions.
        nfe: network passes each row took part in.
        estimator: name of the function that made it.
    Raises:
        RuntimeError: a value is nan, which only logits that are no distribution make.
    """

    nats: Float[Tensor, " B"]
    stderr: Float[Tensor, " B"]
    num_tokens: Int[Tensor, " B"]
    nfe: int
    estimator: str

    def __post_init__(self) -> None:
        if bool(self.nats.isnan().any()):
            raise RuntimeError(
                "the model's logits are nan or +inf at a token that is scored, so it has no probability; "
                "lower the guidance if there is any, compute in float32, or check that the weights are finite"
            )

    def total(self) -> Total:
        """The sum over rows; their errors are independent, so variances add."""
        error = math.sqrt(float((self.stderr**2).sum()))
        return Total(nats=float(self.nats.sum()), stderr=error, num_tokens=int(self.num_tokens.sum()))


def count_form(
    model: Denoiser,
    tokens: Int[Tensor, "B L"],
    *,
    target: Bool[Tensor, "B L"],
    segment: Int[Tensor, "B L"] | None = None,
    row_id: Int[Tensor, " B"],
    draws: int,
    noise: Noise,
    replicates: int = 4,
    rows_per_pass: int = 64,
) -> Estimate:
    """The bound from draws that mask exactly n of a row's T targets, weight T/n, n uniform on 1..T and stratified.

    Low variance: no binomial noise in n, no small t, and the sets of one replicate are disjoint where they can be
    (`packing.py`). Exact with any number of draws when T = 1.

    Args:
        draws: network rows per row, a multiple of `replicates`.
        replicates: independent stratified groups, at least 2; the standard error has replicates - 1 degrees of freedom
            per row.
    Source:
        arXiv:2409.02908, Proposition 3.1; arXiv:2502.09992, equation 14, without the rounding bias of its public code.
    """
    rows = Rows(tokens, target, segment, row_id)
    means = count_means(model, rows, draws=draws, noise=noise, replicates=replicates, rows_per_pass=rows_per_pass)
    return summary(means, num_tokens=target.sum(-1), nfe=draws * model.nfe, estimator="count_form")


def count_means(
    model: Denoiser, rows: "Rows", *, draws: int, noise: Noise, replicates: int, rows_per_pass: int
) -> Float[Tensor, "B R"]:
    """The independent estimates that `count_form` averages. Rows of one row_id share their masks, number and place."""
    level = strata(rows.row_id, draws=draws, replicates=replicates, noise=noise.at("count"))
    sizes = rows.target.sum(-1, keepdim=True)
    n = 1 + (sizes * level).floor().long()  # (B, draws), 1..T
    group, begin = (part.flatten(1) for part in packed(n.view(len(n), replicates, -1), sizes.squeeze(-1)))
    each = draws // replicates

    def corrupt(row: Int[Tensor, " R"], draw: Int[Tensor, " R"]) -> Bool[Tensor, "R L"]:
        name = draw // each * draws + group[row, draw]  # of the random order: replicates share none
        rank = ranks(_keys(noise, rows.row_id[row], name, length=rows.tokens.shape[1]), rows.target[row])
        start = begin[row, draw][:, None]
        return (rank >= start) & (rank < start + n[row, draw][:, None]) & rows.target[row]

    value = sizes.double() / n * masked_nll(model, rows, corrupt, draws=draws, rows_per_pass=rows_per_pass)
    return value.view(len(value), replicates, -1).mean(-1)


def time_form(
    model: Denoiser,
    tokens: Int[Tensor, "B L"],
    *,
    target: Bool[Tensor, "B L"],
    segment: Int[Tensor, "B L"] | None = None,
    row_id: Int[Tensor, " B"],
    draws: int,
    noise: Noise,
    schedule: Schedule,
    replicates: int = 4,
    rows_per_pass: int = 64,
) -> Estimate:
    """The bound from stratified times t in (0, 1]: each target masked with chance 1 - alpha(t), weight w(t).

    Same mean as `count_form`, more variance; with Linear (weight 1/t) the variance is infinite (logarithmically), and
    finite with Poly(p > 1). Prefer `count_form` unless a schedule itself is studied.

    Raises:
        ValueError: the schedule does not run from alpha(0) = 1 to alpha(1) = 0; its time form would miss the ends.
    Source:
        arXiv:2409.02908, equations 5 and 6.
    """
    ends = schedule.alpha(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
    if abs(ends[0] - 1) > 1e-12 or abs(ends[1]) > 1e-12:
        raise ValueError(
            f"schedule={schedule}: runs from {ends[0]:.6g} to {ends[1]:.6g}, the bound needs 1 to 0; "
            "set its eps to 0 or use count_form"
        )
    t = 1 - strata(row_id, draws=draws, replicates=replicates, noise=noise.at("time"))
    rate = 1 - schedule.alpha(t)

    def corrupt(row: Int[Tensor, " R"], draw: Int[Tensor, " R"]) -> Bool[Tensor, "R L"]:
        return (_keys(noise, row_id[row], draw, length=tokens.shape[1]) < rate[row, draw, None]) & target[row]

    rows = Rows(tokens, target, segment, row_id)
    value = schedule.weight(t) * masked_nll(model, rows, corrupt, draws=draws, rows_per_pass=rows_per_pass)
    means = value.view(len(value), replicates, -1).mean(-1)
    return summary(means, num_tokens=target.sum(-1), nfe=draws * model.nfe, estimator="time_form")


@dataclass(frozen=True)
class Rows:
    """What is scored, without its noise."""

    tokens: Int[Tensor, "B L"]
    target: Bool[Tensor, "B L"]
    segment: Int[Tensor, "B L"] | None
    row_id: Int[Tensor, " B"]


def strata(row_id: Int[Tensor, " B"], *, draws: int, replicates: int, noise: Noise) -> Float[Tensor, "B D"]:
    """Points of [0, 1): in each replicate an evenly spaced comb with one random shift per row."""
    if replicates < 2 or draws < 1 or draws % replicates:
        raise ValueError(f"draws={draws}, replicates={replicates}: need replicates >= 2 that divide draws")
    steps = draws // replicates
    comb = torch.arange(steps, dtype=torch.float64, device=row_id.device) / steps
    shift = noise.uniform(row_id[:, None], 0, torch.arange(replicates, device=row_id.device))
    return torch.remainder(shift[..., None] + comb, 1.0).flatten(1)


def _keys(noise: Noise, row_id: Int[Tensor, " R"], draw: Int[Tensor, " R"], *, length: int) -> Float[Tensor, "R L"]:
    position = torch.arange(length, device=row_id.device)
    return noise.at("mask").uniform(row_id[:, None], draw[:, None], position)


def masked_nll(
    model: Denoiser,
    rows: Rows,
    corrupt: Callable[[Tensor, Tensor], Tensor],
    *,
    draws: int,
    rows_per_pass: int,
) -> Float[Tensor, "B D"]:
    """Sum of -log p over the masked targets of every (row, draw), nats, float64.

    A pass holds the same draw of rows that follow each other, so that answers with masks in common meet in it.
    """
    count, device = len(rows.tokens), rows.tokens.device
    total = torch.zeros(count * draws, dtype=torch.float64, device=device)
    for start in range(0, count * draws, rows_per_pass):
        flat = torch.arange(start, min(start + rows_per_pass, count * draws), device=device)
        row = flat % count
        at = corrupt(row, flat // count)
        live = at.any(-1)  # a row without masks costs nothing
        flat, row, at = flat[live], row[live], at[live]
        if not len(flat):
            continue
        canvas = Canvas(
            x=torch.where(at, model.vocab.mask_id, rows.tokens[row]),
            fixed=~rows.target[row],  # the prompt: what guidance takes away
            window=torch.ones_like(at),
            segment=None if rows.segment is None else rows.segment[row],
            row_id=rows.row_id[row],
        )
        nll = -log_prob_of(ask_once(model, canvas, at), rows.tokens[row][at])
        total = total.index_add(0, flat[at.nonzero()[:, 0]], nll)
    return total.view(draws, count).T


def summary(means: Float[Tensor, "B R"], *, num_tokens: Int[Tensor, " B"], nfe: int, estimator: str) -> Estimate:
    """The mean of independent estimates and its standard error."""
    stderr = means.std(-1) / math.sqrt(means.shape[-1])
    return Estimate(means.mean(-1), stderr, num_tokens=num_tokens, nfe=nfe, estimator=estimator)
