"""The study of Co-GRPO: its measures on answers that are known, its aims, and the quick command."""

import json
import math
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
import torch

from anyorder.cli.main import main
from anyorder.core.noise import Noise
from anyorder.data.tasks import make_task
from anyorder.rl.config import ObjectiveConfig
from anyorder.rl.make import make_table
from anyorder.rl.search import Search
from anyorder.samplers.schedules import hand
from anyorder.samplers.steered import Steered
from anyorder.studies import cogrpo
from anyorder.studies.cogrpo import PILOT, QUICK, TINY, Plan, study
from anyorder.studies.cogrpo_measure import Exam, Measured, Subject, diversity, examined, interpolated
from anyorder.studies.cogrpo_report import Curve, checks, pictures, show
from anyorder.studies.cogrpo_runs import ARMS, BASE, SEARCH
from anyorder.studies.intervals import mean_and_half

EXAM = Exam(problems=8, steps=(2, 4), fewer=8, prompts=3, answers=5)


class Knowing:
    """Writes the solution that agrees with what is on the board, as surely as it is told to."""

    nfe = 1

    def __init__(self, problems, vocab, *, sure):
        self.problems, self.vocab, self.sure = problems, vocab, sure

    def __call__(self, canvas, at):
        told = (canvas.x[:, None] == self.problems.x0[None]) | (canvas.x[:, None] == self.vocab.mask_id)
        which = told.all(-1).int().argmax(-1)
        row, place = at.nonzero(as_tuple=True)
        out = torch.zeros(len(row), self.vocab.size)
        out[torch.arange(len(row)), self.problems.x0[which[row], place]] = self.sure
        return out


def knowing(*, sure):
    task = make_task("sudoku")
    problems = task.test(noise=Noise.of(0).at("task"))
    model = Knowing(problems, task.tokenizer.vocab, sure=sure)
    return Subject(task, problems, model, Steered(hand("maskgit", 2)), Noise.of(1))


def test_who_knows_is_right_in_any_number_of_steps_and_always_writes_the_same():
    found = examined(EXAM, ("sudoku", BASE, 0), knowing(sure=60.0))
    assert (found.reward, found.by_steps) == (1.0, {2: 1.0, 4: 1.0})
    assert (found.distinct, found.entropy) == (1 / 5, 0.0)
    assert found.knobs == [list(row) for row in hand("maskgit", 2).rows]


def test_who_guesses_differs_each_time_by_two_bits_a_digit():
    who = knowing(sure=0.0)
    kinds, bits = diversity(who, hand("maskgit", 2), Exam(problems=8, steps=(), fewer=8, prompts=2, answers=2000))
    assert kinds > 0.9
    assert bits == pytest.approx(math.log2(who.task.tokenizer.vocab.size), abs=0.02)


def test_answers_are_the_same_however_many_are_asked():
    who = knowing(sure=1.0)
    few, many = (who.write(hand("maskgit", 2), count)[1] for count in (3, 40))
    assert torch.equal(few, many[:3])


def test_a_curve_is_read_between_its_points():
    points = {2: 0.1, 4: 0.3, 8: 0.2, 16: 0.9}
    assert [interpolated(points, r) for r in (0.05, 0.2, 0.3)] == pytest.approx([2.0, 3.0, 4.0])
    assert interpolated(points, 0.55) == pytest.approx(12.0)
    assert interpolated(points, 0.95) is None


