"""Every sampler preset with the 6M network: tokens a second, network passes, tokens a pass.

    python benchmarks/presets.py [--quick] [--threads N] [--rows B]

The weights are random and V = 50257, so what the network predicts means nothing. What threshold, factor, entropy-bound
and llada-edit write in a pass depends on it; for them the predictions are made up: on top of each pass a few positions
are certain of a token (`Sure`). Their passes are those of that assumption. All other presets pass as often with any
network. `causal` runs with the causal twin.

A run is walked twice. First with a table for a network and 16 tokens, which costs little: this counts steps and passes
and keeps what stands before each step. Then a few of the steps that make a pass, spread evenly over the run, are done
with the 6M network from what was kept; their mean stands for all. Steps without a pass cost what they did at first.

First-hitting and the bare cost of its passes: each step of a whole run is timed beside the same network pass called
alone (same canvas, same named position, logits thrown away), now one first, now the other.
"""

import argparse
import dataclasses
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser, Sampler
from anyorder.core.types import Canvas, Carry, Vocab, Write
from anyorder.models.config import SIZES
from anyorder.models.transformer import Transformer
from anyorder.samplers.base import steps
from anyorder.samplers.presets import PRESETS, make_sampler
from anyorder.testing.contracts import blank
from common import Row, at_most, median, report, synchronise

VOCAB = Vocab(50257, 50257, 50258, 50256)
FEW = Vocab(16, VOCAB.mask_id, VOCAB.pad_id, 15)
LENGTHS = (256, 1024)
SURE = 4  # positions of a blank row that are certain in a pass
BARE_AIM = 1.1
NOISE = Noise.of(0)


@dataclass(frozen=True)
class Lookup:
    """A denoiser that costs one row copy per named position: logits from a small table by a hash of the position."""

    table: Tensor
    vocab: Vocab = VOCAB
    nfe: int = 1

    @classmethod
    def of(cls, vocab: Vocab) -> "Lookup":
        """Sixteen rows of standard normal logits."""
        normal = NOISE.at("logits").normal(torch.arange(16)[:, None], 0, torch.arange(vocab.size))
        return cls(normal.float(), vocab)

    def __call__(self, canvas: Canvas, at: Tensor) -> Tensor:
        return self.table[at.nonzero()[:, 1] * 7919 % len(self.table)]


@dataclass(frozen=True)
class Sure:
    """A denoiser around a denoiser that is certain here and there: each position with some chance, anew each time.

    Where and of what depends on row, position and the number of tokens in sight alone, so it is the same for any inner.
    """

    inner: Denoiser
    chance: float

    @property
    def nfe(self) -> int:
        return self.inner.nfe

    @property
    def vocab(self) -> Vocab:
        return self.inner.vocab

    def __call__(self, canvas: Canvas, at: Tensor) -> Tensor:
        logits = self.inner(canvas, at)
        row, position = at.nonzero(as_tuple=True)
        seen = (canvas.x != self.vocab.mask_id).sum(-1)[row]
        sure = NOISE.at("sure").uniform(canvas.row_id[row], seen, position) < self.chance
        logits[sure, position[sure] % FEW.size] = 30.0
        return logits


@dataclass(frozen=True)
class From:
    """A sampler that goes on from a carry."""

    inner: Sampler
    carry: Carry

    paper: ClassVar[str] = "none"
    exact: ClassVar[bool] = False

    def init(self, canvas: Canvas, *, vocab: Vocab) -> Carry:
        return self.carry

    def step(self, model: Denoiser, canvas: Canvas, carry: Carry, *, noise: Noise) -> Write:
        return self.inner.step(model, canvas, carry, noise=noise)


@dataclass(frozen=True)
class Before:
    """What stands before a step, and what the step was."""

    canvas: Canvas
    carry: Carry
    passes: float
    seconds: float


def network(*, causal: bool = False) -> Transformer:
    """The 6M model; its weights do not matter for speed."""
    return Transformer(SIZES["6M"].model_copy(update={"causal": causal}), VOCAB).eval()


def walk(sampler: Sampler, model: Denoiser, canvas: Canvas) -> list[Before]:
    """A whole run, step by step."""
    moments, carry = [], sampler.init(canvas, vocab=model.vocab)
    start = time.perf_counter()
    for step in steps(sampler, model, canvas, noise=NOISE):
        taken = time.perf_counter() - start
        moments.append(Before(canvas, carry, float(step.nfe.double().mean()), taken))
        canvas, carry = step.canvas, step.carry
        start = time.perf_counter()
    return moments


