"""A task: instances with a known answer, a checker, and a picture. Its rows train through the same loader as text."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol, TypeVar, runtime_checkable

from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.data.rows import TaskRows
from anyorder.data.tokenizer import SymbolTokenizer

Item = TypeVar("Item")
EARLIER: Final = {"test": (), "valid": ("test",), "train": ("test", "valid")}  # splits that a split keeps clear of


@dataclass(frozen=True)
class Problems:
    """Held-out instances.

    Args:
        canvas: what a sampler starts from: the prompt fixed, the rest masks.
        x0: a right way to write it out, and the only one unless the task's checker says otherwise.
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


@runtime_checkable
class FormedTask(Task, Protocol):
    """A task whose answers have a form, so that a wrong answer can be told from none."""

    def formed(self, problems: Problems, x: Int[Tensor, "B L"]) -> Bool[Tensor, " B"]:
        """Whether each row keeps its prompt and then is a whole answer, right or wrong: no mask, ended, legible."""
        ...


@runtime_checkable
class DenseTask(Task, Protocol):
    """A task that says how near an answer is to a right one."""

    def dense(self, problems: Problems, x: Int[Tensor, "B L"]) -> Float[Tensor, " B"]:
        """In [0, 1], and 1 for right rows; float64."""
        ...


@runtime_checkable
class PracticeTask(Task, Protocol):
    """A task whose training instances can be asked: what a policy that learns from rewards starts from."""

    def train_problems(self, *, noise: Noise) -> Problems: ...


@runtime_checkable
class PicturedTask(Task, Protocol):
    """A task whose rows are pictures of what a text asks for."""

    def caption(self, row: Int[Tensor, " L"]) -> str:
        """The text."""
        ...

    def picture(self, row: Int[Tensor, " L"]) -> UInt8[Tensor, "H W 3"]:
        """Red, green and blue of each pixel."""
        ...


def check_counts(task: object, called: str, counts: Sequence[str]) -> None:
    """Raises ValueError for an attribute, of these names, that is below 1."""
    for name in counts:
        if getattr(task, name) < 1:
            raise ValueError(f"{called} {name}={getattr(task, name)}: must be >= 1")


def apart(
    split: str, *, drawn: Callable[[str], Sequence[Item]], key: Callable[[Item], Hashable] = lambda item: item
) -> list[Item]:
    """The items of a split that are none of those reported on or, for training, chosen by.

    Args:
        split: "train", "valid" or "test"; nothing of "test" is left out.
        drawn: the items of a split as its law draws them, each split alone.
        key: equal for items that must not be in two splits.
    """
    known = {key(item) for other in EARLIER[split] for item in drawn(other)}
    return [item for item in drawn(split) if key(item) not in known]
