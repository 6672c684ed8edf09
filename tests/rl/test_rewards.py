"""Rewards: known answers per task, sums, and one clear sentence for everything that is wrong with one."""

import sys
from types import ModuleType

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.data.tasks import TASKS, Sudoku, make_task
from anyorder.rl.config import RlConfig
from anyorder.rl.make import make_lesson
from anyorder.rl.parts import worths
from anyorder.rl.rewards import REWARDS, Checked, Reward, Samples, make_reward, malformed
from anyorder.rl.rewards.cells import Cells

NOISE = Noise.of(12)
SPECS = {
    "sudoku": "sudoku",
    "star": "star:num_test=24",
    "countdown": "countdown:num_test=24",
    "arithmetic": "arithmetic:num_test=24",
    "scenes": "scenes:num_train=40,num_valid=20,num_test=24",
}


def asked(spec, change=None):
    """A task, its problems, and the stored answers as samples."""
    task = make_task(spec)
    problems = task.test(noise=NOISE)
    x = problems.x0 if change is None else change(task, problems)
    return task, Samples.of(x, problems, task=task)


def ones(count):
    return torch.ones(count, dtype=torch.float64)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_right_rows_get_one_and_unfinished_rows_nothing(spec):
    task, samples = asked(spec)
    count = len(samples.x)
    assert torch.equal(make_reward("correct", task=task)(samples), ones(count))
    assert not malformed(samples, task=task).any()
    open_ = samples.problems.canvas.open(task.tokenizer.vocab)
    for row in range(0, count, 7):
        x = samples.x.clone()
        x[row] = torch.where(open_[row], samples.problems.canvas.x[row], x[row])
        left = Samples.of(x, samples.problems, task=task)
        expected = ones(count)
        expected[row] = 0
        assert torch.equal(make_reward("correct", task=task)(left), expected)
        assert torch.equal(make_reward("cells", task=task)(left), expected)
        assert malformed(left, task=task).nonzero().flatten().tolist() == [row]


@pytest.mark.parametrize("name", ["star", "countdown", "arithmetic", "scenes"])
def test_format_is_one_for_wrong_answers_that_can_be_read(name):
    """Every row answers another problem of the batch."""
    task, samples = asked(SPECS[name])
    problems = samples.problems
    is_open = problems.canvas.open(task.tokenizer.vocab)
    other = torch.where(is_open, problems.x0.roll(1, 0), problems.x0)
    wrong = Samples.of(other, problems, task=task)
    right = task.correct(problems, other)
    assert int(right.sum()) < 8
    torch.testing.assert_close(make_reward("correct", task=task)(wrong), right.double())
    assert torch.equal(make_reward("format", task=task)(wrong), ones(len(other)))
    both = make_reward("correct+0.1*format", task=task)
    torch.testing.assert_close(both(wrong), right.double() + 0.1)
    torch.testing.assert_close(both(samples), 1.1 * ones(len(other)))


def test_cells_are_not_puzzles_solved():
    """One wrong cell of ten: nine tenths of the cells, and no puzzle."""
    task, samples = asked("sudoku")
    is_open = samples.problems.canvas.open(task.tokenizer.vocab)
    assert set(is_open.sum(-1).tolist()) == {10}
    first = is_open.long().argmax(-1)
    x = samples.x.scatter(1, first[:, None], (samples.x.gather(1, first[:, None]) + 1) % 4)
    off = Samples.of(x, samples.problems, task=task)
    torch.testing.assert_close(make_reward("cells", task=task)(off), 0.9 * ones(len(x)))
    assert torch.equal(make_reward("correct", task=task)(off), 0 * ones(len(x)))


def test_random_digits_get_a_quarter_of_the_cells_and_solve_nothing():
    task, samples = asked("sudoku")
    is_open = samples.problems.canvas.open(task.tokenizer.vocab)
    u = NOISE.at("digits").uniform(torch.arange(len(is_open))[:, None], 0, torch.arange(16))
    x = torch.where(is_open, (4 * u).long(), samples.x)
    random = Samples.of(x, samples.problems, task=task)
    assert float(Cells(task)(random).mean()) == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / int(is_open.sum())) ** 0.5)
    assert float(make_reward("correct", task=task)(random).sum()) == 0


def test_cells_of_a_row_that_was_given_whole():
    task = Sudoku(clues=16)
    problems = task.test(noise=NOISE)
    samples = Samples.of(problems.x0, problems, task=task)
    assert torch.equal(make_reward("cells", task=task)(samples), ones(88))


