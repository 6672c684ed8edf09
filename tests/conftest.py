"""One thread per test process: two workers on two cores must not fight, nor sums depend on how many there are."""

import dataclasses
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import shape_checks  # noqa: F401 (before anything imports the package)

torch.set_num_threads(1)
settings.register_profile("no deadline", deadline=None)  # a busy machine is not a wrong result
settings.load_profile("no deadline")


def program_results(program: Path, tmp_path_factory: pytest.TempPathFactory, *, slow: bool) -> tuple[Path, Any]:
    """The folder and the JSON of a program of runs, made once for all tests and workers.

    Args:
        slow: run its `SLOW` scenarios, else the default ones.
    """
    base = tmp_path_factory.getbasetemp()
    name = f"{program.stem}{'_slow' if slow else ''}"
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    results = folder / "results.json"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second worker waits here, then finds the results
        if not results.exists():
            command = [sys.executable, program, folder, *(["slow"] if slow else [])]
            env = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True, timeout=1800)
            results.write_bytes(done.stdout)
    return folder, json.loads(results.read_bytes())


@dataclasses.dataclass(frozen=True)
class TinyRuns:
    """Finished runs of 20 steps on a made text, and the options that made them."""

    folder: Path
    corpus: Path
    mdm: Path
    arm: Path

    def options(self) -> list[str]:
        """What `anyorder train` was given, apart from --process.kind and --out."""
        text = f"--data.corpus {self.corpus} --data.cache {self.folder / 'cache'} --data.tokenizer bytes"
        return f"{text} --data.length 32 --size tiny --dtype float32 --batch.rows 8 --num_steps 20".split()


@pytest.fixture(scope="session")
def tiny_runs(tmp_path_factory: pytest.TempPathFactory) -> TinyRuns:
    """An MDM and an ARM of size "tiny" after 20 steps on a few lines of made Python."""
    from anyorder.data.config import DataConfig
    from anyorder.processes.config import ProcessConfig
    from anyorder.train.config import BatchConfig, RunConfig
    from anyorder.train.data import run_data
    from anyorder.train.loop import train

    folder = tmp_path_factory.mktemp("tiny")
    names = ("ada", "bob", "cy", "dan", "eve")
    lines = [f"def {a}_{b}(x, y):\n    return x {o} y\n\n" for a in names for b in names for o in "+-*"]
    (folder / "corpus.txt").write_text("".join(lines))
    data = DataConfig(corpus=str(folder / "corpus.txt"), cache=folder / "cache", tokenizer="bytes", length=32)
    base = RunConfig(data=data, size="tiny", dtype="float32", batch=BatchConfig(rows=8), num_steps=20)
    for kind in ("mdm", "arm"):
        config = RunConfig.model_validate(base.model_dump() | {"process": ProcessConfig(kind=kind).model_dump()})
        train(config, run_data(config), folder / kind, quiet=True)
    return TinyRuns(folder, folder / "corpus.txt", folder / "mdm", folder / "arm")
