"""What the quickstart shows of its four runs: figures, samples, an infill, a puzzle; the page and a picture."""

import math
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import torch

import anyorder
from anyorder.api import GAP, Generation, LanguageModel, load
from anyorder.core.config import dump_config, load_config
from anyorder.core.files import write_atomic
from anyorder.core.log import Record, last_record, read_records
from anyorder.core.noise import Noise
from anyorder.data.loader import in_order
from anyorder.likelihood.by_count import loss_by_count
from anyorder.page.report import Act, Cost, Curve, MadeWith, ReportData, Share, Table, Trace, write_report
from anyorder.page.trace_svg import trace_svg
from anyorder.studies.puzzle import Solved, solve
from anyorder.train.config import RunConfig
from anyorder.train.data import run_data
from anyorder.train.loop import CONFIG, METRICS, RunData
from anyorder.train.peak import matmul_peak
from anyorder.train.watch import Validation, validate

FINAL_ROWS, FINAL_DRAWS = 256, 8  # of the closing held-out figures
CURVE_ROWS = 64  # of the loss-by-mask-count curve
LABELS: Final = {"mdm": "MDM (bound)", "arm": "ARM (exact)"}
INFILL: Final = ("        if value is None:\n            raise ", "ValueError", '("value is required")\n')


def draw_page(out: Path, *, seed: int, times: int, seconds: float) -> dict[str, Any]:
    """Score and sample the finished runs of `out`, write report.html and trace.svg, return the figures shown.

    Args:
        times: generations of each puzzle.
        seconds: what training took, for the page.
    """
    peak = matmul_peak(torch.bfloat16)
    text, text_figures = _text_act(out, seed, peak)
    puzzle, puzzle_figures = _puzzle_act(out, seed, times)
    data = ReportData(
        title="anyorder quickstart",
        subtitle="A language model that writes in any order, beside its left-to-right twin",
        caveat=_caveat(out, text_figures),
        made_with=MadeWith(
            version=anyorder.__version__,
            commit=_commit(),
            command="anyorder " + " ".join(sys.argv[1:]),
            machine=f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
            seconds=seconds,
        ),
        config=dump_config(load_config(RunConfig, out / "text-mdm" / CONFIG)),
        acts=[puzzle, text],
    )
    write_report(out / "report.html", data)
    board, words = puzzle.samples[0], next(t for t in text.samples if t.kind == "infill")
    write_atomic(out / "trace.svg", trace_svg([board, words], title="Tokens in the order they were written"))
    return {"text": text_figures, "puzzle": puzzle_figures, "matmul_peak_flops": peak}


def _caveat(out: Path, figures: dict[str, Any]) -> str:
    """What the text is worth, and how long it would take to be worth more, from this run's own curve."""
    points = _curve_points(out / "text-mdm")
    mdm, arm = figures["mdm"], figures["arm"]
    rough = (
        f"These are small models after {mdm['seconds'] / 60:.1f} minutes of training each. The MDM's text is rough: it "
        f"stands at {mdm['bits_per_byte']:.2f} bits per byte where its twin is at {arm['bits_per_byte']:.2f}."
    )
    half = min(points, key=lambda p: abs(p[0] - mdm["tokens"] / 2))
    gain = (half[1] - points[-1][1]) / math.log2(points[-1][0] / half[0]) if half[0] < points[-1][0] else 0.0
    if gain <= 0.01:
        return f"{rough} Give it more --minutes."
    doublings = max(0.0, (mdm["bits_per_byte"] - arm["bits_per_byte"]) / gain)
    minutes = 2**doublings * mdm["seconds"] / 60
    return (
        f"{rough} The last doubling of its training took {gain:.2f} bits per byte off; if every further one did the "
        f"same, it would be where its twin is now after about {minutes:,.0f} minutes (a straight-line guess)."
    )


def _text_act(out: Path, seed: int, peak: float) -> tuple[Act, dict[str, Any]]:
    runs = {kind: out / f"text-{kind}" for kind in LABELS}
    config = load_config(RunConfig, runs["mdm"] / CONFIG)
    data, models = run_data(config), {kind: load(run) for kind, run in runs.items()}
    final = {kind: _final(model, data, seed) for kind, model in models.items()}
    last = {kind: last_record(run / METRICS, "train") for kind, run in runs.items()}
    samples = _text_samples(models, seed)
    per_byte = {kind: (v.bits_per_byte, v.bits_per_byte_stderr) for kind, v in final.items()}
    summary = (
        f"Two 1M-parameter twins read the source of Python's standard library, the MDM for "
        f"{last['mdm']['seconds']:.0f} seconds and the ARM for {last['arm']['seconds']:.0f}. On files neither has "
        f"seen, the ARM needs {per_byte['arm'][0]:.2f} bits per byte and the MDM at most {per_byte['mdm'][0]:.2f} (its "
        "figure is an upper bound)."
    )
    act = Act(
        name="text",
        title="Text: Python's standard library",
        summary=summary,
        curves=[_curve(kind, run, final[kind]) for kind, run in runs.items()],
        z_curve=_z_curve(models["mdm"], data, seed),
        samples=samples,
        cost=_costs(models, last, peak, samples),
    )
    figures = {
        kind: {
            "bits_per_byte": per_byte[kind][0],
            "stderr": per_byte[kind][1],
            "nats_per_token": final[kind].nats_per_token,
            "tokens": last[kind]["tokens"],
            "seconds": last[kind]["seconds"],
            "mfu": last[kind]["flops"] / last[kind]["seconds"] / peak,
        }
        for kind in LABELS
    }
    return act, figures


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
    summary = (
        "Sudoku on a 4x4 board: every row, column and box holds 1 to 4. Both twins learned from 200 of the 288 "
        "possible boards and are tested on puzzles (six clues, one solution) of the other 88. Writing the cell it is "
        f"surest of first, the MDM solves {solved[0].share:.0%}; the same network in random order "
        f"{solved[1].share:.0%}, left to right {solved[2].share:.0%}; its autoregressive twin, which reads the whole "
        f"puzzle before it writes, {solved[3].share:.0%}."
    )
    act = Act(
        name="puzzle",
        title="Puzzle: order matters",
        summary=summary,
        samples=_boards(solved[0], solved[1]),
        table=Table(
            columns=["written by", "held-out puzzles solved", "network passes each"],
            rows=rows,
            caption=f"Each puzzle written {times} times at temperature 1; the error is over the 88 puzzles.",
        ),
    )
    return act, {s.label: {"solved": s.share, "stderr": s.stderr, "sampler": s.sampler} for s in solved}


