"""Problems with known answers. A new one is a file here, a test and a line in `TASKS`."""

from typing import Final

from anyorder.data.tasks.base import Problems, Task
from anyorder.data.tasks.sudoku import Sudoku

TASKS: Final[dict[str, type[Task]]] = {"sudoku": Sudoku}

__all__ = ["TASKS", "Problems", "Sudoku", "Task"]
