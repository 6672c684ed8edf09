"""Negative log-likelihood of named tokens in float32, chunk by chunk: the whole logits are never copied to float32."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK = 1 << 22  # float32 numbers held at a time, 16 MiB


class _TokenNll(torch.autograd.Function):
    """PyTorch's own softmax kernels on slices; the backward pass computes the probabilities again, not keeping them."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor) -> Tensor:
        ctx.save_for_backward(logits, tokens)
        nll = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
        for rows in _slices(logits):
            logp = torch.log_softmax(logits[rows], -1, dtype=torch.float32)
            nll[rows] = -logp.gather(1, tokens[rows, None])[:, 0]
        return nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        logits, tokens = ctx.saved_tensors
        out = torch.empty_like(logits)
        for rows in _slices(logits):
            p = torch.softmax(logits[rows], -1, dtype=torch.float32)
            p.scatter_add_(1, tokens[rows, None], torch.full_like(p[:, :1], -1.0))
            out[rows] = p.mul_(grads[0][rows, None])
        return out, None


def _slices(logits: Tensor) -> list[slice]:
    size = max(1, CHUNK // max(1, logits.shape[1]))
    return [slice(start, start + size) for start in range(0, len(logits), size)]


def token_nll(logits: Float[Tensor, "N V"], tokens: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """-log softmax(logits)[token] in nats, float32; the gradient has the dtype of `logits`."""
    nll: Tensor = _TokenNll.apply(logits, tokens)  # type: ignore[no-untyped-call]
    return nll
