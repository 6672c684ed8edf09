"""Decoding speed: a masked model by several samplers and caches against its causal twin with an exact key-value cache.

    python benchmarks/decoding.py [--quick] [--threads N] [--rows B B] [--run QUICKSTART]

Without --run: the 6M network, V = 4096, rows of 256 tokens of which 32 are prompt, random weights, so that only time
means anything. How many tokens `threshold` writes a pass depends on what is predicted; there the predictions are made
up (`Sure`). With --run: the trained pair of a quickstart, whole rows without a prompt, and beside each speed the
quality of the same rows: generative perplexity under the twin, and entropy. The judge is the causal model itself, which
flatters its own samples.

The baseline is the causal twin, written three times: by the textbook's loop (keys and values joined by `torch.cat`,
fused attention, float32 softmax and `torch.multinomial`; no sampler, nothing counted), by ours with the exact cache,
and by ours without a cache. Before anything is timed, the greedy texts of all three must be equal.

Columns: tokens written a second; network passes a row (a pass over a few columns counts as one); milliseconds until the
first token of a row stands, and until its leftmost one does, which is when a reader can begin; the error of a cache,
KL(without || with) in nats, mean over the predictions of an untimed run of at most four rows. Every run is done whole,
all in turn, several times where that is short; the median counts. The second table has the causal model alone at
several lengths, one row at a time; there the uncached speed is that of a few positions spread over the row.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from anyorder.api import load
from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser, Sampler
from anyorder.core.types import Canvas, Vocab, take_rows
from anyorder.data.tokenizer import Tokenizer
from anyorder.evaluation.gen_ppl import ModelJudge
from anyorder.evaluation.quality import measure
from anyorder.models import SIZES, Transformer
from anyorder.models.cache import CausalCache, with_cache
from anyorder.models.cache_error import CacheError
from anyorder.samplers.base import generate, steps
from anyorder.samplers.presets import make_sampler
from common import Row, at_least, report, synchronise
from presets import Sure

VOCAB = Vocab(4096, 4096, 4097, 0)
LENGTH, PROMPT, BLOCK = 256, 32, 32
SHARE = 1 / 8  # of the open positions of a block that are certain in a pass, where predictions are made up
METERED = 4  # rows the error of a cache is measured on
UNCACHED_AIM, TEXTBOOK_AIM = 3.0, 1.0
NOISE = Noise.of(0)


@dataclass(frozen=True)
class Writer:
    """A row of the table: which model, by which sampler, with which cache."""

    kind: str
    sampler: str
    num_steps: int | None = None
    block: int | None = None
    cache: str = "none"

    def build(self) -> Sampler:
        return make_sampler(self.sampler, num_steps=self.num_steps, block=self.block)

    def __str__(self) -> str:
        named = {"steps": self.num_steps, "block": self.block}
        return " ".join([self.sampler, *(f"{k} {v}" for k, v in named.items() if v is not None)])


WRITERS = (
    Writer("arm", "causal", cache="exact"),
    Writer("arm", "causal"),
    Writer("mdm", "first-hitting", num_steps=64),
    Writer("mdm", "first-hitting", num_steps=32),
    *(Writer("mdm", "first-hitting", num_steps=8, block=BLOCK, cache=c) for c in ("none", "prefix", "dual")),
    *(Writer("mdm", "threshold", block=BLOCK, cache=c) for c in ("none", "prefix", "dual")),
)


@dataclass(frozen=True)
class Pair:
    """An MDM and its ARM; `made_up` says that their weights are random."""

    models: dict[str, Transformer]
    tokenizer: Tokenizer | None = None

    @property
    def made_up(self) -> bool:
        return self.tokenizer is None

    def reader(self, writer: Writer, *, metered: list[CacheError] | None = None) -> Denoiser:
        """What the sampler asks: a fresh cache around the model, and made-up certainty where it decides the passes."""
        model = self.models[writer.kind]
        cached = with_cache(model, writer.cache)
        if metered is not None:
            metered.append(CacheError(cached, model))
            cached = metered[0]
        return Sure(cached, SHARE) if self.made_up and writer.sampler == "threshold" else cached


def random_pair() -> Pair:
    """Two networks of the 6M size."""
    models = {}
    for kind in ("mdm", "arm"):
        size = SIZES["6M"].model_copy(update={"causal": kind == "arm"})
        models[kind] = Transformer(size, VOCAB).eval().requires_grad_(False)
        models[kind].init_weights(NOISE.at(kind))
    return Pair(models)


def trained_pair(run: Path) -> Pair:
    """The text models of a quickstart."""
    both = {kind: load(run / f"text-{kind}") for kind in ("mdm", "arm")}
    return Pair({kind: model.model for kind, model in both.items()}, both["arm"].tokenizer)


def rows_to_write(pair: Pair, rows: int, length: int) -> Canvas:
    """Masks behind a prompt of random tokens; without one if the models are trained."""
    vocab = pair.models["arm"].vocab
    x = torch.full((rows, length), vocab.mask_id)
    if pair.made_up:
        u = NOISE.at("prompt").uniform(torch.arange(rows)[:, None], 0, torch.arange(PROMPT))
        x[:, :PROMPT] = (u * vocab.size).long()
    return Canvas.of(x, vocab=vocab)


@dataclass(frozen=True)
class Run:
    """What a run took: seconds in all, until the first token of a row, until the leftmost; passes a row."""

    seconds: float
    first: float
    leftmost: float
    nfe: float


def run(writer: Writer, pair: Pair, canvas: Canvas) -> Run:
    """A whole generation, timed; times to a token are means over rows."""
    is_open = canvas.open(pair.models[writer.kind].vocab)
    left = is_open.int().argmax(-1)
    wrote, passes, now = [], [], []
    reader = pair.reader(writer)
    synchronise()
    start = time.perf_counter()
    for step in steps(writer.build(), reader, canvas, noise=NOISE):
        synchronise()
        now.append(time.perf_counter() - start)
        wrote.append(step.wrote)
        passes.append(step.nfe)
    seconds = time.perf_counter() - start
    moment, done = torch.tensor(now, dtype=torch.float64), torch.stack(wrote).int()
    first = moment[done.amax(-1).argmax(0)]
    leftmost = moment[done[:, torch.arange(len(left)), left].argmax(0)]
    return Run(seconds, float(first.mean()), float(leftmost.mean()), float(torch.stack(passes).sum(0).double().mean()))


def error_of(writer: Writer, pair: Pair, canvas: Canvas) -> float:
    """Mean KL(without || with the cache), nats."""
    if writer.cache == "none":
        return 0.0
    meters: list[CacheError] = []
    few = take_rows(canvas, torch.arange(min(METERED, len(canvas.x))))
    generate(writer.build(), pair.reader(writer, metered=meters), few, noise=NOISE)
    return meters[0].mean


# The textbook's loop


def rms(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * gain


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat([x[..., half:], x[..., :half]], -1) * sin


def textbook_pass(
    model: Transformer, tokens: Tensor, past: list[tuple[Tensor, Tensor]]
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Logits behind the last of these tokens (B, V), and keys and values with theirs joined on."""
    c, begin = model.config, past[0][0].shape[2] if past else 0
    cos, sin = (table[begin : begin + tokens.shape[1]] for table in (model.rope_cos, model.rope_sin))
    h, after = model.embed(tokens), []
    for layer, block in enumerate(model.blocks):
        qkv = F.linear(rms(h, block.attn_norm.weight, c.norm_eps), block.attn.qkv.weight)
        q, k, v = (y.unflatten(-1, (c.num_heads, -1)).transpose(1, 2) for y in qkv.chunk(3, -1))
        q, k = rotated(q, cos, sin), rotated(k, cos, sin)
        if past:
            k, v = torch.cat([past[layer][0], k], 2), torch.cat([past[layer][1], v], 2)
        after.append((k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=not past)
        h = h + F.linear(y.transpose(1, 2).flatten(2), block.attn.out.weight)
        gate, up = F.linear(rms(h, block.mlp_norm.weight, c.norm_eps), block.mlp.gate_up.weight).chunk(2, -1)
        h = h + F.linear(F.silu(gate) * up, block.mlp.down.weight)
    return F.linear(rms(h[:, -1], model.norm.weight, c.norm_eps), model.head.weight), after


@torch.no_grad()
def textbook(model: Transformer, canvas: Canvas, *, greedy: bool = False) -> Iterator[Tensor]:
    """The tokens of each row, one after the other; all rows have prompts of one length."""
    prompt = int((canvas.x[0] != model.vocab.mask_id).sum())
    start = torch.full_like(canvas.x[:, :1], model.vocab.eos_id or 0)
    tokens, past = torch.cat([start, canvas.x[:, :prompt]], 1), []
    for _ in range(canvas.x.shape[1] - prompt):
        logits, past = textbook_pass(model, tokens, past)
        tokens = logits.argmax(-1, keepdim=True) if greedy else torch.multinomial(logits.softmax(-1), 1)
        yield tokens


def run_textbook(pair: Pair, canvas: Canvas) -> Run:
    start, first, count = time.perf_counter(), 0.0, 0
    for _ in textbook(pair.models["arm"], canvas):
        synchronise()
        first = first or time.perf_counter() - start
        count += 1
    return Run(time.perf_counter() - start, first, first, float(count))


def same_text(pair: Pair, canvas: Canvas) -> float:
    """The share of tokens that three ways to write greedily agree on."""
    model, sampler = pair.models["arm"], make_sampler("causal", temperature=0.0)
    book = torch.cat(list(textbook(model, canvas, greedy=True)), 1)
    ours = [generate(sampler, reader, canvas, noise=NOISE).canvas.x for reader in (CausalCache(model), model)]
    return float(torch.stack([(x[:, -book.shape[1] :] == book).double() for x in ours]).mean())


# Tables


def in_turn(makers: dict[str, Callable[[], Run]], rounds: int) -> dict[str, Run]:
    """Each a few times, all in turn; the run of median time."""
    found: dict[str, list[Run]] = {name: [] for name in makers}
    for _ in range(rounds):
        for name, make in makers.items():
            found[name].append(make())
    return {name: sorted(runs, key=lambda r: r.seconds)[len(runs) // 2] for name, runs in found.items()}


def table_of(pair: Pair, *, rows: int, length: int, rounds: int) -> list[Row]:
    """A row per writer, the textbook's first."""
    canvas = rows_to_write(pair, rows, length)
    short = rows_to_write(pair, rows, min(length, PROMPT + 8))
    written = int(canvas.open(pair.models["arm"].vocab).sum())
    makers: dict[str, Callable[[], Run]] = {"textbook": lambda: run_textbook(pair, canvas)}
    run_textbook(pair, short)  # warm up
    for writer in WRITERS:
        run(writer, pair, short)
        makers[f"{writer.kind} {writer} {writer.cache}"] = lambda w=writer: run(w, pair, canvas)
    results = in_turn(makers, rounds)
    table: list[Row] = []
    for (name, result), writer in zip(results.items(), (None, *WRITERS)):
        row: Row = {"B": rows, "L": length, "runs": rounds, "model": "arm" if writer is None else writer.kind}
        row |= {"sampler": name if writer is None else str(writer), "cache": writer.cache if writer else "torch.cat"}
        row |= {"nfe": result.nfe, "seconds": result.seconds, "tok/s": written / result.seconds}
        row |= {"first ms": 1e3 * result.first, "leftmost ms": 1e3 * result.leftmost}
        row["KL"] = 0.0 if writer is None else error_of(writer, pair, canvas)
        table.append(row)
    return table


def with_quality(pair: Pair, table: list[Row], *, rows: int, length: int) -> None:
    """Adds what the rows are worth: perplexity under the ARM and entropy, of the text each writer made."""
    assert pair.tokenizer is not None
    arm = pair.models["arm"]
    judge = ModelJudge("the ARM", arm, pair.tokenizer, arm.config.max_length, "cpu")
    canvas = rows_to_write(pair, rows, length)
    for row, writer in zip(table, (None, *WRITERS)):
        if writer is None:
            x = torch.cat(list(textbook(arm, canvas)), 1)
        else:
            x = generate(writer.build(), pair.reader(writer), canvas, noise=NOISE).canvas.x
        figures = measure(x, tokenizer=pair.tokenizer, judge=judge)
        row |= {"gen-PPL": figures.gen_ppl, "+-": figures.gen_ppl_stderr, "entropy": figures.entropy}


def by_length(pair: Pair, *, lengths: tuple[int, ...], timed: int) -> list[Row]:
    """How the ARM's speed depends on the length of the row, B = 1; of uncached rows a few positions are timed."""
    model, table = pair.models["arm"], []
    for length in lengths:
        canvas = rows_to_write(pair, 1, length)
        book, ours = run_textbook(pair, canvas), run(WRITERS[0], pair, canvas)
        position = [PROMPT + int((i + 0.5) * (length - PROMPT) / timed) for i in range(timed)]
        whole, taken = generate(WRITERS[0].build(), pair.reader(WRITERS[0]), canvas, noise=NOISE).canvas.x, []
        for end in position:
            part = Canvas.of(whole[:, : end + 1].index_fill(1, torch.tensor([end]), model.vocab.mask_id), vocab=VOCAB)
            start = time.perf_counter()
            generate(WRITERS[1].build(), model, part, noise=NOISE)
            taken.append(time.perf_counter() - start)
        count, plain = length - PROMPT, 1 / (sum(taken) / timed)
        row: Row = {"length": length, "textbook tok/s": count / book.seconds, "cached tok/s": count / ours.seconds}
        table.append(row | {"uncached tok/s": plain, "cached/uncached": count / ours.seconds / plain})
    return table


def speed_checks(table: list[Row]) -> dict[str, dict[str, float | bool]]:
    """The cached ARM against the same loop without a cache, and against the textbook's loop."""
    checks = {}
    for rows in dict.fromkeys(row["B"] for row in table):
        book, cached, plain = (float(row["tok/s"]) for row in table if row["B"] == rows and row["model"] == "arm")
        checks[f"B={rows}: cached ARM, times uncached"] = at_least(cached / plain, UNCACHED_AIM)
        checks[f"B={rows}: cached ARM, times the textbook's loop"] = at_least(cached / book, TEXTBOOK_AIM)
    return checks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="rows of 96 tokens, each run once")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's default")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16], help="B")
    parser.add_argument("--run", type=Path, help="a quickstart folder: its trained pair, with quality")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    pair = random_pair() if args.run is None else trained_pair(args.run)
    length = 96 if args.quick else min(LENGTH, pair.models["arm"].config.max_length)
    checks = {"greedy text, share equal": at_least(same_text(pair, rows_to_write(pair, 2, min(length, 96))), 1.0)}
    rows: list[Row] = []
    for b in args.rows:
        table = table_of(pair, rows=b, length=length, rounds=1 if args.quick or b * length > 1024 else 3)
        if not pair.made_up:
            with_quality(pair, table, rows=max(b, 2 if args.quick else 64), length=length)
        rows += table
    checks |= speed_checks(rows)
    if pair.made_up:
        rows += by_length(pair, lengths=(64, 96) if args.quick else (128, 512, 1024), timed=2 if args.quick else 12)
    model = "6M, random weights" if pair.made_up else str(args.run)
    setup: dict[str, str | int | float] = {"model": model, "V": pair.models["arm"].vocab.size, "dtype": "float32"}
    if pair.made_up:
        setup |= {"prompt": PROMPT, "share": SHARE}
    report("decoding", rows, checks=checks, setup=setup)


if __name__ == "__main__":
    main()
