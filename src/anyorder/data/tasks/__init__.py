"""Problems with known answers. A new one is a file here, a test and a line in `TASKS`."""

import dataclasses
from typing import Any, Final

from anyorder.core.config import nearest, parse_spec
from anyorder.data.tasks.base import Problems, Task, ValidatedTask
from anyorder.data.tasks.nae_sat import NaeSat
from anyorder.data.tasks.star import Star
from anyorder.data.tasks.sudoku import Sudoku
from anyorder.data.tasks.zebra import Zebra
from anyorder.data.tasks.zebra_triples import ZebraTriples

TASKS: Final[dict[str, type[Task]]] = {
    "sudoku": Sudoku,
    "zebra": Zebra,
    "zebra-triples": ZebraTriples,
    "nae-sat": NaeSat,
    "star": Star,
}


def make_task(spec: str) -> Task:
    """The task a configuration names: "sudoku", or with options "sudoku:form=puzzle,clues=8".

    Raises:
        ValueError: an unknown task or option (the nearest is named), or a value of the wrong kind.
    """
    name, given = parse_spec(spec)
    if name not in TASKS:
        raise ValueError(f"task={name!r}: unknown; {nearest(name, TASKS)}")
    kinds: dict[str, Any] = {f.name: type(f.default) for f in dataclasses.fields(TASKS[name])}  # type: ignore[arg-type]
    options: dict[str, Any] = {}
    for key, value in given.items():
        if key not in kinds:
            raise ValueError(f"task={spec!r}: unknown option {key!r}; {nearest(key, kinds)}")
        try:
            options[key] = kinds[key](value)
        except ValueError:
            raise ValueError(f"task={spec!r}: {key}={value!r} is no {kinds[key].__name__}; give one") from None
    return TASKS[name](**options)


__all__ = [
    "TASKS",
    "NaeSat",
    "Problems",
    "Star",
    "Sudoku",
    "Task",
    "ValidatedTask",
    "Zebra",
    "ZebraTriples",
    "make_task",
]
