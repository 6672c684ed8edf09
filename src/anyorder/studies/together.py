"""Runs beside each other: a small network is quicker on a core of its own than on all of them in turn."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import torch

from anyorder.core import dist
from anyorder.core.device import usable_cores
from anyorder.train.config import RunConfig
from anyorder.train.data import run_data
from anyorder.train.loop import RunData, train

RowsOf = Callable[[RunConfig], RunData]  # a function of a module, which another process can find
Job = Callable[..., object]  # takes `quiet`; picklable, as `functools.partial` of a module's function is


def workers() -> int:
    """Runs that are worth training at a time: one a core, or one on a GPU."""
    return usable_cores() if dist.device().type == "cpu" else 1


def train_all(runs: Mapping[Path, RunConfig], *, at_once: int, rows: Mapping[Path, RowsOf] | None = None) -> None:
    """Every run in its folder, gone on with where it was killed; a line on stderr when one is done.

    Args:
        at_once: processes of one thread each; with 1 the runs are trained here, and show their steps.
        rows: what makes the rows of runs that do not read those of `run_data`.
    Raises:
        ValueError: a folder holds another run, or another process trains it.
        RuntimeError: a loss is no longer finite.
    """
    jobs: dict[Path, Job] = {}
    for folder, config in runs.items():
        jobs[folder] = partial(_train, config, (rows or {}).get(folder, run_data), folder)
    do_all(jobs, at_once=at_once)


def do_all(jobs: Mapping[Path, Job], *, at_once: int) -> None:
    """Every job, named by the folder it leaves behind, in any order; a line on stderr when one is done.

    Args:
        at_once: as in `train_all`.
    """
    done = _in_turn(jobs) if at_once == 1 or len(jobs) == 1 else _beside(jobs, at_once)
    for number, folder in enumerate(done, start=1):
        print(f"  made {folder} ({number} of {len(jobs)})", file=sys.stderr, flush=True)


def _in_turn(jobs: Mapping[Path, Job]) -> Iterator[Path]:
    for folder, job in jobs.items():
        job(quiet=False)
        yield folder


def _beside(jobs: Mapping[Path, Job], at_once: int) -> Iterator[Path]:
    """Jobs as they are done; whatever ends this ends the processes too."""
    context = multiprocessing.get_context("spawn")  # a forked child would share PyTorch's threads
    with ProcessPoolExecutor(at_once, mp_context=context, initializer=_alone, initargs=(str(dist.device()),)) as pool:
        begun = {pool.submit(job, quiet=True): folder for folder, job in jobs.items()}
        try:
            for job in as_completed(begun):
                job.result()
                yield begun[job]
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()
            pool.shutdown(cancel_futures=True)
            raise


def _train(config: RunConfig, rows: RowsOf, folder: Path, *, quiet: bool) -> None:
    train(config, rows(config), folder, quiet=quiet)


def _alone(device: str) -> None:
    """One thread, the device of the process that began this one, and no life beyond it."""
    torch.set_num_threads(1)
    dist.use(device)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
