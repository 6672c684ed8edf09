"""Rows that are the same are asked once: the same logits, fewer rows, and no row that differs is left out."""

import pytest
import torch

from anyorder.core import dedup
from anyorder.core.dedup import ask_once, unique_rows
from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.likelihood.bound import count_form
from anyorder.likelihood.conditional import Question, score_answers
from anyorder.testing.contracts import CountingDenoiser
from anyorder.testing.oracle import RandomTable

TABLE = RandomTable(3, Noise.of(2), scale=1.5)
MASK = TABLE.vocab.mask_id
X = torch.tensor(
    [[0, MASK, 2, MASK], [1, MASK, MASK, MASK], [0, MASK, 2, MASK], [0, 1, 2, MASK], [1, MASK, MASK, MASK]]
)
PLAIN = Canvas.of(X, vocab=TABLE.vocab, row_id=torch.zeros(5, dtype=torch.int64))
OTHER = {
    "row_id": torch.arange(5),
    "segment": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 2, 2]]),
    "fixed": torch.eye(5, 4).bool(),
}


@pytest.mark.parametrize("factor", [dedup.HASH, 0])
def test_rows_are_found_where_they_stand_first_and_a_hash_that_says_nothing_is_not_believed(monkeypatch, factor):
    monkeypatch.setattr(dedup, "HASH", factor)
    first, same_as = unique_rows(torch.tensor([[1, 2], [0, 5], [1, 2], [0, 4], [0, 5]]))
    assert (first.tolist(), same_as.tolist()) == ([0, 1, 3], [0, 1, 0, 2, 1])
    assert [len(part) for part in unique_rows(torch.zeros(0, 3, dtype=torch.int64))] == [0, 0]


@pytest.mark.parametrize("segment", [None, torch.tensor([1, 1, 1, 0]).expand(5, 4)])
def test_the_logits_are_the_models(segment):
    canvas = Canvas(X, PLAIN.fixed, PLAIN.window, segment, PLAIN.row_id)
    at = (X == MASK) & canvas.valid
    counter = CountingDenoiser(TABLE)
    torch.testing.assert_close(ask_once(counter, canvas, at), TABLE(canvas, at), rtol=0, atol=0)
    assert counter.passes == {0: 3}, "three of five rows differ"


@pytest.mark.parametrize("name", OTHER)
def test_rows_that_differ_in_anything_are_not_the_same(name):
    counter, at = CountingDenoiser(TABLE), X == MASK
    values = {"fixed": PLAIN.fixed, "window": PLAIN.window, "segment": None, "row_id": PLAIN.row_id} | {
        name: OTHER[name]
    }
    canvas = Canvas(x=X, **values)
    torch.testing.assert_close(ask_once(counter, canvas, at), TABLE(canvas, at), rtol=0, atol=0)
    assert sum(counter.passes.values()) == 5


def test_rows_asked_about_different_positions_are_not_the_same():
    counter, at = CountingDenoiser(TABLE), X == MASK
    at = at & ~torch.tensor([[0, 1, 0, 0], [0, 1, 0, 0], *[[0] * 4] * 3]).bool()
    torch.testing.assert_close(ask_once(counter, PLAIN, at), TABLE(PLAIN, at), rtol=0, atol=0)
    assert counter.passes == {0: 5}


@pytest.mark.parametrize("estimator", ["count", "chain"])
def test_one_token_answers_to_a_question_take_one_row(estimator):
    counter = CountingDenoiser(TABLE)
    questions = [Question((0, 1, 2), ((0,), (1,), (2,))), Question((1, 1), ((2,), (0,)))]
    found = score_answers(counter, questions, estimator=estimator, noise=Noise.of(0))
    assert list(counter.passes.values()) == [1, 1]
    for question, got in zip(questions, found):
        alone = [score_answers(TABLE, [Question(question.prompt, (a,))], noise=Noise.of(0)) for a in question.answers]
        assert got.nats == pytest.approx([a.nats[0] for (a,) in alone], abs=1e-12)


def test_answers_with_masks_in_common_share_what_both_hide():
    """Two answers that differ in one token are one row wherever it is hidden: (T + 1) / 2T of the draws."""
    counter = CountingDenoiser(TABLE)
    start = (1, 0, 0, 1, 2, 2, 1, 1, 0, 2, 1)
    question = Question((0, 1, 2), ((*start, 0), (*start, 2)))
    found = score_answers(counter, [question], draws=256, noise=Noise.of(0), rows_per_pass=2)[0]
    assert found.nfe == 512
    assert 512 - counter.passes[question.row_id] == pytest.approx(256 * 13 / 24, rel=0.1)


def test_a_draw_of_the_same_set_is_no_new_row():
    counter, x = CountingDenoiser(TABLE), torch.tensor([[0, 1, 2]])
    kwargs = {"target": x >= 0, "row_id": torch.arange(1), "draws": 60, "noise": Noise.of(1)}
    once = count_form(counter, x, rows_per_pass=60, **kwargs)
    assert counter.passes == {0: 7}
    torch.testing.assert_close(once.nats, count_form(TABLE, x, rows_per_pass=1, **kwargs).nats, rtol=1e-14, atol=0)
