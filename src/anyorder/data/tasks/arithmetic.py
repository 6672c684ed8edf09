"""Bracketed arithmetic: evaluate a small expression of digits.

A row is `(3+5)*(2-7)>` and then the number, `-40`. Brackets stand where they are needed alone.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar, Final, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.data.rows import TaskRows
from anyorder.data.tasks.base import Problems, apart, check_counts
from anyorder.data.tasks.expression import Expression, Operation, value, write
from anyorder.data.tasks.layout import Layout
from anyorder.data.tokenizer import SymbolTokenizer

TOKENIZER: Final = SymbolTokenizer("0123456789+-*()>")
OPERATORS: Final = "+-*"
MOST_DEPTH: Final = 4
ATTEMPTS: Final = 10_000
NUMBER: Final = re.compile(r"0|-?[1-9][0-9]*")


def draw_expressions(row: Int[Tensor, " B"], *, depth: int, operators: str, top: int, noise: Noise) -> list[Expression]:
    """The expressions with these numbers; each is the same alone or among others.

    Digits and operators are uniform. One side of the root has a branch of `depth` operations; any other place that
    could hold an operation or a digit holds either with equal chance. Drawn until the value is in -top..top.
    """
    found: list[Expression | None] = [None] * len(row)
    waiting, place = torch.arange(len(row)), torch.arange(2 ** (depth + 1))
    for attempt in range(ATTEMPTS):
        u = [noise.at(name).uniform(row[waiting, None], attempt, place).tolist() for name in ("shape", "digit", "do")]
        for at, *chances in zip(waiting.tolist(), *u):
            drawn = _tree(chances, 1, depth=depth, operators=operators, deep=True)
            found[at] = drawn if abs(value(drawn)) <= top else None
        waiting = torch.tensor([at for at in waiting.tolist() if found[at] is None], dtype=torch.int64)
        if not len(waiting):
            return [expression for expression in found if expression is not None]
    raise AssertionError(f"arithmetic: no value up to {top} in {ATTEMPTS} draws")


def _tree(u: Sequence[Sequence[float]], node: int, *, depth: int, operators: str, deep: bool) -> Expression:
    """The expression at a node of a binary tree (children of n: 2n and 2n + 1); `deep`: it has `depth` operations."""
    shape, digit, do = u
    if depth == 0 or (not deep and shape[node] < 0.5):
        return int(10 * digit[node])
    goes_left = deep and shape[node] < 0.5
    left = _tree(u, 2 * node, depth=depth - 1, operators=operators, deep=goes_left)
    right = _tree(u, 2 * node + 1, depth=depth - 1, operators=operators, deep=deep and not goes_left)
    return Operation(operators[int(len(operators) * do[node])], left, right)


@final
@dataclass(frozen=True)
class Arithmetic:
    """The task. No expression is in two of the splits.

    Args:
        depth: operations inside each other, 2 to 4.
        operators: those that are used, of + - *.
        top: largest answer, whatever its sign.
        end: what follows an answer (`Layout`): "fill", "once", or "none" for insertion models.
        num_train: expressions drawn to train on; those that are held out are then left out.
        num_valid, num_test: held-out expressions, for choosing and for reporting.
    """

    depth: int = 2
    operators: str = OPERATORS
    top: int = 99
    end: str = "fill"
    num_train: int = 20_000
    num_valid: int = 100
    num_test: int = 1_000
    summary: ClassVar[str] = "arithmetic: the value of an expression in brackets"

    def __post_init__(self) -> None:
        if not 2 <= self.depth <= MOST_DEPTH:
            raise ValueError(f"arithmetic depth={self.depth}: must be between 2 and {MOST_DEPTH}")
        used = set(self.operators)
        if not used or not used <= set(OPERATORS) or len(used) != len(self.operators):
            raise ValueError(f"arithmetic operators={self.operators!r}: must be some of {OPERATORS}, each once")
        if not 9 <= self.top <= 9999:
            raise ValueError(f"arithmetic top={self.top}: must be between 9 and 9999")
        check_counts(self, "arithmetic", ("num_train", "num_valid", "num_test"))
        _ = self.layout

    @property
    def tokenizer(self) -> SymbolTokenizer:
        return TOKENIZER

    @cached_property
    def layout(self) -> Layout:
        digits = 2**self.depth
        brackets = 2 * (digits - 2)  # around every operation but the last to be done
        prompt, answer = digits + (digits - 1) + brackets + 1, len(str(self.top)) + 1
        return Layout(prompt=prompt, answer=answer, end=self.end, vocab=TOKENIZER.vocab)

    @property
    def length(self) -> int:
        return self.layout.length

    def train(self, *, noise: Noise) -> TaskRows:
        """Rows to train on."""
        return self.layout.train(self._rows("train", noise))

    def train_problems(self, *, noise: Noise) -> Problems:
        """The expressions of the training rows, to be answered."""
        return self.layout.problems(self.train(noise=noise).tokens)

    def valid(self, *, noise: Noise) -> Problems:
        """Held-out expressions to choose settings with."""
        return self.layout.problems(self._rows("valid", noise))

    def test(self, *, noise: Noise) -> Problems:
        """Held-out expressions to report."""
        return self.layout.problems(self._rows("test", noise))

    def formed(self, problems: Problems, x: Int[Tensor, "B L"]) -> Bool[Tensor, " B"]:
        """Whether each row keeps its prompt and then is a whole number, written in one way, that ends."""
        answers = self.layout.answers(problems, x)
        right = [a is not None and NUMBER.fullmatch(self.tokenizer.decode(a)) is not None for a in answers]
        return torch.tensor(right, dtype=torch.bool, device=x.device)

    def correct(self, problems: Problems, x: Int[Tensor, "B L"]) -> Bool[Tensor, " B"]:
        """Whether each row keeps its prompt and answers with its value; one digit more or less is wrong."""
        return self.layout.correct(problems, x)

    def render(self, row: Int[Tensor, " L"]) -> str:
        """The expression and its value; masks are ░."""
        prompt, answer = map(self.tokenizer.decode, self.layout.parts(row))
        return f"{prompt.removesuffix('>')} = {answer}"

    def _drawn(self, split: str, noise: Noise) -> list[Expression]:
        count = {"train": self.num_train, "valid": self.num_valid, "test": self.num_test}[split]
        law = noise.at(f"{self.operators} {self.depth} deep to {self.top}").at(split)
        row = torch.arange(count)
        return draw_expressions(row, depth=self.depth, operators=self.operators, top=self.top, noise=law)

    def _rows(self, split: str, noise: Noise) -> Int[Tensor, "B L"]:
        kept = apart(split, drawn=partial(self._drawn, noise=noise))
        prompts = [f"{write(expression)}>" for expression in kept]
        answers = [str(value(expression)) for expression in kept]
        return self.layout.lists(self.tokenizer.encode_batch(prompts), self.tokenizer.encode_batch(answers))
