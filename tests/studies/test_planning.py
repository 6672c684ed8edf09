"""The study of planning: its measurements on writers that are known, its choice of a rate, and the quick command."""

import contextlib
import io
import json
import math
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from anyorder.cli.main import main
from anyorder.core.config import load_config
from anyorder.core.noise import Noise
from anyorder.core.types import InsertionOut
from anyorder.data.tasks import Star
from anyorder.studies import planning
from anyorder.studies.intervals import over_runs, wilson
from anyorder.studies.planning import PAPER, TINY, best, checks
from anyorder.studies.planning_report import over_seeds, picture, show
from anyorder.studies.planning_runs import KINDS, Trained
from anyorder.studies.planning_writing import (
    Attempt,
    Order,
    Score,
    Subject,
    attempt,
    begin,
    lengths,
    likelihood,
    order_of,
    scored,
)
from anyorder.studies.plot_svg import Line, Plot, line_plots
from anyorder.testing.support import Support
from anyorder.train.config import RunConfig

NOISE = Noise.of(4)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=["small", pytest.param("whole", marks=pytest.mark.slow)])
def quick(request, tmp_path_factory):
    """The quick study: its folder, and the command's lines."""
    out = tmp_path_factory.mktemp("planning")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        if request.param == "small":
            recipe = replace(planning.QUICK.recipe, num_steps=dict.fromkeys(KINDS, 2))
            patch.setattr(planning, "QUICK", replace(planning.QUICK, recipe=recipe, problems=4, likely=2, draws=2))
        assert main(["study", "planning", "--quick", "--out", str(out)]) == 0
    return out, printed.getvalue()


def subject_of(kind, task, model):
    return Subject(kind, task, model, NOISE, torch.device("cpu"))


def star(level="medium", end="fill"):
    return Star(level=level, end=end, num_train=1, num_valid=1, num_test=60)


class Writer:
    """An insertion model that knows the answers of some problems, and writes them from the last token to the first."""

    nfe = 1

    def __init__(self, task, problems, spoil=0):
        self.vocab = task.tokenizer.vocab
        layout = task.layout
        self.answers = {tuple(p): a for p, a in (layout.parts(row) for row in problems.x0)}
        for prompt in list(self.answers)[:spoil]:
            self.answers[prompt] = self.answers[prompt] + self.answers[prompt][-1:]  # one token too many

    def __call__(self, canvas, at):
        eos, found = self.vocab.eos_id, []
        for row, position in at.nonzero().tolist():
            text = canvas.x[row][canvas.valid[row]].tolist()[1:]
            prompt = next(p for p in self.answers if text[: len(p)] == list(p))
            answer, written = self.answers[prompt], text[len(prompt) :]
            logits = torch.full((self.vocab.size,), -1e4)
            if position == 0:
                logits[eos] = 50.0 if written == answer else -50.0
            elif position == len(prompt) and len(written) < len(answer):
                logits[answer[-1 - len(written)]] = 0.0
            found.append(logits)
        return torch.stack(found)


def test_an_insertion_model_is_right_only_if_it_stops_in_time_and_its_order_is_seen():
    task = star(end="none")
    problems = task.test(noise=NOISE)
    found = attempt(subject_of("ilm", task, Writer(task, problems)), problems, noise=NOISE, at_once=7)
    assert bool(found.right.all())
    sizes = lengths(problems.x0, task.layout)
    for rank, n in zip(found.rank.tolist(), sizes.tolist()):
        assert rank == [*range(n - 1, -1, -1), *[-1] * (task.layout.answer - n)]
    late = attempt(subject_of("ilm", task, Writer(task, problems, spoil=20)), problems, noise=NOISE)
    assert late.right.tolist() == [False] * 20 + [True] * 40
    who = subject_of("ilm", task, Writer(task, problems))
    order = order_of(who, found, seed=3)
    assert order.rank == tuple(float(i) for i in range(10, 0, -1))
    assert order.answers == int((sizes == 10).sum()) > 0
    assert order_of(who, replace(found, right=torch.zeros(60).bool()), seed=3) is None


def test_an_insertion_model_has_room_to_write_too_much():
    task = star(end="none")
    problems = task.test(noise=NOISE)
    canvas = begin(subject_of("ilm", task, Writer(task, problems)), problems, told=False)
    longest = problems.x0[lengths(problems.x0, task.layout) == 10]
    assert len(longest) > 0
    assert int((~canvas.valid).sum(-1).min()) > 10


def test_an_exact_masked_model_finds_every_path_whether_it_is_told_the_length_or_not():
    task = star("easy")
    problems = task.test(noise=NOISE)
    who = subject_of("mdm", task, Support(problems.x0, task.tokenizer.vocab))
    for told in (False, True):
        found = attempt(who, problems, told=told, noise=NOISE)
        assert bool(found.right.all())
        assert sorted(found.rank[0].tolist()) == list(range(8))  # end-of-document has none
    told, open_ = (begin(who, problems, told=t).fixed for t in (True, False))
    assert (told & ~open_).sum(-1).tolist() == [1] * 60
    assert torch.equal(problems.x0[told & ~open_], torch.full((60,), task.tokenizer.vocab.eos_id))


