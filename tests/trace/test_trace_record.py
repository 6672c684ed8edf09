"""A record says exactly what the loop did: checked against `generate`, and against steps made by hand."""

import dataclasses

import pytest
import torch
import trace_demo

from anyorder.api import GAP, LanguageModel
from anyorder.core.noise import Noise
from anyorder.core.types import Canvas, Carry, Step, Vocab
from anyorder.samplers.base import generate
from anyorder.samplers.presets import PRESETS, make_sampler
from anyorder.trace.record import STREAM, RowStart, RowStep, StepRecord, fold, merge
from anyorder.trace.watch import record_steps, row_ends, starts, watch

M = 9
VOCAB = Vocab(size=9, mask_id=M, pad_id=10)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return trace_demo.make_model(tmp_path_factory.mktemp("digits") / "model")


def canvas_of(model: LanguageModel, n: int) -> Canvas:
    mask = model.model.vocab.mask_id
    row = [0, *[mask] * 5, 2, *[mask] * 9]
    return Canvas.of(torch.tensor([row] * n), vocab=model.model.vocab, row_id=torch.arange(n) + 40)


def hand_made(*states: list[int], wrote: list[list[int]], nfe: list[int]) -> tuple[Canvas, list[Step]]:
    """Steps of one row through the given states; token at position p is written with log-probability -(p + 1)."""
    x = [torch.tensor([s]) for s in states]
    before = Canvas.of(x[0], vocab=VOCAB, row_id=torch.tensor([7]))
    at = [torch.tensor([[p in w for p in range(len(states[0]))]]) for w in wrote]
    logp = -torch.arange(1, len(states[0]) + 1, dtype=torch.float64)
    carry = Carry(step=torch.tensor([0]), start=torch.tensor([3]))
    done = [
        Step(
            canvas=dataclasses.replace(before, x=after),
            carry=carry,
            wrote=w,
            logp=torch.where(w, logp, 0.0),
            nfe=torch.tensor([paid]),
        )
        for after, w, paid in zip(x[1:], at, nfe)
    ]
    return before, done


def test_writes_revisions_and_edits_of_steps_made_by_hand() -> None:
    before, done = hand_made(
        [4, M, M, M],
        [4, 1, 2, M],  # writes 1 and 2
        [4, M, 3, M],  # takes 1 back, replaces the token at 2; writes 3 and takes it back at once
        [4, M, 3, M],  # draws the token at 2 again
        [4, M, 3, M],  # looks and does nothing
        [4, M, 3, M],  # does not even look
        [4, 5, 3, 6],
        wrote=[[1, 2], [2, 3], [2], [], [], [1, 3]],
        nfe=[1, 2, 1, 1, 0, 1],
    )
    found = [r for _, r in watch(done, before, vocab=VOCAB)]
    assert [s.step for s in found] == [0, 1, 2, 3, 4, 5]
    assert [r for s in found for r in s.rows] == [
        RowStep(row=7, nfe=1, writes=((1, 1, -2.0), (2, 2, -3.0))),
        RowStep(row=7, nfe=2, writes=((2, 3, -3.0), (3, None, -4.0)), masked=(1, 3), edited=(2,)),
        RowStep(row=7, nfe=1, writes=((2, 3, -3.0),), edited=(2,)),
        RowStep(row=7, nfe=1),
        RowStep(row=7, nfe=1, writes=((1, 5, -2.0), (3, 6, -4.0))),
    ]
    (end,) = fold(starts(before), found, vocab=VOCAB)
    assert (end.tokens, end.order, end.token_logp) == ((4, 5, 3, 6), (-1, 5, 2, 5), (0.0, -2.0, -3.0, -4.0))
    assert (end.logp, end.nfe) == (-9.0, 6)
    assert [s.step for s in merge([found])] == [0, 1, 2, 3, 5]  # the idle step is left out


def test_a_change_that_the_sampler_does_not_own_up_to_is_an_error() -> None:
    before, done = hand_made([4, M, M], [4, 1, 2], wrote=[[1]], nfe=[1])
    with pytest.raises(RuntimeError, match=r"changed a token that Step\.wrote does not name"):
        list(watch(done, before, vocab=VOCAB))


