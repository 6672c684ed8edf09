"""The values that flow through the package."""

from dataclasses import dataclass

import torch

from anyorder.core.types import Batch, Canvas, Carry, Step, Vocab, moved, put_rows, take_rows
from anyorder.data.tasks.base import Problems


def a_step(rows=4, length=3):
    grid = torch.arange(rows * length).view(rows, length)
    canvas = Canvas(grid, grid % 2 == 0, grid % 3 == 0, None, torch.arange(rows) + 100)
    carry = Carry(torch.arange(rows), torch.arange(rows) * 2, Carry(torch.arange(rows) * 3, torch.arange(rows) * 4))
    return Step(canvas, carry, grid % 5 == 0, grid.double(), torch.arange(rows))


def equal(a, b):
    return str(a) == str(b)


def test_rows_taken_and_put_back_are_the_same():
    step, rows = a_step(), torch.tensor([2, 0])
    part = take_rows(step, rows)
    assert part.canvas.x.tolist() == [[6, 7, 8], [0, 1, 2]]
    assert part.canvas.segment is None
    assert part.carry.inner.start.tolist() == [8, 0]
    assert equal(put_rows(step, rows, part), step)


def test_put_rows_changes_the_named_rows_and_no_input():
    step, rows = a_step(), torch.tensor([3, 1])
    before, other = str(step), take_rows(a_step(rows=6), torch.tensor([5, 4]))
    after = put_rows(step, rows, other)
    assert after.canvas.row_id.tolist() == [100, 104, 102, 105]
    assert after.carry.inner.step.tolist() == [0, 12, 6, 15]
    assert after.logp[[0, 2]].equal(step.logp[[0, 2]])
    assert str(step) == before
    assert equal(take_rows(after, rows), other)


def test_rows_of_values_that_are_no_tensors_stay():
    @dataclass(frozen=True)
    class Mixed:
        name: str
        kind: type
        x: torch.Tensor

    got = take_rows(Mixed("a", Vocab, torch.arange(3)), torch.tensor([1]))
    assert (got.name, got.kind, got.x.tolist()) == ("a", Vocab, [1])


def test_a_vocabulary_counts_the_ids_an_input_can_hold():
    assert Vocab(size=5, mask_id=5, pad_id=6).num_ids == 7
    assert Vocab(size=5, mask_id=2, pad_id=0).num_ids == 5
    assert Vocab(size=5, mask_id=9, pad_id=0).num_ids == 10


def test_a_canvas_opens_masks_that_are_neither_prompt_nor_padding():
    vocab = Vocab(size=3, mask_id=3, pad_id=4)
    x = torch.tensor([[0, 3, 3, 4]])
    canvas = Canvas.of(x, vocab=vocab, segment=torch.tensor([[1, 1, 1, 0]]))
    assert canvas.fixed.tolist() == [[True, False, False, True]]
    assert canvas.open(vocab).tolist() == [[False, True, True, False]]
    assert canvas.valid.tolist() == [[True, True, True, False]]
    assert Canvas.of(x, vocab=vocab).valid.all()
    padded_masks = Canvas.of(torch.tensor([[3, 3]]), vocab=vocab, segment=torch.tensor([[0, 1]]))
    assert padded_masks.open(vocab).tolist() == [[False, True]]


def test_a_batch_moves_whole():
    batch = Batch(torch.zeros(1, 2).long(), torch.ones(1, 2).bool(), None, torch.arange(1))
    there = moved(batch, torch.device("meta"))
    assert {there.tokens.device.type, there.target.device.type, there.sample_id.device.type} == {"meta"}
    assert there.segment is None
    problems = moved(
        Problems(canvas=Canvas.of(batch.tokens, vocab=Vocab(3, 3, 3)), x0=batch.tokens), there.tokens.device
    )
    assert {problems.canvas.window.device.type, problems.x0.device.type} == {"meta"}
    assert moved(batch, None).tokens is batch.tokens
