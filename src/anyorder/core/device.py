"""Where a run computes and in which dtype: `auto` decides from what the machine can do, not from how busy it is.

A CPU without bf16 instructions emulates them, 10 to 80 times slower than float32; a processor that has the
instructions may still gain nothing. So a CPU is asked, and if it says yes, measured in its own CPU time.
"""

import functools
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

DtypeName = Literal["auto", "float32", "bfloat16"]
DEVICES = ("auto", "cpu", "cuda", "mps")
GAIN = 1.3  # bfloat16 is chosen on a CPU that computes this many times faster in it
SHAPE = (64, 256, 256)  # rows, in, out of the measured products: small, so that measuring takes under 100 ms
LEAST_SECONDS = 4e-3  # of a measured batch of products, so that coarse clocks tell it from nothing


@dataclass(frozen=True)
class Choice:
    """A dtype and why.

    Args:
        name: "float32" or "bfloat16".
        reason: half a sentence for people.
        ratio: products in bfloat16 over those in float32, in FLOP/s; None where it was not measured.
    """

    name: Literal["float32", "bfloat16"]
    reason: str
    ratio: float | None = None

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.name == "bfloat16" else torch.float32


def pick_device(name: str = "auto") -> torch.device:
    """The device of a name: `auto` is a CUDA GPU where PyTorch sees one and the CPU elsewhere.

    `mps` is taken only by name: nothing promises that it is faster than the CPU for small networks.

    Raises:
        ValueError: an unknown name, or a device that is not there.
    """
    kind, _, index = name.partition(":")
    if kind not in DEVICES or (index and (kind != "cuda" or not index.isdigit())):
        raise ValueError(f"device={name!r}: unknown; known: auto, cpu, cuda, cuda:N, mps")
    if kind == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise ValueError(f"device={name!r}: PyTorch sees no CUDA device here; use cpu or auto")
        if index and int(index) >= count:
            raise ValueError(f"device={name!r}: PyTorch sees {count} CUDA devices, numbered from 0; use a lower one")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device={name!r}: PyTorch sees no Apple GPU (mps) here; use cpu or auto")
    return torch.device(name)


def canvas_device(device: torch.device) -> torch.device:
    """Where canvases, noise and draws of a network on `device` lie: there, or on the CPU where it has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def pick_dtype(name: DtypeName, device: torch.device) -> Choice:
    """The dtype of activations: what is asked for, or with "auto" the faster one that loses nothing.

    bfloat16 on CUDA that has it natively and on CPUs that compute in it at least `GAIN` times faster; else float32.
    """
    if name != "auto":
        return Choice(name, "asked for")
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Choice("bfloat16", "the GPU computes in bfloat16")
        return Choice("float32", "the GPU would emulate bfloat16")
    if device.type != "cpu":
        return Choice("float32", f"bfloat16 gains nothing certain on {device.type}")
    if not has_bf16():
        return Choice("float32", "the CPU has no bfloat16 instructions")
    ratio = bf16_ratio()
    if ratio >= GAIN:
        return Choice("bfloat16", f"the CPU computes {ratio:.1f} times faster in it than in float32", ratio)
    return Choice("float32", f"the CPU computes only {ratio:.1f} times as fast in bfloat16", ratio)


def has_bf16() -> bool:
    """Whether oneDNN computes in bfloat16 on this CPU: without it PyTorch falls into its own slow loops."""
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # PyTorch without oneDNN, as on macOS
        return False


@functools.cache
def bf16_ratio() -> float:
    """How many times faster one thread of the CPU multiplies in bfloat16 than in float32; at most 100 ms, once.

    Measured in CPU time of this thread, so that other work on the machine does not change it.
    """
    return product_rate(torch.bfloat16) / product_rate(torch.float32)


def product_rate(dtype: torch.dtype, *, shape: tuple[int, int, int] = SHAPE, batches: int = 3) -> float:
    """FLOP/s of one CPU thread in the products of a linear layer, forward and input gradient: the best of batches.

    The two are apart on CPUs that emulate bfloat16: x W^T is 10 times slower than in float32, g W up to 80 times.
    """
    rows, inner, outer = shape
    x, w = torch.ones(rows, inner, dtype=dtype), torch.ones(outer, inner, dtype=dtype)
    g = torch.ones(rows, outer, dtype=dtype)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            x @ w.T, g @ w  # what the first call sets up is no part of it
            return max(_rate(x, w, g) for _ in range(batches))
    finally:
        torch.set_num_threads(threads)


def _rate(x: torch.Tensor, w: torch.Tensor, g: torch.Tensor) -> float:
    began, done, seconds = time.thread_time(), 0, 0.0
    while seconds < LEAST_SECONDS:
        x @ w.T, g @ w
        done, seconds = done + 1, time.thread_time() - began
    return 4 * x.shape[0] * x.shape[1] * w.shape[0] * done / seconds


def warn_if_slow(name: str, device: torch.device) -> str | None:
    """A warning for a dtype that this CPU emulates, with the measured factor; None if there is nothing to say."""
    if name != "bfloat16" or device.type != "cpu":
        return None
    ratio = bf16_ratio()
    if ratio >= 1:
        return None
    return (
        f"dtype=bfloat16: this CPU multiplies {1 / ratio:.0f} times slower in it than in float32; "
        "use --dtype float32 or auto"
    )


def cpp_compiler() -> str | None:
    """The C++ compiler that torch.compile uses on the CPU: $CXX, or the first of the usual names; None without one."""
    names = [os.environ.get("CXX", ""), "g++", "clang++", "c++", "cl"]
    return next((path for name in names if name and (path := shutil.which(name))), None)


def free_share() -> float:
    """The share of a core this thread gets now, from 20 ms of work: near 1 on an idle machine."""
    wall, cpu = time.perf_counter(), time.thread_time()
    while time.thread_time() - cpu < 0.02:
        pass
    return min(1.0, (time.thread_time() - cpu) / (time.perf_counter() - wall))


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its control group where there is one."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return cores if quota == "max" else max(1, min(cores, -(-int(quota) // int(period))))
    except (OSError, ValueError):
        return cores
