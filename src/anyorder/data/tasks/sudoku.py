"""4x4 sudoku: all 288 grids, puzzles with exactly one solution, and two ways to write them as rows.

Which cell is easy to fill depends on the clues, so the order of writing decides whether a model succeeds: confidence
order does, left to right often must guess. The problem is small enough to count solutions instead of searching.
"""

from dataclasses import dataclass
from functools import cache
from itertools import permutations, product
from typing import ClassVar, Final, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.data.rows import TaskRows
from anyorder.data.tasks.base import Problems
from anyorder.data.tokenizer import PLACEHOLDER, SymbolTokenizer

CELLS: Final = 16
NUM_GRIDS: Final = 288
TOKENIZER: Final = SymbolTokenizer("1234.")  # token d-1 is digit d
BLANK: Final = 4
MIN_CLUES: Final = 4  # no puzzle with fewer has one solution
ATTEMPTS: Final = 10_000  # 1 in 20 sets of four clues will do, so this never ends in failure
FORMS: Final = ("grid", "puzzle")


def _units() -> Int[Tensor, "12 4"]:
    """Cells of the four rows, four columns and four boxes."""
    cell = torch.arange(CELLS).reshape(4, 4)
    boxes = cell.reshape(2, 2, 2, 2).transpose(1, 2).reshape(4, 4)
    return torch.cat([cell, cell.T, boxes])


UNITS: Final = _units()


@cache
def grids() -> Int[Tensor, "288 16"]:
    """Every full grid as tokens 0..3, in lexicographic order."""
    rows = list(permutations(range(4)))
    starts = [a + b for a, b in product(rows, rows) if set(a[:2]) | set(b[:2]) == {0, 1, 2, 3}]
    found = torch.tensor([a + b for a, b in product(starts, starts)])
    return found[solved(found)]


def solved(grid: Int[Tensor, "B 16"]) -> Bool[Tensor, " B"]:
    """Whether every row, column and box holds each digit once."""
    unit = grid[:, UNITS]  # (B, 12, 4)
    return (unit.sort(-1).values == torch.arange(4)).all(-1).all(-1)


def consistent(puzzle: Int[Tensor, "B 16"], grid: Int[Tensor, "B 16"]) -> Bool[Tensor, " B"]:
    """Whether the grid keeps every clue of the puzzle (its blanks are `BLANK`)."""
    return ((puzzle == BLANK) | (puzzle == grid)).all(-1)


def count_solutions(puzzle: Int[Tensor, "B 16"]) -> Int[Tensor, " B"]:
    """How many of the 288 grids keep every clue."""
    return (_digits(puzzle) @ _digits(grids()).T == (puzzle != BLANK).sum(-1, keepdim=True)).sum(-1)


def _digits(cells: Int[Tensor, "B 16"]) -> Float[Tensor, "B 64"]:
    """One column per (cell, digit); a product of two rows counts their equal digits; blanks never are."""
    return torch.nn.functional.one_hot(cells, 5)[..., :4].flatten(1).float()


def make_puzzles(grid: Int[Tensor, "B 16"], *, clues: int, noise: Noise) -> Int[Tensor, "B 16"]:
    """Each grid with all but `clues` cells blanked, so that it is the only solution; clue cells are drawn until it is.

    The result is uniform over the clue sets that leave one solution, and row i depends on i and its grid only.

    Raises:
        ValueError: clues outside 4..16; fewer than four never leave one solution.
    """
    check_clues(clues)
    puzzle, waiting = torch.full_like(grid, BLANK), torch.arange(len(grid))
    for attempt in range(ATTEMPTS):
        rank = noise.uniform(waiting[:, None], attempt, torch.arange(CELLS)).argsort(dim=-1).argsort(dim=-1)
        drawn = torch.where(rank < clues, grid[waiting], BLANK)
        unique = count_solutions(drawn) == 1
        puzzle = puzzle.index_put((waiting[unique],), drawn[unique])
        waiting = waiting[~unique]
        if not len(waiting):
            return puzzle
    raise AssertionError(f"no unique puzzle of {clues} clues in {ATTEMPTS} draws")


def check_clues(clues: int) -> None:
    if not MIN_CLUES <= clues <= CELLS:
        raise ValueError(f"clues={clues}: must be between {MIN_CLUES} and {CELLS}; fewer leave more than one solution")


def check_split(num_train: int) -> None:
    if not 1 <= num_train < NUM_GRIDS:
        raise ValueError(f"num_train={num_train}: must be between 1 and {NUM_GRIDS - 1}, so that a grid is held out")


