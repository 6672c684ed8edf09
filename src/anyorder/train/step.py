"""One optimiser step: micro-batches in, weights changed, sums over all ranks out."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from anyorder.core import dist
from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser, Process
from anyorder.core.types import Batch


@dataclass(frozen=True)
class StepResult:
    """Sums over the step's global batch, and the gradient's norm before clipping."""

    nats: float
    num_tokens: int
    grad_norm: float


def train_step(
    model: nn.Module,
    denoiser: Denoiser,
    *,
    process: Process,
    micro_batches: Iterable[Batch],
    noise: Noise,
    optimizer: torch.optim.Optimizer,
    clip: float,
) -> StepResult:
    """Accumulate the summed loss of all micro-batches and ranks, divide once by all target tokens, clip, step.

    Dividing once makes accumulation and data parallelism equal to one large batch, whatever rows they hold.

    Raises:
        RuntimeError: the loss or its gradient is not finite; the weights are as before.
    """
    sums = torch.zeros(2, dtype=torch.float64)
    for batch in micro_batches:
        loss = process.loss(denoiser, batch, noise=noise)
        loss.total.backward()  # type: ignore[no-untyped-call]
        sums += torch.tensor([float(loss.nelbo.sum(dtype=torch.float64)), loss.num_tokens], dtype=torch.float64)
    nats, num_tokens = dist.all_sum(sums).tolist()
    if not nats < float("inf"):
        raise RuntimeError(f"the loss became {nats}; lower optim.lr or train in float32")
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    for grad in grads if dist.world() > 1 else []:
        grad.copy_(dist.all_sum(grad))
    torch._foreach_div_(grads, max(num_tokens, 1.0))
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
    if not float(norm) < float("inf"):
        raise RuntimeError(f"the gradient's norm became {float(norm)}; lower optim.lr or train in float32")
    optimizer.step()
    optimizer.zero_grad()
    return StepResult(nats=nats, num_tokens=int(num_tokens), grad_norm=float(norm))
