"""The values that flow through the package: vocabulary, training batch, canvas, loss, step, sample.

All are frozen. Shapes use the axes B rows, L positions, V vocabulary. Token ids are int64.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Vocab:
    """What token ids mean: `size` ids have a logit; mask and pad may lie inside or beyond them.

    Args:
        size: V, the columns of the logits; every writable token id is below it.
        mask_id: the id of a token not yet written. If below `size`, its logit must be -inf.
        pad_id: the id that fills rows up; it is never attended, never a target.
        eos_id: end of document, and what an autoregressive model reads before the first token; None if there is none.
    """

    size: int
    mask_id: int
    pad_id: int
    eos_id: int | None = None

    @property
    def num_ids(self) -> int:
        """Rows of an input embedding table that can read every id."""
        return max(self.size, self.mask_id + 1, self.pad_id + 1)


def take_rows(value: Any, rows: Int[Tensor, " N"]) -> Any:
    """The same dataclass with only the given rows of every tensor in it (dataclasses are entered, None is kept)."""
    return _each(value, lambda tensor: tensor[rows])


def moved(value: Any, device: torch.device | None) -> Any:
    """The same dataclass with every tensor in it on a device (dataclasses are entered); None: where it is."""
    return _each(value, lambda tensor: tensor.to(device))


def _each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _each(getattr(value, f.name), change) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value


def put_rows(value: Any, rows: Int[Tensor, " N"], part: Any) -> Any:
    """The same dataclass with the given rows replaced by those of `part`; inverse of `take_rows`, edits nothing."""
    if isinstance(value, Tensor):
        return value.index_put((rows,), part)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            f.name: put_rows(getattr(value, f.name), rows, getattr(part, f.name)) for f in dataclasses.fields(value)
        }
        return dataclasses.replace(value, **fields)
    return value


@dataclass(frozen=True)
class Batch:
    """Clean rows for one optimiser micro-step.

    Args:
        tokens: x0.
        target: positions the loss may touch: neither prompt nor padding.
        segment: document number of each position, 0 for padding; attention stays inside equal non-zero numbers.
            None when every row is one document without padding (the fast path).
        sample_id: names the visit of this row; unique over a training run, so that its noise is its own.
    """

    tokens: Int[Tensor, "B L"]
    target: Bool[Tensor, "B L"]
    segment: Int[Tensor, "B L"] | None
    sample_id: Int[Tensor, " B"]


@dataclass(frozen=True)
class Canvas:
    """Partly written rows: what a denoiser reads and a sampler writes.

    Args:
        x: token ids; `vocab.mask_id` where nothing is written yet.
        fixed: prompt positions; no sampler changes them.
        window: where a sampler may write now. The network still sees every position.
        segment: as in `Batch`; 0 marks padding, which is never attended and never written. None: no padding.
        row_id: names each row's request, so that its noise is its own in any batch.
    """

    x: Int[Tensor, "B L"]
    fixed: Bool[Tensor, "B L"]
    window: Bool[Tensor, "B L"]
    segment: Int[Tensor, "B L"] | None
    row_id: Int[Tensor, " B"]

    @property
    def valid(self) -> Bool[Tensor, "B L"]:
        """Positions that are not padding."""
        return torch.ones_like(self.fixed) if self.segment is None else self.segment > 0

    def open(self, vocab: Vocab) -> Bool[Tensor, "B L"]:
        """Positions still to be written, anywhere in the row."""
        masked = (self.x == vocab.mask_id) & ~self.fixed
        return masked if self.segment is None else masked & self.valid

    @classmethod
    def of(
        cls,
        x: Int[Tensor, "B L"],
        *,
        vocab: Vocab,
        row_id: Int[Tensor, " B"] | None = None,
        segment: Int[Tensor, "B L"] | None = None,
    ) -> "Canvas":
        """Rows whose masks are to be written and whose other tokens are prompt; rows are numbered from 0 by default."""
        ids = torch.arange(len(x), device=x.device) if row_id is None else row_id
        return cls(
            x=x, fixed=x != vocab.mask_id, window=torch.ones_like(x, dtype=torch.bool), segment=segment, row_id=ids
        )


@dataclass(frozen=True)
class Loss:
    """An objective's value on a batch: sums, so that ranks and micro-batches add up before anyone divides.

    Args:
        total: what is differentiated, summed over rows.
        nelbo: upper bound of each row's negative log-likelihood (exact for an ARM), nats, no gradient.
        num_tokens: target tokens of the batch, the denominator of every per-token figure.
    """

    total: Float[Tensor, ""]
    nelbo: Float[Tensor, " B"]
    num_tokens: int


@dataclass(frozen=True)
class InsertionOut:
    """What an insertion model says of N named positions and of the S documents they stand in.

    The score of inserting token v just after named position i is states[i] . head[v]; one softmax over all positions of
    a document and all tokens turns its scores into the chance of each insertion.

    Args:
        states: of the named positions, row-major.
        head: one row a token.
        stop: log-odds that nothing is missing, one a document, in the order the documents begin; at least float32.
    """

    states: Float[Tensor, "N D"]
    head: Float[Tensor, "V D"]
    stop: Float[Tensor, " S"]


@dataclass(frozen=True)
class Past:
    """A prediction that is remembered.

    Args:
        law: probabilities of the last prediction at the positions it was made for, 0 elsewhere.
        time: t it was made for.
        log_gamma: log(1 - alpha) after the last token was written.
    """

    law: Float[Tensor, "B L V"]
    time: Float[Tensor, " B"]
    log_gamma: Float[Tensor, " B"]


@dataclass(frozen=True)
class Carry:
    """What a sampler remembers of each row between steps.

    Args:
        step: steps this row has taken.
        start: positions this row had to write at the beginning.
        inner: the carry of a wrapped sampler, None for a plain one.
        logp: log-probability each token was last written with, 0 where none was, for samplers that revise; else None.
        more: steps that a row without masks may still take, for samplers that edit; else None.
        past: for samplers that use two predictions; else None.
        gap: for samplers that insert, the number of the gap that a token inserted after each position goes into, -1
            where none may; else None.
    """

    step: Int[Tensor, " B"]
    start: Int[Tensor, " B"]
    inner: "Carry | None" = None
    logp: Float[Tensor, "B L"] | None = None
    more: Int[Tensor, " B"] | None = None
    past: Past | None = None
    gap: Int[Tensor, "B L"] | None = None


@dataclass(frozen=True)
class Write:
    """What a sampler did in one step.

    Args:
        wrote: positions written in this step.
        logp: natural log-probability of each written token under the law it was drawn from, 0 elsewhere; float64.
        origin: for samplers that insert: where what stands at each position stood before, -1 for what is new; None if
            nothing moves.
    """

    canvas: Canvas
    carry: Carry
    wrote: Bool[Tensor, "B L"]
    logp: Float[Tensor, "B L"]
    origin: Int[Tensor, "B L"] | None = None


@dataclass(frozen=True)
class Step:
    """A `Write` as the loop passes it on, with what it cost.

    Args:
        nfe: network passes each row took part in, counted at the network.
    """

    canvas: Canvas
    carry: Carry
    wrote: Bool[Tensor, "B L"]
    logp: Float[Tensor, "B L"]
    nfe: Int[Tensor, " B"]
    origin: Int[Tensor, "B L"] | None = None


@dataclass(frozen=True)
class Sample:
    """A finished generation.

    Args:
        canvas: rows without masks.
        logp: summed log-probability of each row's tokens, each given what was visible when drawn; nats, float64.
        nfe: network passes each row took part in.
        order: the step (from 0) at which each position was last written; -1 for prompt and padding.
        token_logp: log-probability of each written token, 0 elsewhere; nats, float64.
        revised: how many times each position went back to the mask or was replaced.
    """

    canvas: Canvas
    logp: Float[Tensor, " B"]
    nfe: Int[Tensor, " B"]
    order: Int[Tensor, "B L"]
    token_logp: Float[Tensor, "B L"]
    revised: Int[Tensor, "B L"]
