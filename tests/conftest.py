"""One thread per test process: two workers on two cores must not fight, nor sums depend on how many there are."""

import dataclasses
import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import shape_checks  # noqa: F401 (before anything imports the package)

torch.set_num_threads(1)
settings.register_profile("no deadline", deadline=None)  # a busy machine is not a wrong result
settings.load_profile("no deadline")


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
