"""Finite differences on a table of knobs."""

from types import SimpleNamespace

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.rl.config import RlConfig
from anyorder.rl.make import Lesson, make_lesson
from anyorder.rl.search import Search, table_of
from anyorder.samplers.schedules import hand
from anyorder.samplers.steered import Steered
from anyorder.testing.oracle import vocab_of

TASK = "scenes:grid=4,num_train=40,num_valid=4,num_test=4"


class Peaked:
    """Every cell is empty with a chance of about 0.4 at temperature 1, and surely so when cold."""

    nfe = 1

    def __init__(self, vocab):
        self.vocab = vocab

    def __call__(self, canvas, at):
        logits = torch.zeros(int(at.sum()), self.vocab.size)
        logits[:, 0] = 3.0
        return logits


def test_it_climbs_and_counts_its_answers():
    made = make_lesson(RlConfig(task=TASK))
    asked = []

    def empty(samples):
        asked.append(len(samples.x))
        return (samples.x[:, 6:] == 0).double().mean(-1)

    lesson = Lesson(made.task, empty, made.train, made.valid)
    search = Search(problems=20, updates=6, rate=3.0)
    sampler = Steered(hand("maskgit", 2))
    tables = search.run(Peaked(made.task.tokenizer.vocab), sampler, lesson, noise=Noise.of(1))
    assert len(tables) == 7
    assert (
        sum(asked) == search.rollouts(tables[0]) == 6 * 20 * (1 + 4)
    )  # MaskGIT's is not guided, and its last step takes all
    assert all(t.rows[0][3] == t.rows[1][3] == t.rows[1][0] == t.rows[1][1] == 0.0 for t in tables)
    first, last = tables[0].tensor, tables[-1].tensor
    assert (last[:, 2] < first[:, 2] - 0.1).all()  # colder, where empty cells are all that counts
    again = search.run(Peaked(made.task.tokenizer.vocab), sampler, lesson, noise=Noise.of(1))
    assert again == tables


def test_a_slope_that_is_known(monkeypatch):
    """A reward linear in the knobs: forward differences are its coefficients, and momentum adds them up."""
    slope = torch.tensor([[2.0, -0.3, 0.5, 0.1], [-1.0, 0.2, 0.4, -0.6]], dtype=torch.float64)
    start = hand("adanat", 2, ranking=3.0, guidance=4.0).tensor.clamp(min=0.1)
    on = start > 0
    trials = []

    def told(model, sampler, canvas, *, noise, policy, explore):
        trials.append((sampler.steering.tensor, noise.uniform(torch.arange(2)).tolist()))
        return SimpleNamespace(final=canvas.x)

    def reward(samples):
        return (slope * trials[-1][0]).sum().expand(len(samples.x))

    monkeypatch.setattr("anyorder.rl.search.roll_out", told)
    made = make_lesson(RlConfig(task=TASK))
    lesson = Lesson(made.task, reward, made.train, made.valid)
    search = Search(problems=3, updates=3, momentum=0.5, rate=0.5)
    model, sampler = Peaked(made.task.tokenizer.vocab), Steered(table_of(start, on))
    tables = search.run(model, sampler, lesson, noise=Noise.of(1))
    moved = 0.5 * torch.tensor([1e-3, 0.1, 0.1, 0.1], dtype=torch.float64) * slope
    for table, times in zip(tables, (0.0, 1.0, 2.5, 4.25)):  # speeds 1, 1.5, 1.75
        torch.testing.assert_close(table.tensor, table_of(start + times * moved, on).tensor, rtol=1e-9, atol=1e-12)
    assert len(trials) == 3 * 9 == search.rollouts(tables[0]) / 3
    steps = trials[1][0] - trials[0][0], trials[8][0] - trials[0][0]
    assert [float(s.abs().sum()) for s in steps] == pytest.approx([1e-2, 0.1])
    noise = [[n for _, n in trials[at : at + 9]] for at in (0, 9, 18)]
    assert all(n == same[0] for same in noise for n in same)  # trials of an update are compared on the same noise
    assert noise[0][0] != noise[1][0] != noise[2][0]


def test_knobs_stay_in_their_range():
    knobs = torch.tensor([[1.7, -1.0, -0.2, -3.0], [-0.1, 2.0, 1.0, 0.5]], dtype=torch.float64)
    every = torch.ones(2, 4, dtype=torch.bool)
    assert table_of(knobs, every).rows == ((0.99, 1e-4, 1e-4, 1e-4), (0.0, 2.0, 1.0, 0.5))
    every[1, 3] = False
    assert table_of(knobs, every).rows[1] == (0.0, 2.0, 1.0, 0.0)


def test_only_a_table_can_be_searched():
    class Odd:
        num_steps = 2

        def __call__(self, look):
            return torch.zeros(len(look.left), 4, dtype=torch.float64)

    made = make_lesson(RlConfig(task=TASK))
    with pytest.raises(ValueError, match="begins with a table"):
        Search().run(Peaked(vocab_of(5)), Steered(Odd()), made, noise=Noise.of(0))
