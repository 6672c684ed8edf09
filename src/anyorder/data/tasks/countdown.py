"""Countdown: write an expression that uses each of the given numbers once and comes to the target.

A row is `25,3,7=54>` and then an expression, `(25-7)*3`. Many are right: the checker evaluates what is written, so
another expression than the stored one is correct too.
"""

from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import ClassVar, Final, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.data.rows import TaskRows
from anyorder.data.tasks.base import Problems, apart, check_counts
from anyorder.data.tasks.expression import Expression, expressions, filled, leaves, parse, value, write
from anyorder.data.tasks.layout import Layout
from anyorder.data.tokenizer import SymbolTokenizer

TOKENIZER: Final = SymbolTokenizer("0123456789+-*/(),=>")
LEAST_TOP: Final = 10  # with smaller targets hardly any drawn expression would do
ATTEMPTS: Final = 100_000


@dataclass(frozen=True)
class Round:
    """Numbers, a target, and an expression of the numbers that comes to it."""

    numbers: tuple[int, ...]
    target: int
    expression: Expression

    @property
    def key(self) -> tuple[tuple[int, ...], int]:
        """What makes the problem, whatever the order of its numbers."""
        return tuple(sorted(self.numbers)), self.target


@cache
def _forms(numbers: int) -> tuple[Expression, ...]:
    """Every expression of places 0, 1, ... of a list of numbers."""
    return tuple(expressions(tuple(range(numbers))))


def draw_rounds(row: Int[Tensor, " B"], *, numbers: int, largest: int, top: int, noise: Noise) -> list[Round]:
    """The problems with these numbers; each is the same alone or among others.

    Numbers are uniform on 1..largest and the expression uniform on all that use each once; both are drawn until the
    expression comes to a whole number from 1 to `top`.
    """
    forms, waiting = _forms(numbers), torch.arange(len(row))
    found: list[Round | None] = [None] * len(row)
    for attempt in range(ATTEMPTS):
        u = noise.at("numbers").uniform(row[waiting, None], attempt, torch.arange(numbers))
        form = (noise.at("expression").uniform(row[waiting], attempt) * len(forms)).long().tolist()
        for at, given, which in zip(waiting.tolist(), (1 + (u * largest).long()).tolist(), form):
            found[at] = _round(given, filled(forms[which], given), top)
        waiting = torch.tensor([at for at in waiting.tolist() if found[at] is None], dtype=torch.int64)
        if not len(waiting):
            return [made for made in found if made is not None]
    raise AssertionError(f"countdown: no target up to {top} in {ATTEMPTS} draws")


def _round(numbers: list[int], expression: Expression, top: int) -> Round | None:
    """The problem whose answer is the expression; None if it divides by zero or comes to no target."""
    try:
        target = value(expression)
    except ZeroDivisionError:
        return None
    whole = target.denominator == 1 and 1 <= target <= top
    return Round(tuple(numbers), int(target), expression) if whole else None


def solutions(numbers: list[int], target: int) -> list[str]:
    """Every expression that uses each number once and comes to the target, as text, by enumeration."""
    forms = [filled(form, numbers) for form in _forms(len(numbers))]
    return sorted({write(form) for form in forms if _comes_to(form, target)})


def _comes_to(expression: Expression, target: int) -> bool:
    try:
        return value(expression) == target
    except ZeroDivisionError:
        return False


