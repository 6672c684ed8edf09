"""A task: instances with a known answer, a checker, and a picture. Its rows train through the same loader as text."""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Bool, Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.data.rows import TaskRows
from anyorder.data.tokenizer import SymbolTokenizer


@dataclass(frozen=True)
class Problems:
    """Held-out instances.

    Args:
        canvas: what a sampler starts from: the prompt fixed, the rest masks.
        x0: the one right way to write it out.
    """

    canvas: Canvas
    x0: Int[Tensor, "B L"]


@runtime_checkable
class Task(Protocol):
    """Instances of one kind of problem; training and held-out instances never share an answer."""

    summary: ClassVar[str]

    @property
    def tokenizer(self) -> SymbolTokenizer: ...

    @property
    def length(self) -> int: ...

    def train(self, *, noise: Noise) -> TaskRows: ...

    def test(self, *, noise: Noise) -> Problems: ...

    def correct(self, problems: Problems, x: Int[Tensor, "B L"]) -> Bool[Tensor, " B"]:
        """Whether each written row keeps its prompt and is right."""
        ...

    def render(self, row: Int[Tensor, " L"]) -> str:
        """A row as text for people; masks are ░."""
        ...


@runtime_checkable
class ValidatedTask(Task, Protocol):
    """A task with instances for choosing settings that are not those it is reported on."""

    def valid(self, *, noise: Noise) -> Problems: ...
