"""Step number in, batch out: the order of data is a function, so no restart, rank or micro-batch needs a memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.types import Batch
from anyorder.data.pack import random_pieces, refine
from anyorder.data.rows import RowSource


@dataclass(frozen=True)
class Loader:
    """Batches of a source in an order that is new in every epoch; every row comes once per epoch.

    Args:
        source: where rows come from.
        rows: rows of a batch, over all ranks and micro-batches.
        noise: the stream that orders rows and cuts random lengths.
        random_length: share of batches whose rows are cut into pieces of random lengths (SMDM: 0.01); no token is lost.
    """

    source: RowSource
    rows: int
    noise: Noise
    random_length: float = 0.0

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"rows={self.rows}: a batch must have >= 1 rows")
        if not 0.0 <= self.random_length <= 1.0:
            raise ValueError(f"data.random_length={self.random_length}: must be a share of batches between 0 and 1")

    def batch_at(self, step: int, *, rank: int = 0, world: int = 1, micro: int = 0, num_micro: int = 1) -> Batch:
        """The part of batch `step` (from 0) that micro-batch `micro` of rank `rank` trains on.

        Parts, rank by rank and in a rank micro by micro, concatenate to the batch of one process; they differ by at
        most one row in size. `sample_id = step * rows + row` names the visit.

        Raises:
            ValueError: step < 0, a part outside world x num_micro, or fewer rows than parts.
        """
        part, parts = rank * num_micro + micro, world * num_micro
        if step < 0:
            raise ValueError(f"step={step}: must be >= 0")
        if not (0 <= rank < world and 0 <= micro < num_micro):
            raise ValueError(f"rank={rank} micro={micro}: must be below world={world} and num_micro={num_micro}")
        if self.rows < parts:
            raise ValueError(
                f"rows={self.rows}: fewer than {world} ranks x {num_micro} micro-batches; raise rows or lower num_micro"
            )
        whole = torch.arange(step * self.rows, (step + 1) * self.rows)
        mine = slice(part * self.rows // parts, (part + 1) * self.rows // parts)
        return self._batch(whole, mine, cut=self._cuts(step))

    def _cuts(self, step: int) -> bool:
        return float(self.noise.at("random length").uniform(step)) < self.random_length

    def _batch(self, visit: Int[Tensor, " N"], mine: slice, *, cut: bool) -> Batch:
        numbers = self.row_of(visit)
        block = self.source.take(numbers[mine])
        segment = block.segment
        if segment is None and self.source.segmented(numbers):  # the other parts need one, so that all parts look alike
            segment = torch.ones_like(block.tokens)
        if cut:
            pieces = random_pieces(self.noise.at("pieces"), visit[mine], length=self.source.length)
            segment = refine(segment, pieces)
        return Batch(tokens=block.tokens, target=block.target, segment=segment, sample_id=visit[mine])

    def row_of(self, visit: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
        """The row seen at each visit; visits e*R .. (e+1)*R - 1 are epoch e of a source with R rows."""
        num_rows = self.source.num_rows
        epoch, place = visit // num_rows, visit % num_rows
        numbers = torch.empty_like(visit)
        for e in sorted(set(epoch.tolist())):
            here = epoch == e
            numbers = numbers.masked_scatter(here, permutation(self.noise.at("order"), e, num_rows)[place[here]])
        return numbers


@lru_cache(maxsize=4)
def permutation(noise: Noise, epoch: int, size: int) -> Int[Tensor, " N"]:
    """The order of `size` rows in an epoch; kept, because one argsort serves every batch of the epoch."""
    return noise.uniform(epoch, 0, torch.arange(size)).argsort(stable=True)


def in_order(source: RowSource, *, rows: int, limit: int | None = None) -> Iterator[Batch]:
    """Batches for validation, always the same: the rows of a source in their own order, or `limit` evenly spaced ones.

    `sample_id` is the row's number.
    """
    total = source.num_rows
    count = total if limit is None else min(limit, total)
    if rows < 1 or count < 1:
        raise ValueError(f"rows={rows} limit={limit}: both must be >= 1")
    numbers = torch.arange(count) * total // count
    for at in range(0, count, rows):
        chunk = numbers[at : at + rows]
        block = source.take(chunk)
        yield Batch(tokens=block.tokens, target=block.target, segment=block.segment, sample_id=chunk)
