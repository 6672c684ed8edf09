"""The page of a trace: what it plays is what the record says, whatever the text, in one file."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import trace_demo
from pydantic import ValidationError

from anyorder.api import LanguageModel
from anyorder.page import report
from anyorder.page.report import Trace
from anyorder.trace.file import dump_records, read_records
from anyorder.trace.page import page_data, row_trace, write_page
from anyorder.trace.record import Record

NASTY = "</script><!--<script>&\u2028\"'"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return trace_demo.make_model(tmp_path_factory.mktemp("digits") / "model")


@pytest.fixture(scope="module")
def records(digits: LanguageModel) -> list[Record]:
    """Two samplers, two rows each; the text of one token is as bad as text can be."""
    both = [
        trace_demo.record_of(digits, "remdm-cap", num_steps=12, seed=5),
        trace_demo.record_of(digits, "first-hitting", seed=5),
    ]
    return [r.model_copy(update={"end": r.end.model_copy(update={"pieces": {**r.end.pieces, 0: NASTY}})}) for r in both]


def states(record: Record, index: int) -> list[list[str | None]]:
    """What stands in a row before the first pass and after each one; None is a mask."""
    row, mask = record.header.rows[index], record.header.vocab.mask_id
    tokens, paid, found = list(row.tokens), 0, []
    for change in (r for s in record.steps for r in s.rows if r.row == row.row):
        if change.nfe:
            found += [list(tokens)] * change.nfe
            paid += change.nfe
        for position, token, _ in change.writes:
            tokens[position] = mask if token is None else token
        for position in change.masked:
            tokens[position] = mask
    found.append(list(tokens))
    assert len(found) == paid + 1
    return [[None if t == mask else record.end.pieces[t] for t in state] for state in found]


def played(trace: Trace, after: int) -> list[str | None]:
    """What the player shows after so many passes."""
    shown: list[str | None] = [t if at < 0 else None for t, at in zip(trace.tokens, trace.order)]
    for at, position, piece, _ in trace.events:
        if at < after:
            shown[position] = piece
    return shown


@pytest.mark.parametrize("name", ["remdm-cap", "p2", "ancestral", "threshold", "first-hitting", "psi"])
def test_every_frame_is_the_row_after_that_many_passes(name: str, digits: LanguageModel) -> None:
    paced = 12 if name not in ("threshold",) else None
    record = trace_demo.record_of(digits, name, n=3, num_steps=paced)
    for index in range(3):
        trace = row_trace(record, index)
        expected = states(record, index)
        assert trace.nfe == len(expected) - 1
        assert [played(trace, k) for k in range(len(expected))] == expected


def test_revisions_are_in_it(records: list[Record]) -> None:
    trace = row_trace(records[0], 0)
    back = [position for _, position, piece, _ in trace.events if piece is None]
    masked = [p for s in records[0].steps for r in s.rows if r.row == 0 for p in r.masked]
    assert back == masked != []
    assert (trace.clock, trace.grid, trace.kind) == ("pass", 4, "MDM")


def test_rows_of_two_samplers_stand_side_by_side(records: list[Record], digits: LanguageModel) -> None:
    data = page_data(records, command="anyorder sample x")
    assert [(t.group, t.sampler) for t in data.acts[0].samples] == [
        ("Row 1", "remdm-cap"), ("Row 1", "first-hitting"), ("Row 2", "remdm-cap"), ("Row 2", "first-hitting"),
    ]  # fmt: skip
    assert data.title == "remdm-cap and first-hitting"
    assert data.made_with.command == "anyorder sample x"
    assert "14 tokens in 14 network passes a row (1.00 a pass)" in data.acts[0].summary
    apart = page_data([records[0], trace_demo.record_of(digits, "p2", n=1, num_steps=6)])
    assert [t.group for t in apart.acts[0].samples] == ["remdm-cap, row 1", "p2, row 1", "remdm-cap, row 2"]
    with pytest.raises(ValueError, match="no record"):
        page_data([])


def test_the_page_is_one_file_that_carries_its_records(records: list[Record], tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.html"
    write_page(path, records)
    text = path.read_text(encoding="utf-8")
    assert text.count("</script>") == 2
    assert not re.search(r'(src|href)="(?!#|data:)', text)
    (embedded,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.DOTALL)
    assert json.loads(embedded)["records"] == dump_records(records)
    assert read_records(path) == records
    assert records[0].end.pieces[0] == NASTY


def test_a_page_that_was_edited_is_refused(records: list[Record], tmp_path: Path) -> None:
    write_page(tmp_path / "a.html", records)
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    (tmp_path / "a.html").write_text(text.replace('\\"seed\\":5', '\\"seed\\":6', 1), encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.html: altered"):
        read_records(tmp_path / "a.html")


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page's script")
def test_the_script_shows_the_same_frames(records: list[Record], tmp_path: Path) -> None:
    """The player's own functions, run on the embedded traces, against the record."""
    data = page_data(records).model_dump(mode="json")
    script = (report.PARTS / "trace.js").read_text(encoding="utf-8")
    script += f"\nconst samples = {json.dumps(data['acts'][0]['samples'])};\n" + (
        "console.log(JSON.stringify(samples.map((trace) => { const h = historiesOf(trace);"
        " return Array.from({length: trace.nfe + 1}, (_, step) => trace.order.map((at, i) =>"
        " at < 0 ? trace.tokens[i] : h[i][lastEvent(h[i], step)]?.piece ?? null)); })));"
    )
    (tmp_path / "run.js").write_text(script, encoding="utf-8")
    done = subprocess.run(["node", str(tmp_path / "run.js")], capture_output=True, text=True, check=True)
    expected = [states(record, row) for row in range(2) for record in records]
    assert json.loads(done.stdout) == expected


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([(0, 0, "a", -1.0)], "must end with what tokens and order say"),
        ([(0, 0, "a", -1.0), (1, 1, "x", -1.0)], "must end with what tokens and order say"),
        ([(0, 0, "a", -1.0), (1, 1, "b", -1.0), (1, 1, None, 0.0)], "must end with what tokens and order say"),
        ([(1, 1, "b", -1.0), (0, 0, "a", -1.0)], "must be in the order of steps"),
        ([(0, 0, "a", 0.5), (1, 1, "b", -1.0)], "must be <= 0"),
    ],
)
def test_events_that_do_not_lead_to_the_tokens_are_refused(events: list[object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Trace(kind="MDM", sampler="s", tokens=["a", "b"], order=[0, 1], logp=[-1.0, -1.0], nfe=2, events=events)
