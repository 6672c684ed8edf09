"""A replay repeats a record to the last bit, and says where first it does not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trace_demo

from anyorder.api import LanguageModel
from anyorder.samplers.presets import PRESETS
from anyorder.trace.record import Record, RowStep, make_record
from anyorder.trace.replay import TOLERANCE, check_model, replay


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return trace_demo.make_model(tmp_path_factory.mktemp("digits") / "model")


def changed(record: Record, pick: Callable[[RowStep], bool], change: Callable[[RowStep], RowStep]) -> Record:
    """The record with the first row step that fits changed, and with an end that agrees."""
    steps, done = [], False
    for step in record.steps:
        rows = list(step.rows)
        for i, row in enumerate(rows):
            if not done and pick(row):
                rows[i], done = change(row), True
        steps.append(step.model_copy(update={"rows": tuple(rows)}))
    assert done
    return make_record(record.header, tuple(steps), text_of=lambda i: record.end.pieces.get(i, "?"))


def first_of(record: Record, pick: Callable[[RowStep], bool]) -> tuple[int, RowStep]:
    return next((s.step, r) for s in record.steps for r in s.rows if pick(r))


@pytest.mark.parametrize("name", PRESETS)
def test_the_same_numbers_come_out(name: str, digits: LanguageModel) -> None:
    record = trace_demo.record_of(digits, name, num_steps=8 if PRESETS[name].paced else None)
    made = replay(record, digits.model)
    assert made.difference is None
    assert made.largest == 0.0
    assert made.nfe == sum(e.nfe for e in record.end.rows)
    assert made.writes == sum(len(e.tokens) for e in record.end.rows) - 4 + rewritten(record)


def rewritten(record: Record) -> int:
    """Writes beyond the first at each position."""
    places = [(r.row, w[0]) for s in record.steps for r in s.rows for w in r.writes]
    return len(places) - len(set(places))


@pytest.mark.parametrize("name", ["remdm-cap", "p2", "ancestral"])
def test_other_batches_round_otherwise_but_replay(name: str, digits: LanguageModel) -> None:
    record = trace_demo.record_of(digits, name, n=5, num_steps=8)
    cut = record.model_copy(update={"header": record.header.model_copy(update={"rows_at_once": 2})})
    made = replay(cut, digits.model)
    assert made.difference is None
    assert made.largest < TOLERANCE["float32"] / 10


def test_revising_records_revise(digits: LanguageModel) -> None:
    for name in ("remdm-cap", "p2"):
        assert replay(trace_demo.record_of(digits, name, n=4, num_steps=12), digits.model).revisions > 0


def test_blocks_and_temperatures_replay(digits: LanguageModel) -> None:
    kept: list[Record] = []
    digits.infill(trace_demo.ROW, sampler="margin", temperature=0.5, top_k=2, block=3, seed=9, on_record=kept.append)
    digits.infill(trace_demo.ROW, sampler="margin", temperature=0.5, top_k=2, seed=9, on_record=kept.append)
    assert [replay(r, digits.model).difference for r in kept] == [None, None]
    assert kept[0].end.rows != kept[1].end.rows


def test_a_changed_token_is_found(digits: LanguageModel) -> None:
    record = trace_demo.record_of(digits, "first-hitting")
    step, row = first_of(record, lambda r: r.row == 1 and bool(r.writes))
    position, token, logp = row.writes[0]
    other = (token + 1) % 4
    forged = changed(record, lambda r: r == row, lambda r: r.model_copy(update={"writes": ((position, other, logp),)}))
    found = replay(forged, digits.model).difference
    assert found is not None
    assert found.startswith(f"row 1, step {step}, position {position}: the trace wrote ")
    assert f"(token {other}), the replay wrote " in found
    assert found.endswith(f"(token {token})")
    assert "\n" not in found


def test_a_difference_in_the_last_batch_is_found(digits: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anyorder.api.scoring.ROWS_AT_ONCE", 1)
    record = trace_demo.record_of(digits, "first-hitting", n=3)
    forged = changed(record, lambda r: r.row == 2, lambda r: r.model_copy(update={"nfe": 4}))
    assert replay(record, digits.model).difference is None
    assert replay(forged, digits.model).difference == "row 2, step 0: 4 network passes in the trace, 1 in the replay"


def test_a_changed_log_probability_is_found_when_it_is_more_than_rounding(digits: LanguageModel) -> None:
    record = trace_demo.record_of(digits, "first-hitting")

    def shifted(by: float) -> Record:
        return changed(
            record,
            lambda r: bool(r.writes) and r.writes[0][2] < -by,
            lambda r: r.model_copy(update={"writes": ((*r.writes[0][:2], r.writes[0][2] + by),)}),
        )

    small = replay(shifted(TOLERANCE["float32"] / 2), digits.model)
    assert small.difference is None
    assert small.largest == pytest.approx(TOLERANCE["float32"] / 2)
    assert "log-probability" in str(replay(shifted(2 * TOLERANCE["float32"]), digits.model).difference)


def test_a_changed_cost_or_revision_is_found(digits: LanguageModel) -> None:
    record = trace_demo.record_of(digits, "remdm-cap", n=4, num_steps=12)
    dearer = changed(record, lambda r: r.nfe > 0, lambda r: r.model_copy(update={"nfe": r.nfe + 1}))
    assert "2 network passes in the trace, 1 in the replay" in str(replay(dearer, digits.model).difference)
    step, row = first_of(record, lambda r: bool(r.masked))
    kept = changed(record, lambda r: r == row, lambda r: r.model_copy(update={"masked": r.masked[1:]}))
    found = str(replay(kept, digits.model).difference)
    assert found.startswith(f"row {row.row}, step {step}, position {row.masked[0]}: the trace left it as it was")
    assert found.endswith("the replay took it back")


def test_steps_that_never_came_are_found(digits: LanguageModel) -> None:
    record = trace_demo.record_of(digits, "first-hitting", n=1)
    last = record.steps[-1]
    extra = last.model_copy(update={"step": last.step + 3})
    longer = record.model_copy(update={"steps": (*record.steps, extra)})
    found = str(replay(longer, digits.model).difference)
    assert found == f"row 0, step {last.step + 3}: the trace goes on, the replay had finished this row"
    idle = extra.model_copy(update={"step": 0, "rows": (RowStep(row=1, nfe=1),)})
    assert replay(record.model_copy(update={"steps": (idle, *record.steps[1:])}), digits.model).difference is not None


def test_another_seed_is_another_text(digits: LanguageModel) -> None:
    record = trace_demo.record_of(digits, "first-hitting", seed=1)
    other = record.model_copy(update={"header": record.header.model_copy(update={"seed": 2})})
    assert "row 0, step 0, position" in str(replay(other, digits.model).difference)


def test_another_model_is_refused(digits: LanguageModel, tmp_path: Path) -> None:
    record = trace_demo.record_of(digits, "first-hitting")
    check_model(record, digits.folder)
    other = trace_demo.make_model(tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match=r"other: is not the model of the trace, .*: their SHA-256 differ \(\w+"):
        check_model(record, other.folder)
    vocab = record.header.vocab.__class__(size=7, mask_id=7, pad_id=8)
    with pytest.raises(ValueError, match="vocabulary"):
        replay(record.model_copy(update={"header": record.header.model_copy(update={"vocab": vocab})}), digits.model)
