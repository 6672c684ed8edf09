"""Metrics as JSON lines survive a kill in the middle of a line."""

import json
import math

import pytest

from anyorder.core.log import append_record, json_line, keep_records, last_record, read_records


def test_records_round_trip_in_order(tmp_path):
    path = tmp_path / "m.jsonl"
    assert read_records(path) == []
    records = [{"step": i, "kind": "train", "value": i / 3, "text": "grüß\n", "nothing": None} for i in range(3)]
    for record in records:
        append_record(path, record)
    assert read_records(path) == records
    assert [list(r) for r in read_records(path)] == [list(records[0])] * 3
    assert path.read_text(encoding="utf-8").count("\n") == 3


def test_a_line_cut_off_is_left_out_and_goes_away(tmp_path):
    path = tmp_path / "m.jsonl"
    append_record(path, {"step": 1, "kind": "a"})
    with path.open("a") as f:
        f.write('{"step": 2, "va')
    assert read_records(path) == [{"step": 1, "kind": "a"}]
    keep_records(path, lambda record: True)
    append_record(path, {"step": 2, "kind": "a"})
    assert read_records(path) == [{"step": 1, "kind": "a"}, {"step": 2, "kind": "a"}]


def test_keep_records_keeps_what_is_wanted(tmp_path):
    path = tmp_path / "m.jsonl"
    for step in range(6):
        append_record(path, {"step": step, "kind": "a"})
    keep_records(path, lambda record: record["step"] <= 3)
    assert [r["step"] for r in read_records(path)] == [0, 1, 2, 3]
    assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]


def refuse(word):
    raise AssertionError(f"{word} is no JSON")


def test_what_json_cannot_hold_becomes_null(tmp_path):
    path = tmp_path / "m.jsonl"
    append_record(path, {"step": 1, "kind": "valid", "stderr": math.nan, "more": {"a": [math.inf, -math.inf, 0.5]}})
    keep_records(path, lambda record: True)
    (line,) = path.read_text().splitlines()
    expected = {"step": 1, "kind": "valid", "stderr": None, "more": {"a": [None, None, 0.5]}}
    assert json.loads(line, parse_constant=refuse) == expected
    assert json.loads(json_line({"x": (math.nan, 1)}), parse_constant=refuse) == {"x": [None, 1]}


def test_files_that_hold_nan_from_before_are_read(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"step": 1, "kind": "valid", "stderr": NaN}\n')
    assert math.isnan(read_records(tmp_path / "m.jsonl")[0]["stderr"])


@pytest.mark.parametrize("line", [b"{", b"\0\0\0", b"[1]", b'{"kind": "train"}', b'{"step": 1}', b"\xff", b"[" * 9999])
def test_a_damaged_line_is_named_with_the_way_out(tmp_path, line):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"step": 1, "kind": "a"}\n' + line + b'\n{"step": 2, "kind": "a"}\n')
    for read in (read_records, lambda p: keep_records(p, bool), lambda p: last_record(p, "a")):
        with pytest.raises(ValueError, match=r"m.jsonl: line 2 is damaged; delete the line"):
            read(path)


def test_the_last_record_of_a_kind(tmp_path):
    path = tmp_path / "run" / "m.jsonl"
    with pytest.raises(ValueError, match=r"m.jsonl: holds no figures of kind 'valid'; delete .*run and run again"):
        last_record(path, "valid")
    path.parent.mkdir()
    for step, kind in enumerate(["valid", "train", "valid", "train"]):
        append_record(path, {"step": step, "kind": kind})
    assert last_record(path, "valid")["step"] == 2