def _boards(sure: Solved, chance: Solved) -> list[Trace]:
    """One puzzle on one clock: the confident order beside the random one; where they differ, if they do."""
    differ = (sure.correct & ~chance.correct).nonzero()[:, 0].tolist() or sure.correct.nonzero()[:, 0].tolist() or [0]
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
        for solved, note in ((sure, "the cell it is surest of first"), (chance, "cells in random order"))
    ]


def _text_samples(models: dict[str, LanguageModel], seed: int) -> list[Trace]:
    mdm, arm = models["mdm"], models["arm"]
    before, hidden, after = INFILL
    gap = GAP(len(mdm.tokenizer.encode(hidden)))
    filled = mdm.infill([before, gap, after], sampler="top-prob", temperature=0.7, seed=seed)[0]
    pair = "Two ways to write"
    return [
        _trace(
            "infill",
            "top-prob",
            filled,
            prompt="the text on both sides is given",
            note=f"the author would write {hidden} here",
            group="Fill a gap",
        ),
        _trace("MDM", "first-hitting", mdm.sample(seed=seed)[0], note="any order, drawn exactly", group=pair),
        _trace("ARM", "causal", arm.sample(seed=seed)[0], note="left to right, drawn exactly", group=pair),
        _trace(
            "MDM",
            "top-prob",
            mdm.sample("def __init__(self", sampler="top-prob", temperature=0.8, seed=seed)[0],
            prompt="the beginning is given",
            note="most confident token first, temperature 0.8: smoother, and no longer the law the model learned",
            group="Go on from a beginning",
        ),
    ]


def _trace(kind: Any, sampler: str, made: Generation, *, prompt: str = "", note: str = "", group: str = "") -> Trace:
    return Trace(
        kind=kind,
        sampler=sampler,
        tokens=made.pieces,
        order=made.order,
        logp=made.token_logp,
        prompt=prompt,
        nfe=made.nfe,
        seconds=made.seconds,
        note=note,
        group=group,
    )


def _final(model: LanguageModel, data: RunData, seed: int) -> Validation:
    return validate(
        model.model,
        list(in_order(data.valid, rows=32, limit=FINAL_ROWS)),
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
    return [
        (float(r["tokens"]), r["bits_per_byte"], r["bits_per_byte_stderr"])
        for r in read_records(run / METRICS)
        if r["kind"] == "valid"
    ]


def _z_curve(mdm: LanguageModel, data: RunData, seed: int) -> list[tuple[int, float, float]]:
    batch = next(b for b in in_order(data.valid, rows=CURVE_ROWS, limit=CURVE_ROWS))
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


def _costs(models: dict[str, LanguageModel], last: dict[str, Record], peak: float, samples: list[Trace]) -> list[Cost]:
    config, vocab = models["mdm"].model.config, models["mdm"].model.vocab
    params = config.num_params(vocab_size=vocab.size, num_ids=vocab.num_ids)
    cards = [Cost(label="Parameters", value=float(params), help=f"{config.num_block_params:,} of them in the blocks")]
    for kind, record in last.items():
        name = kind.upper()
        mfu = 100 * record["flops"] / record["seconds"] / peak
        cards += [
            Cost(
                label=f"{name} training", value=record["tokens_per_second"], unit="tokens/s", help="validation included"
            ),
            Cost(
                label=f"{name} compute",
                value=float(record["flops"]),
                unit="FLOPs",
                help="matmuls, forward and backward",
            ),
            Cost(
                label=f"{name} MFU",
                value=round(mfu, 1),
                unit="%",
                help=f"of {peak / 1e12:.2f} TFLOP/s, a bf16 matmul here",
            ),
        ]
    for trace in samples:
        if trace.group:
            cards.append(
                Cost(
                    label=f"{trace.kind} sample",
                    value=float(trace.nfe),
                    unit="passes",
                    help=f"{len(trace.tokens)} tokens",
                )
            )
    return cards


def _commit() -> str:
    """The short commit of the checkout this package runs from, or nothing."""
    done = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else ""
