"""Short rows of a source side by side in rows of the same length, so that little of a batch is padding."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from anyorder.core.best_fit import best_fit
from anyorder.core.types import Vocab
from anyorder.data.rows import RowBlock, RowSource

ROWS_AT_ONCE = 1024  # of the source, whose sizes are looked up


@dataclass(frozen=True)
class SideBySide:
    """Several rows of a source in one, each a segment of its own, without the padding between them.

    Args:
        source: rows of one document each, padded at the end.
        groups: which of them share a row; together they fit in.
    """

    source: RowSource
    groups: tuple[tuple[int, ...], ...]

    @property
    def vocab(self) -> Vocab:
        return self.source.vocab

    @property
    def length(self) -> int:
        return self.source.length

    @property
    def num_rows(self) -> int:
        return len(self.groups)

    def segmented(self, rows: Int[Tensor, " B"]) -> bool:
        return self.take(rows).segment is not None

    def take(self, rows: Int[Tensor, " B"]) -> RowBlock:
        """Rows with padding at the end."""
        groups = [self.groups[row] for row in rows.tolist()]
        block = self.source.take(torch.tensor([i for group in groups for i in group]))
        size = (block.tokens != self.vocab.pad_id).sum(-1).tolist()
        tokens = torch.full((len(groups), self.length), self.vocab.pad_id)
        target, segment = torch.zeros_like(tokens, dtype=torch.bool), torch.zeros_like(tokens)
        piece = 0
        for row, group in enumerate(groups):
            at = 0
            for number in range(1, len(group) + 1):
                span, own = slice(at, at + size[piece]), slice(size[piece])
                tokens[row, span], target[row, span] = block.tokens[piece, own], block.target[piece, own]
                segment[row, span] = number
                at, piece = at + size[piece], piece + 1
        return RowBlock(tokens, target, None if bool((segment == 1).all()) else segment)


def side_by_side(source: RowSource) -> SideBySide:
    """The rows of a source, each once, packed best fit (`best_fit`); all of them are read to learn their sizes."""
    every = torch.split(torch.arange(source.num_rows), ROWS_AT_ONCE)
    size = torch.cat([(source.take(some).tokens != source.vocab.pad_id).sum(-1) for some in every])
    return SideBySide(source, tuple(map(tuple, best_fit(size.tolist(), source.length))))
