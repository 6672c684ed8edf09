"""Masked diffusion (MDM): hide some targets, predict them from the rest, weight so that the loss bounds -log p.

Two forms of one bound. Count form: n uniform in 1..T, exactly n of a row's T targets masked,
weight T/n. Time form: t uniform in (0, 1], each target masked with chance 1 - alpha(t), weight
-alpha'(t)/(1 - alpha(t)).
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.noise import Noise, ranks
from anyorder.core.protocols import Denoiser, Schedule
from anyorder.core.schedule import Linear
from anyorder.core.types import Batch, Canvas, Loss
from anyorder.processes.cross_entropy import SLICED, NllKernels, token_nll
from anyorder.processes.levels import Density, Draw, bell_cdf, bell_quantile, levels


@dataclass(frozen=True)
class MaskedDiffusion:
    """Masked diffusion: hide some targets, predict them from everything else, weighted to bound -log p.

    Prompt and padding (outside `batch.target`) are never masked and never counted.

    Args:
        form: "count" (default; no binomial noise, no division by a small t) or "time".
        schedule: alpha(t) of the time form; its choice changes the variance of the loss, not its mean.
        draw: how rows share their mask levels: "independent", "stratified" (i + u_i)/G, "antithetic" (u_0 + i/G) mod 1.
        group: G, rows that share a draw; row i of group g has sample_id = g*G + i. The rows of one optimiser step, say.
        t_min: the time form draws t from [t_min, 1]; above 0 it is biased by a factor 1/(1 - t_min), as SMDM's 1e-3 is.
        weight: "nelbo", or "flat": every masked token counts 2: what "nelbo" gives it on average over t of the linear
            schedule, (T + 1)/T of it in the count form (arXiv:2602.15014 trains with flat weights).
        density: of the mask levels: "uniform", or "bell", which masks about half of a row more often than almost none
            or almost all of it: small networks learn faster (arXiv:2605.13026). The trained loss is then no bound.
        bell_groups: the bell's groups (optimiser steps); later ones are uniform, so that training ends on the bound
            itself. None: all of them.
        kernels: how -log p is computed.
    Source:
        arXiv:2406.07524 (NELBO), arXiv:2409.02908 Prop. 3.1 (count form), arXiv:2410.18514 eq. 4 (1/t).
    """

    paper: ClassVar[str] = "arXiv:2410.18514"
    form: Literal["count", "time"] = "count"
    schedule: Schedule = field(default_factory=Linear)
    draw: Draw = "antithetic"
    group: int = 1
    t_min: float = 0.0
    weight: Literal["nelbo", "flat"] = "nelbo"
    density: Density = "uniform"
    bell_groups: int | None = None
    kernels: NllKernels = SLICED

    def loss(self, model: Denoiser, batch: Batch, *, noise: Noise) -> Loss:
        """Sum over rows of weight x masked cross-entropy; `nelbo` is the unbiased bound whatever `weight` trains."""
        uniform = self.levels(batch.sample_id, noise=noise)
        bell = self.is_bell(batch.sample_id)
        level = torch.where(bell, bell_quantile(uniform), uniform)
        masked, weight = self.corrupt(batch, level, noise=noise)
        canvas = Canvas(
            x=batch.tokens.masked_fill(masked, model.vocab.mask_id),
            fixed=~masked,
            window=masked,
            segment=batch.segment,
            row_id=batch.sample_id,
        )
        nll = token_nll(model(canvas, masked), batch.tokens[masked], kernels=self.kernels)
        row = masked.nonzero()[:, 0]
        per_row = torch.zeros(len(masked), device=nll.device).index_add(0, row, nll)
        total = (weight.float() * per_row).sum() if self.weight == "nelbo" else 2.0 * per_row.sum()
        density = torch.where(bell, self.bell_density(level, batch.target.sum(-1)), 1.0)
        nelbo = (weight / density).float() * per_row.detach()  # importance weight: unbiased whatever the density
        return Loss(total=total, nelbo=nelbo, num_tokens=int(batch.target.sum()))

    def levels(self, sample_id: Int[Tensor, " B"], *, noise: Noise) -> Float[Tensor, " B"]:
        """Each row's mask level in (0, 1), float64: uniform by itself, evenly spread within its group."""
        return levels(sample_id, draw=self.draw, group=self.group, noise=noise)

    def is_bell(self, sample_id: Int[Tensor, " B"]) -> Bool[Tensor, " B"]:
        """Which rows draw their level from the bell."""
        if self.density == "uniform":
            return torch.zeros_like(sample_id, dtype=torch.bool)
        if self.bell_groups is None:
            return torch.ones_like(sample_id, dtype=torch.bool)
        return sample_id // self.group < self.bell_groups

    def bell_density(self, level: Float[Tensor, " B"], num_targets: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """How many times more often than under uniform levels the bell draws what it drew: a count, or a time."""
        if self.form == "time":
            return 6 * level * (1 - level)
        size = num_targets.clamp(min=1).double()
        n = 1 + (level * size).floor().clamp(max=size - 1)
        return size * (bell_cdf(n / size) - bell_cdf((n - 1) / size))

    def corrupt(
        self, batch: Batch, level: Float[Tensor, " B"], *, noise: Noise
    ) -> tuple[Bool[Tensor, "B L"], Float[Tensor, " B"]]:
        """Which targets are masked at each row's level, and the weight that makes the masked loss a NELBO estimate."""
        position = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
        u = noise.at("mask").uniform(batch.sample_id[:, None], 0, position)
        if self.form == "time":
            t = self.t_min + (1 - self.t_min) * level
            return (u < 1 - self.schedule.alpha(t)[:, None]) & batch.target, self.schedule.weight(t)
        num_targets = batch.target.sum(-1)
        n = 1 + (level * num_targets).floor().clamp(max=num_targets - 1).long()
        masked = (ranks(u, batch.target) < n[:, None]) & batch.target
        return masked, torch.where(num_targets > 0, num_targets.double() / n.clamp(min=1), 0.0)


def smdm() -> MaskedDiffusion:
    """Masked diffusion exactly as SMDM trains it: independent t in [1e-3, 1], weight 1/t, Bernoulli masks."""
    return MaskedDiffusion(form="time", draw="independent", t_min=1e-3)
