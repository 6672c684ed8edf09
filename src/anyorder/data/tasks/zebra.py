"""Zebra puzzles: houses in a row, attributes whose values are all different, clues that leave one arrangement.

Clues come first and are given; the answer is each house's number, given too, and its values. Which cell can be told
first depends on the clues, so writing the answer from left to right often means guessing.

Source:
    The kind of puzzle of arXiv:2502.06768, section 4 (its data are those of Shah et al. 2024), with our own generator.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import permutations, product
from typing import ClassVar, Final, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.data.rows import TaskRows
from anyorder.data.tasks.base import Problems, check_counts
from anyorder.data.tasks.zebra_logic import allowed, deduced
from anyorder.data.tokenizer import SymbolTokenizer

RELATIONS: Final = "=#<-~!"  # same house, other houses, somewhere left of, just left of, side by side, at an end
SYMMETRIC: Final = torch.tensor([0, 1, 4])
AT_AN_END: Final = 5
BLANK: Final = "."
LETTERS: Final = ("abcdefg", "ABCDEFG", "tuvwxyz", "TUVWXYZ", "hijklmn")  # values of the first, second, ... attribute
NUMBERS: Final = "1234567"  # of houses: a clue may name one, as if houses had a known attribute
MOST_ARRANGEMENTS: Final = 400_000
WIDTH: Final = 3  # tokens of a clue: value, relation, value or house; after "at an end" a blank
BATCH: Final = 64


@cache
def arrangements(houses: int, attributes: int) -> Int[Tensor, "A N"]:
    """The house of every name in every arrangement; in the first, value v of each attribute is in house v.

    Names are the values, attribute by attribute, and then the numbers of the houses.
    """
    order = torch.tensor(list(permutations(range(houses))))
    choice = torch.cartesian_prod(*[torch.arange(len(order))] * attributes).reshape(-1, attributes)
    numbers = torch.arange(houses).expand(len(choice), -1)
    return torch.cat([order[choice].flatten(1), numbers], 1)


@cache
def statements(houses: int, attributes: int, relations: str = RELATIONS) -> Int[Tensor, "C 3"]:
    """Every clue (value, relation, name) that is true when value v of each attribute is in house v.

    "Same house" and "other houses" join values of two attributes, or a value and a house; all others join values.
    Symmetric clues are listed once.
    """
    places = arrangements(houses, attributes)[0]
    size = houses * attributes
    found = []
    for relation, table in enumerate(allowed(houses)):
        if RELATIONS[relation] not in relations:
            continue
        for x, y in product(range(size), range(size + houses)):
            known = y < size or relation < 2
            if known and _is_clue(x, relation, y, houses=houses) and table[places[x], places[y]]:
                found.append((x, relation, y))
    return torch.tensor(found)


def _is_clue(x: int, relation: int, y: int, *, houses: int) -> bool:
    """Whether this is how the clue is listed: about two values, but for "at an end"."""
    if relation == AT_AN_END or x == y:
        return relation == AT_AN_END and x == y
    same_attribute = x // houses == y // houses
    return (x < y or relation not in SYMMETRIC.tolist()) and not (same_attribute and relation < 2)


@cache
def truth(houses: int, attributes: int, relations: str = RELATIONS) -> Bool[Tensor, "C A"]:
    """Which statement holds in which arrangement."""
    where, tables = arrangements(houses, attributes).T.contiguous(), allowed(houses)
    return torch.stack(
        [tables[r][where[x], where[y]] for x, r, y in statements(houses, attributes, relations).tolist()]
    )


def count_solutions(clues: Int[Tensor, "B K 3"], *, houses: int, attributes: int) -> Int[Tensor, " B"]:
    """In how many arrangements all clues hold; clues of relation -1 say nothing."""
    where, tables = arrangements(houses, attributes), allowed(houses)
    counts = []
    for puzzle in clues.tolist():
        holds = torch.ones(len(where), dtype=torch.bool)
        for x, r, y in puzzle:
            if r >= 0:
                holds = holds & tables[r][where[:, x], where[:, y]]
        counts.append(int(holds.sum()))
    return torch.tensor(counts, dtype=torch.int64)


def make_clues(count: int, holds: Bool[Tensor, "C A"], *, noise: Noise) -> Iterator[list[int]]:
    """For each of `count` puzzles, rows of `truth` that leave the first arrangement alone, none of them needless.

    Statements are tried in random order and kept if they exclude something; then each is dropped if the rest suffice.
    """
    for at in range(0, count, BATCH):
        rows = torch.arange(at, min(at + BATCH, count))[:, None]
        orders = noise.uniform(rows, 0, torch.arange(len(holds))).argsort(dim=-1, stable=True)
        for order in orders.tolist():
            yield _needed(_enough(order, holds), holds)


def _enough(order: list[int], holds: Bool[Tensor, "C A"]) -> list[int]:
    """Statements in order, those that exclude nothing left out, until one arrangement is left."""
    left, kept = torch.ones_like(holds[0]), list[int]()
    for i in order:
        now = left & holds[i]
        if int(now.sum()) < int(left.sum()):
            left, kept = now, [*kept, i]
        if int(left.sum()) == 1:
            break
    return kept


def _needed(kept: list[int], holds: Bool[Tensor, "C A"]) -> list[int]:
    """The statements without those that the others make needless, the first ones tried first."""
    for i in list(kept):
        rest = [j for j in kept if j != i]
        if rest and int(holds[rest].all(0).sum()) == 1:
            kept = rest
    return kept


@final
@dataclass(frozen=True)
class Zebra:
    """The task. A row is `slots` clues of three tokens (unused ones blank), then each house's number and values.

    A clue set is made once and used in many rows under other names for the values; every such row is a puzzle with one
    solution. Held-out rows have clue sets drawn anew, and arrangements that no training row has.

    Args:
        houses: in the row.
        attributes: of each house; houses!^attributes arrangements, at most 400,000.
        slots: most clues of a puzzle; clue sets that need more are left out.
        extra: each puzzle has 0 to so many needless clues besides.
        relations: of the clues, a part of "=#<-~!": same house, other houses, somewhere left of, just left of, side by
            side, at an end; "=" must be among them, so that every arrangement can be told.
        clue_sets: to train on.
        images: training rows made of each clue set.
        num_test: held-out puzzles.
    """

    houses: int = 3
    attributes: int = 3
    slots: int = 8
    extra: int = 2
    relations: str = RELATIONS
    clue_sets: int = 2000
    images: int = 16
    num_test: int = 256
    summary: ClassVar[str] = "zebra puzzles: who lives where, from clues that leave one arrangement"

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("houses", self.houses, 3, len(LETTERS[0])),
            ("attributes", self.attributes, 2, len(LETTERS)),
        ):
            if not least <= value <= most:
                raise ValueError(f"zebra {name}={value}: must be between {least} and {most}")
        number = math.factorial(self.houses) ** self.attributes
        if number > MOST_ARRANGEMENTS:
            raise ValueError(
                f"zebra houses={self.houses}, attributes={self.attributes}: {number} arrangements are more than "
                f"{MOST_ARRANGEMENTS}; take fewer of either"
            )
        if self.slots < (least := self.houses * self.attributes // 2 + self.attributes):
            raise ValueError(f"zebra slots={self.slots}: must be >= {least}, or hardly any clue set fits")
        check_counts(self, "zebra", ("clue_sets", "images", "num_test"))
        if "=" not in self.relations or not set(self.relations) <= set(RELATIONS):
            raise ValueError(f"zebra relations={self.relations!r}: must be some of {RELATIONS!r}, and '=' among them")
        if self.extra < 0:
            raise ValueError(f"zebra extra={self.extra}: must be >= 0")

    @property
    def size(self) -> int:
        """Values of all attributes together."""
        return self.houses * self.attributes

    @property
    def names(self) -> int:
        """Values and house numbers: what a clue can name, and where relations begin in the vocabulary."""
        return self.size + self.houses

    @cached_property
    def tokenizer(self) -> SymbolTokenizer:
        values = "".join(letters[: self.houses] for letters in LETTERS[: self.attributes])
        return SymbolTokenizer(values + NUMBERS[: self.houses] + RELATIONS + BLANK)

    @property
    def length(self) -> int:
        return WIDTH * self.slots + self.names

    @property
    def is_answer(self) -> Bool[Tensor, " L"]:
        """Which positions hold the values to find."""
        place = torch.arange(self.length) - WIDTH * self.slots
        return (place >= 0) & (place % (self.attributes + 1) > 0)

    def train(self, *, noise: Noise) -> TaskRows:
        """`clue_sets` times `images` rows (fewer where sets did not fit into the slots)."""
        answers, _ = self._answers(noise)
        sets = self._clue_sets(self.clue_sets, noise.at("train clues")).repeat_interleave(self.images, 0)
        tokens = self._rows(sets, answers, noise.at("train rows"))
        return TaskRows(tokens=tokens, target=self.is_answer.expand(len(tokens), -1), vocab=self.tokenizer.vocab)

    def test(self, *, noise: Noise) -> Problems:
        """`num_test` puzzles, clues given."""
        _, answers = self._answers(noise)
        sets = self._clue_sets(self.num_test, noise.at("test clues"))
        x0 = self._rows(sets, answers, noise.at("test rows"))
        x = torch.where(self.is_answer, self.tokenizer.vocab.mask_id, x0)
        return Problems(canvas=Canvas.of(x, vocab=self.tokenizer.vocab), x0=x0)

    def clues(self, x: Int[Tensor, "B L"]) -> Int[Tensor, "B K 3"]:
        """The clues of rows as (value, relation, name); relation -1 where a slot is blank."""
        clue = x[:, : WIDTH * self.slots].reshape(-1, self.slots, WIDTH)
        first, relation, second = clue.unbind(-1)
        blank = first >= self.size
        second = torch.where(second >= self.names, first, second)  # "at an end" is a relation of a value to itself
        parts = (
            first.masked_fill(blank, 0),
            (relation - self.names).masked_fill(blank, -1),
            second.masked_fill(blank, 0),
        )
        return torch.stack(parts, -1)

    def easy(self, problems: Problems) -> Bool[Tensor, " B"]:
        """Which puzzles need no more than one clue at a time (`deduced`)."""
        return deduced(self.clues(problems.canvas.x), houses=self.houses, attributes=self.attributes)

    def correct(self, problems: Problems, x: Int[Tensor, "B L"]) -> Bool[Tensor, " B"]:
        """Whether each row keeps its clues and its answer is an arrangement in which all of them hold."""
        kept = (~problems.canvas.fixed | (x == problems.canvas.x)).all(-1)
        answer = x[:, self.is_answer].reshape(-1, self.houses, self.attributes).transpose(1, 2)
        named = (answer.sort(-1).values == torch.arange(self.size).view(self.attributes, self.houses)).all(-1).all(-1)
        house = answer.flatten(1).clamp(max=self.size - 1).argsort(-1) % self.houses  # of each value, where all differ
        house = torch.cat([house, torch.arange(self.houses).expand(len(house), -1)], 1)
        at, relation, other = self.clues(problems.canvas.x).unbind(-1)
        everything = torch.ones(1, self.houses, self.houses, dtype=torch.bool)
        tables = torch.cat([allowed(self.houses), everything])
        holds: Tensor = tables[relation, house.gather(1, at), house.gather(1, other)].all(-1)
        return kept & named & holds

    def render(self, row: Int[Tensor, " L"]) -> str:
        """The clues, then every house with its values."""
        shown = [self.tokenizer.decode([i]) or "?" for i in row.tolist()]
        prompt, answer = "".join(shown[: WIDTH * self.slots]), "".join(shown[WIDTH * self.slots :])
        clues = (prompt[i : i + WIDTH] for i in range(0, len(prompt), WIDTH))
        width = self.attributes + 1
        houses = (answer[i : i + width] for i in range(0, self.names, width))
        return f"{' '.join(c for c in clues if c != BLANK * WIDTH)}\n" + " ".join(houses)

    def _answers(self, noise: Noise) -> tuple[Int[Tensor, "T N"], Int[Tensor, "H N"]]:
        """Arrangements of training and of held-out rows: seven eighths and one eighth of all."""
        every = arrangements(self.houses, self.attributes)
        order = noise.at("answers").uniform(torch.arange(len(every))).argsort(stable=True)
        return every[order[len(every) // 8 :]], every[order[: len(every) // 8]]

    def _clue_sets(self, count: int, noise: Noise) -> Int[Tensor, "S K 3"]:
        """Clue sets for the first arrangement that fit into the slots, with needless ones, in random order."""
        known = statements(self.houses, self.attributes, self.relations)
        holds = truth(self.houses, self.attributes, self.relations)
        found: list[list[int]] = []
        for start in range(0, 50 * count, count):
            made = make_clues(count, holds, noise=noise.at(start))
            found += [clues for clues in made if len(clues) <= self.slots]
            if len(found) >= count:
                break
        found = found[:count]
        u = noise.at("extra").uniform(torch.arange(len(found))[:, None], 0, torch.arange(len(known) + 1))
        table = []
        for clues, row in zip(found, u):
            room = min(self.slots - len(clues), int(row[-1] * (self.extra + 1)))
            more = [i for i in row[:-1].argsort().tolist() if i not in clues][:room]
            table.append(known[[*clues, *more]].tolist() + [[0, -1, 0]] * (self.slots - len(clues) - room))
        return torch.tensor(table)

    def _rows(self, clues: Int[Tensor, "S K 3"], answers: Int[Tensor, "A N"], noise: Noise) -> Int[Tensor, "S L"]:
        """Rows of clue sets: values named so that an answer drawn from `answers` is right, clues shuffled."""
        rows = torch.arange(len(clues))
        chosen = answers[(noise.uniform(rows, 0) * len(answers)).long(), : self.size]
        value_in = chosen.reshape(-1, self.attributes, self.houses).argsort(-1)  # (S, attribute, house)
        value_in = value_in + torch.arange(0, self.size, self.houses)[:, None]
        x, relation, y = clues.unbind(-1)
        numbers = torch.arange(self.size, self.names).expand(len(rows), -1)
        renamed = torch.cat([value_in.flatten(1), numbers], 1)
        first, second = (renamed.gather(1, side) for side in (x, y))
        swap = (noise.uniform(rows[:, None], 1, torch.arange(self.slots)) < 0.5) & torch.isin(relation, SYMMETRIC)
        swap = swap & (y < self.size)
        blank = torch.full_like(x, self.names + len(RELATIONS))
        left, right = torch.where(swap, second, first), torch.where(swap, first, second)
        tokens = [left, relation + self.names, torch.where(relation == AT_AN_END, blank, right)]
        written = torch.stack([torch.where(relation < 0, blank, t) for t in tokens], -1)
        order = (noise.uniform(rows[:, None], 2, torch.arange(self.slots)) + 2 * (relation < 0)).argsort(-1)
        written = written.gather(1, order[..., None].expand(-1, -1, WIDTH))
        answer = torch.cat([numbers[..., None], value_in.transpose(1, 2)], -1)  # (S, house, number and attributes)
        return torch.cat([written.flatten(1), answer.flatten(1)], 1)
