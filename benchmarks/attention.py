"""Attention kernels on a CPU: plain products and softmax against PyTorch's fused kernel, by dtype and length.

    python benchmarks/attention.py [--dtypes float32 bfloat16] [--threads 1]

Forward and backward as in training, and forward alone; the time is that of one thread's own processor time, best of
several, so that other work on the machine changes little. `models/attention.py: PLAIN_UP_TO` states what follows.
"""

import argparse
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from anyorder.core.device import pick_dtype
from anyorder.core.noise import Noise
from anyorder.models.attention import PLAIN_UP_TO
from common import Row, at_most, report

SHAPES = ((16, 256, 32), (32, 128, 32), (64, 64, 32), (128, 32, 32), (256, 16, 64), (512, 8, 64), (1024, 2, 64))
HEADS = 4
TOLERANCE = 1.25  # the chosen kernel may be this much slower than the other


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out: Tensor = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(-1) @ v
    return out


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def milliseconds(kernel: object, inputs: list[Tensor], *, backward: bool, n: int) -> float:
    assert callable(kernel)
    best = float("inf")
    for _ in range(n):
        began = time.process_time()
        out = kernel(*inputs)
        if backward:
            out.sum().backward()
        best = min(best, time.process_time() - began)
    return 1e3 * best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = sorted({"float32", pick_dtype("auto", torch.device("cpu")).name})
    parser.add_argument("--dtypes", nargs="+", default=default, help="default float32, and what auto chooses")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows: list[Row] = []
    worst = 1.0
    for name in args.dtypes:
        dtype = getattr(torch, name)
        for length, batch, width in SHAPES:
            shape = (batch, HEADS, length, width)
            count = batch * HEADS * length * width
            draws = [Noise.of(0).at(part).normal(0, 0, torch.arange(count)) for part in "qkv"]
            inputs = [x.view(shape).to(dtype).requires_grad_() for x in draws]
            train = [milliseconds(kernel, inputs, backward=True, n=args.repeats) for kernel in (plain, fused)]
            with torch.no_grad():
                write = [milliseconds(kernel, inputs, backward=False, n=args.repeats) for kernel in (plain, fused)]
            chosen = 0 if length <= PLAIN_UP_TO[dtype] else 1
            worst = max(worst, train[chosen] / min(train))
            rows.append(
                {
                    "dtype": name,
                    "rows x length": f"{batch}x{length}",
                    "chosen": ("plain", "fused")[chosen],
                    "train, plain ms": train[0],
                    "fused ms": train[1],
                    "plain / fused": train[0] / train[1],
                    "forward, plain ms": write[0],
                    "fused  ms": write[1],
                    "plain / fused ": write[0] / write[1],
                }
            )
    checks = {"training with the chosen kernel, times the faster one": at_most(worst, TOLERANCE)}
    report("attention", rows, checks=checks, setup={"heads": HEADS, "repeats": args.repeats})


if __name__ == "__main__":
    main()
