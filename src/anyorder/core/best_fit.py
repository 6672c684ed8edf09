"""Pieces of different sizes side by side in rows of one length: best fit, the largest piece first."""

from bisect import bisect_left, insort
from collections.abc import Sequence


def best_fit(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """The pieces of each row, by number. Every piece goes into the fullest row that still holds it, ties to the older.

    Args:
        sizes: of the pieces, each between 1 and `capacity`.
        capacity: of a row.
    Source:
        best-fit packing of documents, arXiv:2404.10830.
    """
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (room left, row), sorted
    for piece in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        fit = bisect_left(free, (sizes[piece], -1))
        room, row = free.pop(fit) if fit < len(free) else (capacity, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(piece)
        if room > sizes[piece]:
            insort(free, (room - sizes[piece], row))
    return rows
