"""The quickstart: a trained model writes, a small one learns a puzzle until it solves it, two learn text; and a page.

Four ordinary training runs, each in its own folder and of a fixed number of steps: results are the same on a slow
machine and on a fast one, only the time differs. Killed at any moment, the same command goes on where it was.
"""

import json
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from anyorder.core.config import load_config
from anyorder.core.device import free_share
from anyorder.core.files import write_atomic
from anyorder.core.log import read_records
from anyorder.data.config import DataConfig
from anyorder.models.config import ModelConfig
from anyorder.models.network import Network
from anyorder.processes.config import ProcessConfig
from anyorder.studies.puzzle import solved_shares
from anyorder.studies.quickstart_starter import write_with_starter
from anyorder.train.config import BatchConfig, EvalConfig, OptimConfig, RunConfig
from anyorder.train.data import run_data
from anyorder.train.loop import CONFIG, METRICS, Measure, train

INDEX: Final = "quickstart.json"
PAGE: Final = "report.html"
PUZZLE_SAMPLERS: Final = {"mdm": ("top-prob", "first-hitting"), "arm": ("causal",)}  # measured while it learns
WAYS: Final = {
    "top-prob": "surest cell first",
    "first-hitting": "cells in random order",
    "causal": "from left to right",
}
BUSY = 0.75  # of a core: a thread that gets less shares it with other work
EVALUATIONS = 6  # of a run on its way, and as many checkpoints

# Seconds of one step on the reference machine, validation included; for what is said before a run, nothing else.
REFERENCE: Final = "2 cores with AVX2"
OTHER_SECONDS = 45.0  # reading text, the starter, scoring, sampling, the page
SECONDS_PER_STEP: Final = {"puzzle-mdm": 0.1, "puzzle-arm": 0.2, "text-mdm": 1.1, "text-arm": 1.1}


@dataclass(frozen=True)
class Scale:
    """How much is trained and measured: with the seed, all that the results depend on.

    Args:
        puzzle_steps, text_steps: optimiser steps of each of the two runs.
        corpus, length: text of the text runs and tokens of a row of it, as in `DataConfig`.
        times: generations of each held-out puzzle.
        rows: held-out rows of text that are measured.
        rough: whether the page says that its figures are rough.
    """

    puzzle_steps: int
    text_steps: int
    corpus: str
    length: int
    times: int
    rows: int
    rough: bool


FULL: Final = Scale(puzzle_steps=120, text_steps=100, corpus="stdlib", length=128, times=5, rows=128, rough=False)
QUICK: Final = Scale(
    puzzle_steps=120,
    text_steps=20,
    corpus=str(Path(sysconfig.get_paths()["stdlib"]) / "asyncio"),
    length=64,
    times=5,
    rows=32,
    rough=True,
)


@dataclass(frozen=True)
class Part:
    """One training run: its folder, what it does, its configuration up to the dtype."""

    name: str
    about: str
    config: RunConfig

    @property
    def reference_seconds(self) -> float:
        """How long it takes on the reference machine."""
        return SECONDS_PER_STEP[self.name] * self.config.num_steps


def quickstart(out: Path, *, scale: Scale = FULL, seed: int = 0, quiet: bool = False) -> dict[str, Any]:
    """Write, train, score, sample and draw the page; returns what quickstart.json holds.

    Args:
        out: folder of the runs, quickstart.json, report.html and trace.svg.
    Raises:
        ValueError: `out` holds a quickstart of another scale or seed, or something else.
    """
    from anyorder.studies.quickstart_page import draw_page  # the page needs every layer; training does not

    began = time.monotonic()
    parts = recipes(seed, scale)
    for part in parts:
        _check_folder(out / part.name, part)
    earlier = sum(_seconds(out / part.name) for part in parts)  # of training, in calls that were stopped
    whole = OTHER_SECONDS + sum(part.reference_seconds for part in parts)
    _say(f"{_duration(whole)} on the reference machine ({REFERENCE}); a slower one takes longer for the same", quiet)
    share = free_share()
    if share < BUSY:
        _say(
            f"this machine is busy: a thread gets about {share:.0%} of a core now; results stay the same, times do not",
            quiet,
        )
    _say("\n1. a small model that comes with anyorder writes", quiet)
    written = write_with_starter(seed=seed, quiet=quiet)
    for part in parts:
        _run(part, out, parts, quiet=quiet)
    _say("\nscoring, sampling, drawing the page", quiet)
    summary = draw_page(out, written, scale=scale, seed=seed, seconds=lambda: earlier + time.monotonic() - began)
    index = {"default": "text-mdm", "runs": [part.name for part in parts], **summary}
    write_atomic(out / INDEX, json.dumps(index, indent=1) + "\n")
    return index


