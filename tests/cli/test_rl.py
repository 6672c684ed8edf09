"""The command `rl` as a user has it: train, learn, look, sample; what is wrong is said in a sentence."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from anyorder.cli.main import main
from anyorder.data.tasks import make_task
from anyorder.hub.find import model_folder
from anyorder.samplers.steered import KNOBS

TASK = ["--task", "scenes:grid=4,num_train=60,num_valid=12,num_test=12"]
SMALL = ["--schedule.num_steps", "2", "--prompts", "2", "--group", "3", "--iterations", "2", "--evaluate_problems", "4"]


@pytest.fixture
def rewards(monkeypatch):
    """A module of rewards, as a user has one on PYTHONPATH."""
    module = ModuleType("my_rewards")

    def raises(samples):
        raise KeyError("x")

    def later(samples):
        """A number for right images alone."""
        right = make_task(TASK[1]).correct(samples.problems, samples.x)
        return torch.where(right, 1.0, torch.nan)

    module.raises, module.later = raises, later
    module.no_number = lambda samples: torch.full((len(samples.x),), torch.nan)
    module.all_alike = lambda samples: torch.ones(len(samples.x))
    monkeypatch.setitem(sys.modules, "my_rewards", module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of the task, with what was learned from it beside it."""
    place = tmp_path_factory.mktemp("rl")
    size = ["--model.num_layers", "1", "--model.num_heads", "2", "--model.d_model", "16", "--model.d_ff", "16"]
    train = ["train", *TASK, *size, "--num_steps", "2", "--batch.rows", "4", "--out", str(place / "run"), "--quiet"]
    assert main(train) == 0
    (place / "run" / "model" / "generation_config.json").write_text("{}")  # as beside a published model
    assert main(["rl", str(place / "run"), *TASK, *SMALL, "--quiet"]) == 0
    return place


def test_a_run_s_folder_is_learned_from_and_what_was_learned_is_sampled_and_inspected(folder, capsys):
    learned = folder / "run-rl"
    assert main(["rl", str(folder / "run"), *TASK, *SMALL, "--quiet", "--json"]) == 0  # it is finished already
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["rollouts"], last["model"]) == (12, str(learned / "model"))
    assert (learned / "model" / "generation_config.json").read_text() == "{}"
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
        (["--reward", "my_rewards:raises"], "reward 'my_rewards:raises': raises KeyError: 'x' for row 0"),
        (["--reward", "my_rewards:no_number"], "reward 'my_rewards:no_number': nan for row 0"),
        (["--reward", "hps"], "scorers/hps/HPS_v2_compressed.pt (xswu/HPSv2 on the hub); put it there"),
        (["--reward", "image-reward:weights=here"], "here/image-reward/ImageReward.pt (THUDM/ImageReward on the hub)"),
        (["--likelihood", "position_first"], "needs sampler.order='choose_first'"),
        (["--likelihood", "all", "--sampler.order", "choose_first"], "with it go fill, position_first"),
        (["--likelihood", "one_step"], "did you mean 'one-step'?"),
        (["--task", "zebra"], "no problems to learn from; tasks that have some: arithmetic, countdown, scenes, star"),
        (["--task", "sudoku"], "cannot hold the prompts"),
        (["--task", "scenes"], "at most 22 tokens, the task's 42, so it cannot hold the prompts"),
        (["--schedule.hand", "none.json"], "no such file"),
        (["--schedule.hand", "BAD"], "bad.json: schedule: step 0 has ratio=1.5; it must be in [0, 1]"),
        (["--schedule.ranking", "-1"], "schedule.ranking"),
        (["--schedule.std", "inf"], "schedule.std='inf': Input should be a finite number"),
        (["--out", "RUN-rl", "--group", "4"], "another group"),
        (["--out", "RUN-rl", "--mode", "joint"], "another mode"),
        (["--step_price_max", "0.5"], "--sampler.may_finish true"),
        (["--reward_scale", "true"], "is no sum"),
        (["--schedule.explore", "ratio"], "likelihood='fill' is not; use augmented, or position_first"),
        (["--schedule.explore", "some"], "schedule.explore"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(folder, capsys, rewards, given, said):
    steps = [[1.5, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0]]
    bad = {"anyorder": "schedule", "knobs": list(KNOBS), "steps": steps, "sampler": {}}
    (folder / "bad.json").write_text(json.dumps(bad))
    given = [word.replace("RUN", str(folder / "run")).replace("BAD", str(folder / "bad.json")) for word in given]
    out = [] if "--out" in given else ["--out", str(folder / "other")]
    assert main(["rl", str(folder / "run"), *TASK, *SMALL, *out, *given]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (folder / "other").exists()


def test_a_reward_that_fails_later_is_a_failure_of_the_run_which_goes_on_when_it_is_mended(folder, capsys, rewards):
    given = ["rl", str(folder / "run"), *TASK, *SMALL, "--reward", "my_rewards:later", "--out", str(folder / "later")]
    assert main([*given, "--quiet"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("anyorder: iteration 1: reward 'my_rewards:later': nan for row ")
    assert err.endswith("return a finite number; then run the same command again\n")
    rewards.later = rewards.all_alike
    assert main([*given, "--quiet"]) == 0


def test_a_run_in_which_no_answers_differ_in_reward_warns(folder, capsys, rewards):
    given = ["rl", str(folder / "run"), *TASK, *SMALL, "--reward", "my_rewards:all_alike", "--out"]
    assert main([*given, str(folder / "alike"), "--quiet"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "skipped 4 of 4 groups, whose answers all earned the same: nothing was learned;" in said
    assert main([*given, str(folder / "alike"), "--quiet", "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["skipped"], last["groups"]) == (4, 4)


def test_a_run_that_rails_stop_says_why(folder, capsys):
    given = ["rl", str(folder / "run"), *TASK, *SMALL, "--reward", "dense", "--stop.min_distinct", "2"]
    assert main([*given, "--out", str(folder / "stopped"), "--quiet"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "learned 1 iterations, 6 roll-outs" in said
    assert "stopped stop.min_distinct=2: 1 of the rows of a group are different" in said
