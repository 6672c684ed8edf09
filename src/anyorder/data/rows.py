"""What a loader reads from: rows of one length, addressed by number."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from anyorder.core.types import Vocab


@dataclass(frozen=True)
class RowBlock:
    """Some rows of a source; like a `Batch` without the name of the visit."""

    tokens: Int[Tensor, "B L"]
    target: Bool[Tensor, "B L"]
    segment: Int[Tensor, "B L"] | None


@runtime_checkable
class RowSource(Protocol):
    """Rows of `length` tokens, numbered 0..num_rows-1; reading one never depends on what was read before."""

    @property
    def vocab(self) -> Vocab: ...

    @property
    def length(self) -> int: ...

    @property
    def num_rows(self) -> int: ...

    def segmented(self, rows: Int[Tensor, " B"]) -> bool:
        """Whether any of these rows has padding or several documents, so that all of them need `segment`."""
        ...

    def take(self, rows: Int[Tensor, " B"]) -> RowBlock:
        """The rows, with `segment` if any of them needs it."""
        ...


@dataclass(frozen=True)
class TaskRows:
    """Rows held in memory, one example each: a prompt, and an answer that is the target.

    Args:
        tokens: x0, prompt and answer.
        target: the answer's positions.
        vocab: the task's.
    """

    tokens: Int[Tensor, "R L"]
    target: Bool[Tensor, "R L"]
    vocab: Vocab

    @property
    def length(self) -> int:
        return self.tokens.shape[1]

    @property
    def num_rows(self) -> int:
        return self.tokens.shape[0]

    def segmented(self, rows: Int[Tensor, " B"]) -> bool:
        return bool((self.tokens[rows] == self.vocab.pad_id).any())

    def take(self, rows: Int[Tensor, " B"]) -> RowBlock:
        tokens = self.tokens[rows]
        held = tokens != self.vocab.pad_id
        return RowBlock(
            tokens=tokens,
            target=self.target[rows] & held,
            segment=held.to(torch.int64) if self.segmented(rows) else None,
        )
