"""Results that survive a kill: one JSON line each, appended as soon as it is there, found again by name."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Ledger:
    """An append-only file of named results; use as a context. A line that was cut off by a kill is not read.

    Args:
        path: the file, made with its folder when the first result comes; None keeps results in memory only.
    Raises:
        ValueError: the file cannot be read or written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.held: dict[str, Any] = {}
        self.descriptor: int | None = None
        self.broken_end = False
        if path is not None and path.is_file():
            data = path.read_bytes()
            self.broken_end = bool(data) and not data.endswith(b"\n")
            for line in data.split(b"\n"):
                self._read(line)

    def _read(self, line: bytes) -> None:
        try:
            row = json.loads(line)
        except ValueError:
            return
        if isinstance(row, dict) and isinstance(row.get("key"), str) and "value" in row:
            self.held[row["key"]] = row["value"]

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def get(self, key: str) -> Any | None:
        """What was kept under a name, or None."""
        return self.held.get(key)

    def put(self, results: Mapping[str, Any]) -> None:
        """Keep results under their names; one write, so that a kill leaves whole lines and at most one broken one.

        One with numbers that JSON cannot hold (nan, infinities) stays in memory only, and is computed again next time.
        """
        rows = {key: json.loads(json.dumps(value)) for key, value in results.items()}
        self.held.update(rows)
        lines = "".join(_line(key, value) for key, value in rows.items())
        if self.path is None or not lines:
            return
        if self.descriptor is None:
            self.descriptor = self._opened(self.path)
        start = "\n" if self.broken_end else ""
        self.broken_end = False
        os.write(self.descriptor, (start + lines).encode())

    @staticmethod
    def _opened(path: Path) -> int:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise ValueError(
                f"{path}: results cannot be kept here ({error.strerror}); name another folder with --cache"
            ) from None


def _line(key: str, value: Any) -> str:
    try:
        return json.dumps({"key": key, "value": value}, allow_nan=False) + "\n"
    except ValueError:
        return ""
