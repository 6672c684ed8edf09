"""Records made while a generation runs: a use of `samplers.base.steps`."""

import math
from collections.abc import Iterable, Iterator

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser, Sampler
from anyorder.core.types import Canvas, Sample, Step, Vocab
from anyorder.samplers.base import steps
from anyorder.trace.record import RowEnd, RowStart, RowStep, StepRecord, Token


def watch(seen: Iterable[Step], canvas: Canvas, *, vocab: Vocab) -> Iterator[tuple[Step, StepRecord]]:
    """The steps as they come, each with what it did.

    Args:
        canvas: the rows before the first step.
    Raises:
        RuntimeError: a sampler changed a token without saying that it wrote there.
    """
    for index, step in enumerate(seen):
        yield step, StepRecord(step=index, rows=tuple(_row_steps(canvas, step, vocab)))
        canvas = step.canvas


def record_steps(sampler: Sampler, model: Denoiser, canvas: Canvas, *, noise: Noise) -> Iterator[StepRecord]:
    """Write the rows: every step of the loop, those that did nothing included.

    Raises:
        RuntimeError: as `watch` and `samplers.base.steps`.
    """
    for _, done in watch(steps(sampler, model, canvas, noise=noise), canvas, vocab=model.vocab):
        yield done


def starts(canvas: Canvas) -> tuple[RowStart, ...]:
    """The rows of a canvas as a record holds them."""
    ids, tokens = canvas.row_id.tolist(), canvas.x.tolist()
    return tuple(RowStart(row=i, tokens=tuple(t)) for i, t in zip(ids, tokens, strict=True))


def row_ends(sample: Sample) -> tuple[RowEnd, ...]:
    """The finished rows of `samplers.base.generate`."""
    columns = (
        sample.canvas.row_id, sample.canvas.x, sample.order, sample.token_logp, sample.nfe
    )  # fmt: skip
    return tuple(
        RowEnd(row=row, tokens=tuple(x), order=tuple(order), token_logp=tuple(p), logp=math.fsum(p), nfe=nfe)
        for row, x, order, p, nfe in zip(*(c.tolist() for c in columns), strict=True)
    )


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
