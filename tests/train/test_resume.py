"""Killed at any moment and started again, a run ends with the same bits; split over ranks, with the same weights."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from resume_runs import KILLS
from safetensors.torch import load_file

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All scenarios of resume_runs.py, run once, by whichever test worker comes first."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "resume_runs"
    results = folder / "results.json"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second worker waits here, then finds the results
        if not results.exists():
            command, env = [sys.executable, HERE / "resume_runs.py", folder], {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True, timeout=1800)
            results.write_bytes(done.stdout)
    return folder, json.loads(results.read_bytes())


CASES = [(kind, name) for kind in ("mdm", "arm") for name in KILLS if kind == "mdm" or name == "after step 11"]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_killed_run_ends_with_the_bits_of_one_that_was_not(runs, kind, name):
    _, results = runs
    alone, killed = results[f"{kind} alone"], results[f"{kind} {name}"]
    assert alone["processes"] == 1
    assert killed["processes"] > 1  # it was killed indeed
    assert killed["sha256"] == alone["sha256"]
    assert killed["files"] == alone["files"]
    assert killed["metrics"] == alone["metrics"]
    lines = [(r["step"], r["kind"]) for r in killed["metrics"]]
    assert len(lines) == len(set(lines)) == 9


@pytest.mark.parametrize("kind", ["mdm", "arm"])
@pytest.mark.parametrize(("world", "micro"), [(1, 4), (2, 1), (2, 2)])
def test_ranks_and_micro_batches_train_the_same_weights(runs, kind, world, micro):
    folder, results = runs
    one, many = (folder / kind / name for name in ("1x1", f"{world}x{micro}"))
    for file in ("model/model.safetensors", "step_000012/model.safetensors"):
        a, b = load_file(one / file), load_file(many / file)
        for name in a:
            torch.testing.assert_close(b[name], a[name], atol=2e-6, rtol=1e-5, msg=lambda m, name=name: f"{name}: {m}")
    expected, got = (results[f"{kind} {n}"]["metrics"] for n in ("1 ranks 1 micro", f"{world} ranks {micro} micro"))
    assert len(got) == len(expected) == 9
    for x, y in zip(expected, got):
        assert {**y, "kind": 0} == pytest.approx({**x, "kind": 0}, rel=1e-4)
        assert y["kind"] == x["kind"]
