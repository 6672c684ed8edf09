"""Negative log-likelihood of named tokens in float32, without a float32 copy of the whole logits.

Two kernels with one meaning: PyTorch's own softmax on slices, and, for compiled training, one fused pass each way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK = 1 << 22  # float32 numbers held at a time, 16 MiB


@dataclass(frozen=True)
class NllKernels:
    """How -log p and its gradient are computed.

    Args:
        value: (logits, tokens) -> nats, float32.
        gradient: (logits, tokens, nats, gradient of nats) -> gradient of logits, in their dtype.
    """

    value: Callable[[Tensor, Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def _sliced_value(logits: Tensor, tokens: Tensor) -> Tensor:
    nll = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    for rows in _slices(logits):
        logp = torch.log_softmax(logits[rows], -1, dtype=torch.float32)
        nll[rows] = -logp.gather(1, tokens[rows, None])[:, 0]
    return nll


def _sliced_gradient(logits: Tensor, tokens: Tensor, nll: Tensor, grad: Tensor) -> Tensor:
    out = torch.empty_like(logits)
    for rows in _slices(logits):
        p = torch.softmax(logits[rows], -1, dtype=torch.float32)
        p.scatter_add_(1, tokens[rows, None], torch.full_like(p[:, :1], -1.0))
        out[rows] = p.mul_(grad[rows, None])
    return out


def _slices(logits: Tensor) -> list[slice]:
    size = max(1, CHUNK // max(1, logits.shape[1]))
    return [slice(start, start + size) for start in range(0, len(logits), size)]


SLICED = NllKernels(_sliced_value, _sliced_gradient)


@cache
def fused_kernels() -> NllKernels:
    """Kernels that torch.compile makes on first use, for any number of tokens."""

    def value(logits: Tensor, tokens: Tensor) -> Tensor:
        return torch.logsumexp(logits.float(), -1) - logits.gather(1, tokens[:, None])[:, 0].float()

    def gradient(logits: Tensor, tokens: Tensor, nll: Tensor, grad: Tensor) -> Tensor:
        hit = torch.arange(logits.shape[1], device=logits.device) == tokens[:, None]
        lse = nll + logits.gather(1, tokens[:, None])[:, 0].float()
        p = (logits.float() - lse[:, None]).exp()
        return ((p - hit.float()) * grad[:, None]).to(logits.dtype)

    return NllKernels(torch.compile(value, dynamic=True), torch.compile(gradient, dynamic=True))


class _TokenNll(torch.autograd.Function):
    """The backward pass computes the probabilities again instead of keeping them."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor, kernels: NllKernels) -> Tensor:
        nll = kernels.value(logits, tokens)
        ctx.save_for_backward(logits, tokens, nll)
        ctx.kernels = kernels
        return nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return ctx.kernels.gradient(*ctx.saved_tensors, grads[0]), None, None


def token_nll(
    logits: Float[Tensor, "N V"], tokens: Int[Tensor, " N"], *, kernels: NllKernels = SLICED
) -> Float[Tensor, " N"]:
    """-log softmax(logits)[token] in nats, float32; the gradient has the dtype of `logits`."""
    nll: Tensor = _TokenNll.apply(logits, tokens, kernels)  # type: ignore[no-untyped-call]
    return nll
