"""Zebra puzzles in published tokens: what clues say, one answer, none needless, splits; by brute force."""

from itertools import permutations, product

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Vocab
from anyorder.data.tasks import ValidatedTask, ZebraTriples
from anyorder.data.tasks.zebra_clues import CHANCES, KINDS, draw_clues, make_sets
from anyorder.data.tasks.zebra_logic import deduced, rounds_until_known
from anyorder.data.tasks.zebra_triples import TOKENIZER, WORDS, draw_answers, numbered

NOISE = Noise.of(4)
SAYS = {
    "=": lambda a, b: a == b,
    "#": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "-": lambda a, b: b == a + 1,
    "~": lambda a, b: abs(a - b) == 1,
    "^": lambda a, b, c: a < b < c,
}


def things(text):
    return [text[i : i + 3] for i in range(0, len(text), 3)]


def arrangements(houses, attributes):
    """House of every thing a clue can name, in every arrangement."""
    for orders in product(permutations(range(houses)), repeat=attributes):
        yield {f"c{a}{v}": h for a, order in enumerate(orders) for v, h in enumerate(order)} | {
            f"n0{h}": h for h in range(houses)
        }


def holds(clue, house, houses):
    left, right = clue[2:].split("R")
    named = [house[t] for t in things(left) + things(right)]
    return named[0] in (0, houses - 1) if clue[0] == "!" else SAYS[clue[0]](*named)


def read(task, row):
    """Clues, triples, and how many houses and attributes there are."""
    clues, triples = (line.split(" ") for line in task.render(row).splitlines())
    return clues, triples, 1 + max(int(t[0]) for t in triples), 1 + max(int(t[1]) for t in triples)


@pytest.fixture(scope="module", params=[{}, {"order": "solved", "end": "none"}], ids=["sorted", "solved"])
def task(request):
    return ZebraTriples(clue_sets=30, images=3, num_valid=20, num_test=40, **request.param)


def test_rows_are_puzzles_with_one_answer_and_hold_it(task):
    rows, problems = task.train(noise=NOISE), task.test(noise=NOISE)
    assert rows.tokens.shape == (90, task.length)
    for row in [*rows.tokens[::5], *problems.x0]:
        clues, triples, houses, attributes = read(task, row)
        assert (houses, attributes, len(set(triples))) == (3, 3, 9)
        (only,) = (h for h in arrangements(3, 3) if all(holds(c, h, 3) for c in clues))
        assert all(only[f"c{a}{v}"] == int(h) for h, a, v in triples)


def test_sizes_between_smallest_and_largest():
    task = ZebraTriples(smallest=3, largest=4, prompt=160, clue_sets=8, images=2, num_test=12)
    sizes = [read(task, row)[2:] for row in task.train(noise=NOISE).tokens]
    assert sizes == [s for s in product((3, 4), repeat=2) for _ in range(4)]
    for row in task.test(noise=NOISE).x0[::5]:
        clues, triples, houses, attributes = read(task, row)
        if houses**attributes <= 81:
            (only,) = (h for h in arrangements(houses, attributes) if all(holds(c, h, houses) for c in clues))
            assert all(only[f"c{a}{v}"] == int(h) for h, a, v in triples)
    few = ZebraTriples(smallest=3, largest=4, prompt=160, num_valid=1).valid(noise=NOISE)
    assert len(few.x0) == 1  # three sizes have none
    published = ZebraTriples(largest=6, prompt=351)
    assert published.length == 460


def test_vocabulary_is_in_the_published_order():
    operators = ["nbr", "left-of", "inbetween", "immediate-left", "ends", "!=", "="]
    words = [*"012345", *operators, "c", "n", "CLUE_END", "RHS", "LHS"]
    assert list(WORDS) == [*words, "[BOS]"]
    assert TOKENIZER.vocab == Vocab(size=20, mask_id=20, pad_id=21, eos_id=19)
    assert TOKENIZER.encode("~Lc02Rn01;>") == [6, 17, 13, 0, 2, 16, 14, 0, 1, 15, 18]


def test_drawn_clues_are_true_and_as_frequent_as_published():
    clues = draw_clues(torch.arange(400), 50, houses=4, attributes=3, noise=NOISE)
    counts = dict.fromkeys(KINDS, 0)
    for kinds, attributes, houses in zip(clues.kind.tolist(), clues.attribute.tolist(), clues.house.tolist()):
        for kind, (a, b, c), (g, h, i) in zip(kinds, attributes, houses):
            if kind < 0:
                continue
            counts[KINDS[kind]] += 1
            assert {
                "=": g == h and a != b,
                "!=": g != h and a != b,
                "left-of": g < h and (a or b),
                "immediate-left": h == g + 1 and (a or b),
                "nbr": abs(g - h) == 1 and (a or b),
                "ends": g in (0, 3) and a,
                "inbetween": g < h < i and (a or b or c),
            }[KINDS[kind]]
    # "=" says something with chance 1 - sum p^2, where p is 0.2/3.2 for positions and 1/3.2 for three attributes;
    # "ends" with 1 - 0.2/3.2, "inbetween" unless all three are positions
    p = 0.2 / 3.2
    share = dict(zip(KINDS, [1 - p**2 - 3 / 3.2**2] * 2 + [1 - p**2] * 3 + [1 - p, 1 - p**3]))
    for kind, chance in zip(KINDS, CHANCES):
        expected = 20_000 * chance / sum(CHANCES) * share[kind]
        assert abs(counts[kind] - expected) < 5 * expected**0.5


