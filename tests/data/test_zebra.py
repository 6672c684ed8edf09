"""Zebra puzzles: their clues mean what they say, leave one answer, and the checker knows it; by brute force."""

from itertools import permutations, product

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.data.tasks import Zebra
from anyorder.data.tasks.zebra import arrangements, count_solutions, make_clues, statements, truth
from anyorder.data.tasks.zebra_logic import deduced

NOISE = Noise.of(4)


def says(relation, a, b, houses):
    """What a relation claims of the houses of two values."""
    return {
        "=": a == b,
        "#": a != b,
        "<": a < b,
        "-": b == a + 1,
        "~": abs(a - b) == 1,
        "!": a in (0, houses - 1),
    }[relation]


def answers(task, row):
    """Every answer that fits a row's clues, read from its text: dictionaries from value to house."""
    text, found = [c.strip(".") for c in task.render(row).splitlines()[0].split()], []
    values = task.tokenizer.symbols[: task.size]
    kinds = [values[i : i + task.houses] for i in range(0, task.size, task.houses)]
    for orders in product(permutations(range(task.houses)), repeat=task.attributes):
        house = {v: h for kind, order in zip(kinds, orders) for v, h in zip(kind, order)}
        house |= {str(h + 1): h for h in range(task.houses)}
        if all(says(c[1], house[c[0]], house.get(c[2:], 0), task.houses) for c in text):
            found.append(house)
    return found


@pytest.fixture(scope="module", params=[(3, 3), (3, 2), (4, 2)], ids=str)
def task(request):
    houses, attributes = request.param
    return Zebra(houses=houses, attributes=attributes, clue_sets=20, images=3, num_test=40)


def test_rows_are_puzzles_with_one_answer_and_hold_it(task):
    rows, problems = task.train(noise=NOISE), task.test(noise=NOISE)
    assert rows.tokens.shape == (60, task.length)
    assert rows.target.sum(-1).tolist() == [task.size] * 60
    for row in [*rows.tokens[::6], *problems.x0]:
        (only,) = answers(task, row)
        told = task.render(row).splitlines()[1].split(" ")
        assert all(only[v] == h for h, (_, *house) in enumerate(told) for v in house)
        assert [house[0] for house in told] == list("1234"[: task.houses])
    assert bool((problems.canvas.fixed == ~task.is_answer).all())
    assert count_solutions(task.clues(problems.canvas.x), houses=task.houses, attributes=task.attributes).tolist() == [
        1
    ] * len(problems.x0)


def test_the_checker_takes_the_answer_only(task):
    problems = task.test(noise=NOISE)
    assert bool(task.correct(problems, problems.x0).all())
    assert not task.correct(problems, problems.canvas.x).any()
    start, width = 3 * task.slots, task.attributes + 1
    for i in range(start + 1, task.length - width):  # two houses exchange one value
        if (i - start) % width:
            swapped = problems.x0.clone()
            swapped[:, [i, i + width]] = swapped[:, [i + width, i]]
            assert not task.correct(problems, swapped).any()
    twice = problems.x0.clone()
    twice[:, start + 1] = twice[:, start + 1 + width]
    assert not task.correct(problems, twice).any()
    other = torch.cat([problems.x0.roll(1, 0)[:, :start], problems.x0[:, start:]], 1)
    assert not task.correct(problems, other).all()  # clues must be kept


def test_training_and_held_out_rows_share_no_answer_and_no_clues(task):
    rows, problems = task.train(noise=NOISE), task.test(noise=NOISE)
    start = 3 * task.slots
    seen = {tuple(r) for r in rows.tokens[:, start:].tolist()}
    assert not seen & {tuple(r) for r in problems.x0[:, start:].tolist()}
    assert torch.equal(task.test(noise=NOISE).x0, problems.x0)
    assert not torch.equal(task.test(noise=Noise.of(5)).x0, problems.x0)


