"""The oracle of a list of sequences against the joint-table oracle of the same law."""

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas, Vocab
from anyorder.data.tasks import NaeSat
from anyorder.data.tasks.sudoku import BLANK, TOKENIZER, count_solutions, grids, make_puzzles
from anyorder.samplers.base import generate
from anyorder.samplers.presets import make_sampler
from anyorder.testing.contracts import check_denoiser
from anyorder.testing.oracle import Oracle, states_of, vocab_of
from anyorder.testing.support import Support

NOISE = Noise.of(8)


def test_same_answers_as_the_joint_table():
    states = states_of(3, 4)
    chosen = states[NOISE.uniform(torch.arange(81)) < 0.4]
    table = (states[:, None] == chosen).all(-1).any(-1).double()
    table, support = Oracle(table / table.sum(), 3, 4), Support(chosen, vocab_of(3))
    rows = Canvas.of(states_of(4, 4), vocab=vocab_of(3))  # 3 is the mask
    at = rows.open(vocab_of(3))
    possible = support.consistent(rows).any(-1)[at.nonzero(as_tuple=True)[0]]
    assert 0 < int(possible.sum()) < len(possible)
    torch.testing.assert_close(support(rows, at).exp()[possible], table(rows, at).exp()[possible])
    whole = Canvas.of(chosen, vocab=vocab_of(3))
    every = torch.ones_like(whole.fixed)
    torch.testing.assert_close(
        support(whole, every).exp(), torch.nn.functional.one_hot(chosen, 3).flatten(0, 1).double()
    )
    assert support.consistent(whole).sum(-1).tolist() == [1] * len(chosen)


def test_padding_tells_nothing_and_impossible_rows_get_the_law_of_the_position_alone():
    vocab = Vocab(size=4, mask_id=4, pad_id=5)
    support = Support(torch.tensor([[0, 1], [2, 1], [0, 2]]), vocab)
    x = torch.tensor([[4, 3], [4, 5], [4, 1]])
    segment = torch.tensor([[1, 1], [1, 0], [1, 1]])
    canvas = Canvas.of(x, vocab=vocab, segment=segment)
    got = support(canvas, torch.tensor([[True, False]] * 3)).exp()
    alone, given = [2 / 3, 0, 1 / 3, 0], [0.5, 0, 0.5, 0]
    torch.testing.assert_close(got, torch.tensor([alone, alone, given], dtype=torch.float64), rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match=r"^canvas length 3: this oracle knows sequences of 2 only$"):
        support(Canvas.of(torch.zeros(1, 3, dtype=torch.long), vocab=vocab), torch.zeros(1, 3, dtype=torch.bool))


def test_it_keeps_the_contract_of_denoisers():
    task = NaeSat(latents=4, observations=4, num_test=8)
    vocab, x0 = task.tokenizer.vocab, task.test(noise=NOISE).x0
    hidden = task.is_bit & (NOISE.uniform(torch.arange(8)[:, None], 3, torch.arange(16)) < 0.6)
    canvas = Canvas.of(x0.masked_fill(hidden, vocab.mask_id), vocab=vocab)
    check_denoiser(Support(task.every_row(), vocab), canvas, pads=False)


def test_it_solves_sudoku_and_writes_consistent_rows_in_any_order():
    puzzle = make_puzzles(grids()[::20], clues=5, noise=NOISE)
    assert count_solutions(puzzle).tolist() == [1] * len(puzzle)
    vocab = TOKENIZER.vocab
    oracle = Support(grids(), vocab)
    canvas = Canvas.of(torch.where(puzzle == BLANK, vocab.mask_id, puzzle), vocab=vocab)
    task = NaeSat(latents=6, observations=20, num_test=16)
    rows = Support(task.every_row(), task.tokenizer.vocab)
    problems = task.test(noise=NOISE)
    for name in ("first-hitting", "margin", "left-to-right"):
        written = generate(make_sampler(name), oracle, canvas, noise=NOISE)
        assert torch.equal(written.canvas.x, grids()[::20])
        free = generate(make_sampler(name), rows, problems.canvas, noise=NOISE)
        assert bool(task.correct(problems, free.canvas.x).all())