def wide(carry: Carry) -> Carry:
    """The carry with its remembered laws over all tokens; those that the walk did not know get 0."""
    if carry.past is None:
        return carry
    law = torch.nn.functional.pad(carry.past.law, (0, VOCAB.size - FEW.size))
    return dataclasses.replace(carry, past=dataclasses.replace(carry.past, law=law))


def seconds_of(before: Before, sampler: Sampler, model: Denoiser) -> float:
    """How long the one loop takes for that step."""
    loop = steps(From(sampler, wide(before.carry)), model, before.canvas, noise=NOISE)
    synchronise()
    start = time.perf_counter()
    next(loop)
    synchronise()
    return time.perf_counter() - start


def measure(name: str, model: Denoiser, *, length: int, rows: int, most: int) -> Row:
    """One row of the table; `most` steps are timed."""
    sampler = make_sampler(name)
    chance = SURE / length
    moments = walk(sampler, Sure(Lookup.of(FEW), chance), blank(FEW, rows, length))
    paying = [m for m in moments if m.passes]
    n = min(most, len(paying))
    chosen = [paying[int((i + 0.5) * len(paying) / n)] for i in range(n)]
    seconds_of(chosen[0], sampler, Sure(model, chance))  # warm up
    each = sum(seconds_of(before, sampler, Sure(model, chance)) for before in chosen) / n
    total = each * len(paying) + sum(m.seconds for m in moments if not m.passes)
    nfe = sum(m.passes for m in moments)
    row: Row = {"preset": name, "L": length, "steps": len(moments), "nfe": nfe, "tok/pass": length / nfe}
    return row | {"timed": n, "ms/pass": each * 1e3, "seconds": total, "tok/s": rows * length / total}


def preset_rows(lengths: tuple[int, ...], *, rows: int, most: int) -> list[Row]:
    """A row per preset and length."""
    both, leftwards = network(), network(causal=True)
    return [
        measure(name, leftwards if name == "causal" else both, length=length, rows=rows, most=most)
        for length in lengths
        for name in PRESETS
    ]


@dataclass(frozen=True)
class Recorder:
    """A denoiser around a denoiser that keeps what it was asked."""

    inner: Denoiser
    asked: list[tuple[Canvas, Tensor]]

    @property
    def nfe(self) -> int:
        return self.inner.nfe

    @property
    def vocab(self) -> Vocab:
        return self.inner.vocab

    def __call__(self, canvas: Canvas, at: Tensor) -> Tensor:
        self.asked.append((canvas, at))
        return self.inner(canvas, at)


def times_bare(model: Denoiser, *, length: int, most: int, rounds: int) -> float:
    """Time of the first steps of a first-hitting run over that of their passes alone, the median over rounds."""
    sampler, canvas = make_sampler("first-hitting"), blank(VOCAB, 1, length)
    asked: list[tuple[Canvas, Tensor]] = []
    for _ in itertools.islice(steps(sampler, Recorder(model, asked), canvas, noise=NOISE), most):
        pass  # what they ask, and to warm up

    def clock(run: Callable[[], object]) -> float:
        synchronise()
        start = time.perf_counter()
        with torch.no_grad():
            run()
        synchronise()
        return time.perf_counter() - start

    ratios = []
    for _ in range(rounds):
        loop, whole, bare = steps(sampler, model, canvas, noise=NOISE), 0.0, 0.0
        for index, (seen, at) in enumerate(asked):
            if index % 2:
                whole += clock(lambda: next(loop))  # noqa: B023
            bare += clock(lambda: model(seen, at))  # noqa: B023
            if not index % 2:
                whole += clock(lambda: next(loop))  # noqa: B023
        ratios.append(whole / bare)
    return median(ratios)


def measured(*, quick: bool, rows: int) -> tuple[list[Row], dict[str, dict[str, float | bool]]]:
    """The table and its one aim."""
    ratio = times_bare(network(), length=256, most=48 if quick else 256, rounds=1 if quick else 3)
    table = preset_rows((64,) if quick else LENGTHS, rows=rows, most=2 if quick else 12)
    return table, {"first-hitting, times the bare cost of its passes": at_most(ratio, BARE_AIM)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="rows of 64, two steps timed of each preset")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's default")
    parser.add_argument("--rows", type=int, default=1, help="B")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    table, checks = measured(quick=args.quick, rows=args.rows)
    report("presets", table, checks=checks, setup={"B": args.rows, "V": VOCAB.size, "model": "6M", "sure": SURE})


if __name__ == "__main__":
    main()
