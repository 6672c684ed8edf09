"""Killed at any moment and started again, a run ends with the same bits; split over ranks, with the same weights."""

from pathlib import Path

import pytest
import torch
from resume_runs import ONE_OF_EACH, scenarios
from safetensors.torch import load_file

from conftest import program_results

PROGRAM = Path(__file__).parent / "resume_runs.py"


def cases(slow):
    """(kind, name of the kills, how many) and (kind, ranks, micro-batches) of the scenarios of resume_runs.py."""
    found = scenarios(slow).items()
    kills = [(kind, name, len(moments)) for kind, (named, _) in found for name, moments in named.items()]
    return kills, [(kind, *world) for kind, (_, worlds) in found for world in worlds[1:]]


def same_bits(results, kind, name, times):
    alone, killed = results[f"{kind} alone"], results[f"{kind} {name}"]
    assert alone["processes"] == 1
    assert killed["processes"] == times + 1  # it was killed indeed
    assert killed["sha256"] == alone["sha256"]
    assert killed["files"] == alone["files"]
    assert killed["metrics"] == alone["metrics"]
    lines = [(r["step"], r["kind"]) for r in killed["metrics"]]
    assert len(lines) == len(set(lines)) == 9


def same_weights(folder, results, kind, world, micro):
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


def test_a_run_killed_in_many_ways_ends_with_the_bits_of_one_that_was_not(tmp_path_factory):
    folder, results = program_results(PROGRAM, tmp_path_factory, slow=False)
    same_bits(results, "mdm", "one of each", len(ONE_OF_EACH))
    same_weights(folder, results, "mdm", 2, 2)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name", "times"), cases(slow=True)[0])
def test_a_killed_run_ends_with_the_bits_of_one_that_was_not(tmp_path_factory, kind, name, times):
    _, results = program_results(PROGRAM, tmp_path_factory, slow=True)
    same_bits(results, kind, name, times)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "world", "micro"), cases(slow=True)[1])
def test_ranks_and_micro_batches_train_the_same_weights(tmp_path_factory, kind, world, micro):
    folder, results = program_results(PROGRAM, tmp_path_factory, slow=True)
    same_weights(folder, results, kind, world, micro)