def recipes(seed: int, scale: Scale) -> list[Part]:
    """The four runs. Twins differ in the process only; of the puzzle, also in how its rows are written."""
    muon = OptimConfig(kind="muon", schedule="wsd", decay_share=0.3, min_lr_ratio=0.02, warmup_steps=20)
    puzzle = RunConfig(
        seed=seed,
        task="sudoku",
        model=_network(num_layers=3, d_model=64, d_ff=192, max_length=32),
        optim=muon.model_copy(update={"lr": 1.2e-2}),
        batch=BatchConfig(rows=128),
        **_paced(scale.puzzle_steps),
        evaluate=EvalConfig(every=_every(scale.puzzle_steps), rows=88, draws=2),
    )
    text = RunConfig(
        seed=seed,
        data=DataConfig(corpus=scale.corpus, vocab_size=512, length=scale.length),
        model=_network(num_layers=4, d_model=128, d_ff=384, max_length=scale.length),
        optim=muon.model_copy(update={"lr": 8e-3}),
        batch=BatchConfig(rows=32),
        **_paced(scale.text_steps),
        evaluate=EvalConfig(every=_every(scale.text_steps), rows=min(64, scale.rows), draws=2),
    )
    bell = ProcessConfig(kind="mdm", density="bell")
    bell_first = ProcessConfig(kind="mdm", density="bell", bell_steps=max(1, round(0.7 * scale.text_steps)))
    arm = ProcessConfig(kind="arm")
    return [
        Part(
            "puzzle-mdm",
            "a masked diffusion model learns 4x4 sudoku from 200 solved grids",
            puzzle.model_copy(update={"process": bell}),
        ),
        Part(
            "puzzle-arm",
            "its autoregressive twin learns the same grids, from puzzle to solution",
            puzzle.model_copy(update={"process": arm, "task": "sudoku:form=puzzle"}),
        ),
        Part(
            "text-mdm",
            "a masked diffusion model reads the source of Python's standard library",
            text.model_copy(update={"process": bell_first}),
        ),
        Part(
            "text-arm", "its autoregressive twin reads the same text as often", text.model_copy(update={"process": arm})
        ),
    ]


def _network(*, num_layers: int, d_model: int, d_ff: int, max_length: int) -> ModelConfig:
    return ModelConfig(
        num_layers=num_layers,
        num_heads=4,
        d_model=d_model,
        d_ff=d_ff,
        max_length=max_length,
        qk_norm=True,
        local=True,
    )


def _paced(num_steps: int) -> dict[str, Any]:
    return {"num_steps": num_steps, "save_every": _every(num_steps)}


def _every(num_steps: int) -> int:
    return max(1, -(-num_steps // EVALUATIONS))


def _check_folder(folder: Path, part: Part) -> None:
    """Refuse the folder of another quickstart before anything is computed; a run's dtype is its own."""
    if not (folder / CONFIG).exists():
        return
    there = load_config(RunConfig, folder / CONFIG)
    if there.model_copy(update={"dtype": "auto"}) != part.config:
        raise ValueError(
            f"{folder}: holds a run of another quickstart (full or --quick, another --seed or version); "
            "use another --out, or delete the folder"
        )


def _run(part: Part, out: Path, parts: list[Part], *, quiet: bool) -> None:
    """Train one part, or what is left of it."""
    number = 2 if part.config.task is not None else 3
    _say(f"\n{number}. {part.name}: {part.about}", quiet)
    _say(f"   {part.config.num_steps} steps, {_how_long(part, out, parts)}", quiet)
    measure = None
    if part.config.task is not None:
        measure = solved_shares(part.config, PUZZLE_SAMPLERS[part.config.process.kind])
        measure = measure if quiet else _shown(measure)
    train(part.config, run_data(part.config), out / part.name, quiet=quiet, measure=measure)


def _how_long(part: Part, out: Path, parts: list[Part]) -> str:
    """What the run takes on the reference machine, and here if the runs before it are a guide."""
    there = f"{_duration(part.reference_seconds)} on the reference machine"
    before = parts[: parts.index(part)]
    if not before:
        return there
    pace = sum(_seconds(out / p.name) for p in before) / sum(p.reference_seconds for p in before)
    return f"{there}, about {_duration(pace * part.reference_seconds)} here at the pace so far"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def _shown(measure: Measure) -> Measure:
    """The same figures, each also printed as a bar, so that one sees the model learn."""

    def shown(model: Network) -> dict[str, float]:
        figures = measure(model)
        for name, share in figures.items():
            if not name.endswith("stderr"):
                bar = "█" * round(20 * share)
                print(f"   {WAYS[name.removeprefix('solved ')]:24} {bar:░<20} {share:4.0%} solved", flush=True)
        return figures

    return shown


def _seconds(run: Path) -> float:
    """What training has taken so far, over all restarts."""
    path = run / METRICS
    records = [r for r in read_records(path) if r["kind"] == "train"] if path.exists() else []
    return float(records[-1]["seconds"]) if records else 0.0


def _say(line: str, quiet: bool) -> None:
    if not quiet:
        print(line, flush=True)
