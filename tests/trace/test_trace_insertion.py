"""Traces of texts that grow: what was inserted, when, and where it ended up; kept, done again, played."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from anyorder.api import GAP, LanguageModel
from anyorder.cli.main import main
from anyorder.core.noise import Noise
from anyorder.core.types import Vocab
from anyorder.page import report
from anyorder.page.report import Trace
from anyorder.page.trace_svg import trace_svg
from anyorder.samplers.base import generate
from anyorder.trace.file import dump_records, parse_records, read_records, write_records
from anyorder.trace.page import page_data, row_trace, write_page
from anyorder.trace.record import STREAM, Record, RowStart, RowStep, StepRecord, fold
from anyorder.trace.replay import replay
from anyorder.trace.watch import canvas_of, record_steps, row_ends
from ilm_demo import make_ilm

VOCAB = Vocab(size=9, mask_id=9, pad_id=10, eos_id=8)
PARTS = ["ab", GAP(), "c", GAP(2, 6), "\n"]


@pytest.fixture(scope="module")
def ilm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return make_ilm(tmp_path_factory.mktemp("ilm") / "model")


def record_of(model: LanguageModel, sampler: str = "insertion", *, n: int = 6, seed: int = 0) -> Record:
    kept: list[Record] = []
    model.infill(PARTS, n=n, sampler=sampler, seed=seed, on_record=kept.append)
    return kept[0]


@pytest.mark.parametrize("name", ["insertion", "ilm", "insertion:at_once=3"])
def test_a_record_folds_into_what_generate_returns(name: str, ilm: LanguageModel) -> None:
    record = record_of(ilm, name)
    assert record.header.rows[0] == RowStart(row=0, tokens=tuple(b"abc\n"), open=(2, 3), length=24)
    assert record.header.sampler.gaps == ((0, None), (2, 6))
    canvas = canvas_of(record.header.rows, vocab=ilm.model.vocab, device=torch.device("cpu"))
    noise, sampler = Noise.of(0).at(STREAM), record.header.sampler.build()
    sample = generate(sampler, ilm.model, canvas, noise=noise)
    done = list(record_steps(sampler, ilm.model, canvas, noise=noise))
    ends = row_ends(sample, grown=True)
    assert fold(record.header.rows, done, vocab=ilm.model.vocab) == ends == record.end.rows
    assert max(len(r.inserted) for s in done for r in s.rows) == (3 if "at_once" in name else 1)
    if name == "insertion":
        assert len({len(end.tokens) for end in ends}) > 1


def test_keeping_a_record_changes_no_sample(ilm: LanguageModel) -> None:
    plain = ilm.infill(PARTS, n=6)
    assert [tuple(g.tokens) for g in plain] == [end.tokens for end in record_of(ilm).end.rows]


def test_round_trip_and_replay(ilm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [record_of(ilm), record_of(ilm, "insertion:at_once=3", seed=2)]
    write_records(tmp_path / "a.jsonl", records)
    write_page(tmp_path / "a.html", records)
    assert read_records(tmp_path / "a.jsonl") == read_records(tmp_path / "a.html") == records
    for record in records:
        made = replay(record, ilm.model)
        assert (made.difference, made.largest) == (None, 0.0)
        assert made.writes == sum(when >= 0 for end in record.end.rows for when in end.order)
    monkeypatch.setattr("anyorder.api.scoring.ROWS_AT_ONCE", 2)
    cut = record_of(ilm)
    assert cut.header.rows_at_once == 2
    assert [end.tokens for end in cut.end.rows] == [end.tokens for end in records[0].end.rows]
    assert replay(cut, ilm.model).difference is None


def test_a_replay_names_the_first_insertion_that_differs(ilm: LanguageModel) -> None:
    record = record_of(ilm)
    step = next(s for s in record.steps if s.rows[0].inserted)
    row = step.rows[0]
    position, token, logp = row.inserted[0]
    other = row.model_copy(update={"inserted": ((position, (token + 1) % 256, logp),)})
    forged = step.model_copy(update={"rows": (other, *step.rows[1:])})
    steps = tuple(forged if s is step else s for s in record.steps)
    found = str(replay(record.model_copy(update={"steps": steps}), ilm.model).difference)
    assert found.startswith(f"row {row.row}, step {step.step}, position {position}: the trace inserted ")
    assert "the replay inserted " in found


def test_the_command_line(ilm: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.html"
    words = ["infill", str(ilm.folder), "ab[[]]c[[2-6]]", "--n", "3", "--compare", "ilm", "--trace", str(file)]
    assert main(words) == 0
    assert main(["replay", str(file)]) == 0
    assert "the same: every write, revision and pass" in capsys.readouterr().out
    assert [r.header.sampler.name for r in read_records(file)] == ["insertion", "ilm"]


def states(record: Record, index: int) -> list[list[str]]:
    """The row before the first pass and after each one."""
    row, pieces = record.header.rows[index], record.end.pieces
    tokens = list(row.tokens)
    found = [list(tokens)]
    for change in (r for s in record.steps for r in s.rows if r.row == row.row):
        for position, token, _ in change.inserted:
            tokens.insert(position, token)
        found += [list(tokens)] * change.nfe
    return [[pieces[t] for t in state] for state in found]


@pytest.mark.parametrize("name", ["insertion", "insertion:at_once=3"])
def test_every_frame_is_the_row_after_that_many_passes(name: str, ilm: LanguageModel) -> None:
    record = record_of(ilm, name)
    for index in range(6):
        trace, expected = row_trace(record, index), states(record, index)
        assert (trace.kind, trace.grows, trace.clock, trace.nfe) == ("ILM", True, "pass", len(expected) - 1)
        frames = [[t for t, at in zip(trace.tokens, trace.order) if at < k] for k in range(len(expected))]
        assert frames == expected


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page's script")
def test_the_script_shows_the_same_frames(ilm: LanguageModel, tmp_path: Path) -> None:
    """The player's own cells, with as much of a browser as they touch, against the record."""
    record = record_of(ilm)
    samples = page_data([record]).model_dump(mode="json")["acts"][0]["samples"]
    script = (report.PARTS / "trace.js").read_text(encoding="utf-8")
    script += f"\nconst samples = {json.dumps(samples)};\n" + BROWSER
    (tmp_path / "run.js").write_text(script, encoding="utf-8")
    done = subprocess.run(["node", str(tmp_path / "run.js")], capture_output=True, text=True, check=True)
    shown = json.loads(done.stdout)
    signs = {code: chr(0x2400 + code) for code in range(32) if code not in (9, 10)} | {
        127: "\u00b7",
        10: "\u21b5\n",
        13: "\u21b5\n",
    }
    assert shown == [["".join(state).translate(signs) for state in states(record, i)] for i in range(6)]


