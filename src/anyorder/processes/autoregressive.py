"""Autoregression (ARM): every target predicted from what is left of it; the loss is exactly -log p."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Batch, Canvas, Loss
from anyorder.processes.cross_entropy import SLICED, NllKernels, token_nll


@dataclass(frozen=True)
class Autoregressive:
    """Autoregression: cross-entropy of each token given what stands before it, the exact -log p.

    The model is a causal denoiser: its logits at i see only positions before i.
    """

    paper: ClassVar[str] = "arXiv:2005.14165"
    kernels: NllKernels = SLICED

    def loss(self, model: Denoiser, batch: Batch, *, noise: Noise) -> Loss:
        """Sum over targets of -log p(x_i | x_<i), nats. Takes no draw from `noise`."""
        canvas = Canvas(
            x=batch.tokens, fixed=~batch.target, window=batch.target, segment=batch.segment, row_id=batch.sample_id
        )
        nll = token_nll(model(canvas, batch.target), batch.tokens[batch.target], kernels=self.kernels)
        row = batch.target.nonzero()[:, 0]
        nelbo = torch.zeros(len(batch.target), device=nll.device).index_add(0, row, nll)
        return Loss(total=nelbo.sum(), nelbo=nelbo.detach(), num_tokens=int(batch.target.sum()))
