"""Sudoku, 4x4 or 9x9: puzzles with exactly one solution, and two ways to write them as rows.

Which cell is easy to fill depends on the clues, so the order of writing decides whether a model succeeds: confidence
order does, left to right often must guess. 4x4 is small enough to list all 288 grids instead of searching.
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
from anyorder.data.tasks import sudoku9
from anyorder.data.tasks.base import Problems, check_counts
from anyorder.data.tasks.sudoku_logic import box_of, consistent, rounds, solved
from anyorder.data.tokenizer import PLACEHOLDER, SymbolTokenizer

CELLS: Final = 16
NUM_GRIDS: Final = 288
TOKENIZER: Final = SymbolTokenizer("1234.")  # token d-1 is digit d
TOKENIZERS: Final = {4: TOKENIZER, 9: SymbolTokenizer("123456789.")}
BLANK: Final = 4
MIN_CLUES: Final = 4  # no puzzle with fewer has one solution
ATTEMPTS: Final = 10_000  # 1 in 20 sets of four clues will do, so this never ends in failure
EASY_ROUNDS: Final = 2
FORMS: Final = ("grid", "puzzle")


@cache
def grids() -> Int[Tensor, "288 16"]:
    """Every full grid as tokens 0..3, in lexicographic order."""
    rows = list(permutations(range(4)))
    starts = [a + b for a, b in product(rows, rows) if set(a[:2]) | set(b[:2]) == {0, 1, 2, 3}]
    found = torch.tensor([a + b for a, b in product(starts, starts)])
    return found[solved(found)]


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


def render(cells: Int[Tensor, " C"]) -> str:
    """A board for people; `.` is a blank, ░ a mask."""
    box = box_of(len(cells))
    n = box * box
    shown = [*(str(d + 1) for d in range(n)), ".", "?", PLACEHOLDER]  # "?": an end of text where a digit belongs
    c = [shown[i] if i < len(shown) else "?" for i in cells.tolist()]
    lines = [" | ".join(" ".join(c[at : at + box]) for at in range(r, r + n, box)) for r in range(0, n * n, n)]
    rule = "+".join("-" * (2 * box + (0 < i < box - 1)) for i in range(box))
    groups = ["\n".join(lines[at : at + box]) for at in range(0, n, box)]
    return f"\n{rule}\n".join(groups)


@final
@dataclass(frozen=True)
class Sudoku:
    """The task.

    Args:
        size: 4 or 9 digits.
        form: "grid": rows are the cells of a full grid, all of them targets; a puzzle is a grid with masks. Only a
            model that writes in any order can read clues to the right. "puzzle": the cells of a puzzle with its blanks,
            then those of its solution, the only targets; an autoregressive model sees all clues, and both kinds of
            model train on the same rows.
        clues: of held-out puzzles, and of training puzzles in "puzzle" form; 0 for 6 (4x4) or 32 (9x9).
        num_train: grids to train on, of 288 if they are 4x4; the others are held out.
        puzzles_per_grid: training puzzles made of each grid, for rows in "puzzle" form and for `train_problems`.
        images: 9x9: training rows made of each grid, or of each of its puzzles, by symmetries of sudoku.
        num_test: 9x9: held-out grids, one puzzle each.
        level: 9x9: held-out puzzles that singles solve ("easy"), that they do not solve ("hard"), or "any".
    """

    size: int = 4
    form: str = "grid"
    clues: int = 0
    num_train: int = 200
    puzzles_per_grid: int = 64
    images: int = 1
    num_test: int = 128
    level: str = "any"
    summary: ClassVar[str] = "sudoku with one solution, 4x4 or 9x9; held-out grids"

    def __post_init__(self) -> None:
        if self.size not in TOKENIZERS:
            raise ValueError(f"sudoku size={self.size}: must be 4 or 9")
        if self.form not in FORMS:
            raise ValueError(f"sudoku form={self.form!r}: must be {' or '.join(FORMS)}")
        if self.size == 9:
            sudoku9.check_clues(self.num_clues)
        else:
            check_clues(self.num_clues)
            check_split(self.num_train)
            if self.images != 1 or self.level != "any":
                raise ValueError("sudoku images and level: of 9x9 only; set size=9, or leave them out")
        if self.level not in sudoku9.LEVELS:
            raise ValueError(f"sudoku level={self.level!r}: must be one of {', '.join(sudoku9.LEVELS)}")
        check_counts(self, "sudoku", ("puzzles_per_grid", "images", "num_train", "num_test"))

    @property
    def num_clues(self) -> int:
        return self.clues or {4: 6, 9: 32}[self.size]

    @property
    def cells(self) -> int:
        return self.size**2

    @property
    def tokenizer(self) -> SymbolTokenizer:
        return TOKENIZERS[self.size]

    @property
    def length(self) -> int:
        return self.cells if self.form == "grid" else 2 * self.cells

    def train(self, *, noise: Noise) -> TaskRows:
        """Training rows; their grids depend on the noise, `num_train` and `images` only, not on the form."""
        board = torch.cat(self._train_puzzles(noise), 1) if self.form == "puzzle" else self._train_grids(noise)
        if self.images > 1:
            board = sudoku9.images(board.repeat_interleave(self.images, 0), noise=noise.at("images"))
        target = (torch.arange(self.length) >= self.length - self.cells).expand(len(board), -1)
        return TaskRows(tokens=board, target=target, vocab=self.tokenizer.vocab)

    def train_problems(self, *, noise: Noise) -> Problems:
        """`puzzles_per_grid` puzzles of each training grid; no solution of theirs is that of a test puzzle."""
        return self.problems(*self._train_puzzles(noise))

    def test(self, *, noise: Noise) -> Problems:
        """One puzzle of each held-out grid; the same puzzles in both forms."""
        grid = self._test_grids(noise)
        puzzle = self._puzzles(grid, noise=noise.at("test puzzles"), level=self.level)
        return self.problems(puzzle, grid)

    def problems(self, puzzle: Int[Tensor, "B C"], grid: Int[Tensor, "B C"]) -> Problems:
        """Puzzles and their solutions in the task's form."""
        mask = self.tokenizer.vocab.mask_id
        if self.form == "grid":
            x, x0 = torch.where(puzzle == self.size, mask, puzzle), grid
        else:
            x, x0 = torch.cat([puzzle, torch.full_like(puzzle, mask)], 1), torch.cat([puzzle, grid], 1)
        return Problems(canvas=Canvas.of(x, vocab=self.tokenizer.vocab), x0=x0)

    def easy(self, problems: Problems) -> Bool[Tensor, " B"]:
        """4x4 (naked singles solve them all): which need two rounds of them at most. 9x9: which singles solve."""
        puzzle = self._clues(problems)
        return sudoku9.is_easy(puzzle) if self.size == 9 else rounds(puzzle) <= EASY_ROUNDS

    def correct(self, problems: Problems, x: Int[Tensor, "B L"]) -> Bool[Tensor, " B"]:
        """Whether each row is a sudoku that keeps the clues."""
        grid = x[:, -self.cells :]
        return solved(grid) & consistent(self._clues(problems), grid)

    def render(self, row: Int[Tensor, " L"]) -> str:
        """The board, or the puzzle and its solution side by side."""
        boards = [render(row[at : at + self.cells]).split("\n") for at in range(0, len(row), self.cells)]
        return "\n".join("     ".join(lines) for lines in zip(*boards, strict=True))

    def _clues(self, problems: Problems) -> Int[Tensor, "B C"]:
        """The puzzles with blanks for masks."""
        given = problems.canvas.x[:, : self.cells]
        return torch.where(given == self.tokenizer.vocab.mask_id, self.size, given)

    def _train_grids(self, noise: Noise) -> Int[Tensor, "G C"]:
        if self.size == 9:
            return sudoku9.random_grids(self.num_train, noise=noise.at("train grids"))
        return split(noise.at("split"), num_train=self.num_train)[0]

    def _train_puzzles(self, noise: Noise) -> tuple[Int[Tensor, "B C"], Int[Tensor, "B C"]]:
        """Puzzles and the grids they are made of."""
        grid = self._train_grids(noise).repeat_interleave(self.puzzles_per_grid, 0)
        return self._puzzles(grid, noise=noise.at("train puzzles"), level="any"), grid

    def _test_grids(self, noise: Noise) -> Int[Tensor, "G C"]:
        if self.size == 9:
            return sudoku9.random_grids(self.num_test, noise=noise.at("test grids"))
        return split(noise.at("split"), num_train=self.num_train)[1]

    def _puzzles(self, grid: Int[Tensor, "B C"], *, noise: Noise, level: str) -> Int[Tensor, "B C"]:
        if self.size == 9:
            return sudoku9.dig(grid, clues=self.num_clues, noise=noise, level=level)
        return make_puzzles(grid, clues=self.num_clues, noise=noise)