BROWSER = """
class Node { constructor(data = "") { this.data = data; this.parts = []; this.hidden = false; }
  classList = {toggle() {}}; style = {setProperty() {}};
  replaceChildren(...parts) { this.parts = parts; } removeAttribute() {} setAttribute() {}
  get text() { return this.hidden ? "" : this.data + this.parts.map((part) => part.text).join(""); } }
const document = { createTextNode: (data) => new Node(data) };
const el = (tag, given, ...parts) => { const node = new Node(); node.parts = parts.map((p) => p.data === undefined ?
  new Node(p) : p); return node; };
console.log(JSON.stringify(samples.map((trace) => {
  const histories = historiesOf(trace), cells = trace.tokens.map((_, i) => makeCell(trace, i));
  return Array.from({length: trace.nfe + 1}, (_, step) => {
    cells.forEach((cell, i) => trace.order[i] >= 0 && paintCell(trace, i, cell, histories[i], step));
    return cells.map((cell) => cell.root.text + cell.tail.data).join("");
  });
})));
"""


def test_rows_without_a_token_have_a_page(tmp_path: Path) -> None:
    sure, kept = make_ilm(tmp_path / "model", stop=40.0), []
    (made,) = sure.sample(on_record=kept.append)
    assert (made.tokens, made.num_tokens, made.nfe, made.text) == ([], 0, 1, "")
    write_page(tmp_path / "a.html", kept)
    assert row_trace(kept[0], 0).tokens == []
    assert main(["sample", str(tmp_path / "model")]) == 0
    with pytest.raises(ValueError, match="only a text that grows may be"):
        Trace(kind="MDM", sampler="s", tokens=[], order=[], logp=[], nfe=1)


def test_a_still_picture_closes_up(ilm: LanguageModel) -> None:
    trace = Trace(
        kind="ILM", sampler="insertion", tokens=list("abc"), order=[1, -1, 0], logp=[0.0] * 3, nfe=3, grows=True
    )
    picture = trace_svg([trace], stages=3)
    stages = [part.count("<rect class=") for part in picture.split(">step ")[1:]]
    assert stages == [1, 2, 3]
    assert 'class="mask"' not in picture


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (RowStep(row=0, inserted=((0, 2, -1.0),)), "position 0: is not a place where tokens may be inserted"),
        (RowStep(row=0, inserted=((9, 2, -1.0),)), "position 9: is not a place"),
        (RowStep(row=0, inserted=((1, 9, -1.0),)), "token 9 is not below the vocabulary's size, 9"),
        (RowStep(row=0, inserted=((1, 2, -1.0), (2, 2, -1.0))), "position 2: the row has its 3 tokens already"),
        (RowStep(row=0, writes=((0, 2, -1.0),)), "position 0: is not a position that was to be written"),
    ],
)
def test_steps_that_cannot_be_are_refused(change: RowStep, message: str) -> None:
    start = RowStart(row=0, tokens=(4, 5), open=(1,), length=3)
    with pytest.raises(ValueError, match=message):
        fold([start], [StepRecord(step=0, rows=(change,))], vocab=VOCAB)


def test_rows_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit a row of 2 tokens"):
        RowStart(row=0, tokens=(1, 2), open=(3,), length=4)
    with pytest.raises(ValueError, match="a row that grows has both"):
        RowStart(row=0, tokens=(1, 2), open=(1,))


def test_files_of_earlier_versions_are_read(ilm: LanguageModel) -> None:
    """They name no gaps, and of rows neither places nor a length."""
    record = record_of(ilm)
    header = record.header
    masked = record.model_copy(
        update={
            "header": header.model_copy(
                update={
                    "rows": tuple(RowStart(row=row.row, tokens=row.tokens) for row in header.rows),
                    "sampler": header.sampler.model_copy(update={"gaps": None}),
                }
            ),
            "steps": (),
        }
    )
    ends = fold(masked.header.rows, (), vocab=header.vocab)
    pieces = {token: record.end.pieces[token] for token in masked.ids()}
    masked = masked.model_copy(update={"end": record.end.model_copy(update={"rows": ends, "pieces": pieces})})
    lines = [json.loads(line) for line in dump_records([masked]).splitlines()[:-1]]
    del lines[0]["sampler"]["gaps"]
    for row in lines[0]["rows"]:
        del row["open"], row["length"]
    body = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    closing = {"kind": "closing", "lines": len(lines), "sha256": hashlib.sha256(body.encode()).hexdigest()}
    assert list(parse_records(body + json.dumps(closing, separators=(",", ":")), source="old")) == [masked]
