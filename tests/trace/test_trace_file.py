"""Records come back from a file as they went in, and a file that is not whole and unaltered is refused."""

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import trace_demo

from anyorder.api import LanguageModel
from anyorder.trace.file import dump_records, parse_records, read_records, write_records
from anyorder.trace.record import Record


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return trace_demo.make_model(tmp_path_factory.mktemp("digits") / "model")


@pytest.fixture(scope="module")
def record(digits: LanguageModel) -> Record:
    return trace_demo.record_of(digits, "remdm-cap", num_steps=8)


def forged(text: str, change: Callable[[list[dict]], None]) -> str:
    """The text of one record with a change, under a digest of its own."""
    lines = [json.loads(line) for line in text.splitlines()][:-1]
    change(lines)
    body = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    closing = {"kind": "closing", "lines": len(lines), "sha256": hashlib.sha256(body.encode()).hexdigest()}
    return body + json.dumps(closing, separators=(",", ":")) + "\n"


def refused(text: str) -> str:
    """The one sentence about a text."""
    with pytest.raises(ValueError) as caught:
        list(parse_records(text, source="a.jsonl"))
    sentence = str(caught.value)
    assert sentence.startswith("a.jsonl: ")
    assert "\n" not in sentence
    assert not sentence.endswith(".")
    return sentence


def test_round_trip(record: Record, digits: LanguageModel, tmp_path: Path) -> None:
    assert sum(len(r.masked) for s in record.steps for r in s.rows) > 0
    both = [record, trace_demo.record_of(digits, "first-hitting", n=1, seed=4)]
    write_records(tmp_path / "new" / "a.jsonl", both)
    assert read_records(tmp_path / "new" / "a.jsonl") == both
    assert os.listdir(tmp_path / "new") == ["a.jsonl"]
    assert all(isinstance(json.loads(line), dict) for line in (tmp_path / "new" / "a.jsonl").read_text().splitlines())


def test_every_field_is_documented(record: Record) -> None:
    page = (Path(__file__).parents[2] / "docs" / "traces.md").read_text()
    lines = [json.loads(line) for line in dump_records([record]).splitlines()]
    assert [line["kind"] for line in (lines[0], *lines[-2:])] == ["header", "end", "closing"]
    text = page.split("\n## The format\n")[1]
    for line in lines:
        section = text.split(f"**`{line['kind']}`**")[1].split("\n**`")[0]
        names = {
            *line,
            *(k for row in line.get("rows", []) for k in row),
            *line.get("model", ()),
            *line.get("vocab", ()),
        }
        for name in names:
            assert f"`{name}`" in section or name == "kind", f"{line['kind']}: {name}"


def test_every_cut_is_seen(record: Record) -> None:
    text = dump_records([record])
    lines = text.splitlines(keepends=True)
    for end in range(1, len(lines)):
        assert "truncated" in refused("".join(lines[:end]))
    assert "truncated" in refused(text[:-20])
    for gone in range(1, len(lines) - 1):
        assert "truncated or altered" in refused("".join(lines[:gone] + lines[gone + 1 :]))
    assert "is not the header" in refused("".join(lines[1:]))


def test_every_edit_is_seen(record: Record) -> None:
    text = dump_records([record])
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        for digit in list(re.finditer(r"(?<=[,\[:])\d", line))[:3]:
            other = str((int(digit[0]) + 1) % 10)
            changed = line[: digit.start()] + other + line[digit.end() :]
            sentence = refused("".join([*lines[:number], changed, *lines[number + 1 :]]))
            assert "altered" in sentence or "version" in sentence or "header" in sentence


def test_another_version_is_named(record: Record) -> None:
    text = dump_records([record]).replace('"version":1', '"version":2', 1)
    assert "line 1: version=2: this package reads traces of version 1" in refused(text)
    assert "anyorder 0.1.0, which wrote it" in refused(text)


def set_token(lines: list[dict]) -> None:
    next(r for line in lines[1:-1] for r in line["rows"] if r.get("writes"))["writes"][0][1] = 99


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_token, "token 99 is not below the vocabulary's size"),
        (lambda lines: lines[-1]["rows"][0].update(nfe=1), "the steps do not lead to this end"),
        (lambda lines: lines[-1]["pieces"].clear(), "pieces does not hold the text of every token"),
        (lambda lines: lines[-1].update(colour="red"), "unknown key 'colour'"),
        (lambda lines: lines[0].update(seed="none"), "line 1: seed='none'"),
        (lambda lines: lines[0]["sampler"].update(numsteps=3), "unknown key 'sampler.numsteps'"),
        (lambda lines: lines[2].update(step=-1), "line 3: step=-1"),
        (lambda lines: lines[1].update(kind="leap"), "line 2: is not a line of kind 'step'"),
        (lambda lines: lines.pop(), "is not a line of kind 'end'"),
        (lambda lines: lines.__delitem__(slice(1, None)), "no steps and no end"),
    ],
)
def test_a_forged_digest_does_not_help_what_makes_no_sense(
    change: Callable[[list[dict]], None], message: str, record: Record
) -> None:
    assert message in refused(forged(dump_records([record]), change))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", None, "no such file"),
        ("a.jsonl", b"", "the file is empty"),
        ("a.jsonl", b"\xff\xfe", "is not text"),
        ("a.jsonl", b'{"kind":"train","step":3}\n', "line 1: is not the header of an anyorder trace"),
        ("a.jsonl", b"[1]\n", "line 1: is not the header"),
        ("a.html", b"<html></html>", "is not the page of a trace"),
        ("a.html", b'<script type="application/json" id="data">{"records":""}</script>', "is not the page of a trace"),
        ("a.html", b'<script type="application/json" id="data">{</script>', "is not the page of a trace"),
    ],
)
def test_what_is_no_trace(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_records(tmp_path / name)
    with pytest.raises(ValueError, match="is a folder"):
        read_records(tmp_path)
