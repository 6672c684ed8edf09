"""Ranks: who am I, how many are we, where do I compute, sums over all of us. One process alone needs no set-up."""

import os

import torch
import torch.distributed as dist
from torch import Tensor

from anyorder.core.device import pick_device

_device: torch.device | None = None  # what this process was told, a fact about it as its rank is


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def use(name: str) -> None:
    """Compute on the device of this name from now on, as `--device` says.

    Raises:
        ValueError: an unknown name, or a device that is not there.
    """
    global _device
    _device = pick_device(name)


def device() -> torch.device:
    """Where this rank computes: what `use` was told, or its GPU where PyTorch sees one, or else the CPU."""
    return pick_device() if _device is None else _device


def start() -> None:
    """Join the process group when launched by torchrun, each rank with its own GPU; do nothing otherwise.

    Tensors are summed where they lie: those on GPUs by nccl, those on the CPU (float64 counters) by gloo.
    """
    if "WORLD_SIZE" in os.environ and int(os.environ["WORLD_SIZE"]) > 1 and not dist.is_initialized():
        if device().type == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("cpu:gloo,cuda:nccl" if device().type == "cuda" else "gloo")


def all_sum(value: Tensor) -> Tensor:
    """The sum of `value` over ranks, on every rank."""
    if world() == 1:
        return value
    out = value.clone()
    dist.all_reduce(out)
    return out


def barrier() -> None:
    """Wait for every rank."""
    if world() > 1:
        dist.barrier()
