"""What insertion does to rows: tokens move up to make room, and what is known of each position moves with them."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.categorical import wide
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas, Vocab


@dataclass(frozen=True)
class Reading:
    """What an insertion model says of rows, one document each, written from the left.

    Args:
        open: the positions it was asked about: inside the window, not padding.
        scores: of inserting each token after them, row-major; -inf for end-of-document.
        mass: log of the sum over tokens of exp(score) at open positions, -inf elsewhere; float64.
        stop: log-odds that nothing is missing; float64.
    """

    open: Bool[Tensor, "B L"]
    scores: Float[Tensor, "N V"]
    mass: Float[Tensor, "B L"]
    stop: Float[Tensor, " B"]

    def at(self, chosen: Bool[Tensor, "B L"]) -> Float[Tensor, "K V"]:
        """Scores at some of the open positions, row-major."""
        return self.scores[chosen[self.open]]


def read(model: Denoiser, canvas: Canvas) -> Reading:
    """Ask the model once."""
    eos = model.vocab.eos_id
    assert eos is not None  # an insertion model has one
    open_ = canvas.window & canvas.valid
    asked = open_.clone()
    asked[:, 0] = True  # the stop stands at a document's first position
    width = int(canvas.valid.sum(-1).max())  # what is padding in every row is not read
    logits = model(columns(canvas, width), asked[:, :width])
    number = (asked.flatten().cumsum(0) - 1).view_as(asked)
    stop = logits[number[:, 0], eos].double()
    scores = logits[open_[asked]].index_fill(-1, torch.tensor([eos], device=logits.device), -torch.inf)
    broken = stop.isnan()[open_.nonzero()[:, 0], None]  # would never end a row: refused with the next draw
    scores = scores.masked_fill(broken, torch.nan)
    mass = torch.full(open_.shape, -torch.inf, dtype=torch.float64, device=logits.device)
    mass = mass.masked_scatter(open_, torch.logsumexp(wide(scores), -1).double())
    return Reading(open_, scores, mass, stop)


def opened(
    rows: Sequence[Sequence[int]],
    *,
    gaps: Sequence[Sequence[int]],
    length: int,
    vocab: Vocab,
    row_id: Int[Tensor, " B"],
) -> Canvas:
    """Rows of an insertion model before the first step: end-of-document, what is given, and room up to `length` tokens.

    Args:
        rows: the given tokens, at most `length` each.
        gaps: of each row the places where tokens may be inserted: k is after its first k tokens.
        length: most tokens of a row; end-of-document, which stands for the beginning, is none of them.
    """
    eos = vocab.eos_id
    assert eos is not None  # an insertion model has one
    x = torch.tensor([[eos, *row, *[vocab.pad_id] * (length - len(row))] for row in rows], device=row_id.device)
    position = torch.arange(length + 1, device=row_id.device)
    size = torch.tensor([1 + len(row) for row in rows], device=row_id.device)
    valid = position < size[:, None]
    window = torch.zeros_like(valid)
    for row, places in enumerate(gaps):
        window[row, list(places)] = True
    return Canvas(x=x, fixed=valid, window=window, segment=valid.long(), row_id=row_id)


def columns(canvas: Canvas, width: int) -> Canvas:
    """The first columns of every row."""
    cut = {name: getattr(canvas, name)[:, :width] for name in ("x", "fixed", "window")}
    segment = None if canvas.segment is None else canvas.segment[:, :width]
    return dataclasses.replace(canvas, segment=segment, **cut)


def insert(
    canvas: Canvas, gap: Int[Tensor, "B L"], chosen: Bool[Tensor, "B L"], token: Int[Tensor, " K"]
) -> tuple[Canvas, Int[Tensor, "B L"], Int[Tensor, "B L"]]:
    """Put a token just after each chosen position: the new rows, their gaps, and where each position came from.

    What is inserted is open, and of the gap, like the token before it. The row needs room: as many padded positions at
    its end as tokens are inserted.

    Args:
        gap: the number of the gap at each position.
        token: one for each chosen position, row-major.
    """
    length = chosen.shape[1]
    position = torch.arange(length, device=chosen.device).expand(chosen.shape)
    up_to = chosen.long().cumsum(-1)
    to = position + up_to - chosen.long()  # where what stands here goes
    origin = torch.full_like(position, -1)
    stays = to < length
    origin[stays.nonzero()[:, 0], to[stays]] = position[stays]
    row, at = chosen.nonzero(as_tuple=True)
    new = to[chosen] + 1
    anchor = origin.index_put((row, new), at)  # whom each position resembles
    segment = torch.ones_like(canvas.x) if canvas.segment is None else canvas.segment
    is_new = torch.zeros_like(chosen).index_put((row, new), torch.ones_like(row, dtype=torch.bool))
    written = dataclasses.replace(
        canvas,
        x=canvas.x.gather(-1, anchor).index_put((row, new), token),
        fixed=canvas.fixed.gather(-1, anchor) & ~is_new,
        window=canvas.window.gather(-1, anchor),
        segment=segment.gather(-1, anchor),
    )
    return written, gap.gather(-1, anchor), origin.masked_fill(is_new, -1)


def room_of(canvas: Canvas) -> Int[Tensor, " B"]:
    """Tokens that each row still has room for."""
    return (~canvas.valid).sum(-1)


def insertions(before: Canvas, after: Canvas) -> Bool[Tensor, "B L"]:
    """After which positions of the first canvas one token may have been inserted to give the second.

    Several if the token stands in a run of its equals.
    """
    old, new = before.x, after.x
    width = old.shape[1]
    same = (old == new) | ~before.valid
    prefix = same.long().cumprod(-1) > 0  # all up to here stayed
    moved = torch.ones_like(same)
    moved[:, :-1] = (old[:, :-1] == new[:, 1:]) | ~before.valid[:, :-1]
    suffix = moved.long().flip(-1).cumprod(-1).flip(-1) > 0  # all from here on moved by one
    later = torch.ones_like(suffix)
    later[:, : width - 1] = suffix[:, 1:]
    return prefix & later & before.valid
