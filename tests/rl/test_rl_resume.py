"""Reinforcement learning killed at any moment and started again ends with the same bits."""

import json
import os
import subprocess
import sys
from pathlib import Path

from killed_runs import ITERATIONS, KILLS, MODES


def test_killed_runs_end_with_the_bits_of_one_that_was_not(tmp_path):
    command, env = [sys.executable, Path(__file__).parent / "killed_runs.py", tmp_path], os.environ
    done = subprocess.run(command, env={**env, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, check=True, timeout=900)
    runs = json.loads(done.stdout)
    for mode in MODES:
        alone = runs[f"{mode} alone"]
        lines = [(r["iteration"], r["kind"]) for r in alone["metrics"]]
        assert len(lines) == len(set(lines)) == ITERATIONS + 2
        assert all(r["grad_norm"] > 0 for r in alone["metrics"] if r["kind"] == "iteration")
        assert {"model/model.safetensors", "schedule.json"} <= set(alone["sha256"])
        for name, kills in KILLS.items():
            killed = runs[f"{mode} {name}"]
            assert killed["processes"] == len(kills) + 1, name  # it was killed indeed
            for what in ("sha256", "metrics", "files"):
                assert killed[what] == alone[what], (mode, name, what)
