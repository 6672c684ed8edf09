"""What every benchmark shares: timing, the machine's name, a table for people and one JSON line for programs."""

import itertools
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from anyorder.core.log import json_line

Row = dict[str, str | int | float]


def seconds(run: Callable[[], object], *, n: int = 3, warm: int = 1) -> list[float]:
    """Wall-clock seconds of n runs, sorted, after some that are not counted."""
    taken = []
    for index in range(warm + n):
        synchronise()
        start = time.perf_counter()
        run()
        synchronise()
        if index >= warm:
            taken.append(time.perf_counter() - start)
    return sorted(taken)


def median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def machine() -> dict[str, str | int]:
    """Processor, threads, versions and commit: what a figure means nothing without."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cpu": names[0] if names else platform.processor(),
        "cores": len(names),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.split("+")[0],
        "python": platform.python_version(),
        "commit": commit or "unknown",
    }


def at_least(value: float, aim: float) -> dict[str, float | bool]:
    """An aim: the measured value, what it should reach, and whether it does."""
    return {"value": round(value, 4), "aim": aim, "met": value >= aim}


def at_most(value: float, aim: float) -> dict[str, float | bool]:
    """As `at_least`, for what should be small."""
    return {"value": round(value, 4), "aim": aim, "met": value <= aim}


def report(
    bench: str, rows: Sequence[Row], *, checks: dict[str, dict[str, float | bool]], setup: dict[str, str | int | float]
) -> None:
    """Print the setup, the rows as tables, each aim in words, and everything as one JSON object on the last line.

    Rows with other columns than those before them begin a new table.
    """
    where = machine()
    print(f"\n{bench}: " + ", ".join(f"{k} {v}" for k, v in {**setup, **where}.items()) + "\n")
    for columns, alike in itertools.groupby(rows, key=tuple):
        _print_table(columns, list(alike))
    for name, check in checks.items():
        print(f"{'met ' if check['met'] else 'MISSED'}  {name}: {_cell(check['value'])} (aim {_cell(check['aim'])})")
    print(json_line({"bench": bench, "setup": setup, "machine": where, "rows": list(rows), "checks": checks}))


def _print_table(columns: tuple[str, ...], rows: Sequence[Row]) -> None:
    """A heading, a rule, a line per row, an empty line."""
    table = [list(columns), *[[_cell(row[key]) for key in columns] for row in rows]]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    table.insert(1, ["-" * width for width in widths])
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
    print()


def _cell(value: str | int | float | bool) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
