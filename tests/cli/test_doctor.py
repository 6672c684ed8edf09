"""`anyorder doctor`: its facts agree with the house's own, and its advice follows from the report."""

import dataclasses
import json

import pytest
import torch

from anyorder.cli import doctor as cli
from anyorder.cli.main import main
from anyorder.core import dist
from anyorder.core.device import pick_dtype

FINE = cli.Report(
    system="Linux x86_64",
    python="3.12.0",
    torch="2.13.0",
    processor="a processor",
    device="cpu",
    dtype="bfloat16",
    reason="fast",
    gflops={"float32": 100.0, "bfloat16": 900.0},
    cores=4,
    threads=4,
    free=1.0,
    memory_gib=16.0,
    available_gib=9.0,
    compiler="/usr/bin/g++",
    extras={"hub": True, "eval": False},
    cache="~/.cache",
    cache_problem=None,
    advice=[],
)


def test_the_command_tells_what_the_house_uses(capsys, monkeypatch):
    monkeypatch.setattr(dist, "_device", None)
    assert main(["doctor", "--json", "--device", "cpu"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["dtype"] == pick_dtype("auto", torch.device("cpu")).name
    assert told["threads"] == torch.get_num_threads()
    assert told["gflops"].keys() == {"float32", "bfloat16"}
    assert all(rate > 0 for rate in told["gflops"].values())
    assert told["extras"]["test"] is True
    assert set(told["extras"]) >= {"hub", "eval", "images", "mauve", "dev", "docs"}


def test_a_machine_without_faults_gets_no_advice():
    assert cli.advise(FINE) == []
    assert "to be faster" not in cli.shown(FINE)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"free": 0.3}, "30% of a core"),
        ({"threads": 1}, "1 of 4 cores"),
        ({"compiler": None}, "no C++ compiler"),
        ({"cache_problem": "cannot be written"}, "--data.cache"),
        ({"dtype": "float32"}, "AVX512-bf16"),
    ],
)
def test_each_fault_has_its_sentence(change, word):
    report = dataclasses.replace(FINE, **change)
    (advice,) = cli.advise(report)
    assert word in advice
    assert advice in cli.shown(dataclasses.replace(report, advice=[advice]))


def test_a_gpu_that_pytorch_does_not_see_is_pointed_at():
    assert "CUDA" in cli.advise(FINE, hidden_gpu=True)[0]


def test_a_cache_that_cannot_be_written_and_a_full_disk_are_told(monkeypatch, tmp_path):
    assert cli.cache_problem(tmp_path / "not" / "yet" / "there") is None
    (tmp_path / "file").write_text("")
    assert cli.cache_problem(tmp_path / "file" / "below") == "cannot be written"
    monkeypatch.setattr(cli.os, "access", lambda path, mode: False)
    assert cli.cache_problem(tmp_path) == "cannot be written"
    monkeypatch.undo()
    monkeypatch.setattr(cli.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 2**28})())
    assert cli.cache_problem(tmp_path) == "the disk has only 0.2 GiB free"


def test_extras_are_those_of_the_package():
    """A new extra of pyproject.toml must be told of."""
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(cli.EXTRAS) == set(project["optional-dependencies"])
