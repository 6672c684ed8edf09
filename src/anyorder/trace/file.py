"""Records as JSON lines: a header, a line per step, the end, and a closing line with the SHA-256 of all before it.

A file may hold several records, one after the other. A page (`trace.page`) holds them too and is read the same way.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from anyorder.core.config import parse_config
from anyorder.core.files import write_atomic
from anyorder.trace.record import FORMAT, VERSION, End, Header, Record, StepRecord, fold

EMBEDDED = re.compile(r'<script type="application/json" id="data">(.*?)</script>', flags=re.DOTALL)
AGAIN = "record it again with anyorder sample --trace"


def dump_records(records: Sequence[Record]) -> str:
    """The text of a trace file."""
    return "".join(map(_dump, records))


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write a trace file, whole or not at all; its folder is made if missing.

    Raises:
        OSError: it cannot be written, or the disk is full; an older file is then left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, dump_records(records))


def read_records(path: Path) -> list[Record]:
    """The records of a trace file or of a page made of one.

    Raises:
        ValueError: no such file, no trace, a trace of another version, or one that was truncated or altered.
    """
    text = _read(path)
    if path.suffix == ".html":
        text = _embedded(text, str(path))
    return list(parse_records(text, source=str(path)))


def parse_records(text: str, *, source: str) -> Iterator[Record]:
    """The records in the text of a trace file; ValueError as `read_records`, naming `source`."""
    lines = text.splitlines(keepends=True)
    first = 0
    while first < len(lines):
        header = _header(lines[first], f"{source}: line {first + 1}")
        closing = next((i for i in range(first, len(lines)) if _kind(lines[i]) == "closing"), None)
        if closing is None:
            raise ValueError(f"{source}: truncated: the closing line is missing; {AGAIN}")
        _check(lines[first:closing], lines[closing], source)
        yield _record(header, lines[first + 1 : closing], source, first + 2)
        first = closing + 1


def _dump(record: Record) -> str:
    lines = [{"kind": "header", **record.header.model_dump(mode="json")}]
    lines += [{"kind": "step", "step": s.step, "rows": [_sparse(r) for r in s.rows]} for s in record.steps]
    lines.append({"kind": "end", **record.end.model_dump(mode="json")})
    body = "".join(_line(line) for line in lines)
    return body + _line({"kind": "closing", "lines": len(lines), "sha256": _digest(body)})


def _sparse(row: Any) -> dict[str, Any]:
    """What a step did to a row, without what is empty."""
    values: dict[str, Any] = row.model_dump(mode="json", exclude_defaults=True)
    return values


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":")) + "\n"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; anyorder sample RUN --trace FILE.jsonl makes one") from None
    except IsADirectoryError:
        raise ValueError(f"{path}: is a folder; name a trace file in it") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not text; name a trace file (.jsonl, or its page .html)") from None
    if not text.strip():
        raise ValueError(f"{path}: the file is empty; {AGAIN}")
    return text


def _embedded(page: str, source: str) -> str:
    """The records that a page carries."""
    found = EMBEDDED.search(page)
    try:
        text = json.loads(found[1])["records"] if found else ""
    except (ValueError, KeyError, TypeError):
        text = ""
    if not text or not isinstance(text, str):
        raise ValueError(f"{source}: is not the page of a trace; {AGAIN} {source}")
    return text


def _values(line: str) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def _kind(line: str) -> str | None:
    values = _values(line) if line.startswith('{"kind":"closing"') else None
    return None if values is None else values.get("kind")


def _header(line: str, where: str) -> Header:
    values = _values(line)
    if values is None or values.pop("kind", None) != "header" or values.get("format") != FORMAT:
        raise ValueError(
            f"{where}: is not the header of an anyorder trace; anyorder sample --trace FILE.jsonl makes one"
        )
    version = values.get("version")
    if version != VERSION:
        raise ValueError(
            f"{where}: version={version!r}: this package reads traces of version {VERSION}; {AGAIN}, or replay it with "
            f"anyorder {values.get('package')}, which wrote it"
        )
    return parse_config(Header, values, source=where)


def _check(body: list[str], closing: str, source: str) -> None:
    values = _values(closing) or {}
    if values.get("lines") != len(body):
        raise ValueError(
            f"{source}: truncated or altered: the closing line counts {values.get('lines')} lines before it, there are "
            f"{len(body)}; {AGAIN}"
        )
    if values.get("sha256") != _digest("".join(body)):
        raise ValueError(f"{source}: altered: its SHA-256 is not the one in the closing line; {AGAIN}")


def _record(header: Header, lines: list[str], source: str, first: int) -> Record:
    """A record from the lines below its header; their digest is right, but anyone may compute a digest."""
    places = [f"{source}: line {number}" for number in range(first, first + len(lines))]
    if not lines:
        raise ValueError(f"{source}: line {first}: the record has no steps and no end; {AGAIN}")
    values = [_of_kind("step", line, place) for line, place in zip(lines[:-1], places[:-1], strict=True)]
    steps = tuple(parse_config(StepRecord, v, source=p) for v, p in zip(values, places[:-1], strict=True))
    end = parse_config(End, _of_kind("end", lines[-1], places[-1]), source=places[-1])
    record = Record(header=header, steps=steps, end=end)
    try:
        agrees = fold(header.rows, steps, vocab=header.vocab) == end.rows
    except ValueError as error:
        raise ValueError(f"{source}: {error}; {AGAIN}") from None
    if not agrees:
        raise ValueError(f"{places[-1]}: the steps do not lead to this end; {AGAIN}")
    if record.ids() != end.pieces.keys():
        raise ValueError(f"{places[-1]}: pieces does not hold the text of every token; {AGAIN}")
    return record


def _of_kind(kind: str, line: str, where: str) -> dict[str, Any]:
    values = _values(line)
    if values is None or values.pop("kind", None) != kind:
        raise ValueError(f"{where}: is not a line of kind {kind!r}; {AGAIN}")
    return values