def test_scores_by_distance_add_up():
    task = star()
    problems = task.test(noise=NOISE)
    right = torch.arange(60) % 3 == 0
    who = subject_of("ilm", task, Writer(task, problems))
    found = scored(who, problems, Attempt(right, torch.zeros(60, 10).long()), RunConfig(seed=7), told=False)
    assert (found.problems, found.solved, found.share, found.seed) == (60, 20, pytest.approx(1 / 3), 7)
    assert set(found.by_distance) == set(task.junction_distance(problems).tolist())
    assert [sum(pair[i] for pair in found.by_distance.values()) for i in (0, 1)] == [60, 20]


class Dice:
    """Says that every token, end-of-document too, is as likely as any other."""

    nfe = 1

    def __init__(self, vocab):
        self.vocab = vocab

    def __call__(self, canvas, at):
        return torch.zeros(int(at.sum()), self.vocab.size)


@pytest.mark.parametrize("kind", ["arm", "mdm"])
def test_nats_are_of_answers_and_their_end_but_per_token_of_answers(kind):
    task = star("easy")
    problems = task.test(noise=NOISE)
    found = likelihood(subject_of(kind, task, Dice(task.tokenizer.vocab)), problems, draws=2, seed=0, noise=NOISE)
    assert found.nats == pytest.approx(9 / 8 * math.log(task.tokenizer.vocab.size))
    assert found.stderr == pytest.approx(0, abs=1e-9)
    assert found.guess == pytest.approx(math.log(3) / 8)


class Sure(Dice):
    """An insertion model that gives every token the same score everywhere, and even odds to being complete."""

    def insertion(self, canvas, at):
        size = self.vocab.size
        documents = int(canvas.segment.max())
        return InsertionOut(torch.zeros(int(at.sum()), 1), torch.zeros(size, 1), torch.zeros(documents))


def test_nats_of_an_insertion_model_are_its_bound():
    task = star("easy", end="none")
    problems = task.test(noise=NOISE)
    found = likelihood(subject_of("ilm", task, Sure(task.tokenizer.vocab)), problems, draws=18, seed=0, noise=NOISE)
    nodes = task.tokenizer.vocab.size - 1
    every = sum(math.log(nodes * (left + 1)) for left in range(8)) + 9 * math.log(2) - math.lgamma(9)
    assert found.nats == pytest.approx(every / 8, rel=1e-4)


def test_the_rate_with_the_fewest_held_out_nats_is_chosen():
    def made(kind, lr, nats):
        return Trained(kind, "easy", lr, 0, 8, Path("run"), nats, 1.0)

    swept = [made("arm", 1e-3, 0.2), made("mdm", 1e-3, 0.1), made("mdm", 2e-3, 0.05), made("mdm", 4e-3, 0.3)]
    assert best(swept, "easy", "mdm").lr == 2e-3
    assert best(swept, "easy", "arm").lr == 1e-3


def score(kind, solved, *, level="easy", seed=0, told=False, distance=4):
    return Score(level, kind, told, 1e-3, seed, 100, solved, {distance: (100, solved)})


def test_aims():
    good = [
        score("arm", 40),
        score("mdm", 100),
        score("mdm", 0, told=True),
        score("ilm", 90),
        score("ilm", 100, seed=1),
    ]
    assert [(c.value, c.met) for c in checks(good)] == [(pytest.approx(0.4 - 1 / 3), True), (1.0, True), (0.95, True)]
    bad = [score("arm", 50), score("mdm", 94), score("ilm", 90), score("ilm", 99, seed=1)]
    assert [c.met for c in checks(bad)] == [False, False, False]


def test_tables_show_theirs_and_intervals_over_seeds_or_over_problems():
    one = show([], [], [score("arm", 30), score("mdm", 100, told=True)], [], [])
    assert "Wilson" in one
    rows = [line.split() for line in one.splitlines()]
    assert ["easy", "ARM", "30.0", "21.9", "to", "39.6", "32.3", "33.3"] in rows
    assert ["easy", "MDM,", "told", "the", "length", "100.0", "96.3", "to", "100.0", "-", "33.3"] in rows
    two = show([], [], [score("it", 30, level="hard"), score("it", 32, level="hard", seed=1)], [], [])
    rows = [line.split() for line in two.splitlines()]
    assert ["hard", "Insertion", "Transformer", "31.0", "18.3", "to", "43.7", "17.5", "20.0"] in rows
    apart = show([], [], [score("ilm", 50, distance=2), score("ilm", 20, distance=5, seed=1)], [], [])
    assert "50.0 (100)  20.0 (100)" in apart


