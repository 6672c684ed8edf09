"""9x9 sudoku: random grids, their images under the symmetries of sudoku, and puzzles dug out of them."""

from typing import Final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.data.tasks.sudoku_logic import singles, solutions, solved

BOX: Final = 3
DIGITS: Final = 9
CELLS: Final = 81
LEVELS: Final = ("any", "easy", "hard")
LEAST_CLUES: Final = 26  # fewer are possible, but digging in random order seldom gets there
DIG_AT_ONCE: Final = 30  # cells blanked before anything is checked; it seldom goes wrong
ATTEMPTS: Final = 200


def random_grids(count: int, *, noise: Noise) -> Int[Tensor, "G 81"]:
    """Full grids, grid i from i alone: the first found by a search that tries digits in random order (not uniform)."""
    cell_digit = torch.arange(CELLS * DIGITS)
    found = []
    for i in range(count):
        order = noise.uniform(i, 0, cell_digit).reshape(CELLS, DIGITS).argsort(-1).tolist()
        found += solutions([DIGITS] * CELLS, most=1, order=order)
    return torch.tensor(found)


def images(board: Int[Tensor, "B C"], *, noise: Noise) -> Int[Tensor, "B C"]:
    """Each row's boards (one or several of 81 cells) under one random symmetry of sudoku.

    Digits renamed; rows shuffled inside bands, bands shuffled, the same for columns, and rows and columns swapped or
    not: 9! 6^8 2 symmetries, all with the same chance. Puzzles stay puzzles with one solution; blanks stay blanks.
    """
    row = torch.arange(len(board))[:, None]
    digit = noise.at("digits").uniform(row, 0, torch.arange(DIGITS)).argsort(-1)
    digit = torch.cat([digit, torch.full_like(digit[:, :1], DIGITS)], 1)  # a blank stays one
    down, across = (_line_order(row, noise.at(name)) for name in ("rows", "columns"))  # (B, 9)
    cell = down[:, :, None] * DIGITS + across[:, None, :]
    turn = noise.at("turn").uniform(row[:, 0]) < 0.5
    cell = torch.where(turn[:, None, None], cell.transpose(1, 2), cell).flatten(1)
    parts = [digit.gather(1, part.gather(1, cell)) for part in torch.split(board, CELLS, 1)]
    return torch.cat(parts, 1)


def _line_order(row: Int[Tensor, "B 1"], noise: Noise) -> Int[Tensor, "B 9"]:
    """For each line of the image, the line it comes from: a band, and a line of that band."""
    band = noise.uniform(row, 0, torch.arange(BOX)).argsort(-1)  # (B, 3)
    inside = noise.uniform(row, 1, torch.arange(DIGITS)).reshape(-1, BOX, BOX).argsort(-1)  # (B, 3, 3)
    lines: Tensor = band[:, :, None] * BOX + inside
    return lines.flatten(1)


def is_easy(puzzle: Int[Tensor, "B 81"]) -> Bool[Tensor, " B"]:
    """Whether naked and hidden singles solve it."""
    return solved(singles(puzzle))


def has_one_solution(puzzle: Int[Tensor, "B 81"]) -> Bool[Tensor, " B"]:
    """Whether exactly one grid keeps the clues; only what singles do not tell is searched."""
    filled = singles(puzzle)
    one = solved(filled)
    for i in (~one).nonzero().flatten().tolist():
        one[i] = len(solutions(puzzle[i].tolist(), most=2)) == 1
    return one


def dig(grid: Int[Tensor, "B 81"], *, clues: int, noise: Noise, level: str = "any") -> Int[Tensor, "B 81"]:
    """Each grid with all but `clues` cells blanked, so that it is the only solution and of the level.

    Cells are blanked in random order as long as one solution is left; a grid whose cells run out, or that does not turn
    out at the level, is dug again in another order. Row i depends on i and its grid only.

    Args:
        level: "easy" if singles solve it, "hard" if not, "any".
    Raises:
        ValueError: clues outside 26..81, a level that does not exist, or puzzles that cannot be found.
    """
    check_clues(clues)
    if level not in LEVELS:
        raise ValueError(f"sudoku level={level!r}: must be one of {', '.join(LEVELS)}")
    puzzle, waiting = torch.full_like(grid, DIGITS), torch.arange(len(grid))
    for attempt in range(ATTEMPTS):
        order = noise.uniform(waiting[:, None], attempt, torch.arange(CELLS)).argsort(-1)
        made = _dig_once(grid[waiting], order, clues=clues, easy=level == "easy")
        good = (made < DIGITS).sum(-1) == clues
        if level == "hard":
            good = good & ~is_easy(made)
        puzzle = puzzle.index_put((waiting[good],), made[good])
        waiting = waiting[~good]
        if not len(waiting):
            return puzzle
    raise ValueError(f"sudoku clues={clues}, level={level}: no such puzzle found for a grid; try other clues")


def check_clues(clues: int) -> None:
    if not LEAST_CLUES <= clues <= CELLS:
        raise ValueError(f"clues={clues}: must be between {LEAST_CLUES} and {CELLS} for 9x9; fewer are hard to find")


def _dig_once(grid: Int[Tensor, "B 81"], order: Int[Tensor, "B 81"], *, clues: int, easy: bool) -> Int[Tensor, "B 81"]:
    """Puzzles of at least `clues` clues, blanked in the given order; `easy` ones stay solvable by singles."""
    fits = is_easy if easy else has_one_solution
    at_once = min(DIG_AT_ONCE, CELLS - clues)
    puzzle = grid.scatter(1, order[:, :at_once], DIGITS)
    puzzle = torch.where(fits(puzzle)[:, None], puzzle, grid)
    for cell in order.T:
        left = ((puzzle < DIGITS).sum(-1) > clues).nonzero().flatten()
        if not len(left):
            break
        tried = puzzle[left].scatter(1, cell[left, None], DIGITS)
        kept = fits(tried)
        puzzle = puzzle.index_put((left[kept],), tried[kept])
    return puzzle
