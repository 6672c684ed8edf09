"""9x9 sudoku: grids, symmetries, puzzles of planted difficulty, checked by a search of its own."""

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.data.tasks import Sudoku
from anyorder.data.tasks.sudoku9 import dig, has_one_solution, images, is_easy, random_grids
from anyorder.data.tasks.sudoku_logic import consistent, singles, solved

NOISE = Noise.of(3)
BLANK = 9


def search(puzzle, most=2):
    """Number of solutions up to `most`, by plain backtracking over sets; knows nothing of bits or units."""
    best, least = None, None
    for cell, digit in enumerate(puzzle):
        if digit == BLANK:
            row, column = divmod(cell, 9)
            seen = {puzzle[9 * row + i] for i in range(9)} | {puzzle[9 * i + column] for i in range(9)}
            seen |= {puzzle[9 * (row // 3 * 3 + i) + column // 3 * 3 + j] for i in range(3) for j in range(3)}
            left = set(range(9)) - seen
            if least is None or len(left) < len(least):
                best, least = cell, left
    if best is None:
        return 1
    found = 0
    for digit in least:
        found += search([*puzzle[:best], digit, *puzzle[best + 1 :]], most - found)
        if found >= most:
            break
    return found


@pytest.fixture(scope="module")
def grid():
    return random_grids(12, noise=NOISE)


def test_random_grids_are_grids_of_their_own(grid):
    assert bool(solved(grid).all())
    assert len({tuple(g) for g in grid.tolist()}) == 12
    assert torch.equal(random_grids(3, noise=NOISE), grid[:3])
    swapped = grid[:1].clone()
    swapped[0, [0, 1]] = swapped[0, [1, 0]]  # the row is still right, the columns are not
    assert not solved(swapped)


def test_images_are_grids_and_keep_what_belongs_together(grid):
    many = grid[:1].expand(400, -1)
    holes = torch.arange(81) % 7 == 0
    image = images(torch.cat([torch.where(holes, BLANK, many), many], 1), noise=NOISE)
    puzzle, whole = image[:, :81], image[:, 81:]
    assert bool(solved(whole).all())
    assert bool(consistent(puzzle, whole).all())
    assert (puzzle == BLANK).sum(-1).tolist() == [int(holes.sum())] * 400
    assert len({tuple(g) for g in whole.tolist()}) == 400
    share = torch.nn.functional.one_hot(whole, 9).double().mean(0)  # every cell holds every digit equally often
    assert float((share - 1 / 9).abs().max()) < 5 * (8 / 81 / 400) ** 0.5


@pytest.mark.parametrize(("level", "clues"), [("easy", 30), ("hard", 30), ("any", 40)])
def test_puzzles_are_as_planted(grid, level, clues):
    few = grid[:4]
    puzzle = dig(few, clues=clues, noise=NOISE, level=level)
    assert (puzzle != BLANK).sum(-1).tolist() == [clues] * 4
    assert bool(consistent(puzzle, few).all())
    assert [search(p) for p in puzzle.tolist()] == [1] * 4
    assert bool(consistent(singles(puzzle), few).all())
    if level != "any":
        assert is_easy(puzzle).tolist() == [level == "easy"] * 4
    assert torch.equal(dig(few[:2], clues=clues, noise=NOISE, level=level), puzzle[:2])


def test_one_solution_is_told_like_a_search_does(grid):
    u = NOISE.uniform(torch.arange(12)[:, None], 5, torch.arange(81))
    puzzle = torch.where(u < torch.linspace(0.30, 0.45, 12)[:, None], grid, BLANK)
    told = has_one_solution(puzzle).tolist()
    assert told == [search(p) == 1 for p in puzzle.tolist()]
    assert set(told) == {True, False}


@pytest.mark.parametrize("form", ["grid", "puzzle"])
def test_the_task(form):
    task = Sudoku(size=9, form=form, clues=40, num_train=3, puzzles_per_grid=2, images=5, num_test=2)
    rows, problems = task.train(noise=NOISE), task.test(noise=NOISE)
    assert rows.tokens.shape == (15 if form == "grid" else 30, task.length)
    assert bool(solved(rows.tokens[:, -81:]).all())
    assert rows.target.sum(-1).unique().tolist() == [81]
    if form == "puzzle":
        assert bool(has_one_solution(rows.tokens[:6, :81]).all())
        assert bool(consistent(rows.tokens[:, :81], rows.tokens[:, 81:]).all())
    assert problems.canvas.fixed.sum(-1).tolist() == [40 if form == "grid" else 81] * 2
    assert bool(task.correct(problems, problems.x0).all())
    assert not task.correct(problems, problems.x0.roll(1, 0)).any()
    assert task.easy(problems).shape == (2,)
    lines = task.render(problems.canvas.x[0]).splitlines()
    assert len(lines) == 11
    assert lines[3].startswith("------+-------+------")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"clues": 20}, r"^clues=20: must be between 26 and 81 for 9x9; fewer are hard to find$"),
        ({"level": "evil"}, r"^sudoku level='evil': must be one of any, easy, hard$"),
        ({"images": 0}, r"^sudoku images=0: must be >= 1$"),
    ],
)
def test_mistakes(options, said):
    with pytest.raises(ValueError, match=said):
        Sudoku(size=9, **options)


def test_a_level_that_no_grid_has_is_said(grid):
    with pytest.raises(ValueError, match=r"^sudoku clues=81, level=hard: no such puzzle found for a grid; try other"):
        dig(grid[:1], clues=81, noise=NOISE, level="hard")
