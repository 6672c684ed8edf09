"""Runs trained beside each other: the same weights as in turn, and nothing is left running."""

import multiprocessing
import time
from pathlib import Path

import pytest

from anyorder.studies import together
from anyorder.studies.together import train_all
from anyorder.train.config import RunConfig
from anyorder.train.data import run_data

SMALL = {
    "task": "star:level=easy,num_train=64,num_valid=8,num_test=8",
    "size": "tiny",
    "dtype": "float32",
    "batch": {"rows": 8},
    "num_steps": 4,
    "evaluate": {"every": 4, "rows": 4, "draws": 2},
}


CONTEXTS = {how: multiprocessing.get_context(how) for how in ("fork", "spawn")}


def runs(folder, num_steps=4):
    configs = [RunConfig.model_validate(SMALL | {"seed": seed, "num_steps": num_steps}) for seed in (0, 1)]
    return {folder / str(c.seed): c for c in configs}


def weights(folder):
    return [(folder / str(seed) / "model" / "model.safetensors").read_bytes() for seed in (0, 1)]


def rows_after_the_others(config):
    """The rows of a run that begins when two others in the working directory are finished."""
    while len(list(Path("beside").glob("*/model"))) < 2:
        time.sleep(0.01)
    return run_data(config)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("how", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_runs_beside_each_other_are_those_in_turn(tmp_path, capfd, monkeypatch, how):
    """Two that are trained, and a third whose folder is another run's; forked, as each spawned one loads PyTorch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(together.multiprocessing, "get_context", lambda _: CONTEXTS[how])
    train_all(runs(Path("turn")), at_once=1)
    third = next(iter(runs(Path("turn"), num_steps=5).items()))
    with pytest.raises(ValueError, match="holds a run with another num_steps"):
        train_all(dict([*runs(Path("beside")).items(), third]), at_once=2, rows={third[0]: rows_after_the_others})
    assert weights(Path("turn")) == weights(Path("beside"))
    assert "(2 of 3)" in capfd.readouterr().err
    assert not multiprocessing.active_children()
