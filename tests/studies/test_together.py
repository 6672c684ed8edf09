"""Runs trained beside each other: the same weights as in turn, and nothing is left running."""

import multiprocessing

import pytest

from anyorder.studies.together import train_all
from anyorder.train.config import RunConfig

SMALL = {
    "task": "star:level=easy,num_train=64,num_valid=8,num_test=8",
    "size": "tiny",
    "dtype": "float32",
    "batch": {"rows": 8},
    "num_steps": 4,
    "evaluate": {"every": 4, "rows": 4, "draws": 2},
}


def runs(folder, num_steps=4):
    configs = [RunConfig.model_validate(SMALL | {"seed": seed, "num_steps": num_steps}) for seed in (0, 1)]
    return {folder / str(c.seed): c for c in configs}


def weights(folder):
    return [(folder / str(seed) / "model" / "model.safetensors").read_bytes() for seed in (0, 1)]


def test_runs_beside_each_other_are_those_in_turn(tmp_path, capfd):
    train_all(runs(tmp_path / "turn"), at_once=1)
    train_all(runs(tmp_path / "beside"), at_once=2)
    assert weights(tmp_path / "turn") == weights(tmp_path / "beside")
    assert "(2 of 2)" in capfd.readouterr().err
    with pytest.raises(ValueError, match="holds a run with another num_steps"):
        train_all(runs(tmp_path / "beside", num_steps=5), at_once=2)
    assert not multiprocessing.active_children()
