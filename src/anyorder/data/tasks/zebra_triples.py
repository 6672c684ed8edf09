"""Zebra puzzles of 3 to 6 houses and attributes, in the tokens that insertion models were published with.

A row is the clues, `>`, and the answer as triples of digits: house, attribute, value. A clue is its kind, what it names
on the left and on the right, and its end: `nbr LHS c 0 2 RHS n 0 1 CLUE_END`, where `c a v` is value v of attribute a
and `n 0 h` is house h. Every word is one character here: `~Lc02Rn01;`.

The published vocabulary has 25 ids: seven special ones, six digits and twelve words. Ours has digits and words in the
same order, then `>` for `[BOS]`, EOS, mask and padding; `[CLS]`, `[SEP]` and `[UNK]` have no use here. Inferred, as
no source says it: the order of words in a clue, that the right side of "ends" is empty, that a triple begins with the
house, that all sizes are equally frequent. Ours: no clue is needless.

Source:
    arXiv:2505.05755, section 5.1. The kinds of clues, and how often each is tried, are those of the public generator of
    its data (Shah et al. 2024), which too adds clues until a solver succeeds that looks at few of them at a time.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import factorial
from typing import ClassVar, Final, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.data.rows import TaskRows
from anyorder.data.tasks.base import Problems, check_counts
from anyorder.data.tasks.layout import Layout
from anyorder.data.tasks.zebra_clues import KINDS, ClueSet, make_sets
from anyorder.data.tokenizer import SymbolTokenizer

WORDS: Final = {
    **{str(i): str(i) for i in range(6)},
    "nbr": "~", "left-of": "<", "inbetween": "^", "immediate-left": "-", "ends": "!", "!=": "#", "=": "=",
    "c": "c", "n": "n", "CLUE_END": ";", "RHS": "R", "LHS": "L", "[BOS]": ">",
}  # fmt: skip
TOKENIZER: Final = SymbolTokenizer("".join(WORDS.values()))
ID: Final = {word: i for i, word in enumerate(WORDS)}
SYMMETRIC: Final = ("=", "!=", "nbr")
ORDERS: Final = ("sorted", "solved")
HELD_OUT: Final = {"test": (0.0, 0.125), "valid": (0.125, 0.25), "train": (0.25, 1.0)}  # shares of all arrangements


@final
@dataclass(frozen=True)
class ZebraTriples:
    """The task. A clue set is made once and used in many rows under other names; splits share no arrangement.

    Rows of the published length, 460, have `largest=6,prompt=351`; the clue sets of a large task take minutes to make.

    Args:
        smallest, largest: houses, and attributes; every pair of numbers from one to the other is equally frequent.
        prompt: tokens of the longest prompt; puzzles that need more are left out.
        order: of the triples. "sorted" by house and attribute, or "solved": as one clue at a time tells them.
        end: what follows an answer (`Layout`): "fill", "once", or "none" for insertion models.
        clue_sets: to train on.
        images: training rows made of each clue set.
        num_valid, num_test: held-out puzzles, for choosing and for reporting.
    """

    smallest: int = 3
    largest: int = 3
    prompt: int = 80
    order: str = "sorted"
    end: str = "fill"
    clue_sets: int = 1000
    images: int = 16
    num_valid: int = 100
    num_test: int = 256
    summary: ClassVar[str] = "zebra puzzles in published tokens: who lives where, as triples"

    def __post_init__(self) -> None:
        if not 3 <= self.smallest <= self.largest <= 6:
            given = f"smallest={self.smallest}, largest={self.largest}"
            raise ValueError(f"zebra-triples {given}: must be between 3 and 6, the smallest first")
        if self.order not in ORDERS:
            raise ValueError(f"zebra-triples order={self.order!r}: must be {' or '.join(ORDERS)}")
        check_counts(self, "zebra-triples", ("clue_sets", "images", "num_valid", "num_test"))
        least = 8 * self.smallest**2
        if self.prompt < least:
            raise ValueError(f"zebra-triples prompt={self.prompt}: must be >= {least}, or hardly any puzzle fits")
        _ = self.layout

    @property
    def tokenizer(self) -> SymbolTokenizer:
        return TOKENIZER

    @cached_property
    def layout(self) -> Layout:
        return Layout(prompt=self.prompt, answer=3 * self.largest**2, end=self.end, vocab=TOKENIZER.vocab)

    @property
    def length(self) -> int:
        return self.layout.length

    def train(self, *, noise: Noise) -> TaskRows:
        """`clue_sets` times `images` rows, fewer where clues did not fit."""
        return self.layout.train(self._rows("train", self.clue_sets, self.images, noise))

    def valid(self, *, noise: Noise) -> Problems:
        """Held-out puzzles to choose settings with."""
        return self.layout.problems(self._rows("valid", self.num_valid, 1, noise))

    def test(self, *, noise: Noise) -> Problems:
        """Held-out puzzles to report."""
        return self.layout.problems(self._rows("test", self.num_test, 1, noise))

    def correct(self, problems: Problems, x: Int[Tensor, "B L"]) -> Bool[Tensor, " B"]:
        """Whether each row keeps its clues and holds every triple of the answer once and nothing else, in any order."""
        written, known = self.layout.bare(x).tolist(), self.layout.bare(problems.x0).tolist()
        return torch.tensor([self._taken_apart(w) == self._taken_apart(k) for w, k in zip(written, known)])

    def render(self, row: Int[Tensor, " L"]) -> str:
        """The clues, then the triples; masks are ░."""
        clues, triples = (TOKENIZER.decode(part) for part in self.layout.parts(row))
        listed = clues.removesuffix(";>").split(";")
        return " ".join(listed) + "\n" + " ".join(triples[i : i + 3] for i in range(0, len(triples), 3))

    def _taken_apart(self, tokens: list[int]) -> tuple[list[int], list[list[int]]]:
        """Clues, and triples in order."""
        tokens = [i for i in tokens if i != TOKENIZER.vocab.pad_id]
        start = tokens.index(ID["[BOS]"]) + 1 if ID["[BOS]"] in tokens else 0
        return tokens[:start], sorted(tokens[i : i + 3] for i in range(start, len(tokens), 3))

    def _rows(self, split: str, sets: int, images: int, noise: Noise) -> Int[Tensor, "B L"]:
        sizes = list(product(range(self.smallest, self.largest + 1), repeat=2))
        prompts, answers = list[list[int]](), list[list[int]]()
        for i, (houses, attributes) in enumerate(sizes):
            own = noise.at(f"{houses} houses, {attributes} attributes")
            share = (sets * (i + 1)) // len(sizes) - sets * i // len(sizes)
            made = make_sets(share, houses=houses, attributes=attributes, noise=own.at(f"{split} clues"))
            puzzles = [s for s in made for _ in range(images)]
            chosen = draw_answers(len(puzzles), split, houses=houses, attributes=attributes, noise=own)
            longest = torch.arange(max((len(p.clues) for p in puzzles), default=0))
            rows, draws = torch.arange(len(puzzles))[:, None], own.at(f"{split} order")
            order, swap = (draws.uniform(rows, side, longest).tolist() for side in (0, 1))
            for j, (puzzle, value) in enumerate(zip(puzzles, chosen.tolist())):
                prompt = write_clues(puzzle, value, order=order[j], swap=swap[j])
                if len(prompt) <= self.prompt:
                    prompts.append(prompt)
                    answers.append(self._answer(puzzle, value))
        pad = TOKENIZER.vocab.pad_id
        width = self.layout.answer
        return self.layout.rows(
            torch.tensor([[pad] * (self.prompt - len(p)) + p for p in prompts]).reshape(-1, self.prompt).long(),
            torch.tensor([a + [pad] * (width - len(a)) for a in answers]).reshape(-1, width).long(),
        )

    def _answer(self, puzzle: ClueSet, value: list[list[int]]) -> list[int]:
        """The triples; `value[a][h]` is that of attribute a in house h."""
        cells = product(range(puzzle.houses), range(puzzle.attributes))
        ordered = sorted(cells, key=lambda c: puzzle.rounds[c[1]][c[0]]) if self.order == "solved" else cells
        return [i for h, a in ordered for i in (h, a, value[a][h])]


def draw_answers(
    count: int, split: str, *, houses: int, attributes: int, noise: Noise
) -> Int[Tensor, "B {attributes} {houses}"]:
    """Arrangements of a split: the value of each attribute in each house. A hash of an arrangement says whose it is."""
    least, most = HELD_OUT[split]
    row, waiting = torch.arange(count), torch.arange(count)
    found = torch.zeros(count, attributes, houses, dtype=torch.int64)
    attempt = 0
    while len(waiting):
        step = attempt * attributes + torch.arange(attributes)[:, None]
        drawn = noise.at(f"{split} answers").uniform(row[waiting, None, None], step, torch.arange(houses)).argsort(-1)
        u = noise.at("whose").uniform(numbered(drawn))
        mine = (u >= least) & (u < most)
        found[waiting[mine]] = drawn[mine]
        waiting, attempt = waiting[~mine], attempt + 1
    return found


def numbered(value: Int[Tensor, "B A H"]) -> Int[Tensor, " B"]:
    """A number below houses!^attributes for each arrangement."""
    houses, attributes = value.shape[2], value.shape[1]
    later = torch.ones(houses, houses, dtype=torch.bool).triu(1)
    smaller = ((value[..., None, :] < value[..., :, None]) & later).sum(-1)  # (B, A, H), Lehmer code
    rank = (smaller * torch.tensor([factorial(houses - 1 - h) for h in range(houses)])).sum(-1)
    return (rank * torch.tensor([factorial(houses) ** a for a in range(attributes)])).sum(-1)


def write_clues(puzzle: ClueSet, value: list[list[int]], *, order: list[float], swap: list[float]) -> list[int]:
    """The tokens of a prompt: clues ordered by uniforms, the sides of symmetric ones swapped by others, then `>`."""
    tokens: list[int] = []
    for i in sorted(range(len(puzzle.clues)), key=order.__getitem__):
        kind, things = puzzle.clues[i]
        word = KINDS[kind]
        named = [_thing(a, h, value) for a, h in things]
        if word in SYMMETRIC and swap[i] < 0.5:
            named.reverse()
        tokens += [ID[word], ID["LHS"], *named[0], ID["RHS"], *(t for n in named[1:] for t in n), ID["CLUE_END"]]
    return [*tokens, ID["[BOS]"]]


def _thing(attribute: int, house: int, value: list[list[int]]) -> list[int]:
    if attribute == 0:
        return [ID["n"], 0, house]
    return [ID["c"], attribute - 1, value[attribute - 1][house]]