def test_dense_is_the_task_s_own_measure():
    task, samples = asked(SPECS["scenes"])
    torch.testing.assert_close(make_reward("dense", task=task)(samples), task.dense(samples.problems, samples.x))


def test_only_nearness_judges_rows_that_are_no_whole_answer(monkeypatch):
    """Right images with a stray cell each: no whole answer, and still much of what was asked for."""

    def stray(task, problems):
        image = problems.x0[:, -(task.grid**2) :]
        first = (image == 0).long().argmax(-1)
        changed = image.scatter(1, first[:, None], image.amax(-1, keepdim=True))
        return torch.cat([problems.x0[:, : -(task.grid**2)], changed], 1)

    task, samples = asked(SPECS["scenes"], stray)
    bad = malformed(samples, task=task)
    near = make_reward("dense", task=task)(samples)[bad]
    assert int(bad.sum()) > 12
    assert (near < 1).all()
    assert float((near > 0.4).double().mean()) > 0.7
    right = make_reward("correct", task=task)(samples)
    mine = make_reward(made_up(monkeypatch, lambda s: torch.ones(len(s.x))), task=task)(samples)
    assert torch.equal(mine, (~bad).double())
    assert (right[bad] == 0).all()
    assert torch.equal(make_reward("format", task=task)(samples), (~bad).double())
    shaped = make_reward("correct+0.5*dense", task=task)(samples)
    torch.testing.assert_close(shaped[bad], 0.5 * near)


def test_a_row_gets_the_same_alone_or_among_others():
    task, samples = asked(SPECS["countdown"])
    reward = make_reward("correct+0.3*format", task=task)
    together = reward(samples)
    for row in range(0, 24, 5):
        assert torch.equal(reward(samples.row(row)), together[row : row + 1])
        assert samples.row(row).texts == [samples.texts[row]]


def made_up(monkeypatch, function, name="reward"):
    """The import path of a reward in a module of its own."""
    module = ModuleType("rewards_of_mine")
    setattr(module, name, function)
    monkeypatch.setitem(sys.modules, "rewards_of_mine", module)
    return f"rewards_of_mine:{name}"


def test_a_reward_by_import_path(monkeypatch):
    task, samples = asked(SPECS["arithmetic"])
    path = made_up(monkeypatch, lambda s: torch.tensor([float(len(t)) for t in s.texts]))
    made = make_reward(f"2*{path}", task=task)(samples)
    assert made.dtype == torch.float64
    assert made.tolist() == [2.0 * len(task.tokenizer.decode(row)) for row in samples.x.tolist()]
    assert isinstance(make_reward(path, task=task), Checked)


def raises_for(text):
    def reward(samples):
        for row in samples.texts:
            if row == text:
                raise KeyError("no such thing")
        return torch.zeros(len(samples.texts))

    return reward


def test_a_raising_reward_names_itself_and_the_first_row(monkeypatch):
    task, samples = asked(SPECS["arithmetic"])
    path = made_up(monkeypatch, raises_for(samples.texts[3]))
    first = samples.texts.index(samples.texts[3])
    with pytest.raises(
        ValueError, match=r"^reward 'rewards_of_mine:reward': raises KeyError: 'no such thing' for row "
    ) as e:
        make_reward(path, task=task)(samples)
    assert f"row {first}, {samples.texts[3]!r}; mend it" in str(e.value)

    def only_together(s):
        if len(s.texts) > 1:
            raise RuntimeError("too many\nfor me")
        return torch.zeros(1)

    path = made_up(monkeypatch, only_together)
    with pytest.raises(
        ValueError, match=r"raises RuntimeError: too many for 24 rows together, for none alone; mend it$"
    ):
        make_reward(path, task=task)(samples)


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_a_reward_that_is_no_number_names_the_first_row(monkeypatch, bad):
    task, samples = asked(SPECS["arithmetic"])
    values = torch.zeros(24)
    values[5] = values[9] = float(bad)
    path = made_up(monkeypatch, lambda s: values)
    with pytest.raises(ValueError, match=rf"^reward '{path}': {bad} for row 5, '.*'; return a finite number$"):
        make_reward(path, task=task)(samples)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda s: torch.zeros(23), r"returns shape \(23,\) for 24 rows; return one number a row$"),
        (lambda s: torch.zeros(24, 1), r"returns shape \(24, 1\) for 24 rows"),
        (lambda s: torch.tensor(0.5), r"returns shape \(\) for 24 rows"),
        (lambda s: [0.0] * 24, r"returns list for 24 rows"),
        (lambda s: None, r"returns NoneType for 24 rows"),
    ],
)
def test_a_reward_of_the_wrong_shape(monkeypatch, made, said):
    task, samples = asked(SPECS["arithmetic"])
    with pytest.raises(ValueError, match=r"^reward 'rewards_of_mine:reward': " + said):
        make_reward(made_up(monkeypatch, made), task=task)(samples)


