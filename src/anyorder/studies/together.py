"""Training runs beside each other: a small network is quicker on a core of its own than on all of them in turn."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from anyorder.train.config import RunConfig
from anyorder.train.data import run_data
from anyorder.train.loop import train


def workers() -> int:
    """Runs that are worth training at a time: one a core, or one on a GPU."""
    return 1 if torch.cuda.is_available() else len(os.sched_getaffinity(0))


def train_all(runs: Mapping[Path, RunConfig], *, at_once: int) -> None:
    """Every run in its folder, gone on with where it was killed; a line on stderr when one is done.

    Args:
        at_once: processes of one thread each; with 1 the runs are trained here, and show their steps.
    Raises:
        ValueError: a folder holds another run, or another process trains it.
        RuntimeError: a loss is no longer finite.
    """
    done = _in_turn(runs) if at_once == 1 or len(runs) == 1 else _beside(runs, at_once)
    for number, folder in enumerate(done, start=1):
        print(f"  trained {folder} ({number} of {len(runs)})", file=sys.stderr, flush=True)


def _in_turn(runs: Mapping[Path, RunConfig]) -> Iterator[Path]:
    for folder, config in runs.items():
        train(config, run_data(config), folder)
        yield folder


def _beside(runs: Mapping[Path, RunConfig], at_once: int) -> Iterator[Path]:
    """Runs as they are done; whatever ends this ends the processes too."""
    context = multiprocessing.get_context("spawn")  # a forked child would share PyTorch's threads
    with ProcessPoolExecutor(at_once, mp_context=context, initializer=_alone) as pool:
        jobs = {pool.submit(_train, config, folder): folder for folder, config in runs.items()}
        try:
            for job in as_completed(jobs):
                job.result()
                yield jobs[job]
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()
            pool.shutdown(cancel_futures=True)
            raise


def _train(config: RunConfig, folder: Path) -> None:
    train(config, run_data(config), folder, quiet=True)


def _alone() -> None:
    """One thread, and no life beyond that of the process that began this one."""
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
