"""Training speed: our trainer against a plain one, tokens a second, MFU, peak memory.

    python benchmarks/training.py [--sizes 1M 6M] [--steps 8] [--eager] [--dtype auto]

The plain trainer is what public code does: autocast to bfloat16, or float32 throughout where that is the faster dtype
of the machine; fused attention, logits at every position, float32
cross-entropy over all of them, the mask as a full-tensor product. Both train the same network on the same rows. Every
measurement is a process of its own, ours and plain in turn, so that peak memory is its own and drift hits both; all
run under the settings that the command `anyorder` starts with.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyorder.cli.main import TUNED
from anyorder.core.device import pick_dtype
from anyorder.core.noise import Noise
from anyorder.core.types import Batch, Vocab
from anyorder.models import SIZES, ModelConfig, Transformer, training_flops
from anyorder.processes import MaskedDiffusion
from anyorder.processes.cross_entropy import SLICED, fused_kernels
from anyorder.train.config import OptimConfig
from anyorder.train.optim import make_optimizer
from anyorder.train.peak import matmul_peak
from anyorder.train.step import train_step
from common import Row, at_least, median, report, seconds

VOCAB = Vocab(size=4096, mask_id=4096, pad_id=4097, eos_id=4095)
OPTIM = OptimConfig(lr=1e-3)
AIMS = (("1M", 2.5), ("6M", 2.0))  # times the plain trainer in the same dtype


@dataclass(frozen=True)
class Case:
    size: str
    rows: int
    length: int

    @property
    def config(self) -> ModelConfig:
        return SIZES[self.size].model_copy(update={"max_length": self.length})

    def tokens(self) -> Tensor:
        """Rows of Zipf-like tokens."""
        u = Noise.of(0).at("tokens").uniform(torch.arange(self.rows)[:, None], 0, torch.arange(self.length))
        return (VOCAB.size**u - 1).long().clamp(max=VOCAB.size - 1)


CASES = [Case("1M", 16, 256), Case("6M", 16, 256), Case("19M", 16, 256), Case("48M", 4, 1024)]


class PlainNorm(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x: Tensor) -> Tensor:
        x32 = x.float()
        return (x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + 1e-5)).type_as(x) * self.weight


class PlainBlock(nn.Module):
    """A textbook Llama block: separate projections, rotation by concatenation, fused attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d, f = config.d_model, config.d_ff
        self.heads = config.num_heads
        self.norm1, self.norm2 = PlainNorm(d), PlainNorm(d)
        self.q, self.k, self.v, self.o = (nn.Linear(d, d, bias=False) for _ in range(4))
        self.gate, self.up = nn.Linear(d, f, bias=False), nn.Linear(d, f, bias=False)
        self.down = nn.Linear(f, d, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        b, length, d = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(b, length, self.heads, -1).transpose(1, 2)

        def rotate(y: Tensor) -> Tensor:
            left, right = y.chunk(2, -1)
            return (y * cos + torch.cat([-right, left], -1) * sin).type_as(y)

        h = self.norm1(x)
        q, k, v = rotate(split(self.q(h))), rotate(split(self.k(h))), split(self.v(h))
        x = x + self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, length, d))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class PlainModel(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB.num_ids, config.d_model)
        self.blocks = nn.ModuleList(PlainBlock(config) for _ in range(config.num_layers))
        self.norm, self.head = PlainNorm(config.d_model), nn.Linear(config.d_model, VOCAB.size, bias=False)
        frequency = 10_000.0 ** (-torch.arange(0, config.d_head, 2) / config.d_head)
        angle = torch.outer(torch.arange(config.max_length), frequency)
        self.register_buffer("cos", torch.cat([angle.cos()] * 2, -1))
        self.register_buffer("sin", torch.cat([angle.sin()] * 2, -1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        for block in self.blocks:
            h = block(h, self.cos, self.sin)
        logits: Tensor = self.head(self.norm(h))
        return logits


def plain_step(case: Case, dtype: torch.dtype) -> Callable[[], object]:
    model, x0 = PlainModel(case.config), case.tokens()
    optimizer = torch.optim.AdamW(model.parameters(), lr=OPTIM.lr, betas=OPTIM.betas, weight_decay=OPTIM.weight_decay)

    def step() -> None:
        t = torch.rand(len(x0), 1) * 0.999 + 0.001
        masked = torch.rand(x0.shape) < t
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits = model(torch.where(masked, VOCAB.mask_id, x0))
        nll = F.cross_entropy(logits.float().view(-1, VOCAB.size), x0.view(-1), reduction="none").view(x0.shape)
        ((nll * masked / t).sum() / x0.numel()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), OPTIM.clip)
        optimizer.step()
        optimizer.zero_grad()

    return step


def our_step(case: Case, dtype: torch.dtype, *, compiled: bool) -> Callable[[], object]:
    model = Transformer(case.config, VOCAB, dtype=dtype)
    model.init_weights(Noise.of(0))
    if compiled:
        model.compile()
    x0 = case.tokens()
    batch = Batch(
        tokens=x0, target=torch.ones_like(x0, dtype=torch.bool), segment=None, sample_id=torch.arange(len(x0))
    )
    process = MaskedDiffusion(group=case.rows, kernels=fused_kernels() if compiled else SLICED)
    optimizer = make_optimizer(model, OPTIM)

    def step() -> object:
        return train_step(
            model,
            model,
            process=process,
            micro_batches=[batch],
            noise=Noise.of(0).at("corrupt"),
            optimizer=optimizer,
            clip=OPTIM.clip,
        )

    return step


def measure(case: Case, trainer: str, steps: int, dtype: torch.dtype) -> dict[str, float]:
    """In this process: median seconds of a step, the peak of products in its dtype, and its peak memory in MiB."""
    step = plain_step(case, dtype) if trainer == "plain" else our_step(case, dtype, compiled=trainer == "compiled")
    taken = seconds(step, n=steps, warm=3)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": median(taken), "peak": matmul_peak(dtype), "memory_mib": memory}


def in_child(case: Case, trainer: str, steps: int, dtype: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", trainer, "--sizes", case.size, "--steps", str(steps)]
    command += ["--dtype", dtype]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=TUNED | os.environ)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def rows_of(case: Case, trainers: list[str], steps: int, rounds: int, dtype: str) -> list[Row]:
    """One line per trainer; each is measured `rounds` times in turn and the median round is shown."""
    results: dict[str, list[dict[str, float]]] = {t: [] for t in trainers}
    for _ in range(rounds):
        for trainer in trainers:
            results[trainer].append(in_child(case, trainer, steps, dtype))
    plain = median([r["seconds"] for r in results["plain"]])
    rows: list[Row] = []
    tokens = case.rows * case.length
    for trainer, all_rounds in results.items():
        taken, peak = median([r["seconds"] for r in all_rounds]), median([r["peak"] for r in all_rounds])
        half = tokens if trainer == "plain" else tokens // 2
        flops = training_flops(
            case.config, rows=case.rows, length=case.length, head_positions=half, vocab_size=VOCAB.size
        )
        rows.append(
            {
                "size": case.size,
                "rows x length": f"{case.rows}x{case.length}",
                "trainer": trainer,
                "tokens/s": round(tokens / taken),
                "times plain": round(plain / taken, 3),
                "MFU %": round(100 * flops / taken / peak, 1),
                "peak TFLOP/s": round(peak / 1e12, 3),
                "memory MiB": round(median([r["memory_mib"] for r in all_rounds])),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=[c.size for c in CASES], choices=[c.size for c in CASES])
    parser.add_argument("--steps", type=int, default=6, help="timed steps of a measurement")
    parser.add_argument("--rounds", type=int, default=2, help="measurements of each trainer, in turn")
    parser.add_argument("--eager", action="store_true", help="leave out the compiled trainer")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"], help="of both trainers")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    cases = [c for c in CASES if c.size in args.sizes]
    dtype = pick_dtype(args.dtype, torch.device("cpu"))
    if args.child:
        print(json.dumps(measure(cases[0], args.child, args.steps, dtype.dtype)))
        return
    trainers = ["plain", "eager"] + ([] if args.eager else ["compiled"])
    rows = [row for case in cases for row in rows_of(case, trainers, args.steps, args.rounds, dtype.name)]
    best = {c.size: next(r for r in rows if r["size"] == c.size and r["trainer"] == trainers[-1]) for c in cases}
    checks = {}
    for size, aim in AIMS:
        if size in best:
            checks[f"{size} tokens/s, times the plain trainer"] = at_least(float(best[size]["times plain"]), aim)
    if "48M" in best:
        checks["48M MFU, percent"] = at_least(float(best["48M"]["MFU %"]), 28.0)
    setup = {"vocabulary": VOCAB.size, "dtype": dtype.name, "steps": args.steps, "rounds": args.rounds}
    report("training", rows, checks=checks, setup=setup)


if __name__ == "__main__":
    main()
