"""Metrics as JSON lines: one object a line, appended whole, so that a killed run loses at most its last line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anyorder.core.files import write_atomic

Record = dict[str, Any]


def append_record(path: Path, record: Record) -> None:
    """Add one line to the file; keys keep their order."""
    with path.open("a", encoding="utf-8") as f:
        f.write(json.dumps(record) + "\n")


def read_records(path: Path) -> list[Record]:
    """All whole lines of the file; a last line cut off by a kill is left out. An absent file has none."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def keep_records(path: Path, wanted: Callable[[Record], bool]) -> None:
    """Rewrite the file with the wanted records only, atomically."""
    kept = [record for record in read_records(path) if wanted(record)]
    write_atomic(path, "".join(json.dumps(record) + "\n" for record in kept))
