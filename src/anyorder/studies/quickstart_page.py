"""What the quickstart shows: what the starter wrote, a puzzle learned, two texts learned; the page and a picture."""

import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

import anyorder
from anyorder.api import GAP, LanguageModel, load
from anyorder.core import dist
from anyorder.core.config import dump_config, load_config
from anyorder.core.device import canvas_device, pick_dtype
from anyorder.core.files import write_atomic
from anyorder.core.log import Record, last_record, read_records
from anyorder.core.noise import Noise
from anyorder.core.types import moved
from anyorder.data.loader import in_order
from anyorder.likelihood.by_count import loss_by_count
from anyorder.page.report import Act, Cost, Curve, MadeWith, ReportData, Share, Table, Trace, write_report
from anyorder.page.trace_svg import trace_svg
from anyorder.studies.puzzle import Solved, solve
from anyorder.studies.quickstart import PAGE, PUZZLE_SAMPLERS, WAYS, Scale
from anyorder.studies.quickstart_starter import Written, starter_act, trace_of
from anyorder.train.config import RunConfig
from anyorder.train.data import run_data
from anyorder.train.loop import CONFIG, METRICS, RunData
from anyorder.train.peak import matmul_peak
from anyorder.train.watch import Validation, validate

FINAL_DRAWS = 8  # masked copies of each row behind the closing held-out figures
CURVE_ROWS = 64  # at most, of the loss-by-mask-count curve
LABELS: Final = {"mdm": "MDM (bound)", "arm": "ARM (exact)"}
INFILL: Final = ("        if value is None:\n            raise ", "ValueError", '("value is required")\n')
ROUGH: Final = (
    "This is a quick look: the text models were trained for a fraction of the full quickstart's steps and measured on "
    "few rows, so figures here are rough. "
)


def draw_page(out: Path, written: Written, *, scale: Scale, seed: int, seconds: Callable[[], float]) -> dict[str, Any]:
    """Score and sample the finished runs of `out`, write report.html and trace.svg, return the figures shown.

    Args:
        written: by the starter.
        seconds: what the whole has taken when it is asked, for the page.
    """
    config = load_config(RunConfig, out / "text-mdm" / CONFIG)
    peak = matmul_peak(pick_dtype(config.dtype, dist.device()).dtype)
    starter = starter_act(written)
    puzzle, puzzle_figures = _puzzle_act(out, seed, scale.times)
    text, text_figures = _text_act(out, scale, seed, peak)
    data = ReportData(
        title="anyorder quickstart",
        subtitle="Language models that write in any order, beside their left-to-right twins",
        caveat=_caveat(text_figures, scale),
        made_with=MadeWith(
            version=anyorder.__version__,
            commit=_commit(),
            command="anyorder " + " ".join(sys.argv[1:]),
            machine=f"{_device_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
            facts=[("Computed in", config.dtype)],
            seconds=seconds(),
        ),
        config=dump_config(config),
        acts=[starter, puzzle, text],
    )
    write_report(out / PAGE, data)
    board, words = puzzle.samples[0], starter.samples[0]
    write_atomic(out / "trace.svg", trace_svg([board, words], title="Tokens in the order they were written"))
    return {
        "text": text_figures,
        "puzzle": puzzle_figures,
        "dtype": config.dtype,
        "matmul_peak_flops": peak,
        "seconds": round(seconds(), 1),
    }


def _device_name() -> str:
    """What computed: the GPU's name, or the processor's as the system tells it."""
    device = dist.device()
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _caveat(figures: dict[str, Any], scale: Scale) -> str:
    """What not to conclude from the text models."""
    mdm, arm = figures["mdm"], figures["arm"]
    return (
        f"{ROUGH if scale.rough else ''}The text models of part 3 are small and saw {mdm['tokens'] / 1e6:.2g} million "
        f"tokens, in {_minutes(mdm['seconds'])} and {_minutes(arm['seconds'])} of training: what they write is rough. "
        "The starter of part 1 is larger and was trained for hours on one core."
    )


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.1f} minutes"