@pytest.mark.parametrize(("houses", "attributes"), [(3, 3), (4, 2)])
def test_no_clue_is_needless_and_rounds_say_when_a_value_is_known(houses, attributes):
    size = houses * attributes
    for made in make_sets(15, houses=houses, attributes=attributes, noise=NOISE):
        assert sorted(r for row in made.rounds for r in row)[0] >= 0
        pairs = []  # of each clue, as relations of two names
        for kind, named in made.clues:
            names = [(a - 1) * houses + h if a else size + h for a, h in named]
            if kind == 6:
                pairs.append([[names[0], 2, names[1]], [names[1], 2, names[2]]])
            else:
                pairs.append([[names[0], kind, names[-1]], [0, -1, 0]])
        table = torch.tensor(pairs)  # (K, 2, 3)
        whole = rounds_until_known(table.reshape(1, -1, 3), houses=houses, attributes=attributes)
        assert whole.reshape(attributes, houses).tolist() == made.rounds
        for i in range(len(table)):
            rest = torch.cat([table[:i], table[i + 1 :]]).reshape(1, -1, 3)
            assert not deduced(rest, houses=houses, attributes=attributes)


def test_solved_order_tells_first_what_is_known_first():
    chain = torch.tensor([[[0, 3, 1], [1, 3, 2], [0, 0, 3], [4, 0, 7]]])  # a-b, b-c, a=A, B=2
    rounds = rounds_until_known(chain, houses=3, attributes=2)[0]
    assert int(rounds.min()) == 0
    assert rounds[3] >= rounds[0]  # A only after a
    task = ZebraTriples(order="solved", num_test=30)
    other = ZebraTriples(num_test=30)
    one, two = task.test(noise=NOISE), other.test(noise=NOISE)
    assert not torch.equal(one.x0, two.x0)
    assert bool(task.correct(two, one.x0).all())  # the order does not count


def test_the_checker_takes_every_triple_once_and_nothing_else(task):
    problems = task.test(noise=NOISE)
    parts = [task.layout.parts(row) for row in problems.x0]
    pad = TOKENIZER.vocab.pad_id

    def check(change):
        rows = [change(p, [a[i : i + 3] for i in range(0, 27, 3)]) for p, a in parts]
        flat = [p + [i for t in triples for i in t] for p, triples in rows]
        return task.correct(problems, torch.tensor([r + [pad] * (150 - len(r)) for r in flat]))

    assert bool(task.correct(problems, problems.x0).all())
    assert bool(check(lambda p, t: (p, t[::-1])).all())
    for wrong in (
        lambda p, t: (p, t[1:]), lambda p, t: (p, [*t, t[0]]), lambda p, t: (p, [*t[1:], t[1]]),
        lambda p, t: (p, [*t, t[0][:1]]), lambda p, t: (p, [[t[0][0], t[0][1], (t[0][2] + 1) % 3], *t[1:]]),
        lambda p, t: (p[:-1], t), lambda p, t: ([(p[0] + 1) % 18, *p[1:]], t), lambda p, t: (p, []),
    ):  # fmt: skip
        assert not check(wrong).any()
    assert not task.correct(problems, problems.canvas.x).any()


def test_splits_share_no_arrangement(task):
    assert isinstance(task, ValidatedTask)
    rows = [task.train(noise=NOISE).tokens, task.valid(noise=NOISE).x0, task.test(noise=NOISE).x0]
    held = [{tuple(sorted(read(task, row)[1])) for row in part} for part in rows]
    assert not held[0] & held[1]
    assert not held[0] & held[2]
    assert not held[1] & held[2]
    every = {s: {tuple(d.flatten().tolist()) for d in draw_answers(1500, s, houses=3, attributes=3, noise=NOISE)}
             for s in ("train", "valid", "test")}  # fmt: skip
    assert sum(map(len, every.values())) == 216  # each arrangement has one split
    assert torch.equal(task.test(noise=NOISE).x0, rows[2])
    assert not torch.equal(task.test(noise=Noise.of(5)).x0, rows[2])


def test_arrangements_are_numbered_without_gaps():
    every = torch.tensor(list(product(permutations(range(3)), repeat=2)))
    assert sorted(numbered(every).tolist()) == list(range(36))
    last = torch.arange(5, -1, -1).expand(1, 6, 6)
    assert int(numbered(last)) == 720**6 - 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"smallest": 2}, r"^zebra-triples smallest=2, largest=3: must be between 3 and 6, the smallest first$"),
        ({"smallest": 4}, r"^zebra-triples smallest=4, largest=3: must be between 3 and 6, the smallest first$"),
        ({"order": "random"}, r"^zebra-triples order='random': must be sorted or solved$"),
        ({"end": "eos"}, r"^end='eos': must be one of fill, once, none$"),
        ({"prompt": 50}, r"^zebra-triples prompt=50: must be >= 72, or hardly any puzzle fits$"),
        ({"images": 0}, r"^zebra-triples images=0: must be >= 1$"),
    ],
)
def test_mistakes(options, said):
    with pytest.raises(ValueError, match=said):
        ZebraTriples(**options)
