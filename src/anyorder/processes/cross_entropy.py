"""Negative log-likelihood of named tokens in float32, chunk by chunk: the whole logits are never copied to float32."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK = 1 << 22  # float32 numbers held at a time, 16 MiB


class _TokenNll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor) -> Tensor:
        lse = (
            torch.cat([c.float().logsumexp(-1) for c in _chunks(logits)])
            if len(logits)
            else logits.new_zeros(0).float()
        )
        ctx.save_for_backward(logits, tokens, lse)
        return lse - logits.gather(1, tokens[:, None])[:, 0].float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        logits, tokens, lse = ctx.saved_tensors
        grad, out = grads[0].float(), torch.empty_like(logits)
        start = 0
        for chunk in _chunks(logits):
            here = slice(start, start + len(chunk))
            p = (chunk - lse[here, None]).exp_()  # float32, whatever the logits are, and a copy
            p.scatter_add_(1, tokens[here, None], torch.full_like(p[:, :1], -1.0))
            out[here] = p.mul_(grad[here, None])
            start += len(chunk)
        return out, None


def _chunks(logits: Tensor) -> tuple[Tensor, ...]:
    return torch.split(logits, max(1, CHUNK // max(1, logits.shape[1])))


def token_nll(logits: Float[Tensor, "N V"], tokens: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """-log softmax(logits)[token] in nats, float32; the gradient has the dtype of `logits`."""
    nll: Tensor = _TokenNll.apply(logits, tokens)  # type: ignore[no-untyped-call]
    return nll
