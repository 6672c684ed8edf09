"""Reinforcement learning killed at any moment and started again ends with the same bits."""

from pathlib import Path

import pytest
from killed_runs import ITERATIONS, scenarios

from conftest import program_results


@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_killed_runs_end_with_the_bits_of_one_that_was_not(tmp_path_factory, slow):
    _, runs = program_results(Path(__file__).parent / "rank_runs.py", tmp_path_factory, slow=slow)
    for mode, named in scenarios(slow).items():
        alone = runs[f"{mode} alone"]
        lines = [(r["iteration"], r["kind"]) for r in alone["metrics"]]
        assert len(lines) == len(set(lines)) == ITERATIONS + 2
        assert all(r["grad_norm"] > 0 for r in alone["metrics"] if r["kind"] == "iteration")
        assert {"model/model.safetensors", "schedule.json"} <= set(alone["sha256"])
        for name, kills in named.items():
            killed = runs[f"{mode} {name}"]
            assert killed["processes"] == len(kills) + 1, name  # it was killed indeed
            for what in ("sha256", "metrics", "files"):
                assert killed[what] == alone[what], (mode, name, what)