@final
@dataclass(frozen=True)
class Countdown:
    """The task. No numbers with their target are in two of the splits, whatever their order.

    Args:
        numbers: how many are given, 3 or 4.
        largest: of the numbers, which begin at 1.
        top: largest target.
        end: what follows an answer (`Layout`): "fill", "once", or "none" for insertion models.
        num_train: problems drawn to train on; those that are held out are then left out.
        num_valid, num_test: held-out problems, for choosing and for reporting.
    """

    numbers: int = 3
    largest: int = 20
    top: int = 99
    end: str = "fill"
    num_train: int = 20_000
    num_valid: int = 100
    num_test: int = 1_000
    summary: ClassVar[str] = "countdown: an expression of given numbers that comes to a target"

    def __post_init__(self) -> None:
        if self.numbers not in (3, 4):
            raise ValueError(f"countdown numbers={self.numbers}: must be 3 or 4")
        if not 2 <= self.largest <= 99:
            raise ValueError(f"countdown largest={self.largest}: must be between 2 and 99")
        if not LEAST_TOP <= self.top <= 999:
            raise ValueError(f"countdown top={self.top}: must be between {LEAST_TOP} and 999")
        check_counts(self, "countdown", ("num_train", "num_valid", "num_test"))
        _ = self.layout

    @property
    def tokenizer(self) -> SymbolTokenizer:
        return TOKENIZER

    @cached_property
    def layout(self) -> Layout:
        digits = self.numbers * len(str(self.largest))
        return Layout(
            prompt=digits + self.numbers + len(str(self.top)) + 1,
            answer=digits + (self.numbers - 1) + 2 * (self.numbers - 2),
            end=self.end,
            vocab=TOKENIZER.vocab,
        )

    @property
    def length(self) -> int:
        return self.layout.length

    def train(self, *, noise: Noise) -> TaskRows:
        """Rows to train on."""
        return self.layout.train(self._rows("train", noise))

    def train_problems(self, *, noise: Noise) -> Problems:
        """The problems of the training rows, to be answered."""
        return self.layout.problems(self.train(noise=noise).tokens)

    def valid(self, *, noise: Noise) -> Problems:
        """Held-out problems to choose settings with."""
        return self.layout.problems(self._rows("valid", noise))

    def test(self, *, noise: Noise) -> Problems:
        """Held-out problems to report."""
        return self.layout.problems(self._rows("test", noise))

    def asked(self, row: Int[Tensor, " L"]) -> tuple[list[int], int]:
        """The numbers and the target of a row's prompt."""
        numbers, target = self.tokenizer.decode(self.layout.parts(row)[0]).removesuffix(">").split("=")
        return [int(n) for n in numbers.split(",")], int(target)

    def formed(self, problems: Problems, x: Int[Tensor, "B L"]) -> Bool[Tensor, " B"]:
        """Whether each row keeps its prompt and then is an expression, with any numbers, that ends."""
        return torch.tensor([e is not None for e in self._written(problems, x)], dtype=torch.bool, device=x.device)

    def correct(self, problems: Problems, x: Int[Tensor, "B L"]) -> Bool[Tensor, " B"]:
        """Whether each row keeps its prompt and answers with any expression of each number once that comes to it."""
        rows = zip(self._written(problems, x), map(self.asked, problems.x0))
        right = [
            e is not None and sorted(leaves(e)) == sorted(numbers) and _comes_to(e, target)
            for e, (numbers, target) in rows
        ]
        return torch.tensor(right, dtype=torch.bool, device=x.device)

    def solve(self, row: Int[Tensor, " L"]) -> list[str]:
        """Every answer of a row's prompt, by enumeration."""
        return solutions(*self.asked(row))

    def render(self, row: Int[Tensor, " L"]) -> str:
        """Numbers and target, then what is written; masks are ░."""
        prompt, answer = map(self.tokenizer.decode, self.layout.parts(row))
        return f"{prompt.removesuffix('>')}: {answer}"

    def _written(self, problems: Problems, x: Int[Tensor, "B L"]) -> list[Expression | None]:
        """The expression of each row; None where there is none."""
        answers = self.layout.answers(problems, x)
        return [None if answer is None else _read(self.tokenizer.decode(answer)) for answer in answers]

    def _drawn(self, split: str, noise: Noise) -> list[Round]:
        count = {"train": self.num_train, "valid": self.num_valid, "test": self.num_test}[split]
        law = noise.at(f"{self.numbers} of {self.largest} to {self.top}").at(split)
        return draw_rounds(torch.arange(count), numbers=self.numbers, largest=self.largest, top=self.top, noise=law)

    def _rows(self, split: str, noise: Noise) -> Int[Tensor, "B L"]:
        rounds = apart(split, drawn=partial(self._drawn, noise=noise), key=lambda r: r.key)
        prompts = [f"{','.join(map(str, r.numbers))}={r.target}>" for r in rounds]
        answers = [write(r.expression) for r in rounds]
        return self.layout.lists(self.tokenizer.encode_batch(prompts), self.tokenizer.encode_batch(answers))


def _read(text: str) -> Expression | None:
    try:
        return parse(text)
    except ValueError:
        return None
