"""Sudoku of any box size: units, checking, solving by singles (what people do first) and by search.

A board is n^2 cells of digits 0..n-1, n = box^2 (4x4: box 2, 9x9: box 3); n itself is a blank.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def box_of(cells: int) -> int:
    """Side of the boxes of a board of so many cells."""
    return math.isqrt(math.isqrt(cells))


@cache
def units(box: int) -> Int[Tensor, "U n"]:
    """Cells of the rows, then the columns, then the boxes."""
    n = box * box
    cell = torch.arange(n * n).reshape(n, n)
    boxes = cell.reshape(box, box, box, box).transpose(1, 2).reshape(n, n)
    return torch.cat([cell, cell.T, boxes])


@cache
def _places(box: int) -> Int[Tensor, "C 3"]:
    """Where each cell stands in its row, its column and its box, counted through all units."""
    return units(box).flatten().argsort(stable=True).reshape(-1, 3)


def solved(grid: Int[Tensor, "B C"]) -> Bool[Tensor, " B"]:
    """Whether every row, column and box holds each digit once."""
    box = box_of(grid.shape[1])
    unit = grid[:, units(box)]  # (B, U, n)
    return (unit.sort(-1).values == torch.arange(box * box)).all(-1).all(-1)


def consistent(puzzle: Int[Tensor, "B C"], grid: Int[Tensor, "B C"]) -> Bool[Tensor, " B"]:
    """Whether the grid keeps every clue of the puzzle."""
    return ((puzzle == box_of(puzzle.shape[1]) ** 2) | (puzzle == grid)).all(-1)


def singles(puzzle: Int[Tensor, "B C"]) -> Int[Tensor, "B C"]:
    """The puzzle with all cells filled that naked and hidden singles tell, again and again.

    A naked single is a cell with one digit left, a hidden one a digit with one cell left in a row, column or box. What
    they tell holds in every solution, so a board filled by them alone has no other.
    """
    *_, can = _narrowed(puzzle, hidden=True)
    return torch.where(can.sum(-1) == 1, can.long().argmax(-1), can.shape[-1])


def rounds(puzzle: Int[Tensor, "B C"]) -> Int[Tensor, " B"]:
    """How many rounds of naked singles fill each board, where a round looks at all cells at once; -1 if they do not."""
    open_boards = torch.stack([(can.sum(-1) != 1).any(-1) for can in _narrowed(puzzle, hidden=False)])
    return torch.where(open_boards[-1], -1, open_boards.sum(0))


def _narrowed(puzzle: Int[Tensor, "B C"], *, hidden: bool) -> Iterator[Bool[Tensor, "B C n"]]:
    """Which digits each cell can hold: at first, then after each round of singles, until nothing changes."""
    box = box_of(puzzle.shape[1])
    n = box * box
    can = torch.nn.functional.one_hot(puzzle, n + 1)[..., :n].bool() | (puzzle == n)[..., None]
    before = torch.zeros_like(can)
    while not torch.equal(can, before):
        yield can
        view = can[:, units(box)]  # (B, U, n cells, n digits)
        alone = view & (view.sum(-1, keepdim=True) == 1)
        view = view & (alone | ~alone.any(2, keepdim=True))
        if hidden:
            only = view & (view.sum(2, keepdim=True) == 1)
            view = view & (only | ~only.any(-1, keepdim=True))
        before, can = can, view.flatten(1, 2)[:, _places(box)].all(2)


@cache
def _units_of(box: int) -> list[tuple[int, int, int]]:
    """Number of the row, column and box of each cell."""
    found = (_places(box) // (box * box)).tolist()
    return [(row, column, square) for row, column, square in found]


def solutions(puzzle: Sequence[int], *, most: int, order: Sequence[Sequence[int]] | None = None) -> list[list[int]]:
    """Up to `most` solutions of one puzzle by depth-first search, the cell with fewest digits left first.

    Args:
        order: in which order to try the digits of each cell; from low to high if not given.
    """
    box = box_of(len(puzzle))
    n, where = box * box, _units_of(box)
    used, board, found = [0] * (3 * n), list(puzzle), []
    for cell, digit in enumerate(board):
        if digit < n:
            if any(used[u] >> digit & 1 for u in where[cell]):
                return []
            for u in where[cell]:
                used[u] |= 1 << digit

    def fill() -> bool:
        """Go on from here; True once there are enough."""
        best, least, free = -1, n + 1, 0
        for cell, digit in enumerate(board):
            if digit == n:
                a, b, c = where[cell]
                left = ~(used[a] | used[b] | used[c]) & ((1 << n) - 1)
                count = left.bit_count()
                if count < least:
                    best, least, free = cell, count, left
                    if count < 2:
                        break
        if best < 0:
            found.append(list(board))
            return len(found) >= most
        for digit in range(n) if order is None else order[best]:
            if free >> digit & 1:
                board[best] = digit
                for u in where[best]:
                    used[u] ^= 1 << digit
                if fill():
                    return True
                for u in where[best]:
                    used[u] ^= 1 << digit
        board[best] = n
        return False

    fill()
    return found
