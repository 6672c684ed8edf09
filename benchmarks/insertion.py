"""Insertion models: training against a dense target, and writing against an autoregressive model with its cache.

    python benchmarks/insertion.py [--quick]

Training. The dense trainer is what public code does: tokens that are taken out stay in the row as hidden keys, the
target is a count for every position and token, B x L x V, made of an int64 tensor and divided by n in float32, against
one log-softmax over all positions and tokens of a row. Both train the same 6M network on the same rows with the same
counts n; activations are in the dtype that `auto` chooses. A step is forward, loss and backward. Loss memory is the
most that a process grows by while it computes the loss and its gradients from given final states; parameters and states
do not count. Every measurement is a process of its own, ours and dense in turn; medians. The losses of both must be
equal.

Writing. Random weights, so that only time means anything, and a model that never stops: rows of a batch have prompts of
different lengths and leave it when they are full. The causal twin writes the same rows with an exact cache.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from anyorder.cli.main import TUNED
from anyorder.core.device import pick_dtype
from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Batch, Canvas, InsertionOut, Vocab
from anyorder.models import SIZES, Transformer
from anyorder.models.cache import CausalCache
from anyorder.models.inserter import Inserter
from anyorder.processes.insertion import Insertion, insertion_nll, stop_nll
from anyorder.processes.levels import levels
from anyorder.processes.thin import Documents, Thinned, documents, how_many, thin
from anyorder.samplers.base import generate
from anyorder.samplers.causal import Causal
from anyorder.samplers.insertion import Insert
from common import Row, at_least, median, report, seconds

NOISE = Noise.of(0)
ROWS, LENGTH = 16, 256
VOCABS = (4096, 32768)
DTYPE = pick_dtype("auto", torch.device("cpu")).name  # of activations in training, as `anyorder train` has it
FASTER, SMALLER = 3.0, 10.0


def vocab_of(size: int) -> Vocab:
    return Vocab(size=size, mask_id=size, pad_id=size + 1, eos_id=size - 1)


def inserter(vocab: Vocab, *, dtype: str = DTYPE) -> Inserter:
    config = SIZES["6M"].model_copy(update={"insertion": True, "max_length": LENGTH + 1})
    model = Inserter(config, vocab, dtype=getattr(torch, dtype))
    model.init_weights(NOISE)
    return model


def batch_of(vocab: Vocab, rows: int) -> Batch:
    """Rows of Zipf-like tokens without end-of-document."""
    u = NOISE.at("tokens").uniform(torch.arange(rows)[:, None], 0, torch.arange(LENGTH))
    tokens = ((vocab.size - 1) ** u - 1).long().clamp(max=vocab.size - 2)
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), None, torch.arange(rows))


@dataclass(frozen=True)
class Corrupted:
    """One draw of the corruption, as both trainers see it."""

    batch: Batch
    given: Documents
    missing: Tensor
    thinned: Thinned
    gone: Tensor


def corrupted(vocab: Vocab, rows: int) -> Corrupted:
    batch = batch_of(vocab, rows)
    given = documents(batch, vocab=vocab)
    level = levels(batch.sample_id, draw="antithetic", group=rows, noise=NOISE)
    missing = how_many(given, level, batch.sample_id, noise=NOISE)
    thinned = thin(batch, given, missing, vocab=vocab, noise=NOISE)
    alone = thin(batch, given, missing, vocab=vocab, noise=NOISE, pack=False)
    left = [alone.canvas.x[b][alone.canvas.valid[b]][1:].tolist() for b in range(rows)]
    return Corrupted(batch, given, missing, thinned, gone_of(batch.tokens.tolist(), left, alone))


def gone_of(rows: list[list[int]], left: list[list[int]], alone: Thinned) -> Tensor:
    """Which tokens were taken out, found again from what is left and where the missing ones belong."""
    named = (alone.canvas.window.flatten().cumsum(0) - 1).view_as(alone.canvas.window)
    gone = torch.zeros(len(rows), LENGTH, dtype=torch.bool)
    for b in range(len(rows)):
        at = 0
        for place in range(len(left[b]) + 1):
            count = int((alone.gap == named[b, place]).sum())
            gone[b, at : at + count] = True
            at += count + 1
    return gone


# The dense trainer


def dense_states(model: Inserter, c: Corrupted) -> tuple[Tensor, Tensor, Tensor]:
    """Final states of all positions, taken-out tokens hidden as keys; which are visible; the log-odds to stop."""
    eos = model.vocab.eos_id
    assert eos is not None
    visible = F.pad(~c.gone, (1, 0), value=True)
    x = F.pad(c.batch.tokens, (1, 0), value=eos)
    trunk = model.trunk
    place = (visible.cumsum(-1) - 1).clamp(min=0)
    dtype = trunk.dtype
    cos, sin = trunk.rope_cos[place][:, :, None].to(dtype), trunk.rope_sin[place][:, :, None].to(dtype)
    bias = torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, -1e9)[:, None, None]
    h = trunk.embed(x).to(dtype)
    for block in trunk.blocks:
        n, heads = block.attn_norm(h), block.attn.num_heads
        q, k, v = (y.unflatten(-1, (heads, -1)) for y in block.attn.qkv(n).chunk(3, -1))
        q, k = (rotated(y, cos, sin).transpose(1, 2) for y in (q, k))
        y = F.scaled_dot_product_attention(q, k, v.transpose(1, 2), attn_mask=bias)
        h = h + block.attn.out(y.transpose(1, 2).flatten(2))
        h = block.feed(h)
    states = trunk.norm(h)
    assert model.stop is not None
    return states, visible, model.stop(states[:, 0])


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat([x[..., half:], x[..., :half]], -1) * sin


def dense_loss(states: Tensor, head: Tensor, visible: Tensor, c: Corrupted, eos: int) -> Tensor:
    """Insertion loss of each row, from normalised counts over all positions and tokens."""
    rows, width = visible.shape
    slot = torch.where(visible, torch.arange(width), 0).cummax(-1).values[:, 1:]  # the visible neighbour on the left
    row, position = c.gone.nonzero(as_tuple=True)
    counts = torch.zeros(rows, width, len(head), dtype=torch.int64)
    counts.index_put_((row, slot[row, position], c.batch.tokens[row, position]), torch.ones_like(row), accumulate=True)
    target = counts / (c.missing[:, None, None] + 1e-9)
    scores = states @ head.to(states.dtype).T
    scores = scores.masked_fill(~visible[..., None], torch.finfo(scores.dtype).min)
    scores = scores.masked_fill(torch.arange(len(head)) == eos, torch.finfo(scores.dtype).min)
    logp = scores.flatten(1).log_softmax(-1, dtype=torch.float32)  # as autocast has it
    return -(target.flatten(1) * logp).sum(-1)


def dense_step(model: Inserter, c: Corrupted) -> Tensor:
    """Summed loss of the batch, each row weighted by its L + 1."""
    states, visible, stop = dense_states(model, c)
    assert model.trunk.head is not None
    assert model.vocab.eos_id is not None
    where = dense_loss(states, model.trunk.head.weight, visible, c, model.vocab.eos_id)
    ends = F.binary_cross_entropy_with_logits(stop, (c.missing == 0).float(), reduction="none")
    return ((c.given.size + 1) * (where + ends)).sum()


def our_step(model: Inserter, c: Corrupted) -> Tensor:
    return Insertion(group=len(c.missing)).loss(model, c.batch, noise=NOISE).total


# One measurement in a process of its own


def one(kind: str, size: int, rows: int, steps: int) -> dict[str, float]:
    """Seconds of a step and its loss; with no steps, the bytes that the loss takes."""
    vocab = vocab_of(size)
    model, c = inserter(vocab), corrupted(vocab, rows)
    step = our_step if kind == "ours" else dense_step
    if not steps:
        return {"loss_bytes": memory_of_loss(kind, model, c)}

    def run() -> None:
        model.zero_grad()
        step(model, c).backward()  # type: ignore[no-untyped-call]

    value = float(step(model, c).detach())
    return {"seconds": median(seconds(run, n=steps)), "value": value}


def memory_of_loss(kind: str, model: Inserter, c: Corrupted) -> float:
    """What the most memory in use is above that before, while the loss and its gradients are made from final states."""
    assert model.trunk.head is not None
    assert model.vocab.eos_id is not None
    head = model.trunk.head.weight.detach().clone().requires_grad_()
    with torch.no_grad():
        if kind == "ours":
            out = model.insertion(c.thinned.canvas, c.thinned.canvas.window)
            states, stop, visible = out.states.clone(), out.stop, torch.empty(0)
        else:
            states, visible, stop = dense_states(model, c)
    states = states.detach().requires_grad_()
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark becomes what is held now
    before = held("VmRSS")
    if kind == "ours":
        out = InsertionOut(states, head, stop)
        loss = (insertion_nll(out, c.thinned, eos_id=model.vocab.eos_id) + stop_nll(out, c.thinned)).sum()
    else:
        loss = dense_loss(states, head, visible, c, model.vocab.eos_id).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    return float(held("VmHWM") - before)


def held(name: str) -> int:
    """Bytes this process holds (VmRSS), or held at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


