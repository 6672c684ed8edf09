"""Records made while a generation runs: a use of `samplers.base.steps`."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser, Sampler
from anyorder.core.types import Canvas, Sample, Step, Vocab
from anyorder.samplers.base import steps
from anyorder.samplers.inserted import opened
from anyorder.trace.record import Inserted, RowEnd, RowStart, RowStep, StepRecord, Token


def watch(seen: Iterable[Step], canvas: Canvas, *, vocab: Vocab) -> Iterator[tuple[Step, StepRecord]]:
    """The steps as they come, each with what it did.

    Args:
        canvas: the rows before the first step.
    Raises:
        RuntimeError: a sampler changed a token without saying that it wrote there.
    """
    for index, step in enumerate(seen):
        rows = _row_steps(canvas, step, vocab) if step.origin is None else _insertions(canvas, step)
        yield step, StepRecord(step=index, rows=tuple(rows))
        canvas = step.canvas


def record_steps(
    sampler: Sampler,
    model: Denoiser,
    canvas: Canvas,
    *,
    noise: Noise,
    on_step: Callable[[Step], None] | None = None,
) -> Iterator[StepRecord]:
    """Write the rows: every step of the loop, those that did nothing included.

    Args:
        on_step: called with each step as soon as it is done.
    Raises:
        RuntimeError: as `watch` and `samplers.base.steps`.
    """
    for step, done in watch(steps(sampler, model, canvas, noise=noise), canvas, vocab=model.vocab):
        if on_step is not None:
            on_step(step)
        yield done


def starts(canvas: Canvas) -> tuple[RowStart, ...]:
    """The rows of a canvas with masks as a record holds them."""
    ids, tokens = canvas.row_id.tolist(), canvas.x.tolist()
    return tuple(RowStart(row=i, tokens=tuple(t)) for i, t in zip(ids, tokens, strict=True))


def canvas_of(rows: Sequence[RowStart], *, vocab: Vocab, device: torch.device) -> Canvas:
    """The rows of a record before their first step; all of them grow, or none does."""
    row_id = torch.tensor([row.row for row in rows], device=device)
    tokens = [row.tokens for row in rows]
    if rows[0].open is None or rows[0].length is None:
        return Canvas.of(torch.tensor(tokens, device=device), vocab=vocab, row_id=row_id)
    return opened(tokens, gaps=[row.open or () for row in rows], length=rows[0].length, vocab=vocab, row_id=row_id)


def row_ends(sample: Sample, *, grown: bool = False) -> tuple[RowEnd, ...]:
    """The finished rows of `samplers.base.generate`.

    Args:
        grown: the rows are those of an insertion model: what they begin with, and padding, is no part of them.
    """
    ids, nfe, first = sample.canvas.row_id.tolist(), sample.nfe.tolist(), int(grown)
    ends = []
    for b, size in enumerate(sample.canvas.valid.sum(-1).tolist() if grown else [sample.canvas.x.shape[1]] * len(ids)):
        x, order, p = (part[b, first:size].tolist() for part in (sample.canvas.x, sample.order, sample.token_logp))
        ends.append(
            RowEnd(row=ids[b], tokens=tuple(x), order=tuple(order), token_logp=tuple(p), logp=math.fsum(p), nfe=nfe[b])
        )
    return tuple(ends)


def _insertions(before: Canvas, step: Step) -> list[RowStep]:
    """What a step did that inserted tokens. Positions are counted from the first token behind the row's beginning."""
    assert step.origin is not None
    moved = step.canvas.x != before.x.gather(-1, step.origin.clamp(min=0))
    if bool((moved & step.canvas.valid & ~step.wrote).any()):
        raise RuntimeError("the sampler changed a token that Step.wrote does not name; name every position it writes")
    inserted: dict[int, list[Inserted]] = {}
    for (row, column), token, logp in zip(
        step.wrote.nonzero().tolist(), step.canvas.x[step.wrote].tolist(), step.logp[step.wrote].tolist(), strict=True
    ):
        inserted.setdefault(row, []).append((column - 1, token, logp))
    live = (step.nfe > 0) | step.wrote.any(-1)
    ids, nfe = before.row_id.tolist(), step.nfe.tolist()
    return [
        RowStep(row=ids[row], nfe=nfe[row], inserted=tuple(inserted.get(row, ())))
        for row in live.nonzero().squeeze(-1).tolist()
    ]


def _row_steps(before: Canvas, step: Step, vocab: Vocab) -> list[RowStep]:
    old, new, wrote = before.x, step.canvas.x, step.wrote
    if bool(((new != old) & (new != vocab.mask_id) & ~wrote).any()):
        raise RuntimeError("the sampler changed a token that Step.wrote does not name; name every position it writes")
    masked = (new == vocab.mask_id) & (wrote | (old != vocab.mask_id))
    edited = wrote & (old != vocab.mask_id) & (new != vocab.mask_id)
    writes: dict[int, list[Token]] = {}
    for (row, position), token, logp in zip(
        wrote.nonzero().tolist(), new[wrote].tolist(), step.logp[wrote].tolist(), strict=True
    ):
        writes.setdefault(row, []).append((position, None if token == vocab.mask_id else token, logp))
    live = (step.nfe > 0) | (wrote | masked).any(-1)
    ids, nfe = before.row_id.tolist(), step.nfe.tolist()
    return [
        RowStep(
            row=ids[row],
            nfe=nfe[row],
            writes=tuple(writes.get(row, ())),
            masked=tuple(masked[row].nonzero().squeeze(-1).tolist()),
            edited=tuple(edited[row].nonzero().squeeze(-1).tolist()),
        )
        for row in live.nonzero().squeeze(-1).tolist()
    ]