def seeds_of(arm, rewards, *, counting=0.5, distinct=0.97, steps=None):
    by_steps = steps or {2: 0.0, 4: 0.1, 8: 0.2, 16: 0.5, 36: 0.9}
    kinds = {"counting": counting}
    knobs = [[0.9, 1.0, 1.0, 0.0], [0.6, 1.0, 1.0, 0.0], [0.3, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    return [
        Measured("scenes", arm, seed, reward, distinct, 1.0, knobs, kinds, by_steps)
        for seed, reward in enumerate(rewards)
    ]


def aims(**given):
    rewards = {BASE: (0.1, 0.11, 0.1), "model": (0.3, 0.32, 0.3), "schedule": (0.2, 0.2, 0.2)}
    rewards |= {"joint": (0.6, 0.61, 0.6), "alternating": (0.5, 0.5, 0.5), "model-adanat": (0.4, 0.4, 0.4)} | given
    return {c.name: c for c in checks([m for arm, own in rewards.items() for m in seeds_of(arm, own)])}


def test_aims_are_read_off_paired_seeds():
    found = list(aims().values())
    assert all(c.met for c in found)
    assert found[3].value == pytest.approx((16 + 20 * (0.1 + 0.11 + 0.1) / 3 / 0.4) / 4)
    noisy = list(aims(joint=(0.9, 0.31, 0.6)).values())
    assert not noisy[0].met
    strong = list(aims(**{"model-adanat": (0.6, 0.6, 0.61)}).values())
    assert [c.met for c in strong[:3]] == [True, True, False]
    few = {BASE: (0.1, 0.1), "model": (0.3, 0.4), "schedule": (0.2, 0.2), "joint": (0.5, 0.6)}
    assert len(checks([m for arm, own in few.items() for m in seeds_of(arm, own)])) == 6  # without other arms
    fewer = list(aims(**{"model-adanat": (0.4, 0.41)}).values())
    assert fewer[2].value == pytest.approx(0.2 - 0.0)
    equal = list(aims(model=(0.1, 0.11, 0.1), schedule=(0.1, 0.11, 0.1)).values())
    assert not equal[1].met


def test_an_interval_needs_several_runs_and_is_students():
    mean, half = mean_and_half([1.0, 2.0, 3.0])
    assert (mean, half) == (2.0, pytest.approx(4.3027 / math.sqrt(3), rel=1e-4))


def test_the_search_gets_as_many_answers_as_an_arm():
    for topic, _ in TINY.topics:
        c = topic.learned("joint", 0)
        search = topic.search()
        budget = c.iterations * c.prompts * c.group
        start = make_table(c.schedule)
        assert budget - Search(updates=1).rollouts(start) < search.rollouts(start) <= budget


def explored(schedule):
    return schedule.model_copy(update={"explore": "all", "hand": "", "guidance": 0.0})


def test_every_arm_learns_from_as_many_answers_and_differs_in_what_it_learns_only():
    for topic, _ in (*TINY.topics, *PILOT.topics, *QUICK.topics):
        plain = [topic.learned(arm, 1) for arm in topic.arms]
        same = {"mode": "joint", "likelihood": "fill", "objective": ObjectiveConfig()}
        alike = [c.model_copy(update=same | {"schedule": explored(c.schedule)}) for c in plain]
        assert len(set(map(str, alike))) == 1
        assert {c.seed for c in plain} == {1}


def test_tables_and_pictures_name_every_arm():
    found = [m for arm in (BASE, *ARMS, SEARCH) for m in seeds_of(arm, (0.1, 0.2, 0.3))]
    curves = [Curve("scenes", arm, seed, [(144, 0.1), (288, 0.2)]) for arm in ARMS for seed in range(3)]
    text, svg = show(found, curves), pictures(found, curves)
    for said in ("0.200 ± 0.248", "AutoNAT", "likelihood `fill`", "counting", "rank_temperature", "288"):
        assert said in text
    assert len([e for e in ET.fromstring(svg).iter() if e.tag.endswith("path")]) >= 6


def small():
    """The quick plan with a topic, and an arm of each kind."""
    topic, exam = QUICK.topics[0]
    topic = replace(topic, arms={"joint": 1, SEARCH: 1}, steps=1, learning=topic.learning | {"iterations": 1})
    return Plan(((topic, replace(exam, problems=2, fewer=2, hands=("maskgit",))),), together=False)


@pytest.mark.parametrize("plan", [small(), pytest.param(QUICK, marks=pytest.mark.slow)], ids=["small", "whole"])
def test_the_quick_study_is_made_by_one_command_and_found_again(tmp_path, capsys, monkeypatch, plan):
    out = tmp_path / "study"
    monkeypatch.setattr(cogrpo, "QUICK", plan)
    monkeypatch.setattr(cogrpo, "IMAGES", 4)
    assert main(["study", "cogrpo", "--quick", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown.splitlines()[-1]) == {"study": "cogrpo", "out": str(out), "checks": {}}
    held = json.loads((out / "cogrpo.json").read_text())
    assert sorted((m["topic"], m["arm"], m["seed"]) for m in held["measured"]) == sorted(
        (topic.name, arm, seed)
        for topic, _ in plan.topics
        for arm, seeds in ({BASE: max(topic.arms.values())} | topic.arms).items()
        for seed in range(seeds)
    )
    assert (out / "scenes-joint.png").read_bytes().startswith(b"\x89PNG")
    again = study(quick=True, out=out)
    assert json.loads(json.dumps(again.payload)) == {k: held[k] for k in again.payload}


def test_what_the_study_cannot_do_is_said(tmp_path):
    with pytest.raises(ValueError, match="leave --run out"):
        study(run=tmp_path, out=tmp_path)
    with pytest.raises(ValueError, match="--scale papr"):
        study(scale="papr", out=tmp_path)
