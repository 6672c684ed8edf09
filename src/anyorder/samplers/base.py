"""The one loop: every sampler writes through `steps`; streaming, counting, tracing and stopping are uses of it."""

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser, Sampler, Scorable
from anyorder.core.types import Canvas, Carry, Sample, Step, Vocab, Write, put_rows, take_rows
from anyorder.samplers.passes import Passes
from anyorder.samplers.token import NO_DISTRIBUTION


def steps(sampler: Sampler, model: Denoiser, canvas: Canvas, *, noise: Noise) -> Iterator[Step]:
    """The steps that write the open positions of `canvas.window`, each with every row in it.

    A row is finished when nothing in its window is open and its sampler edits no more; it then leaves the compute,
    which changes no other row, as noise is named by row, step and position. Equal canvases are evaluated once. Iterate
    to stream; stop iterating to stop.

    Raises:
        RuntimeError: a step neither wrote to a live row nor advanced its step number: it would repeat for ever; or the
            model's logits are no distribution.
    """
    carry = sampler.init(canvas, vocab=model.vocab)
    passes = Passes(model)
    while len(rows := live_rows(canvas, carry, model.vocab)):
        with torch.no_grad():  # closed before the yield: a generator must not leak its mode to the caller
            wrote = _advance(sampler, passes, canvas, carry, rows, noise)
        nfe = passes.settle(canvas.row_id, changed=(wrote.canvas.x != canvas.x).any(-1))
        canvas, carry = wrote.canvas, wrote.carry
        yield Step(canvas, carry, wrote.wrote, wrote.logp, nfe, wrote.origin)


def generate(sampler: Sampler, model: Denoiser, canvas: Canvas, *, noise: Noise) -> Sample:
    """The finished rows, what each token cost and when it came.

    Raises:
        RuntimeError: as `steps`.
    """
    order = torch.full_like(canvas.x, -1)
    token_logp = torch.zeros_like(canvas.x, dtype=torch.float64)
    nfe = torch.zeros_like(canvas.row_id)
    revised = torch.zeros_like(canvas.x)
    for index, step in enumerate(steps(sampler, model, canvas, noise=noise)):
        if step.origin is not None:
            canvas, order, token_logp, revised = _moved(canvas, order, token_logp, revised, step.origin)
        order = torch.where(step.wrote, index, order)
        token_logp = torch.where(step.wrote, step.logp, token_logp)
        nfe = nfe + step.nfe
        visible = canvas.valid & ~canvas.open(model.vocab)
        revised = revised + torch.where(step.canvas.open(model.vocab), step.wrote | visible, step.wrote & visible)
        canvas = step.canvas
    return Sample(canvas=canvas, logp=token_logp.sum(-1), nfe=nfe, order=order, token_logp=token_logp, revised=revised)


def step_log_probs(
    sampler: Scorable, model: Denoiser, canvas: Canvas, *, taken: Sequence[Step]
) -> Iterator[Float[Tensor, " B"]]:
    """Log-probability of each step of a trajectory that began at `canvas`: of its positions and tokens; nats.

    The trajectory may come from another model (importance weights); gradients flow to this one, a step at a time.

    Raises:
        ValueError: a sampler whose steps have no likelihood.
    """
    carry = sampler.init(canvas, vocab=model.vocab)
    for step in taken:
        rows = live_rows(canvas, carry, model.vocab)
        before, after = take_rows(canvas, rows), take_rows(step.canvas, rows)
        logp = sampler.log_prob(model, before, take_rows(carry, rows), after)
        yield torch.zeros_like(canvas.row_id, dtype=torch.float64).index_put((rows,), logp)
        canvas, carry = step.canvas, step.carry


def live_rows(canvas: Canvas, carry: Carry, vocab: Vocab) -> Int[Tensor, " N"]:
    """Indices of the rows that still have something to write, or may change their mind."""
    live = (canvas.open(vocab) & canvas.window).any(-1)
    return (live if carry.more is None else live | (carry.more > 0)).nonzero().squeeze(-1)


def idle(canvas: Canvas, carry: Carry, *, moves: bool = False) -> Write:
    """A step in which no row takes part: nothing written, no time passed; for a sampler that moves tokens or not."""
    stays = torch.arange(canvas.x.shape[1], device=canvas.x.device).expand(canvas.x.shape).contiguous()
    return Write(
        canvas=canvas,
        carry=carry,
        wrote=torch.zeros_like(canvas.fixed),
        logp=torch.zeros_like(canvas.x, dtype=torch.float64),
        origin=stays if moves else None,
    )


def _moved(
    canvas: Canvas,
    order: Int[Tensor, "B L"],
    logp: Float[Tensor, "B L"],
    revised: Int[Tensor, "B L"],
    origin: Int[Tensor, "B L"],
) -> tuple[Canvas, Int[Tensor, "B L"], Float[Tensor, "B L"], Int[Tensor, "B L"]]:
    """What is known of each position, where its token stands now; nothing is known of new ones."""
    new, at = origin < 0, origin.clamp(min=0)
    x = canvas.x.gather(-1, at)
    segment = None if canvas.segment is None else canvas.segment.gather(-1, at).masked_fill(new, 0)
    return (
        dataclasses.replace(canvas, x=x, fixed=canvas.fixed.gather(-1, at), segment=segment),
        order.gather(-1, at).masked_fill(new, -1),
        logp.gather(-1, at).masked_fill(new, 0.0),
        revised.gather(-1, at).masked_fill(new, 0),
    )


def _advance(
    sampler: Sampler, model: Denoiser, canvas: Canvas, carry: Carry, rows: Int[Tensor, " N"], noise: Noise
) -> Write:
    """One step of the given rows inside all rows."""
    if len(rows) == len(canvas.x):
        part = step = sampler.step(model, canvas, carry, noise=noise)
        before = carry
    else:
        before = take_rows(carry, rows)
        part = sampler.step(model, take_rows(canvas, rows), before, noise=noise)
        step = put_rows(idle(canvas, carry, moves=part.origin is not None), rows, part)
    went_on = part.carry.step > before.step
    if bool(went_on.all() & (part.canvas.x >= 0).all()):  # one look at the device for both
        return step
    if bool((part.canvas.x < 0).any()):  # what `categorical.draw` gives where there is nothing to draw from
        raise RuntimeError(NO_DISTRIBUTION)
    if not bool((went_on | part.wrote.any(-1)).all()):
        raise RuntimeError(
            f"{type(sampler).__name__}: a step wrote nothing and did not advance carry.step, so it would repeat for "
            "ever; advance carry.step in every step"
        )
    return step
