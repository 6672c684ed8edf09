"""The study of orders: its measurements against small cases worked out by hand, and the quick command."""

import contextlib
import io
import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
import torch

from anyorder.cli.main import main
from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.data.tasks import NaeSat, Sudoku, Zebra
from anyorder.studies import order as order_study
from anyorder.studies.order import QUICK, exact_of, trained_checks
from anyorder.studies.order_runs import (
    ORDERS,
    Excess,
    Group,
    Score,
    from_nothing,
    groups,
    imbalance,
    scores,
    task_of,
    trained,
)
from anyorder.testing.support import Support

NOISE = Noise.of(2)


@pytest.fixture(scope="module", params=["small", pytest.param("whole", marks=pytest.mark.slow)])
def quick(request, tmp_path_factory):
    """The quick study of a run and of two that it trains: its folder, the command's lines, and the orders."""
    out = tmp_path_factory.mktemp("order")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        if request.param == "small":
            few = {name: replace(recipe, rows=8, num_steps=2) for name, recipe in QUICK.recipes.items()}
            patch.setattr(order_study, "QUICK", replace(QUICK, recipes=few))
            patch.delitem(ORDERS, "top-prob")
            patch.delitem(ORDERS, "entropy")
        trained(order_study.QUICK.recipes["sudoku"], out / "sudoku", seed=0, run=None)
        words = ["study", "order", "--quick", "--out", str(out), "--run", str(out / "sudoku")]
        assert main(words) == 0
        return out, printed.getvalue().splitlines(), set(ORDERS), order_study.QUICK


def test_the_oracles_meet_their_aims_and_everything_is_kept(quick):
    out, lines, orders, _ = quick
    last = json.loads(lines[-1])
    assert len(last["checks"]) == 3
    assert all(c["met"] for c in last["checks"].values()), last["checks"]
    kept = json.loads((out / "order.json").read_text())
    assert {s["task"] for s in kept["trained"]} == {"Sudoku", "NaeSat", "Zebra"}
    assert {s["order"] for s in kept["oracle"]} == orders
    assert all(s["nfe"] <= s["passes"] for s in kept["trained"] if s["passes"])
    assert {e["kind"] for e in kept["imbalance"]} == {"latents", "observations"}
    assert {p.name for p in out.iterdir()} == {"order.json", "order.svg", "sudoku", "nae-sat", "zebra"}
    svg = ET.parse(out / "order.svg").getroot()
    assert len(svg.findall(".//{http://www.w3.org/2000/svg}path")) == 4 * len(orders)


def test_a_second_time_nothing_is_trained(quick):
    out, _, _, plan = quick
    before = {name: (out / name / "metrics.jsonl").read_text() for name in plan.recipes}
    for name, recipe in plan.recipes.items():
        trained(recipe, out / name, seed=0, run=None)
        assert (out / name / "metrics.jsonl").read_text() == before[name]
    with pytest.raises(ValueError, match="holds a run with another seed"):
        trained(plan.recipes["zebra"], out / "zebra", seed=1, run=None)


def test_runs_that_cannot_be_studied(tiny_runs, tmp_path):
    with pytest.raises(ValueError, match="is no finished masked diffusion run on a task"):
        task_of(tiny_runs.mdm)
    with pytest.raises(ValueError, match="no such configuration file"):
        task_of(tmp_path)


def test_scores_of_an_oracle_on_two_equal_bits_are_those_worked_out():
    task = NaeSat(latents=3, observations=1, num_test=4)  # 8 rows; the observation is NAE of all three bits
    _, oracle = exact_of(task)
    group = from_nothing(task, 2000)
    found = {(s.order, s.passes): s for s in scores(
        task, oracle, group, name="oracle", passes=(1, 2, None), times=1, noise=NOISE
    )}  # fmt: skip
    assert all(found[order, None].share == 1 for order in ORDERS)
    assert all(found[order, None].nfe == 4 for order in ORDERS)
    # at once: agreement of independent coins 3/4 and 3/4 is 10/16; two by two from the left: the latents are never
    # wrong, and the third bit and the observation are independent given the first two
    for order in ORDERS:
        s = found[order, 1]
        assert abs(s.share - 0.625) < 5 * s.stderr
        assert s.agree == s.share
        assert 0.8 * s.stderr < (0.625 * 0.375 / 2000) ** 0.5 < 1.2 * s.stderr
    # first two bits equal (1/2): third bit and observation are fair, agree in 1/2; different: the observation is sure
    assert abs(found["left-to-right", 2].share - 0.75) < 5 * found["left-to-right", 2].stderr


