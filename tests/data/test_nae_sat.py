"""L&O-NAE-SAT: rows, held-out rows and the checker, by brute force."""

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.data.tasks import NaeSat
from anyorder.data.tasks.nae_sat import bits, nae

NOISE = Noise.of(6)


def test_not_all_equal():
    every = bits(torch.arange(8), 3)
    assert every[6].tolist() == [0, 1, 1]
    assert nae(every, torch.tensor([[0, 1, 2]])).flatten().tolist() == [0, 1, 1, 1, 1, 1, 1, 0]


def test_rows_hold_what_their_latents_say():
    task = NaeSat(latents=7, observations=40, num_test=8)
    rows = task.train(noise=NOISE)
    assert rows.tokens.shape[1] == task.length == 94
    assert rows.tokens[0, ::2].tolist() == list(range(2, 49))  # names
    assert bool((rows.tokens[:, ::2] == rows.tokens[0, ::2]).all())
    assert rows.target[0].tolist() == [False, True] * 47
    for row in rows.tokens[:50, 1::2].tolist():
        for observed, triple in zip(row[7:], task.triples.tolist()):
            assert observed == (len({row[i] for i in triple}) == 2)
    assert float(rows.tokens[:, task.is_latent].double().mean()) == pytest.approx(0.5, abs=0.05)
    every = task.every_row()
    assert float(every[:, task.is_bit & ~task.is_latent].double().mean()) == 0.75
    assert len({tuple(r) for r in every.tolist()}) == 128


def test_triples_are_three_different_latents_and_depend_on_their_seed_alone():
    task = NaeSat(latents=5, observations=300, num_test=9)
    assert all(len(set(t)) == 3 for t in task.triples.tolist())
    counts = torch.bincount(task.triples.flatten(), minlength=5)
    assert float((counts - 180).abs().max()) < 5 * (300 * 0.6 * 0.4) ** 0.5
    assert torch.equal(task.triples, NaeSat(latents=5, observations=300, num_test=3).triples)
    assert not torch.equal(task.triples, NaeSat(latents=5, observations=300, num_test=9, triples_seed=1).triples)


def test_held_out_rows_are_different_and_never_trained_on():
    task = NaeSat(latents=6, observations=9, num_test=32, num_train=2000)
    held = {tuple(r) for r in task.test(noise=NOISE).x0[:, task.is_latent].tolist()}
    seen = {tuple(r) for r in task.train(noise=NOISE).tokens[:, task.is_latent].tolist()}
    assert (len(held), len(seen), len(held | seen)) == (32, 32, 64)
    big = NaeSat(latents=40, observations=100, num_test=8, num_train=100)
    assert big.train(noise=NOISE).tokens.shape == (100, 280)
    with pytest.raises(ValueError, match=r"^nae-sat latents=40: all rows are listed for at most 20$"):
        big.every_row()


@pytest.mark.parametrize("given", ["nothing", "latents", "observations"])
def test_correct_means_consistent_and_what_was_given_kept(given):
    task = NaeSat(latents=6, observations=20, given=given, num_test=20)
    problems = task.test(noise=NOISE)
    shown = {"nothing": 0, "latents": 6, "observations": 20}[given]
    assert problems.canvas.fixed.sum(-1).tolist() == [26 + shown] * 20
    assert bool(task.correct(problems, problems.x0).all())
    assert not task.correct(problems, problems.canvas.x).any()
    flipped = torch.where(task.is_latent, 1 - problems.x0, problems.x0)  # the mirror image explains the same
    assert bool(task.correct(problems, flipped).all()) == (given != "latents")
    wrong = problems.x0.clone()
    wrong[:, -1] = 1 - wrong[:, -1]
    assert not task.correct(problems, wrong).any()
    torch.testing.assert_close(task.agreement(wrong), torch.full((20,), 0.95, dtype=torch.float64))
    assert not task.correct(problems, torch.where(task.is_bit, 2, problems.x0)).any()


def test_independent_bits_agree_in_five_of_eight():
    task = NaeSat(latents=10, observations=50)
    latents = task.every_row()
    observed = task.every_row().roll(517, 0)  # 3/4 ones, of other latents
    mixed = torch.where(task.is_latent, latents, observed)
    assert float(task.agreement(mixed).mean()) == pytest.approx(0.625, abs=0.03)


def test_pictures():
    task = NaeSat(latents=3, observations=2, num_test=2)
    row = task.rows(torch.tensor([[0, 1, 1]]))[0]
    mask = task.tokenizer.vocab.mask_id
    assert task.render(row) == "011 -> 11"
    assert task.render(torch.tensor([*row[:6].tolist(), row[6], mask, row[8], 2])) == "011 -> ░?"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"latents": 2}, r"^nae-sat latents=2: must be between 3 and 62$"),
        ({"observations": 0}, r"^nae-sat observations=0: must be between 1 and 326$"),
        ({"num_train": 0}, r"^nae-sat num_train=0: must be >= 1$"),
        ({"latents": 4, "num_test": 9}, r"^nae-sat num_test=9: must be between 1 and 8, half of all rows$"),
        ({"given": "all"}, r"^nae-sat given='all': must be one of nothing, latents, observations$"),
    ],
)
def test_mistakes(options, said):
    with pytest.raises(ValueError, match=said):
        NaeSat(**options)
