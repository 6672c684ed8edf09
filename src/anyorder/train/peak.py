"""The matmul rate of this machine, measured: the denominator of MFU (model FLOPs utilisation)."""

import time

import torch

from anyorder.core import dist

SIZE = 1024  # rows and columns of the measured product


def matmul_peak(dtype: torch.dtype, *, seconds: float = 1.0) -> float:
    """Best FLOP/s of a square product in `dtype` with the threads PyTorch has now, over about `seconds`.

    Of the dtype a run computes in: the peak of another says nothing about it.
    """
    device = dist.device()
    a = torch.ones(SIZE, SIZE, dtype=dtype, device=device)
    best, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until or not best:
        start = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * SIZE**3 / (time.perf_counter() - start))
    return best
