"""Rows of a pass that are the same go through the network once: answers with the same masked text share its cost."""

import dataclasses

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas, take_rows


def ask_once(model: Denoiser, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
    """The logits `model(canvas, at)`, from one row of each set of rows that are the same in every respect.

    One-token answers to a question differ only where all of them are masked, so one row answers for all.
    """
    parts = [at, *(getattr(canvas, field.name) for field in dataclasses.fields(canvas))]
    first, same_as = unique_rows(torch.cat([part.long().view(len(at), -1) for part in parts if part is not None], 1))
    if len(first) == len(at):
        return model(canvas, at)
    return model(take_rows(canvas, first), at[first])[_places(at, at[first], same_as)]


def unique_rows(rows: Int[Tensor, "B K"]) -> tuple[Int[Tensor, " U"], Int[Tensor, " B"]]:
    """Where each different row stands first, in that order, and for every row which of them it equals."""
    places: dict[bytes, int] = {}
    first, same_as = [], []
    # By their bytes: sorting whole rows, as torch.unique does, takes fifty times as long.
    for i, row in enumerate(rows.cpu().contiguous().numpy()):
        place = places.setdefault(row.tobytes(), len(places))
        if place == len(first):
            first.append(i)
        same_as.append(place)
    return rows.new_tensor(first, dtype=torch.int64), rows.new_tensor(same_as, dtype=torch.int64)


def _places(at: Bool[Tensor, "B L"], asked: Bool[Tensor, "U L"], same_as: Int[Tensor, " B"]) -> Int[Tensor, " N"]:
    """Where the logits of each named position stand among those of the rows that were asked."""
    sizes = asked.sum(-1)
    begins = sizes.cumsum(0) - sizes
    return (begins[same_as][:, None] + at.cumsum(-1) - 1)[at]
