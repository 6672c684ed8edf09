"""Token sequences of different lengths as rows of one batch."""

from collections.abc import Sequence

import torch

from anyorder.core.types import moved
from anyorder.likelihood.bound import Rows

BUCKET = 8  # lengths that share a batch: those that round up to the same multiple of it


def bucket_of(length: int) -> int:
    """A number that lengths which go together have in common."""
    return -(-length // BUCKET)


def rows_of(
    tokens: Sequence[Sequence[int]], *, begins: Sequence[int], row_id: Sequence[int], device: torch.device | None
) -> Rows:
    """Rows with padding on the right.

    Args:
        begins: where the targets of each row begin; they reach to its end.
    """
    lengths = torch.tensor([len(ids) for ids in tokens])
    width = int(lengths.max())
    place = torch.arange(width)
    target = (place >= torch.tensor(begins)[:, None]) & (place < lengths[:, None])
    segment = (place < lengths[:, None]).long() if int(lengths.min()) < width else None
    held = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in tokens])
    made: Rows = moved(Rows(tokens=held, target=target, segment=segment, row_id=torch.tensor(row_id)), device)
    return made