def test_mean_ranks_of_seeds_are_weighted_by_their_answers():
    orders = [Order("easy", "ilm", 0, 1, (1.0, 2.0)), Order("easy", "ilm", 1, 3, (2.0, 1.0))]
    assert over_seeds(orders) == {("easy", "ilm"): (4, [1.75, 1.25])}
    svg = ET.fromstring(picture(orders, ["easy", "medium"]))
    assert len(svg.findall(".//{http://www.w3.org/2000/svg}path")) == 3  # from the left in both frames, ILM in one
    assert len(svg.findall(".//{http://www.w3.org/2000/svg}circle")) == 2


def test_a_linear_axis_has_its_points_at_equal_distances():
    plot = Plot([Line("a", [(1.0, 1.0), (2.0, 2.0), (3.0, 5.0)])], "title", "x", "y", log_x=False)
    circles = ET.fromstring(line_plots([plot])).findall(".//{http://www.w3.org/2000/svg}circle")
    x = [float(c.get("cx")) for c in circles]
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.11)
    labels = [t.text for t in ET.fromstring(line_plots([plot])).iter("{http://www.w3.org/2000/svg}text")]
    assert {"1", "2", "3"} <= set(labels)


def test_intervals():
    assert wilson(5, 10) == (pytest.approx(0.23659, abs=1e-5), pytest.approx(0.76341, abs=1e-5))
    assert wilson(0, 10) == (0.0, pytest.approx(0.27753, abs=1e-5))
    low, high = over_runs([0.4, 0.5, 0.6])
    assert (low, high) == (pytest.approx(0.5 - 0.24841, abs=1e-5), pytest.approx(0.5 + 0.24841, abs=1e-5))
    assert over_runs([0.0, 1.0]) == (0.0, 1.0)
    with pytest.raises(ValueError, match="use `wilson` for one"):
        over_runs([0.5])


def test_the_quick_study_shows_and_keeps_everything(quick):
    out, printed = quick
    last = json.loads(printed.splitlines()[-1])
    assert last["checks"] == {}
    kept = json.loads((out / "planning.json").read_text())
    assert {(s["kind"], s["told"]) for s in kept["scores"]} == {*((k, False) for k in KINDS), ("mdm", True)}
    assert {s["seed"] for s in kept["scores"]} == {0, 1}
    assert [x["kind"] for x in kept["likelihoods"]] == ["arm", "arm", "mdm", "mdm", "ilm", "ilm"]
    assert {t["lr"] for t in kept["runs"] if t["folder"].startswith("sweep/")} == {1e-3, 4e-3}
    assert printed.count("chosen") == 4
    assert ET.parse(out / "planning.svg").getroot().tag.endswith("svg")


def test_a_second_time_nothing_is_trained(quick, capsys, monkeypatch):
    out, printed = quick
    before = {p: p.read_text() for p in out.rglob("metrics.jsonl")}
    plan = json.loads((out / "planning.json").read_text())["plan"]
    if plan["problems"] < planning.QUICK.problems:
        recipe = replace(planning.QUICK.recipe, num_steps=plan["recipe"]["num_steps"])
        some = {key: plan[key] for key in ("problems", "likely", "draws")}
        monkeypatch.setattr(planning, "QUICK", replace(planning.QUICK, recipe=recipe, **some))
    assert main(["study", "planning", "--quick", "--out", str(out)]) == 0
    assert capsys.readouterr().out == printed
    assert {p: p.read_text() for p in out.rglob("metrics.jsonl")} == before
    assert len(before) == 16  # eight of the sweep, and the chosen four with two seeds


def test_the_four_models_have_one_size_and_what_is_wrong_is_said(quick, tmp_path, capsys):
    out, _ = quick
    configs = [load_config(RunConfig, p) for p in out.rglob("config.yaml")]
    same = {"process": None, "optim": None, "task": None, "seed": 0, "num_steps": 8}
    same |= {"evaluate": None, "save_every": 1, "log_every": 1}
    assert len({c.model_copy(update=same).model_dump_json() for c in configs}) == 1
    assert main(["study", "planning", "--quick", "--run", str(out)]) == 2
    assert "leave --run out" in capsys.readouterr().err
    assert main(["study", "planning", "--scale", "huge"]) == 2
    assert "one of tiny, paper" in capsys.readouterr().err
    assert main(["study", "numerics", "--quick", "--scale", "tiny"]) == 2
    assert "leave --scale out" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_published_settings_are_files_too(kind):
    config = load_config(RunConfig, ROOT / "configs" / f"star-hard-{kind}.yaml")
    lr = 1e-5 if kind == "arm" else 1e-4
    assert lr in PAPER.rates
    assert config == PAPER.recipe.config(kind, level="hard", lr=lr, seed=0)
    assert config.num_steps == (50_000 if kind in ("ilm", "it") else 100_000)
    assert config.resolved_model(length=1).num_block_params == 84_953_856


def test_the_tiny_scale_asks_what_the_aims_are_about():
    assert "easy" in TINY.levels
    assert len(TINY.rates) > 1
    assert len(set(TINY.recipe.num_steps.values())) == 1
