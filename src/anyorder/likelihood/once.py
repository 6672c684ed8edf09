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
    key = torch.cat([part.long().view(len(at), -1) for part in parts if part is not None], 1)
    different, same_as = torch.unique(key, dim=0, return_inverse=True)
    if len(different) == len(at):
        return model(canvas, at)
    one = same_as.new_zeros(len(different)).scatter(0, same_as, torch.arange(len(at), device=at.device))
    return model(take_rows(canvas, one), at[one])[_places(at, at[one], same_as)]


def _places(at: Bool[Tensor, "B L"], asked: Bool[Tensor, "U L"], same_as: Int[Tensor, " B"]) -> Int[Tensor, " N"]:
    """Where the logits of each named position stand among those of the rows that were asked."""
    sizes = asked.sum(-1)
    begins = sizes.cumsum(0) - sizes
    return (begins[same_as][:, None] + at.cumsum(-1) - 1)[at]
