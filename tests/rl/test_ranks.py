"""Two processes that share the prompts learn what one learns, up to the order of sums, also when killed."""

import signal
from pathlib import Path

import pytest
import torch
from rank_runs import SCENARIOS

from anyorder.core import dist
from anyorder.core.noise import Noise
from anyorder.rl.diagnostics import Diagnostics
from anyorder.rl.practice import share
from conftest import program_results


def runs_of(factory, *, slow):
    return program_results(Path(__file__).parent / "rank_runs.py", factory, slow=slow)[1]


def near(one, other):
    """Equal up to float sums, whatever is nested in what."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(near(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(near(a, b) for a, b in zip(one, other))
    if isinstance(one, float):
        return one == pytest.approx(other, rel=1e-3, abs=1e-5)
    return one == other


DEFAULT = "recorded steps"


@pytest.mark.parametrize("name", [n if n == DEFAULT else pytest.param(n, marks=pytest.mark.slow) for n in SCENARIOS])
def test_two_ranks_learn_what_one_learns(tmp_path_factory, name):
    found = runs_of(tmp_path_factory, slow=name != DEFAULT)[name]
    one, two = found["metrics"]
    assert found["statuses"] == [[0], [0, 0]]
    assert found["files"][0] == found["files"][1]
    assert near(one, two)
    assert found["apart"] < 1e-4
    iterations = [r for r in two if r["kind"] == "iteration"]
    assert all(r["grad_norm"] > 0 for r in iterations)
    assert name == "prices" or any(r["skipped"] in (1, 2) for r in iterations)  # a pass less is worth something


def test_two_ranks_that_were_killed_go_on_to_the_same_bits(tmp_path_factory):
    found = runs_of(tmp_path_factory, slow=False)["killed"]
    assert found["statuses"] == [[-signal.SIGKILL] * 2, [0, 0]]
    assert found["metrics"][0] == found["metrics"][1]
    assert found["files"][0] == found["files"][1]
    assert found["apart"] == 0.0


def test_what_the_first_rank_finds_stops_all(tmp_path_factory):
    found = runs_of(tmp_path_factory, slow=False)["stopped"]
    assert found["statuses"] == [[0, 0]]
    assert [(r["iteration"], r["kind"]) for r in found["metrics"]] == [(1, "iteration"), (1, "evaluation")]


def test_every_group_is_asked_by_one_rank(monkeypatch):
    for world in (1, 2, 3, 5):
        monkeypatch.setattr(dist, "world", lambda world=world: world)
        groups = []
        for rank in range(world):
            monkeypatch.setattr(dist, "rank", lambda rank=rank: rank)
            groups += share(7)
        assert groups == list(range(7))
    with pytest.raises(ValueError, match=r"^prompts=4: fewer than the 5 ranks"):
        share(4)


def test_figures_of_all_ranks_are_sums_and_the_farthest_of_all(monkeypatch):
    """The sum over ranks is played by another rank whose rows are known."""
    values = Noise.of(1).uniform(torch.arange(14)).view(2, 7)
    monkeypatch.setattr(dist, "world", lambda: 2)
    monkeypatch.setattr(dist, "rank", lambda: 1)
    monkeypatch.setattr(dist, "all_sum", lambda held: held + torch.stack([values[0], torch.zeros(7).double()]))
    found = Diagnostics(*values[1]).of_all_ranks()
    assert float(found.tokens) == float(values[0, 0] + values[1, 0])
    assert float(found.surprisal) == float(values[0, 5] + values[1, 5])
    assert float(found.farthest) == float(values[:, 6].max())