def _text_act(out: Path, scale: Scale, seed: int, peak: float) -> tuple[Act, dict[str, Any]]:
    runs = {kind: out / f"text-{kind}" for kind in LABELS}
    config = load_config(RunConfig, runs["mdm"] / CONFIG)
    data = run_data(config)
    models = {kind: load(run, device=str(dist.device())) for kind, run in runs.items()}
    final = {kind: _final(model, data, rows=scale.rows, seed=seed) for kind, model in models.items()}
    last = {kind: last_record(run / METRICS, "train") for kind, run in runs.items()}
    samples = _text_samples(models, seed)
    figures = {
        kind: {
            "bits_per_byte": final[kind].bits_per_byte,
            "stderr": final[kind].bits_per_byte_stderr,
            "nats_per_token": final[kind].nats_per_token,
            "tokens": last[kind]["tokens"],
            "seconds": last[kind]["seconds"],
            "mfu": last[kind]["flops"] / last[kind]["seconds"] / peak,
        }
        for kind in LABELS
    }
    act = Act(
        name="text",
        title="Two small models learn Python source",
        summary=_text_summary(models["mdm"], figures, corpus=scale.corpus),
        curves=[_curve(kind, run, final[kind]) for kind, run in runs.items()],
        z_curve=_z_curve(models["mdm"], data, rows=min(CURVE_ROWS, scale.rows), seed=seed),
        samples=samples,
        table=Table(
            columns=["model", "bits per byte, held out", "standard error", "tokens read", "seconds of training"],
            rows=[
                [LABELS[kind], round(f["bits_per_byte"], 3), round(f["stderr"], 3), f["tokens"], round(f["seconds"])]
                for kind, f in figures.items()
            ],
            caption="The MDM's figure is an upper bound: its true cost is that or less. The ARM's is exact.",
        ),
        cost=_costs(models, figures, last, peak, dtype=config.dtype),
    )
    return act, figures


def _text_summary(mdm: LanguageModel, figures: dict[str, Any], *, corpus: str) -> str:
    size = sum(p.numel() for p in mdm.model.parameters()) / 1e6
    what = "Python's standard library" if corpus == "stdlib" else f"{Path(corpus).name}, a package of Python's library"
    return (
        f"Twins of {size:.1f} million parameters read the source of {what}, both the same {figures['mdm']['tokens']:,} "
        f"tokens. On files neither has seen, the ARM needs {figures['arm']['bits_per_byte']:.2f} ± "
        f"{figures['arm']['stderr']:.2f} bits per byte and the MDM at most {figures['mdm']['bits_per_byte']:.2f} ± "
        f"{figures['mdm']['stderr']:.2f}. Left to right is easier to learn; the MDM buys with the difference that it "
        "can fill gaps and choose its order."
    )


def _puzzle_act(out: Path, seed: int, times: int) -> tuple[Act, dict[str, Any]]:
    mdm, arm = out / "puzzle-mdm", out / "puzzle-arm"
    ways = [
        (mdm, "top-prob", "MDM, most confident cell first"),
        (mdm, "first-hitting", "MDM, random cell first"),
        (mdm, "left-to-right", "MDM, left to right"),
        (arm, "causal", "ARM twin, left to right"),
    ]
    solved = [solve(run, sampler=name, label=label, seed=seed, times=times) for run, name, label in ways]
    rows = [[s.label, Share(share=s.share, stderr=s.stderr), s.nfe] for s in solved]
    last = last_record(mdm / METRICS, "train")
    summary = (
        "Sudoku on a 4x4 board: every row, column and box holds 1 to 4. Both twins learned from 200 of the 288 "
        "possible boards and are tested on puzzles (six clues, one solution) of the other 88. Writing the cell it is "
        f"surest of first, the MDM solves {solved[0].share:.0%} after {last['step']} steps; the same network in random "
        f"order {solved[1].share:.0%}, left to right {solved[2].share:.0%}; its autoregressive twin, which reads the "
        f"whole puzzle before it writes and learned from as many boards, {solved[3].share:.0%}."
    )
    act = Act(
        name="puzzle",
        title="A puzzle: order matters",
        summary=summary,
        samples=_boards(solved[0], solved[1]),
        table=Table(
            columns=["written by", "held-out puzzles solved", "network passes each"],
            rows=rows,
            caption=f"Each puzzle written {times} times at temperature 1; the error is over the 88 puzzles.",
        ),
        curves=[
            _solved_curve(run, sampler, f"{run.name.removeprefix('puzzle-').upper()}, {WAYS[sampler]}")
            for run in (mdm, arm)
            for sampler in PUZZLE_SAMPLERS[run.name.removeprefix("puzzle-")]
        ],
    )
    return act, {s.label: {"solved": s.share, "stderr": s.stderr, "sampler": s.sampler} for s in solved}


def _solved_curve(run: Path, sampler: str, label: str) -> Curve:
    """Per cent of held-out puzzles solved as training went on."""
    points = [
        (float(r["tokens"]), 100 * r[f"solved {sampler}"], 100 * r[f"solved {sampler} stderr"])
        for r in _records(run, "valid")
    ]
    return Curve(label=label, unit="% solved", points=points)


def _boards(sure: Solved, random: Solved) -> list[Trace]:
    """One puzzle on one clock: the confident order beside the random one; where they differ, if they do."""
    differ = (sure.correct & ~random.correct).nonzero()[:, 0].tolist() or sure.correct.nonzero()[:, 0].tolist() or [0]
    return [
        Trace(
            kind="puzzle",
            sampler=solved.sampler,
            tokens=solved.pieces(differ[0]),
            order=solved.sample.order[differ[0]].tolist(),
            logp=solved.sample.token_logp[differ[0]].tolist(),
            prompt="six clues are given",
            nfe=int(solved.sample.nfe[differ[0]]),
            grid=4,
            ok=bool(solved.correct[differ[0]]),
            note=note,
            group="One puzzle, two orders",
        )
        for solved, note in ((sure, "the cell it is surest of first"), (random, "cells in random order"))
    ]


