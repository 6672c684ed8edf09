"""The quickstart: an MDM and its autoregressive twin on real text, a puzzle where order matters, and a page of both.

Two acts, four ordinary training runs, each in its own folder. Killed at any moment, the same command goes on where it
was: what was decided (corpus, sizes, number of steps) is read back from the runs' own config.yaml.
"""

import json
import shutil
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from anyorder.core.config import load_config
from anyorder.core.files import write_atomic
from anyorder.data.config import DataConfig
from anyorder.processes.config import ProcessConfig
from anyorder.train.config import BatchConfig, EvalConfig, OptimConfig, RunConfig
from anyorder.train.data import run_data
from anyorder.train.loop import CONFIG, Run, RunData, train

INDEX: Final = "quickstart.json"
PAGE: Final = "report.html"
TRAINING_SHARE = 0.9  # of the minutes; the rest is reading text, scoring, sampling and the page
CALIBRATION_STEPS = 6  # timed on a throwaway model
SHORT = 2.0  # minutes; below, a small part of the library is read, so that even seconds suffice


@dataclass(frozen=True)
class Part:
    """One training run: its folder, its share of the training time, its recipe up to the number of steps."""

    name: str
    share: float
    recipe: RunConfig


def quickstart(out: Path, *, minutes: float = 7.0, seed: int = 0, quiet: bool = False) -> dict[str, Any]:
    """Train, score, sample and draw the page; returns what quickstart.json holds.

    Args:
        out: folder of the runs, quickstart.json, report.html and trace.svg.
        minutes: of wall time to aim for, on this machine as busy as it is at the start.
    Raises:
        ValueError: minutes <= 0, or `out` holds something else.
    """
    from anyorder.studies.quickstart_page import draw_page  # the page needs every layer; training does not

    if not minutes > 0:
        raise ValueError(f"minutes={minutes}: must be > 0; 7 gives the full picture, 0.5 a quick look")
    started = time.monotonic()
    parts = recipes(seed, short=minutes < SHORT)
    for part in parts:
        _say(f"\n{part.name}: {DESCRIPTIONS[part.name]}", quiet)
        data = run_data(part.recipe)
        config = _settled(out / part.name, part, data, seconds=60 * minutes * TRAINING_SHARE * part.share)
        train(config, data, out / part.name, quiet=quiet)
    _say("\nscoring, sampling, drawing the page", quiet)
    summary = draw_page(out, seed=seed, times=1 if minutes < SHORT else 5, seconds=time.monotonic() - started)
    index = {"default": "text-mdm", "runs": [part.name for part in parts], **summary}
    write_atomic(out / INDEX, json.dumps(index, indent=1) + "\n")
    return index


DESCRIPTIONS: Final = {
    "puzzle-mdm": "a masked diffusion model learns 4x4 sudoku from 200 solved grids",
    "puzzle-arm": "its autoregressive twin learns the same grids, from puzzle to solution",
    "text-mdm": "a masked diffusion model learns Python's own standard library",
    "text-arm": "its autoregressive twin reads the same text for the same time",
}


def recipes(seed: int, *, short: bool) -> list[Part]:
    """The four runs; `short` ones read one package of the standard library instead of all of it."""
    corpus = str(Path(sysconfig.get_paths()["stdlib"]) / "asyncio") if short else "stdlib"
    text = DataConfig(corpus=corpus, vocab_size=512, length=128)
    mdm, arm = ProcessConfig(kind="mdm"), ProcessConfig(kind="arm")
    compiled = not short and shutil.which("g++") is not None
    text_run = RunConfig(
        seed=seed,
        data=text,
        size="1M",
        batch=BatchConfig(rows=32),
        optim=OptimConfig(lr=3e-3, ema=0.0),
        compile=compiled,
    )
    puzzle_run = RunConfig(
        seed=seed, task="sudoku", size="1M", batch=BatchConfig(rows=256), optim=OptimConfig(lr=2e-3, warmup_steps=50)
    )
    return [
        Part("puzzle-mdm", 0.16, puzzle_run.model_copy(update={"process": mdm})),
        Part("puzzle-arm", 0.16, puzzle_run.model_copy(update={"process": arm, "task": "sudoku:form=puzzle"})),
        Part("text-mdm", 0.34, text_run.model_copy(update={"process": mdm})),
        Part("text-arm", 0.34, text_run.model_copy(update={"process": arm})),
    ]


def _settled(folder: Path, part: Part, data: RunData, *, seconds: float) -> RunConfig:
    """The run's configuration: as an earlier call decided it, or with the steps that fit into `seconds` now."""
    if (folder / CONFIG).exists():
        return load_config(RunConfig, folder / CONFIG)
    run = Run(part.recipe, data, folder)
    began = time.monotonic()
    run.step(0)  # compiles, allocates
    first = time.monotonic() - began
    began = time.monotonic()
    for step in range(1, 1 + CALIBRATION_STEPS):
        run.step(step)
    per_step = (time.monotonic() - began) / CALIBRATION_STEPS
    left = max(seconds - first - per_step * CALIBRATION_STEPS, 0.3 * seconds)
    num_steps = max(4, round(left / per_step))
    optim = part.recipe.optim.model_copy(update={"warmup_steps": min(part.recipe.optim.warmup_steps, num_steps // 5)})
    every = max(1, num_steps // 8)
    return part.recipe.model_copy(
        update={
            "num_steps": num_steps,
            "optim": optim,
            "evaluate": EvalConfig(every=every, rows=64, draws=4),
            "save_every": every,
        }
    )


def _say(line: str, quiet: bool) -> None:
    if not quiet:
        print(line, flush=True)
