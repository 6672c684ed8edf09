"""L&O-NAE-SAT: rows, held-out rows and the checker, by brute force."""

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.data.tasks import NaeSat
from anyorder.data.tasks.nae_sat import TOKENIZER, bits, nae

NOISE = Noise.of(6)
MASK = TOKENIZER.vocab.mask_id


def test_not_all_equal():
    every = bits(torch.arange(8), 3)
    assert every[6].tolist() == [0, 1, 1]
    assert nae(every, torch.tensor([[0, 1, 2]])).flatten().tolist() == [0, 1, 1, 1, 1, 1, 1, 0]


def test_rows_hold_what_their_latents_say():
    task = NaeSat(latents=7, observations=40, num_test=8)
    rows = task.train(noise=NOISE).tokens
    assert rows.shape[1] == task.length == 47
    for row in rows[:50].tolist():
        for observed, triple in zip(row[7:], task.triples.tolist()):
            assert observed == (len({row[i] for i in triple}) == 2)
    assert float(rows[:, :7].double().mean()) == pytest.approx(0.5, abs=0.05)
    assert float(task.every_row()[:, 7:].double().mean()) == 0.75
    assert len({tuple(r) for r in task.every_row().tolist()}) == 128


def test_triples_are_three_different_latents_and_depend_on_their_seed_alone():
    task = NaeSat(latents=5, observations=500, num_test=9)
    assert all(len(set(t)) == 3 for t in task.triples.tolist())
    counts = torch.bincount(task.triples.flatten(), minlength=5)
    assert float((counts - 300).abs().max()) < 5 * (500 * 0.6 * 0.4) ** 0.5
    assert torch.equal(task.triples, NaeSat(latents=5, observations=500, num_test=3).triples)
    assert not torch.equal(task.triples, NaeSat(latents=5, observations=500, num_test=9, triples_seed=1).triples)


def test_held_out_rows_are_different_and_never_trained_on():
    task = NaeSat(latents=6, observations=9, num_test=32, num_train=2000)
    held = {tuple(r) for r in task.test(noise=NOISE).x0[:, :6].tolist()}
    seen = {tuple(r) for r in task.train(noise=NOISE).tokens[:, :6].tolist()}
    assert (len(held), len(seen), len(held | seen)) == (32, 32, 64)
    big = NaeSat(latents=40, observations=100, num_test=8, num_train=100)
    assert big.train(noise=NOISE).tokens.shape == (100, 140)
    with pytest.raises(ValueError, match=r"^nae-sat latents=40: all rows are listed for at most 20$"):
        big.every_row()


@pytest.mark.parametrize("given", ["nothing", "latents", "observations"])
def test_correct_means_consistent_and_what_was_given_kept(given):
    task = NaeSat(latents=6, observations=20, given=given, num_test=20)
    problems = task.test(noise=NOISE)
    shown = {"nothing": 0, "latents": 6, "observations": 20}[given]
    assert problems.canvas.fixed.sum(-1).tolist() == [shown] * 20
    assert bool(task.correct(problems, problems.x0).all())
    assert not task.correct(problems, problems.canvas.x).any()
    flipped = torch.cat([1 - problems.x0[:, :6], problems.x0[:, 6:]], 1)  # the mirror image explains the same
    assert bool(task.correct(problems, flipped).all()) == (given != "latents")
    wrong = problems.x0.clone()
    wrong[:, -1] = 1 - wrong[:, -1]
    assert not task.correct(problems, wrong).any()
    torch.testing.assert_close(task.agreement(wrong), torch.full((20,), 0.95, dtype=torch.float64))
    assert not task.correct(problems, torch.full_like(wrong, 2)).any()


def test_pictures():
    task = NaeSat(latents=3, observations=2, num_test=2)
    assert task.render(torch.tensor([0, 1, 1, MASK, 2])) == "011 -> ░?"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"latents": 2}, r"^nae-sat latents=2: must be between 3 and 62$"),
        ({"observations": 0}, r"^nae-sat observations=0: must be >= 1$"),
        ({"latents": 4, "num_test": 9}, r"^nae-sat num_test=9: must be between 1 and 8, half of all rows$"),
        ({"given": "all"}, r"^nae-sat given='all': must be one of nothing, latents, observations$"),
    ],
)
def test_mistakes(options, said):
    with pytest.raises(ValueError, match=said):
        NaeSat(**options)
