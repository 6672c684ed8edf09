"""A reward says how good each written row is. What it gets to see, and how a faulty one is caught by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.types import take_rows
from anyorder.data.tasks.base import FormedTask, Problems, Task

SHOWN = 60  # letters of a row in a message


@dataclass(frozen=True)
class Samples:
    """Finished rows; row b answers problem b.

    Args:
        x: what was written, prompts included.
        problems: what was asked; the rows of a group ask the same.
        texts: the rows as text.
    """

    x: Int[Tensor, "B L"]
    problems: Problems
    texts: Sequence[str]

    @classmethod
    def of(cls, x: Int[Tensor, "B L"], problems: Problems, *, task: Task) -> "Samples":
        """The rows with their texts as the task's tokenizer reads them."""
        return cls(x=x, problems=problems, texts=[task.tokenizer.decode(row) for row in x.tolist()])

    def row(self, number: int) -> "Samples":
        """One row alone."""
        only = torch.tensor([number], device=self.x.device)
        return Samples(x=self.x[only], problems=take_rows(self.problems, only), texts=[self.texts[number]])


@runtime_checkable
class Reward(Protocol):
    """How good each row is, float64, higher is better; a row gets the same alone or among others."""

    def __call__(self, samples: Samples) -> Float[Tensor, " B"]: ...


def malformed(samples: Samples, *, task: Task) -> Bool[Tensor, " B"]:
    """Which rows are no whole answer: a mask is left, or the task finds them cut off or illegible (`FormedTask`)."""
    masked = (samples.x == task.tokenizer.vocab.mask_id).any(-1)
    if not isinstance(task, FormedTask):
        return masked
    return masked | ~task.formed(samples.problems, samples.x)


@final
@dataclass(frozen=True)
class Checked:
    """A reward around a reward: rows that are no whole answer get 0, and what is wrong with the inner one is said.

    Args:
        name: what it is called in messages.
        partial: the inner reward measures how near a row is to a right one, and is left to judge any row.
    """

    name: str
    reward: Reward
    task: Task
    partial: bool = False

    def __call__(self, samples: Samples) -> Float[Tensor, " B"]:
        """The inner rewards as float64, 0 where `malformed` unless it is `partial`.

        Raises:
            ValueError: the inner reward raises, or returns something else than one finite number a row; the first row
                that is to blame is named.
        """
        made = self._called(samples)
        if not isinstance(made, Tensor) or made.shape != samples.x.shape[:1] or made.is_complex():
            what = f"shape {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
            raise ValueError(f"reward {self.name!r}: returns {what} for {len(samples.x)} rows; return one number a row")
        value = made.detach().to(samples.x.device, torch.float64)
        bad = (~value.isfinite()).nonzero().flatten().tolist()
        if bad:
            where = _shown(samples, bad[0])
            raise ValueError(f"reward {self.name!r}: {float(value[bad[0]])} for {where}; return a finite number")
        return value if self.partial else value.masked_fill(malformed(samples, task=self.task), 0.0)

    def _called(self, samples: Samples) -> Any:
        try:
            return self.reward(samples)
        except Exception as error:
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ValueError(f"reward {self.name!r}: raises {what} for {self._to_blame(samples)}; mend it") from error

    def _to_blame(self, samples: Samples) -> str:
        """The first row that raises on its own."""
        for number in range(len(samples.x)):
            try:
                self.reward(samples.row(number))
            except Exception:
                return _shown(samples, number)
        return f"{len(samples.x)} rows together, for none alone"


def _shown(samples: Samples, number: int) -> str:
    text = samples.texts[number]
    return f"row {number}, {text if len(text) <= SHOWN else text[: SHOWN - 1] + '…'!r}"
