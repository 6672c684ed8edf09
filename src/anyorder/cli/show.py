"""What commands print: aligned tables, figures with errors, text that cannot upset a terminal, one line of JSON."""

import math
from collections.abc import Sequence
from typing import Any

from anyorder.core.log import json_line


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned by spaces; numbers to the right. Reads the same on a terminal and in a file."""
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    right = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(columns))]
    lines = [
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)).rstrip()
        for line in [columns, ["-" * w for w in widths], *rows]
    ]
    return "\n".join(lines)


def _is_number(cell: str) -> bool:
    return bool(cell) and (cell[0].isdigit() or cell[0] in "-<") and any(c.isdigit() for c in cell)


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values in two columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name.ljust(width)}  {value}" for name, value in rows)


def count(number: float | int) -> str:
    """A large number short: 1234567 is 1.23M."""
    for size, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= size:
            return f"{number / (1e3 if letter == 'k' else size):.3g}{letter}"
    return f"{number:,.0f}"


def plus_minus(value: float | None, error: float | None, *, digits: int = 3) -> str:
    """A figure and its standard error; an error of 0 is an exact value, none (nan, or null in JSON) is left out."""
    if value is None or math.isnan(value):
        return "-"
    if error is None or math.isnan(error):
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} exact" if error == 0 else f"{value:.{digits}f} ± {error:.{digits}f}"


def safe(text: str) -> str:
    """Text for a terminal: control characters but newline and tab are shown as escapes, so none takes effect."""
    return "".join(
        c if c in "\n\t" or c.isprintable() or c == " " else c.encode("unicode_escape").decode() for c in text
    )


def finish(payload: dict[str, Any], *, as_json: bool, text: str) -> None:
    """How every command ends: with text for people, or with one line of JSON."""
    print(json_line(payload) if as_json else text, flush=True)