def measured(kind: str, size: int, rows: int, steps: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", kind, str(size), str(rows), str(steps)]
    tuned = TUNED if steps else {}  # a tuned allocator keeps what it has, which hides what is asked for
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **tuned})
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def training(rows: int, *, quick: bool) -> tuple[list[Row], dict[str, float]]:
    table: list[Row] = []
    ratios: dict[str, float] = {}
    for size in VOCABS[:1] if quick else VOCABS:
        found: dict[str, list[dict[str, float]]] = {"ours": [], "dense": []}
        for _ in range(1 if quick else 3):
            for kind in found:
                found[kind].append(measured(kind, size, rows, 1 if quick else 2) | measured(kind, size, rows, 0))
        value = {kind: many[0]["value"] for kind, many in found.items()}
        if abs(value["ours"] - value["dense"]) > 1e-2 * abs(value["dense"]):
            raise RuntimeError(f"the losses differ: {value}")
        mid = {k: {f: median([m[f] for m in many]) for f in many[0]} for k, many in found.items()}
        ratios[f"faster at {size}"] = mid["dense"]["seconds"] / mid["ours"]["seconds"]
        ratios[f"smaller at {size}"] = mid["dense"]["loss_bytes"] / mid["ours"]["loss_bytes"]
        for kind in mid:
            table.append(
                {
                    "vocabulary": size,
                    "trainer": kind,
                    "tokens a second": rows * LENGTH / mid[kind]["seconds"],
                    "loss memory, MiB": mid[kind]["loss_bytes"] / 2**20,
                    "times faster": ratios[f"faster at {size}"] if kind == "ours" else 1.0,
                    "times smaller": ratios[f"smaller at {size}"] if kind == "ours" else 1.0,
                }
            )
    return table, ratios


