"""Random clues about houses in a row, of the seven kinds that published zebra puzzles have; sets that solve a puzzle.

A set is made for the arrangement in which value v of every attribute is in house v; under other names for the values it
fits any arrangement.
"""

from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.data.tasks.zebra_logic import deduced, rounds_until_known

KINDS: Final = ("=", "!=", "left-of", "immediate-left", "nbr", "ends", "inbetween")  # the first six as in `allowed`
CHANCES: Final = (4, 1, 2, 2, 2, 2, 1)
NAMED: Final = (2, 2, 2, 2, 2, 1, 3)  # things in a clue
LEFT_OF, ENDS, IN_BETWEEN = 2, 5, 6
RARE: Final = 0.2  # how likely a house's position is named, against an attribute
TRIED: Final = 8  # clues tried for each value of a puzzle
BATCH: Final = 256


@dataclass(frozen=True)
class Clues:
    """Clues of several puzzles, K each; kind -1 says nothing.

    Args:
        kind: place in `KINDS`.
        attribute: of each thing the clue names; 0 is the position, 1, 2, ... the attributes.
        house: of each thing. A clue of two things names the first two, "ends" the first.
    """

    kind: Int[Tensor, "S K"]
    attribute: Int[Tensor, "S K 3"]
    house: Int[Tensor, "S K 3"]

    def keep(self, where: Tensor) -> "Clues":
        """The same with nothing said outside `where`."""
        return Clues(self.kind.masked_fill(~where, -1), self.attribute, self.house)

    def take(self, sets: Tensor, clues: Tensor | slice = slice(None)) -> "Clues":
        return Clues(self.kind[sets][:, clues], self.attribute[sets][:, clues], self.house[sets][:, clues])

    def pairs(self, *, houses: int, attributes: int) -> Int[Tensor, "S P 3"]:
        """The clues as relations of two things, for `zebra_logic`; x between w and y: w left of x, x left of y."""
        name = torch.where(self.attribute == 0, attributes, self.attribute - 1) * houses + self.house
        between = self.kind == IN_BETWEEN
        relation = torch.where(between, LEFT_OF, self.kind)
        first = torch.stack([name[..., 0], relation, torch.where(self.kind == ENDS, name[..., 0], name[..., 1])], -1)
        second = torch.stack([name[..., 1], torch.where(between, LEFT_OF, -1), name[..., 2]], -1)
        return torch.cat([first, second], 1)


def draw_clues(sets: Int[Tensor, " S"], num: int, *, houses: int, attributes: int, noise: Noise) -> Clues:
    """`num` true clues for each number of a set; those that would say nothing have kind -1.

    "=" and "!=" join two attributes or an attribute and a position; no clue names positions only.
    """
    row, place = sets[:, None], torch.arange(num)
    u = noise.at("kind").uniform(row, 0, place)
    kind = torch.bucketize(u * sum(CHANCES), torch.tensor(CHANCES).cumsum(0), right=True)
    thing = torch.arange(3)
    weight = torch.tensor([RARE] + [1.0] * attributes).cumsum(0)
    attribute = torch.bucketize(
        noise.at("attribute").uniform(row[..., None], thing, place[:, None]) * float(weight[-1]), weight, right=True
    )
    some = noise.at("house").uniform(row[..., None], torch.arange(houses), place[:, None]).argsort(-1)[..., :3]
    step = (noise.at("step").uniform(row, 0, place) * (houses - 1)).long()  # a house with one to its right
    end = (noise.at("end").uniform(row, 0, place) < 0.5) * (houses - 1)
    beside = torch.stack([step, step + 1, step], -1)
    up = some[..., :2].sort(-1).values
    options = [
        some[..., :1].expand_as(some), some, torch.cat([up, some[..., 2:]], -1), beside, beside,
        end[..., None].expand_as(some), some.sort(-1).values,
    ]  # fmt: skip
    house = torch.stack(options).gather(0, kind[None, ..., None].expand(1, -1, -1, 3))[0]
    size = torch.tensor(NAMED)[kind]
    only_positions = ((attribute == 0) | (thing >= size[..., None])).all(-1)
    same = (kind < LEFT_OF) & (attribute[..., 0] == attribute[..., 1])
    return Clues(kind.masked_fill(only_positions | same, -1), attribute, house)


@dataclass(frozen=True)
class ClueSet:
    """A puzzle without names.

    Args:
        clues: of each its place in `KINDS`, and (attribute, house) of what it names.
        rounds: of each attribute and house, when it is known (`rounds_until_known`).
    """

    houses: int
    attributes: int
    clues: list[tuple[int, list[tuple[int, int]]]]
    rounds: list[list[int]]


def make_sets(count: int, *, houses: int, attributes: int, noise: Noise) -> list[ClueSet]:
    """Clue sets that one clue at a time solves, none of whose clues can be left out for that."""
    found: list[ClueSet] = []
    num, at = TRIED * houses * attributes, 0
    while len(found) < count:
        sets = torch.arange(at, at + min(BATCH, count))
        clues = draw_clues(sets, num, houses=houses, attributes=attributes, noise=noise)
        clues = _needed(_enough(clues, houses, attributes), houses, attributes)
        pairs = clues.pairs(houses=houses, attributes=attributes)
        rounds = rounds_until_known(pairs, houses=houses, attributes=attributes)
        cells = rounds.reshape(-1, attributes, houses).tolist()
        found += [ClueSet(houses, attributes, c, r) for c, r in zip(_listed(clues), cells)]
        at += len(sets)
    return found[:count]


def _solved(clues: Clues, houses: int, attributes: int) -> Tensor:
    return deduced(clues.pairs(houses=houses, attributes=attributes), houses=houses, attributes=attributes)


def _enough(clues: Clues, houses: int, attributes: int) -> Clues:
    """The shortest beginning of each set that solves it; sets that do not are left out."""
    clues = clues.take(_solved(clues, houses, attributes))
    place = torch.arange(clues.kind.shape[1])
    few, enough = torch.zeros(len(clues.kind), dtype=torch.int64), torch.full((len(clues.kind),), len(place))
    while bool((few + 1 < enough).any()):  # `few` do not suffice, `enough` do
        middle = (few + enough) // 2
        solved = _solved(clues.keep(place < middle[:, None]), houses, attributes)
        few, enough = torch.where(solved, few, middle), torch.where(solved, middle, enough)
    most = int(enough.max()) if len(enough) else 0
    return clues.keep(place < enough[:, None]).take(torch.arange(len(enough)), slice(most))


def _needed(clues: Clues, houses: int, attributes: int) -> Clues:
    """The sets without clues that the others make needless, the first ones tried first."""
    place = torch.arange(clues.kind.shape[1])
    for i in place:
        said = clues.kind[:, i] >= 0
        less = clues.keep(place != i)
        if bool(said.any()):
            needless = said & _solved(less, houses, attributes)
            clues = clues.keep(~(needless[:, None] & (place == i)))
    return clues


def _listed(clues: Clues) -> list[list[tuple[int, list[tuple[int, int]]]]]:
    """Each set's clues: the kind, and (attribute, house) of what it names."""
    things = torch.stack([clues.attribute, clues.house], -1).tolist()
    return [
        [(k, [(a, h) for a, h in named[: NAMED[k]]]) for k, named in zip(kinds, row) if k >= 0]
        for kinds, row in zip(clues.kind.tolist(), things)
    ]