@pytest.mark.parametrize("name", PRESETS)
def test_a_record_folds_into_what_generate_returns(name: str, digits: LanguageModel) -> None:
    sampler = make_sampler(name, num_steps=6 if PRESETS[name].paced else None)
    noise, canvas = Noise.of(3).at(STREAM), canvas_of(digits, 3)
    sample = generate(sampler, digits.model, canvas, noise=noise)
    done = list(record_steps(sampler, digits.model, canvas, noise=noise))
    assert fold(starts(canvas), done, vocab=digits.model.vocab) == row_ends(sample)
    back = torch.zeros_like(sample.revised)
    for row in (r for s in done for r in s.rows):
        back[row.row - 40, [*row.masked, *row.edited]] += 1
    assert back.equal(sample.revised)


def test_batches_come_together_in_the_order_of_rows() -> None:
    def step(index: int, *rows: int) -> StepRecord:
        return StepRecord(step=index, rows=tuple(RowStep(row=r, nfe=1) for r in rows))

    merged = merge([[step(0, 2, 3), step(1, 3), step(2)], [step(0, 0, 1), step(2, 0)]])
    assert merged == (step(0, 0, 1, 2, 3), step(1, 3), step(2, 0))


def test_row_ends_are_the_sample(digits: LanguageModel) -> None:
    sample = generate(make_sampler("p2", num_steps=5), digits.model, canvas_of(digits, 2), noise=Noise.of(1))
    first, second = row_ends(sample)
    assert (first.row, second.row) == (40, 41)
    assert list(second.tokens) == sample.canvas.x[1].tolist()
    assert list(second.order) == sample.order[1].tolist()
    assert second.logp == pytest.approx(float(sample.logp[1]), abs=1e-12)
    assert second.nfe == int(sample.nfe[1])


@pytest.mark.parametrize("name", ["remdm-cap", "p2", "ancestral"])
def test_a_record_does_not_depend_on_batches(name: str, digits: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trace_demo.record_of(digits, name, n=5, num_steps=6)
    monkeypatch.setattr("anyorder.api.scoring.ROWS_AT_ONCE", 2)
    cut = trace_demo.record_of(digits, name, n=5, num_steps=6)
    assert (cut.header.rows_at_once, whole.header.rows_at_once) == (2, 64)
    assert cut.header.rows == whole.header.rows
    assert [[r.row for r in s.rows] for s in cut.steps] == [[r.row for r in s.rows] for s in whole.steps]
    for a, b in zip(cut.end.rows, whole.end.rows):
        assert (a.tokens, a.order, a.nfe) == (b.tokens, b.order, b.nfe)
        assert a.token_logp == pytest.approx(b.token_logp, abs=1e-5)
    for a, b in ((r, q) for s, t in zip(cut.steps, whole.steps) for r, q in zip(s.rows, t.rows)):
        assert (a.masked, a.edited, [w[:2] for w in a.writes]) == (b.masked, b.edited, [w[:2] for w in b.writes])


def test_keeping_a_record_changes_no_sample(digits: LanguageModel) -> None:
    kept = []
    with_record = digits.infill(trace_demo.ROW, n=3, sampler="remdm-conf", num_steps=8, on_record=kept.append)
    without = digits.infill(trace_demo.ROW, n=3, sampler="remdm-conf", num_steps=8)
    assert [dataclasses.replace(g, seconds=0.0) for g in with_record] == [
        dataclasses.replace(g, seconds=0.0) for g in without
    ]
    record = kept[0]
    digits.infill(["1", GAP(6)], on_record=kept.append)
    assert (record.header.board, kept[1].header.board) == (4, None)  # 16 cells are a square, 7 are not
    assert record.header.model.dtype == "float32"
    assert record.header.sampler.num_steps == 8
    assert {record.end.pieces[i] for i in record.ids()} <= set("1234.") | {""}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (RowStep(row=1, writes=((1, 2, -1.0),)), "row 1 is not in the header"),
        (RowStep(row=0, writes=((0, 2, -1.0),)), "position 0: is not a position that was to be written"),
        (RowStep(row=0, writes=((3, 2, -1.0),)), "position 3: is not a position that was to be written"),
        (RowStep(row=0, masked=(0,)), "position 0: is not a position"),
        (RowStep(row=0, writes=((1, 9, -1.0),)), "token 9 is not below the vocabulary's size, 9"),
        (RowStep(row=0, writes=((1, 2, -1.0),)), "row 0: position 2 is never written"),
    ],
)
def test_steps_that_lead_nowhere_are_refused(change: RowStep, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fold([RowStart(row=0, tokens=(4, M, M))], [StepRecord(step=0, rows=(change,))], vocab=VOCAB)
