"""`--trace`, `--compare` and `anyorder replay`, as typed."""

import json
from pathlib import Path
from typing import Any

import pytest
import trace_demo

from anyorder.api import LanguageModel
from anyorder.cli.main import main
from anyorder.trace.file import read_records, write_records
from anyorder.trace.record import make_record

Capture = pytest.CaptureFixture[str]
GAPS = "1[[5]]3[[9]]"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return trace_demo.make_model(tmp_path_factory.mktemp("digits") / "model")


def run(capsys: Capture, *args: str | Path, code: int = 0) -> str:
    got = main([str(a) for a in args])
    out, err = capsys.readouterr()
    assert got == code, out + err
    return out if code == 0 else err


def json_of(capsys: Capture, *args: str | Path) -> Any:
    return json.loads(run(capsys, *args, "--json").splitlines()[-1])


def test_a_record_and_its_replay(digits: LanguageModel, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "a.jsonl"
    options = ["--sampler", "remdm-cap", "--steps", "8", "--n", "2", "--seed", "3", "--temperature", "0.9"]
    plain = json_of(capsys, "infill", digits.folder, GAPS, *options)
    traced = json_of(capsys, "infill", digits.folder, GAPS, *options, "--trace", file)
    assert [s["tokens"] for s in traced["samples"]] == [s["tokens"] for s in plain["samples"]]
    assert (traced["trace"], "trace" in plain) == (str(file), False)
    (record,) = read_records(file)
    assert [list(e.tokens) for e in record.end.rows] == [s["tokens"] for s in plain["samples"]]
    assert (record.header.seed, record.header.sampler.temperature) == (3, 0.9)
    done = json_of(capsys, "replay", file)
    assert done["same"] is True
    assert done["records"][0]["nfe"] == sum(s["nfe"] for s in plain["samples"])
    assert "the same: every write, revision and pass" in run(capsys, "replay", file, digits.folder)


@pytest.mark.parametrize("name", ["both.jsonl", "both.html"])
def test_two_samplers_side_by_side(name: str, digits: LanguageModel, tmp_path: Path, capsys: Capture) -> None:
    words = ("infill", digits.folder, GAPS, "--sampler", "p2", "--steps", "6", "--compare", "threshold")
    out = json_of(capsys, *words, "--trace", tmp_path / name)
    assert [s["sampler"] for s in out["samples"]] == ["p2", "threshold"]
    assert [r.header.sampler.name for r in read_records(tmp_path / name)] == ["p2", "threshold"]
    assert [r.header.sampler.num_steps for r in read_records(tmp_path / name)] == [6, None]
    assert [r["sampler"] for r in json_of(capsys, "replay", tmp_path / name)["records"]] == ["p2", "threshold"]
    if name.endswith(".html"):
        assert "infill" in (tmp_path / name).read_text()
    assert len(json_of(capsys, *words)["samples"]) == 2  # without a trace too


def test_sample_keeps_traces_too(digits: LanguageModel, tmp_path: Path, capsys: Capture) -> None:
    text = run(capsys, "sample", digits.folder, "--prompt", "12", "--length", "9", "--trace", tmp_path / "a.html")
    assert f"wrote {tmp_path / 'a.html'}: check it with anyorder replay" in text
    assert read_records(tmp_path / "a.html")[0].header.board == 3


def test_a_difference_is_one_sentence_and_exit_code_1(digits: LanguageModel, tmp_path: Path, capsys: Capture) -> None:
    record = trace_demo.record_of(digits, "first-hitting", n=1)
    rows = record.steps[0].rows[0]
    position, token, logp = rows.writes[0]
    other = rows.model_copy(update={"writes": ((position, (token + 1) % 4, logp),)})
    steps = (record.steps[0].model_copy(update={"rows": (other,)}), *record.steps[1:])
    forged = make_record(record.header, steps, text_of=lambda i: record.end.pieces.get(i, "\x1b"))
    write_records(tmp_path / "a.jsonl", [forged])
    err = run(capsys, "replay", tmp_path / "a.jsonl", code=1)
    assert err.count("\n") == 1
    assert f"a.jsonl: first-hitting: the replay differs first in row 0, step 0, position {position}: the trace" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("infill MODEL 1[[2]] --trace a.txt", "--trace a.txt: must end in .jsonl, for the record, or .html"),
        ("infill MODEL 1[[2]] --trace folder.html", "--trace folder.html: is a folder; name a file"),
        ("infill MODEL 1[[2]] --compare thresold", "sampler='thresold': unknown; did you mean 'threshold'?"),
        ("replay a.jsonl", "a.jsonl: no such file"),
        ("replay moved.jsonl", "moved.jsonl: its model is not at nowhere/model; name it: anyorder replay moved.jsonl"),
        ("replay good.jsonl OTHER", "is not the model of the trace"),
        ("replay good.jsonl nowhere", "nowhere: no such folder"),
        ("replay old.jsonl", "old.jsonl: line 1: version=0: this package reads traces of version 1"),
        ("replay cut.jsonl", "cut.jsonl: truncated"),
        ("replay edited.jsonl", "edited.jsonl: altered: its SHA-256"),
    ],
)
def test_bad_input_is_one_sentence(
    words: str, message: str, digits: LanguageModel, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    record = trace_demo.record_of(digits, "top-prob", n=1)
    header = record.header
    moved = header.model_copy(update={"model": header.model.model_copy(update={"path": "nowhere/model"})})
    write_records(Path("good.jsonl"), [record])
    write_records(Path("moved.jsonl"), [record.model_copy(update={"header": moved})])
    text = Path("good.jsonl").read_text()
    Path("old.jsonl").write_text(text.replace('"version":1', '"version":0', 1))
    Path("cut.jsonl").write_text(text[: len(text) // 2])
    Path("edited.jsonl").write_text(text.replace('"seed":0', '"seed":1', 1))
    Path("folder.html").mkdir()
    if "OTHER" in words:
        trace_demo.make_model(Path("other"), seed=1)
    before = sorted(p.name for p in tmp_path.iterdir())
    err = run(capsys, *words.replace("MODEL", str(digits.folder)).replace("OTHER", "other").split(), code=2)
    assert message in err
    assert err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == before