def test_easy_and_hard_are_scored_apart():
    task = Zebra(extra=0, clue_sets=5, num_test=100)
    (group,) = groups(task, noise=NOISE, most=80)
    assert len(group.problems.x0) == 80
    oracle = Support(group.problems.x0, task.tokenizer.vocab)
    found = scores(task, oracle, group, name="oracle", passes=(None,), times=1, noise=NOISE)
    by_group = {s.group: s.problems for s in found}
    assert by_group["all"] == 80 == by_group["all, easy"] + by_group["all, hard"]
    assert by_group["all, easy"] == int(group.easy.sum())
    assert all(s.share == 1 and s.agree is None for s in found)


def test_groups_of_sudoku_are_held_out_and_have_their_clues():
    task = Sudoku()
    found = groups(task, noise=NOISE, most=100)
    assert [g.name for g in found] == ["4 clues", "6 clues", "8 clues"]
    seen = {tuple(r) for r in task.train(noise=NOISE).tokens.tolist()}
    for group, clues in zip(found, (4, 6, 8)):
        assert group.problems.canvas.fixed.sum(-1).tolist() == [clues] * 100
        assert not seen & {tuple(r) for r in group.problems.x0.tolist()}
    assert all(0 < float(g.easy.double().mean()) < 1 for g in found)
    assert float(found[2].easy.double().mean()) > float(found[0].easy.double().mean()) + 0.2


def test_groups_of_nae_sat_ask_for_different_parts():
    task = NaeSat(latents=4, observations=6, num_test=8)
    found = {g.name: g.problems for g in groups(task, noise=NOISE, most=5)}
    masks = {name: (p.canvas.x == task.tokenizer.vocab.mask_id).sum(-1).tolist() for name, p in found.items()}
    assert masks == {"nothing given": [10] * 5, "latents given": [6] * 5, "observations given": [4] * 5}
    many = groups(task, noise=NOISE, most=20)
    assert [len(g.problems.x0) for g in many] == [20, 8, 8]  # only 8 rows are held out


class Coins:
    """Says every bit is a fair coin."""

    nfe = 1

    def __init__(self, vocab):
        self.vocab = vocab

    def __call__(self, canvas, at):
        return torch.full((int(at.sum()), self.vocab.size), -torch.inf).index_fill(1, torch.tensor([0, 1]), 0.0)


def test_excess_is_the_divergence_from_the_exact_answer():
    task = NaeSat(latents=3, observations=1, num_test=4)
    _, oracle = exact_of(task)
    x0 = task.every_row()
    model = Coins(task.tokenizer.vocab)
    everything = {e.kind: e for e in imbalance(task, model, oracle, x0=x0, counts=(4,), noise=NOISE)}
    assert everything["latents"].exact == pytest.approx(0.6931472, abs=1e-6)
    assert everything["latents"].excess == pytest.approx(0, abs=1e-6)
    entropy = 0.5623351
    assert everything["observations"].exact == pytest.approx(entropy, abs=1e-6)
    assert everything["observations"].excess == pytest.approx(0.6931472 - entropy, abs=1e-6)
    itself = imbalance(task, oracle, oracle, x0=x0, counts=(1, 2, 3), noise=NOISE)
    assert all(e.excess == pytest.approx(0, abs=1e-9) for e in itself)


def test_aims_of_trained_models():
    def score(task, group, order, share):
        return Score(task, "trained", group, order, None, 9, share, 0.1, None, None, 1.0)

    found = [score("Sudoku", "6 clues", o, s) for o, s in (("random", 0.5), ("margin", 0.9))]
    found += [score("Sudoku", "4 clues, hard", o, s) for o, s in (("random", 0.5), ("margin", 0.6))]
    found += [score("NaeSat", "nothing given", o, s) for o, s in (("random", 0.1), ("margin", 0.9))]
    excess = [Excess(3, "latents", 0.1, 0.4, 0.0), Excess(3, "observations", 0.1, 0.1, 0.0)]
    made = trained_checks(found, excess)
    assert [round(c.value, 9) for c in made] == [0.4, 0.1, 0.8, 4.0]
    assert [c.met for c in made] == [True, False, True, True]
    assert trained_checks([score("Sudoku", "all", "margin", 0.5)], []) == []


def test_problems_are_written_twice_with_noise_of_their_own():
    task = NaeSat(latents=3, observations=1, num_test=4)
    group = Group("some", from_nothing(task, 400).problems)
    model = Coins(task.tokenizer.vocab)
    once = scores(task, model, group, name="m", passes=(None,), times=1, noise=NOISE)[0]
    twice = scores(task, model, group, name="m", passes=(None,), times=2, noise=NOISE)[0]
    assert once.share != twice.share
    assert twice.stderr < 0.85 * once.stderr  # by 1/sqrt(2), the two being independent
    assert Canvas.of(group.problems.canvas.x, vocab=task.tokenizer.vocab).fixed.sum() == 400 * 4
