import dataclasses
from itertools import combinations

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.data.loader import Loader
from anyorder.data.tasks import TASKS, Sudoku, Task, make_task
from anyorder.data.tasks.sudoku import BLANK, TOKENIZER, count_solutions, grids, make_puzzles, render, split
from anyorder.data.tasks.sudoku_logic import consistent, rounds, singles, solutions, solved

NOISE = Noise.of(1)
MASK = TOKENIZER.vocab.mask_id


def search(puzzle):
    """Number of solutions by backtracking, cell by cell; knows nothing of the list of grids."""
    for i, j in combinations(range(16), 2):
        same_box = i // 8 == j // 8 and i % 4 // 2 == j % 4 // 2
        if puzzle[i] == puzzle[j] != BLANK and (i // 4 == j // 4 or i % 4 == j % 4 or same_box):
            return 0
    if BLANK not in puzzle:
        return 1
    at = puzzle.index(BLANK)
    return sum(search([*puzzle[:at], d, *puzzle[at + 1 :]]) for d in range(4))


def test_there_are_288_grids():
    every = grids()
    assert every.shape == (288, 16)
    assert len({tuple(g) for g in every.tolist()}) == 288
    assert bool(solved(every).all())
    assert search([BLANK] * 16) == 288
    assert int(count_solutions(torch.full((1, 16), BLANK))) == 288


def test_a_grid_with_any_cell_wrong_is_not_solved():
    grid = grids()[100]
    for cell in range(16):
        for digit in range(6):
            changed = grid.clone()
            changed[cell] = digit
            assert bool(solved(changed[None])) == (digit == int(grid[cell]))
    rows_only = torch.tensor([[0, 1, 2, 3] * 4])
    latin = torch.tensor([[0, 1, 2, 3, 1, 2, 3, 0, 2, 3, 0, 1, 3, 0, 1, 2]])  # rows and columns right, boxes wrong
    assert not solved(rows_only)
    assert not solved(latin)


def test_solutions_are_counted_like_a_search_does():
    u = NOISE.uniform(torch.arange(60)[:, None], 0, torch.arange(16))
    grid = grids()[(NOISE.uniform(torch.arange(60), 1) * 288).long()]
    puzzle = torch.where(u < torch.linspace(0.1, 0.6, 60)[:, None], grid, BLANK)
    puzzle[50:, 0] = (puzzle[50:, 0] + 1) % 4  # some without a solution
    counts = [search(p) for p in puzzle.tolist()]
    assert count_solutions(puzzle).tolist() == counts
    assert 0 in counts
    assert 1 in counts
    assert max(counts) > 1


def test_three_clues_never_leave_one_solution():
    first = grids()[:1].expand(560, -1)  # every grid is an image of one of two; both are tried
    for grid in (first, grids()[1:2].expand(560, -1)):
        keep = torch.zeros(560, 16, dtype=torch.bool)
        for i, cells in enumerate(combinations(range(16), 3)):
            keep[i, list(cells)] = True
        assert int(count_solutions(torch.where(keep, grid, BLANK)).min()) > 1


@pytest.mark.parametrize("clues", [4, 6, 16])
def test_puzzles_have_their_clues_and_one_solution(clues):
    grid = grids()[::12]
    puzzle = make_puzzles(grid, clues=clues, noise=NOISE)
    assert (puzzle != BLANK).sum(-1).tolist() == [clues] * 24
    assert bool(consistent(puzzle, grid).all())
    assert [search(p) for p in puzzle.tolist()] == [1] * 24
    assert torch.equal(make_puzzles(grid[:5], clues=clues, noise=NOISE), puzzle[:5])  # rows do not depend on each other


def test_clue_errors():
    for clues in (3, 17):
        with pytest.raises(
            ValueError, match=f"^clues={clues}: must be between 4 and 16; fewer leave more than one solution$"
        ):
            make_puzzles(grids()[:1], clues=clues, noise=NOISE)
    with pytest.raises(ValueError, match=r"^clues=3: must be"):
        Sudoku(clues=3)
    with pytest.raises(ValueError, match=r"^sudoku form='rows': must be grid or puzzle$"):
        Sudoku(form="rows")
    with pytest.raises(ValueError, match=r"^sudoku puzzles_per_grid=0: must be >= 1$"):
        Sudoku(puzzles_per_grid=0)
    with pytest.raises(ValueError, match=r"^sudoku size=5: must be 4 or 9$"):
        Sudoku(size=5)
    with pytest.raises(ValueError, match=r"^sudoku images and level: of 9x9 only; set size=9, or leave them out$"):
        Sudoku(images=2)
    for num_train in (0, 288):
        with pytest.raises(ValueError, match=f"^num_train={num_train}: must be between 1 and 287"):
            split(NOISE, num_train=num_train)


def test_the_split_is_disjoint_complete_and_seeded():
    train, test = split(NOISE, num_train=200)
    a, b = {tuple(g) for g in train.tolist()}, {tuple(g) for g in test.tolist()}
    assert (len(a), len(b), len(a | b)) == (200, 88, 288)
    assert torch.equal(split(NOISE, num_train=200)[1], test)
    assert not torch.equal(split(Noise.of(2), num_train=200)[1], test)


def test_both_forms_train_on_the_same_grids_and_ask_the_same_puzzles():
    grid, puzzle = Sudoku(), Sudoku(form="puzzle", puzzles_per_grid=3)
    rows, pairs = grid.train(noise=NOISE), puzzle.train(noise=NOISE)
    assert rows.tokens.shape == (200, 16)
    assert bool(rows.target.all())
    assert pairs.tokens.shape == (600, 32)
    assert torch.equal(pairs.tokens[::3, 16:], rows.tokens)
    assert pairs.target.tolist() == [[False] * 16 + [True] * 16] * 600
    assert count_solutions(pairs.tokens[:, :16]).tolist() == [1] * 600
    assert not torch.equal(pairs.tokens[0], pairs.tokens[1])

    asked, told = grid.test(noise=NOISE), puzzle.test(noise=NOISE)
    clues = torch.where(asked.canvas.x == MASK, BLANK, asked.canvas.x)
    assert torch.equal(clues, told.canvas.x[:, :16])
    assert bool((told.canvas.x[:, 16:] == MASK).all())
    assert torch.equal(told.x0[:, 16:], asked.x0)
    assert asked.canvas.fixed.sum(-1).tolist() == [6] * 88
    assert torch.equal(told.canvas.fixed, (torch.arange(32) < 16).expand(88, -1))
    held_out = {tuple(g) for g in asked.x0.tolist()}
    assert not held_out & {tuple(g) for g in rows.tokens.tolist()}


def test_practice_puzzles_are_of_training_grids_alone():
    """Split by solution: 200 grids to learn from, and no test puzzle has one of them as its solution."""
    grid, puzzle = Sudoku(puzzles_per_grid=3), Sudoku(form="puzzle", puzzles_per_grid=3)
    asked, told = grid.train_problems(noise=NOISE), puzzle.train_problems(noise=NOISE)
    assert torch.equal(told.x0, puzzle.train(noise=NOISE).tokens)
    clues = torch.where(asked.canvas.x == MASK, BLANK, asked.canvas.x)
    assert torch.equal(clues, told.canvas.x[:, :16])
    assert torch.equal(asked.x0[::3], grid.train(noise=NOISE).tokens)
    assert count_solutions(clues).tolist() == [1] * 600
    trained, held_out = ({tuple(g) for g in p.x0.tolist()} for p in (asked, grid.test(noise=NOISE)))
    assert (len(trained), len(held_out)) == (200, 88)
    assert not trained & held_out


def naked_rounds(puzzle):
    """Rounds of naked singles, cell by cell, and whether they fill the board."""
    board, number = list(puzzle), 0
    while True:
        told = {}
        for i in range(16):
            same = [j for j in range(16) if i // 4 == j // 4 or i % 4 == j % 4]
            same += [j for j in range(16) if i // 8 == j // 8 and i % 4 // 2 == j % 4 // 2]
            left = {0, 1, 2, 3} - {board[j] for j in same}
            if board[i] == BLANK and len(left) == 1:
                told[i] = left.pop()
        if not told:
            return number if BLANK not in board else -1
        number += 1
        for i, digit in told.items():
            board[i] = digit


def test_singles_fill_every_4x4_puzzle_in_as_many_rounds_as_by_hand():
    for clues in (4, 6):
        puzzle = make_puzzles(grids()[::3], clues=clues, noise=NOISE)
        assert torch.equal(singles(puzzle), grids()[::3])
        assert rounds(puzzle).tolist() == [naked_rounds(p) for p in puzzle.tolist()]
        assert len(rounds(puzzle).unique()) > 2
    empty = torch.full((1, 16), BLANK)
    assert torch.equal(singles(empty), empty)
    assert rounds(torch.cat([empty, grids()[:1]])).tolist() == [-1, 0]
    task = Sudoku(clues=5)
    problems = task.test(noise=NOISE)
    given = torch.where(problems.canvas.x == MASK, BLANK, problems.canvas.x)
    assert task.easy(problems).tolist() == [naked_rounds(p) <= 2 for p in given.tolist()]
    assert 0 < int(task.easy(problems).sum()) < 88


def test_the_search_finds_every_solution():
    u = NOISE.uniform(torch.arange(20)[:, None], 7, torch.arange(16))
    puzzle = torch.where(u < 0.25, grids()[::14][:20], BLANK).tolist()
    puzzle[0] = [0, 0, *[BLANK] * 14]
    for p in puzzle:
        found = solutions(p, most=1000)
        assert len({tuple(f) for f in found}) == len(found) == search(p)
        assert len(solutions(p, most=1)) == min(1, search(p))
    backwards = solutions([BLANK] * 16, most=288, order=[[3, 2, 1, 0]] * 16)
    assert backwards[0] == grids()[-1].tolist()
    assert sorted(backwards) == grids().tolist()


@pytest.mark.parametrize("form", ["grid", "puzzle"])
def test_correct_means_solved_with_the_clues_kept(form):
    task = Sudoku(form=form)
    problems = task.test(noise=NOISE)
    assert bool(task.correct(problems, problems.x0).all())
    assert not task.correct(problems, problems.canvas.x).any()
    others = problems.x0.roll(1, 0)  # solved, but the clues of another puzzle
    expected = consistent(Sudoku(form="puzzle").test(noise=NOISE).canvas.x[:, :16], others[:, -16:])
    assert torch.equal(task.correct(problems, others), expected)
    wrong = problems.x0.clone()
    wrong[:, -1] = (wrong[:, -1] + 1) % 4
    assert not task.correct(problems, wrong).any()


def test_boards():
    grid = torch.tensor([0, 1, 2, 3, 2, 3, 0, 1, 1, 0, 3, 2, 3, 2, BLANK, MASK])
    assert render(grid) == "1 2 | 3 4\n3 4 | 1 2\n----+----\n2 1 | 4 3\n4 3 | . ░"
    both = Sudoku(form="puzzle").render(torch.cat([grid, grid]))
    assert both.splitlines()[4] == "4 3 | . ░     4 3 | . ░"
    assert TOKENIZER.decode(grid.tolist()) == "123434122143" + "43.░"


FEW = {"num_train": 200, "num_valid": 20, "num_test": 40, "clue_sets": 100, "images": 4}


@pytest.mark.parametrize("name", TASKS)
def test_every_task_keeps_the_protocol_and_goes_through_the_loader(name):
    counts = {f.name for f in dataclasses.fields(TASKS[name])} if name not in ("sudoku", "nae-sat") else set()
    task = TASKS[name](**{key: count for key, count in FEW.items() if key in counts})
    assert isinstance(task, Task)
    rows, problems = task.train(noise=NOISE), task.test(noise=NOISE)
    batch = Loader(rows, rows=5, noise=NOISE).batch_at(3)
    assert batch.tokens.shape == (5, task.length)
    assert rows.vocab == task.tokenizer.vocab
    assert bool(task.correct(problems, problems.x0).all())
    assert not task.correct(problems, problems.canvas.x).any()
    assert torch.equal(problems.canvas.x[problems.canvas.fixed], problems.x0[problems.canvas.fixed])
    assert "░" in task.render(problems.canvas.x[0])


def test_a_task_is_named_with_its_options():
    assert make_task("sudoku") == Sudoku()
    assert make_task("sudoku:form=puzzle,clues=8") == Sudoku(form="puzzle", clues=8)
    for spec, sentence in {
        "sudokku": "task='sudokku': unknown; did you mean 'sudoku'?",
        "sudoku:clue=5": "task='sudoku:clue=5': unknown option 'clue'; did you mean 'clues'?",
        "sudoku:clues=x": "task='sudoku:clues=x': clues='x' is no whole number; give one",
        "sudoku:form=rows": "sudoku form='rows': must be grid or puzzle",
    }.items():
        with pytest.raises(ValueError) as error:
            make_task(spec)
        assert str(error.value) == sentence
