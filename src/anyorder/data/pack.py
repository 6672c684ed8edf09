"""Rows out of documents, without losing a token: the stream cut every L tokens, or whole documents side by side.

A `Plan` says which stretches of the token stream a row holds; every token of the stream is in exactly one stretch.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from anyorder.core.best_fit import best_fit
from anyorder.core.noise import Noise
from anyorder.core.types import Vocab
from anyorder.data.rows import RowBlock
from anyorder.data.shards import Shards

Packing = Literal["stream", "documents"]


@dataclass(frozen=True)
class Plan:
    """Stretches (start, size) of the stream; row r holds those numbered row[r] to row[r + 1] - 1, side by side.

    Args:
        start: first token of each stretch.
        size: tokens of each stretch, >= 1.
        row: the first stretch of each row, the end included.
    """

    start: NDArray[np.int64]
    size: NDArray[np.int64]
    row: NDArray[np.int64]

    @property
    def num_rows(self) -> int:
        return len(self.row) - 1


def stream_plan(num_tokens: int, length: int) -> Plan:
    """Rows of `length` consecutive tokens, documents joined by EOS (as SMDM trains); the last row may be shorter."""
    start = np.arange(0, num_tokens, length, dtype=np.int64)
    return Plan(start=start, size=np.minimum(length, num_tokens - start), row=np.arange(len(start) + 1, dtype=np.int64))


def document_plan(starts: NDArray[np.int64], length: int) -> Plan:
    """Rows of whole documents, packed best-fit decreasing; longer documents are first cut every `length` tokens.

    Each piece goes into the fullest row that still holds it, so few positions are padding; ties go to the older row.

    Args:
        starts: first token of each document in the stream, the end of the last included.
    Source:
        best-fit packing of documents, arXiv:2404.10830.
    """
    pieces = [(at, min(length, end - at))
              for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
              for at in range(begin, end, length)]  # fmt: skip
    rows = best_fit([size for _, size in pieces], length)
    flat = np.array([pieces[i] for row in rows for i in row], dtype=np.int64).reshape(-1, 2)
    return Plan(start=flat[:, 0], size=flat[:, 1], row=np.cumsum([0, *map(len, rows)], dtype=np.int64))


@dataclass(frozen=True)
class PackedRows:
    """The rows of a plan, read from shards: the `RowSource` of text. Each stretch of a row is a segment of its own."""

    shards: Shards
    plan: Plan
    length: int
    vocab: Vocab

    @property
    def num_rows(self) -> int:
        return self.plan.num_rows

    def segmented(self, rows: Int[Tensor, " B"]) -> bool:
        return any(len(sizes) > 1 or sizes[0] < self.length for sizes in map(self._sizes, rows.tolist()))

    def take(self, rows: Int[Tensor, " B"]) -> RowBlock:
        """Clean tokens; every position but padding is a target."""
        tokens = np.full((len(rows), self.length), self.vocab.pad_id, dtype=np.int64)
        segment = np.zeros((len(rows), self.length), dtype=np.int64)
        for b, row in enumerate(rows.tolist()):
            at = 0
            for number, piece in enumerate(range(self.plan.row[row], self.plan.row[row + 1]), start=1):
                size = int(self.plan.size[piece])
                tokens[b, at : at + size] = self.shards.read(int(self.plan.start[piece]), length=size)
                segment[b, at : at + size] = number
                at += size
        marks = torch.from_numpy(segment)
        return RowBlock(
            tokens=torch.from_numpy(tokens), target=marks > 0, segment=marks if self.segmented(rows) else None
        )

    def _sizes(self, row: int) -> NDArray[np.int64]:
        return self.plan.size[self.plan.row[row] : self.plan.row[row + 1]]


def packed_rows(
    shards: Shards, *, vocab: Vocab, length: int, packing: Packing, may_be_short: bool = False
) -> PackedRows:
    """Rows of `length` tokens of a folder of shards.

    Args:
        may_be_short: allow a text shorter than one row, padded; for validation.
    Raises:
        ValueError: the text is shorter than one row.
    """
    if shards.num_tokens < length and not may_be_short:
        raise ValueError(
            f"data.length={length}: the text has only {shards.num_tokens} tokens; "
            f"lower data.length to {shards.num_tokens} or less, or give more text"
        )
    plan = stream_plan(shards.num_tokens, length) if packing == "stream" else document_plan(shards.starts, length)
    return PackedRows(shards=shards, plan=plan, length=length, vocab=vocab)


def random_pieces(noise: Noise, sample_id: Int[Tensor, " B"], *, length: int) -> Int[Tensor, "B L"]:
    """Segment numbers that cut each row into pieces of lengths drawn uniformly from 1..length, until the row is full.

    A model trained on full rows only reads short texts badly, so SMDM draws one length for 1 % of its batches and
    throws the rest of those rows away. Here the rest becomes further pieces: the row still holds all its tokens, and
    the last piece is what is left.

    Source:
        arXiv:2410.18514, appendix C.2 (there with truncation).
    """
    place = torch.arange(length)
    sizes = 1 + (noise.uniform(sample_id[:, None], 0, place) * length).long()  # (B, L), more than can be needed
    ends = sizes.cumsum(-1).clamp(max=length)
    starts_piece = torch.zeros(len(sample_id), length + 1, dtype=torch.int64).scatter(1, ends, 1)[:, :length]
    return 1 + starts_piece.cumsum(-1)


def refine(segment: Int[Tensor, "B L"] | None, pieces: Int[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """Segments cut further: positions stay together only if both numberings agree; padding stays 0."""
    if segment is None:
        return pieces
    changed = torch.zeros_like(pieces)
    changed[:, 1:] = ((segment[:, 1:] != segment[:, :-1]) | (pieces[:, 1:] != pieces[:, :-1])).long()
    return torch.where(segment > 0, 1 + changed.cumsum(-1), 0)