def _text_samples(models: dict[str, LanguageModel], seed: int) -> list[Trace]:
    mdm, arm = models["mdm"], models["arm"]
    before, hidden, after = INFILL
    gap = GAP(len(mdm.tokenizer.encode(hidden)))
    filled = mdm.infill([before, gap, after], sampler="top-prob", temperature=0.7, seed=seed)[0]
    pair = "Two ways to write"
    return [
        trace_of(
            "infill",
            "top-prob",
            filled,
            prompt="the text on both sides is given",
            note=f"the author would write {hidden} here",
            group="Fill a gap",
        ),
        trace_of("MDM", "first-hitting", mdm.sample(seed=seed)[0], note="any order, drawn exactly", group=pair),
        trace_of("ARM", "causal", arm.sample(seed=seed)[0], note="left to right, drawn exactly", group=pair),
        trace_of(
            "MDM",
            "top-prob",
            mdm.sample("def __init__(self", sampler="top-prob", temperature=0.8, seed=seed)[0],
            prompt="the beginning is given",
            note="most confident token first, temperature 0.8: smoother, and no longer the distribution it learned",
            group="Go on from a beginning",
        ),
    ]


def _final(model: LanguageModel, data: RunData, *, rows: int, seed: int) -> Validation:
    return validate(
        model.model,
        [moved(b, canvas_device(dist.device())) for b in in_order(data.valid, rows=32, limit=rows)],
        kind=model.kind,
        draws=FINAL_DRAWS,
        noise=Noise.of(seed).at("final"),
        bytes_per_token=data.tokenizer.bytes_per_token,
    )


def _curve(kind: str, run: Path, final: Validation) -> Curve:
    return Curve(
        label=LABELS[kind],
        unit="bits per byte",
        points=_curve_points(run),
        final=final.bits_per_byte,
        final_stderr=final.bits_per_byte_stderr,
    )


def _curve_points(run: Path) -> list[tuple[float, float, float]]:
    """(tokens seen, held-out bits per byte, standard error), as training went on."""
    return [(float(r["tokens"]), r["bits_per_byte"], r["bits_per_byte_stderr"]) for r in _records(run, "valid")]


def _z_curve(mdm: LanguageModel, data: RunData, *, rows: int, seed: int) -> list[tuple[int, float, float]]:
    batch = next(b for b in in_order(data.valid, rows=rows, limit=rows))
    batch = moved(batch, canvas_device(dist.device()))
    whole = batch.target.all(-1)  # rows without padding hide as many tokens as any other
    length = batch.tokens.shape[1]
    counts = sorted({max(1, round(length * share)) for share in (0.01, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0)})
    curve = loss_by_count(
        mdm.model,
        batch.tokens[whole],
        target=batch.target[whole],
        row_id=batch.sample_id[whole],
        counts=counts,
        noise=Noise.of(seed).at("curve"),
    )
    return [(c.num_masked, c.nats, c.stderr) for c in curve]


def _costs(
    models: dict[str, LanguageModel], figures: dict[str, Any], last: dict[str, Record], peak: float, *, dtype: str
) -> list[Cost]:
    """Cards: parameters, and of each twin its rate, its compute and the share of this machine's peak."""
    config, vocab = models["mdm"].model.config, models["mdm"].model.vocab
    params = config.num_params(vocab_size=vocab.size, num_ids=vocab.num_ids)
    cards = [Cost(label="Parameters", value=float(params), help=f"{config.num_block_params:,} of them in the blocks")]
    for kind, record in last.items():
        name, mfu = kind.upper(), figures[kind]["mfu"]
        rate, flops = record["tokens_per_second"], float(record["flops"])
        cards += [
            Cost(label=f"{name} training", value=rate, unit="tokens/s", help="validation included"),
            Cost(label=f"{name} compute", value=flops, unit="FLOPs", help="matrix products, forward and backward"),
        ]
        if mfu <= 1:  # more: the peak was measured while other work took the machine, or on another one
            peak_is = f"of {peak / 1e9:,.0f} GFLOP/s, a {dtype} matrix product on this machine"
            cards.append(Cost(label=f"{name} MFU", value=round(100 * mfu, 1), unit="%", help=peak_is))
    return cards


def _records(run: Path, kind: str) -> list[Record]:
    return [r for r in read_records(run / METRICS) if r["kind"] == kind]


def _commit() -> str:
    """The short commit of the checkout this package runs from, or nothing."""
    done = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else ""