def test_whole_numbers_and_truth_values_will_do(monkeypatch):
    task, samples = asked(SPECS["arithmetic"])
    for dtype in (torch.bool, torch.int64, torch.float16):
        path = made_up(monkeypatch, lambda s, dtype=dtype: torch.ones(24, dtype=dtype))
        assert torch.equal(make_reward(path, task=task)(samples), ones(24))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("corect", r"^reward='corect': unknown; did you mean 'correct'\?, or write package.module:function$"),
        ("correct:strict=1", r"^reward='correct:strict=1': unknown option 'strict'; known: $"),
        ("x*correct", r"^reward='x\*correct': weight 'x' is no number; write 0.1\*correct$"),
        ("inf*correct", r"weight 'inf' is no number"),
        ("correct+", r"^reward='': unknown; known: cells, correct, "),
        ("no.such.module:reward", r"^reward='no.such.module:reward': cannot import no.such.module \(.*\); is its"),
        ("math:no_such", r"^reward='math:no_such': math has no function 'no_such'; name one that takes Samples$"),
        ("math:pi", r"^reward='math:pi': math has no function 'pi'"),
        ("dense", r"^reward='dense': Sudoku has no such measure; tasks that have it: scenes$"),
        ("format", r"^reward='format': Sudoku has no .*: arithmetic, countdown, scenes, star$"),
    ],
)  # fmt: skip
def test_mistakes(spec, said):
    with pytest.raises(ValueError, match=said):
        make_reward(spec, task=Sudoku())


def test_no_task_no_reward():
    names = ", ".join(sorted(TASKS))
    with pytest.raises(ValueError, match=rf"^reward='correct': needs a task with a checker; name one of {names}$"):
        make_reward("correct", task=None)


def test_every_reward_is_listed_and_checked():
    task = make_task(SPECS["scenes"])
    for name in ("correct", "cells", "dense", "format"):
        made = make_reward(name, task=task)
        assert isinstance(made, Checked)
        assert isinstance(made.reward, REWARDS[name])
        assert isinstance(made, Reward)


def test_terms_of_a_sum_are_normalised_within_their_groups(monkeypatch):
    """Two groups of four; known answers by hand with the sample deviation and 1e-4."""
    task, samples = asked("arithmetic:num_test=8")
    small, large = torch.tensor([0.0, 0, 0, 1, 1, 1, 1, 1]), torch.tensor([300.0, 100, 100, 100, 5, 5, 7, 7])
    module = ModuleType("rewards_of_mine")
    module.small, module.large = lambda s: small, lambda s: large
    monkeypatch.setitem(sys.modules, "rewards_of_mine", module)
    spec = "rewards_of_mine:small+0.5*rewards_of_mine:large"
    plain = make_reward(spec, task=task)(samples)
    torch.testing.assert_close(plain, small.double() + 0.5 * large.double())
    terms = make_reward(spec, task=task)
    earned, scaled = worths(terms, samples, group=4)
    assert torch.equal(earned, plain)
    a, b = torch.tensor([-0.25, -0.25, -0.25, 0.75]), torch.tensor([150.0, -50, -50, -50])
    first = a.double() / (0.5 + 1e-4) + 0.5 * b.double() / (100 + 1e-4)
    c = torch.tensor([-1.0, -1, 1, 1]).double() / ((4 / 3) ** 0.5 + 1e-4)  # the small one is equal there: it adds 0
    torch.testing.assert_close(scaled, torch.cat([first, 0.5 * c]))
    for value in worths(terms, samples, group=0):
        assert torch.equal(value, plain)
    with pytest.raises(ValueError, match=r"^reward_scale=true: reward='correct' is no sum"):
        make_lesson(RlConfig(task="star", reward="correct", reward_scale=True))
