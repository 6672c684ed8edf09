"""Rows of a pass that are the same go through the network once: answers with the same masked text share its cost."""

import dataclasses

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas, take_rows

HASH = 0x5851F42D4C957F2D


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
    """Where each different row stands first, in that order, and for every row which of them it equals.

    Rows are compared by a hash and then checked: sorting whole rows takes fifty times as long.
    """
    hashed = (rows * _powers(rows.shape[1], rows.device)).sum(-1)
    first, same_as = _first_of(hashed.unique(return_inverse=True)[1])  # type: ignore[no-untyped-call]
    if not torch.equal(rows[first[same_as]], rows):
        first, same_as = _first_of(torch.unique(rows, dim=0, return_inverse=True)[1])
    return first, same_as


def _powers(count: int, device: torch.device) -> Int[Tensor, " K"]:
    """Powers of an odd number, modulo 2^64: the weights of a polynomial hash."""
    return torch.full((count,), HASH, dtype=torch.int64, device=device).cumprod(0)


def _first_of(group: Int[Tensor, " B"]) -> tuple[Int[Tensor, " U"], Int[Tensor, " B"]]:
    """The first member of each group, smallest first, and every member's group in that order."""
    place = torch.arange(len(group), device=group.device)
    size = int(group.max()) + 1 if len(group) else 0
    first = place.new_full((size,), len(group)).scatter_reduce(0, group, place, "amin")
    order = first.argsort()
    return first[order], order.argsort()[group]


def _places(at: Bool[Tensor, "B L"], asked: Bool[Tensor, "U L"], same_as: Int[Tensor, " B"]) -> Int[Tensor, " N"]:
    """Where the logits of each named position stand among those of the rows that were asked."""
    sizes = asked.sum(-1)
    begins = sizes.cumsum(0) - sizes
    return (begins[same_as][:, None] + at.cumsum(-1) - 1)[at]