def test_statements_are_true_of_the_first_arrangement_and_listed_once():
    table, known = truth(3, 3), statements(3, 3)
    assert arrangements(3, 3).shape == (216, 12)
    assert arrangements(3, 3)[0].tolist() == [0, 1, 2] * 4
    assert bool((arrangements(3, 3)[:, 9:] == torch.arange(3)).all())
    assert bool(table[:, 0].all())
    assert len({tuple(s) for s in known.tolist()}) == len(known) == 123
    # 9 pairs of values and 9 of a value and a house are the same house, 36 are not; of the 27 ordered pairs of values
    # that lie left, 18 lie just left; 6 values are at an end
    assert torch.bincount(known[:, 1]).tolist() == [18, 36, 27, 18, 18, 6]
    for i in (0, 15, 30, 60, 122):
        x, relation, y = known[i].tolist()
        houses = arrangements(3, 3)
        claims = [says("=#<-~!"[relation], int(h[x]), int(h[y]), 3) for h in houses]
        assert table[i].tolist() == claims


def test_clue_sets_are_enough_and_none_is_needless():
    table = truth(3, 3)
    for clues in make_clues(30, table, noise=NOISE):
        assert int(table[clues].all(0).sum()) == 1
        for i in range(len(clues)):
            assert int(table[clues[:i] + clues[i + 1 :]].all(0).sum()) > 1


def test_deduction_is_sound_and_easy_puzzles_are_those_it_solves():
    chain = [[0, 3, 1], [1, 3, 2], [0, 0, 3], [4, 0, 7]]  # a-b, b-c, a=A, B=2: one clue after another
    assert deduced(torch.tensor([chain]), houses=3, attributes=2).tolist() == [True]
    needs_two = [[0, 4, 1], [3, 0, 0], [1, 2, 2], [2, 0, 5]]  # a~b, A=a, b<c, c=C
    left = count_solutions(torch.tensor([needs_two]), houses=3, attributes=2)
    assert int(left) > 1
    assert deduced(torch.tensor([needs_two]), houses=3, attributes=2).tolist() == [False]
    nothing = torch.tensor([[[0, -1, 0]]])
    assert deduced(nothing, houses=3, attributes=2).tolist() == [False]
    assert count_solutions(nothing, houses=3, attributes=2).tolist() == [36]
    task = Zebra(extra=0)
    easy = task.easy(task.test(noise=NOISE))
    assert 0.2 < float(easy.double().mean()) < 0.9


def test_relations_can_be_left_out():
    task = Zebra(relations="=-", clue_sets=30)
    used = task.clues(task.train(noise=NOISE).tokens)[..., 1].unique().tolist()
    assert used == [-1, 0, 3]
    assert len(answers(task, task.test(noise=NOISE).x0[0])) == 1


def test_needless_clues_only_add():
    few, many = Zebra(extra=0), Zebra(extra=4, slots=12)
    used = [(task.clues(task.test(noise=NOISE).x0)[..., 1] >= 0).sum(-1) for task in (few, many)]
    assert int(used[0].max()) <= 8
    assert float(used[1].double().mean()) - float(used[0].double().mean()) == pytest.approx(2, abs=0.4)
    assert float(many.easy(many.test(noise=NOISE)).double().mean()) > float(
        few.easy(few.test(noise=NOISE)).double().mean()
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"houses": 2}, r"^zebra houses=2: must be between 3 and 7$"),
        ({"attributes": 6}, r"^zebra attributes=6: must be between 2 and 5$"),
        ({"houses": 5, "attributes": 3}, r"^zebra houses=5, attributes=3: 1728000 arrangements are more than 400000; "),
        ({"slots": 5}, r"^zebra slots=5: must be >= 7, or hardly any clue set fits$"),
        ({"images": 0}, r"^zebra images=0: must be >= 1$"),
        ({"relations": "=?"}, r"^zebra relations='=\?': must be some of '=#<-~!', and '=' among them$"),
        ({"relations": "<-"}, r"^zebra relations='<-': must be some of"),
        ({"extra": -1}, r"^zebra extra=-1: must be >= 0$"),
    ],
)
def test_mistakes(options, said):
    with pytest.raises(ValueError, match=said):
        Zebra(**options)
