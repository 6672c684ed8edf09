"""Metrics as JSON lines: one object a line, appended whole, so that a killed run loses at most its last line."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anyorder.core.files import write_atomic

Record = dict[str, Any]


def json_line(value: Any) -> str:
    """One line of JSON; numbers that JSON cannot hold (nan, infinities) become null."""
    return json.dumps(_plain(value), allow_nan=False)


def append_record(path: Path, record: Record) -> None:
    """Add one line to the file; keys keep their order."""
    with path.open("a", encoding="utf-8") as f:
        f.write(json_line(record) + "\n")


def read_records(path: Path) -> list[Record]:
    """All whole lines of the file; a last line cut off by a kill is left out. An absent file has none.

    Raises:
        ValueError: a line that is no record, with its number.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    return [_record(line, f"{path}: line {n}") for n, line in enumerate(lines[:-1], start=1) if line]


def last_record(path: Path, kind: str) -> Record:
    """The newest record of a kind in the file of a finished run; ValueError if there is none."""
    found = [record for record in read_records(path) if record["kind"] == kind]
    if not found:
        raise ValueError(f"{path}: holds no figures of kind {kind!r}; delete {path.parent} and run again")
    return found[-1]


def keep_records(path: Path, wanted: Callable[[Record], bool]) -> None:
    """Rewrite the file with the wanted records only, atomically; ValueError as `read_records`."""
    kept = [record for record in read_records(path) if wanted(record)]
    write_atomic(path, "".join(json_line(record) + "\n" for record in kept))


def _record(line: bytes, where: str) -> Record:
    """A line with a kind and a counter, as every record has."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    held = record if isinstance(record, dict) else {}
    if isinstance(held.get("kind"), str) and isinstance(held.get("step", held.get("iteration")), int):
        return held
    raise ValueError(f"{where} is damaged; delete the line, which holds figures for people only")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
