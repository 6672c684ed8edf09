"""The command `rl` as a user has it: train, learn, look, sample; what is wrong is said in a sentence."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from anyorder.cli.main import main
from anyorder.hub.find import model_folder

TASK = ["--task", "scenes:grid=4,num_train=60,num_valid=12,num_test=12"]
SMALL = ["--schedule.num_steps", "2", "--prompts", "2", "--group", "3", "--iterations", "2", "--evaluate_problems", "4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of the task, with what was learned from it beside it."""
    place = tmp_path_factory.mktemp("rl")
    size = ["--model.num_layers", "1", "--model.num_heads", "2", "--model.d_model", "16", "--model.d_ff", "16"]
    train = ["train", *TASK, *size, "--num_steps", "2", "--batch.rows", "4", "--out", str(place / "run"), "--quiet"]
    assert main(train) == 0
    assert main(["rl", str(place / "run"), *TASK, *SMALL, "--quiet"]) == 0
    return place


def test_a_run_s_folder_is_learned_from_and_what_was_learned_is_sampled_and_inspected(folder, capsys):
    learned = folder / "run-rl"
    assert main(["rl", str(folder / "run"), *TASK, *SMALL, "--quiet", "--json"]) == 0  # it is finished already
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["rollouts"], last["model"]) == (12, str(learned / "model"))
    assert main(["sample", str(learned), "--sampler", str(learned / "schedule.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["samples"][0]["nfe"] <= 4
    assert main(["inspect", str(learned / "model")]) == 0


def test_model_and_schedule_of_a_folder_both_move(folder):
    """A loaded model is frozen until it is asked to learn."""
    out = folder / "moved"
    learning = ["--mode", "joint", "--reward", "cells", "--likelihood", "augmented", "--quiet", "--out"]
    assert main(["rl", str(folder / "run"), *TASK, *SMALL, *learning, str(out)]) == 0
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    first = next(r for r in records if r["kind"] == "iteration")
    assert first["model"]["ratio"] == pytest.approx(1.0)
    assert first["schedule"] is not None
    assert [len(step) for step in first["knobs"]] == [4, 4]
    before, after = (load_file(model_folder(place) / "model.safetensors") for place in (folder / "run", out))
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_run_with_prices_says_what_each_buys(folder, capsys):
    out = folder / "priced"
    priced = ["--mode", "joint", "--step_price_max", "0.5", "--evaluate_prices", "2", "--sampler.may_finish", "true"]
    given = ["rl", str(folder / "run"), *TASK, *SMALL, *priced, "--out", str(out), "--quiet"]
    assert main(given) == 0
    said = capsys.readouterr().out
    assert main([*given, "--json"]) == 0
    frontier = json.loads(capsys.readouterr().out.splitlines()[-1])["frontier"]
    assert [point["price"] for point in frontier] == [0.0, 0.5]
    for point in frontier:
        name = Path(point["schedule"]).name
        assert f"{point['reward']:.3f} ± {point['stderr']:.3f} reward, {point['nfe']:.1f} passes a row, {name}" in said
        assert main(["sample", str(out), "--sampler", point["schedule"], "--json"]) == 0
        capsys.readouterr()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--group", "1"], "group='1'"),
        (["--reward", "korrect"], "did you mean 'correct'?"),
        (["--likelihood", "position_first"], "needs sampler.order='choose_first'"),
        (["--task", "sudoku"], "cannot hold the prompts"),
        (["--schedule.hand", "none.json"], "no such file"),
        (["--out", "RUN-rl", "--group", "4"], "another group"),
        (["--step_price_max", "0.5"], "--sampler.may_finish true"),
        (["--reward_scale", "true"], "is no sum"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(folder, capsys, given, said):
    given = [word.replace("RUN", str(folder / "run")) for word in given]
    out = [] if "--out" in given else ["--out", str(folder / "other")]
    assert main(["rl", str(folder / "run"), *TASK, *SMALL, *out, *given]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (folder / "other" / "rl.yaml").exists()