# Writing


@dataclass(frozen=True)
class Endless:
    """An insertion model that never stops."""

    model: Inserter

    @property
    def nfe(self) -> int:
        return self.model.nfe

    @property
    def vocab(self) -> Vocab:
        return self.model.vocab

    def __call__(self, canvas: Canvas, at: Tensor) -> Tensor:
        logits = self.model(canvas, at)
        eos = self.vocab.eos_id
        assert eos is not None
        logits[:, eos] = logits[:, eos].clamp(max=-30.0)
        return logits


def to_write(vocab: Vocab, rows: int, length: int) -> Canvas:
    """Prompts of 0, 1/rows, 2/rows ... of half the length behind end-of-document, and room for the rest."""
    x = torch.full((rows, length), vocab.pad_id)
    x[:, 0] = vocab.eos_id
    for row in range(rows):
        size = row * length // (2 * rows)
        x[row, 1 : 1 + size] = batch_of(vocab, rows).tokens[row, :size]
    valid = (x != vocab.pad_id).long()
    last = torch.arange(length) == valid.sum(-1, keepdim=True) - 1
    return Canvas(x=x, fixed=valid > 0, window=last, segment=valid, row_id=torch.arange(rows))


def writing(*, quick: bool) -> list[Row]:
    """Tokens a second of the insertion model, one token a pass and four, and of the causal twin."""
    vocab, length = vocab_of(4096), 32 if quick else 128
    model = inserter(vocab, dtype="float32").eval().requires_grad_(False)
    twin = Transformer(SIZES["6M"].model_copy(update={"causal": True, "max_length": length}), vocab)
    twin.init_weights(NOISE)
    twin.eval().requires_grad_(False)
    table: list[Row] = []
    for rows in (1, 2) if quick else (1, 16):
        canvas = to_write(vocab, rows, length)
        held = canvas.x.masked_fill(~canvas.valid, vocab.mask_id)
        masked = Canvas.of(held, vocab=vocab)
        todo = int((~canvas.valid).sum())
        contenders: dict[str, tuple[Insert | Causal, Denoiser, Canvas]] = {
            "arm, exact cache": (Causal(), CausalCache(twin), masked),
            "ilm": (Insert(), Endless(model), canvas),
            "ilm, 4 a pass": (Insert(at_once=4), Endless(model), canvas),
        }
        taken: dict[str, list[float]] = {name: [] for name in contenders}
        passes: dict[str, float] = {}
        for _ in range(1 if quick else 3):
            for name, (sampler, reader, start) in contenders.items():
                reader = CausalCache(twin) if isinstance(reader, CausalCache) else reader
                began = time.perf_counter()
                sample = generate(sampler, reader, replace(start), noise=NOISE)
                taken[name].append(time.perf_counter() - began)
                passes[name] = float(sample.nfe.double().mean())
        base = todo / median(taken["arm, exact cache"])
        for name, times in taken.items():
            rate = todo / median(times)
            table.append(
                {
                    "rows": rows,
                    "writer": name,
                    "tokens a second": rate,
                    "passes a row": passes[name],
                    "of the ARM": rate / base,
                }
            )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small batch, once, one vocabulary")
    parser.add_argument("--one", nargs=4, metavar=("KIND", "V", "ROWS", "STEPS"), help=argparse.SUPPRESS)
    found = parser.parse_args()
    if found.one:
        kind, size, rows, steps = found.one
        print(json.dumps(one(kind, int(size), int(rows), int(steps))))
        return
    rows = 2 if found.quick else ROWS
    table, ratios = training(rows, quick=found.quick)
    table += writing(quick=found.quick)
    last = VOCABS[0] if found.quick else VOCABS[-1]
    checks = {
        f"training steps against a dense target, V={last}, times faster": at_least(ratios[f"faster at {last}"], FASTER),
        f"loss memory against a dense target, V={last}, times smaller": at_least(ratios[f"smaller at {last}"], SMALLER),
    }
    report("insertion", table, checks=checks, setup={"size": "6M", "rows": rows, "length": LENGTH, "dtype": DTYPE})


if __name__ == "__main__":
    main()
