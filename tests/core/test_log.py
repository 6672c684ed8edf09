"""Metrics as JSON lines survive a kill in the middle of a line."""

from anyorder.core.log import append_record, keep_records, read_records


def test_records_round_trip_in_order(tmp_path):
    path = tmp_path / "m.jsonl"
    assert read_records(path) == []
    records = [{"step": i, "value": i / 3, "text": "grüß\n", "nothing": None} for i in range(3)]
    for record in records:
        append_record(path, record)
    assert read_records(path) == records
    assert [list(r) for r in read_records(path)] == [list(records[0])] * 3
    assert path.read_text(encoding="utf-8").count("\n") == 3


def test_a_line_cut_off_is_left_out_and_goes_away(tmp_path):
    path = tmp_path / "m.jsonl"
    append_record(path, {"step": 1})
    with path.open("a") as f:
        f.write('{"step": 2, "va')
    assert read_records(path) == [{"step": 1}]
    keep_records(path, lambda record: True)
    append_record(path, {"step": 2})
    assert read_records(path) == [{"step": 1}, {"step": 2}]


def test_keep_records_keeps_what_is_wanted(tmp_path):
    path = tmp_path / "m.jsonl"
    for step in range(6):
        append_record(path, {"step": step})
    keep_records(path, lambda record: record["step"] <= 3)
    assert [r["step"] for r in read_records(path)] == [0, 1, 2, 3]
    assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]