def split(noise: Noise, *, num_train: int) -> tuple[Int[Tensor, "T 16"], Int[Tensor, "H 16"]]:
    """Training and held-out grids: disjoint, together all 288."""
    check_split(num_train)
    every = grids()
    order = noise.uniform(torch.arange(len(every))).argsort(stable=True)
    return every[order[:num_train]], every[order[num_train:]]


def render(cells: Int[Tensor, " 16"]) -> str:
    """A board for people; `.` is a blank, ░ a mask."""
    shown = ["1", "2", "3", "4", ".", "?", PLACEHOLDER]  # "?": an end of text where a digit belongs
    c = [shown[i] if i < len(shown) else "?" for i in cells.tolist()]
    lines = [f"{c[r]} {c[r + 1]} | {c[r + 2]} {c[r + 3]}" for r in range(0, CELLS, 4)]
    return "\n".join([*lines[:2], "----+----", *lines[2:]])


@final
@dataclass(frozen=True)
class Sudoku:
    """The task.

    Args:
        form: "grid": rows are the 16 cells of a full grid, all of them targets; a puzzle is a grid with masks. Only a
            model that writes in any order can read clues to the right. "puzzle": 16 cells of a puzzle with its blanks,
            then the 16 of its solution, the only targets; an autoregressive model sees all clues, and both kinds of
            model train on the same rows.
        clues: of held-out puzzles, and of training puzzles in "puzzle" form.
        num_train: grids to train on, of 288; the others are held out.
        puzzles_per_grid: training puzzles made of each grid in "puzzle" form.
    """

    form: str = "grid"
    clues: int = 6
    num_train: int = 200
    puzzles_per_grid: int = 64
    summary: ClassVar[str] = "4x4 sudoku with one solution; held-out grids"

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"sudoku form={self.form!r}: must be {' or '.join(FORMS)}")
        check_clues(self.clues)
        check_split(self.num_train)
        if self.puzzles_per_grid < 1:
            raise ValueError(f"sudoku puzzles_per_grid={self.puzzles_per_grid}: must be >= 1")

    @property
    def tokenizer(self) -> SymbolTokenizer:
        return TOKENIZER

    @property
    def length(self) -> int:
        return CELLS if self.form == "grid" else 2 * CELLS

    def train(self, *, noise: Noise) -> TaskRows:
        """Training rows; their grids depend on the noise and `num_train` only, not on the form."""
        grid, _ = split(noise.at("split"), num_train=self.num_train)
        if self.form == "grid":
            return TaskRows(tokens=grid, target=torch.ones_like(grid, dtype=torch.bool), vocab=TOKENIZER.vocab)
        many = grid.repeat_interleave(self.puzzles_per_grid, 0)
        puzzle = make_puzzles(many, clues=self.clues, noise=noise.at("train puzzles"))
        tokens = torch.cat([puzzle, many], 1)
        target = (torch.arange(self.length) >= CELLS).expand(len(tokens), -1)
        return TaskRows(tokens=tokens, target=target, vocab=TOKENIZER.vocab)

    def test(self, *, noise: Noise) -> Problems:
        """One puzzle of each held-out grid; the same puzzles in both forms."""
        _, grid = split(noise.at("split"), num_train=self.num_train)
        puzzle = make_puzzles(grid, clues=self.clues, noise=noise.at("test puzzles"))
        mask = TOKENIZER.vocab.mask_id
        if self.form == "grid":
            x, x0 = torch.where(puzzle == BLANK, mask, puzzle), grid
        else:
            x, x0 = torch.cat([puzzle, torch.full_like(puzzle, mask)], 1), torch.cat([puzzle, grid], 1)
        return Problems(canvas=Canvas.of(x, vocab=TOKENIZER.vocab), x0=x0)

    def correct(self, problems: Problems, x: Int[Tensor, "B L"]) -> Bool[Tensor, " B"]:
        """Whether each row is a sudoku that keeps the clues."""
        given = problems.canvas.x[:, :CELLS]
        puzzle = torch.where(given == TOKENIZER.vocab.mask_id, BLANK, given)
        grid = x[:, -CELLS:]
        return solved(grid) & consistent(puzzle, grid)

    def render(self, row: Int[Tensor, " L"]) -> str:
        """The board, or the puzzle and its solution side by side."""
        boards = [render(row[at : at + CELLS]).split("\n") for at in range(0, len(row), CELLS)]
        return "\n".join("     ".join(lines) for lines in zip(*boards, strict=True))
