"""Masked diffusion of flexible length (FlexMDM): tokens come as masks, at places the model finds, then get their value.

Each token of a document has two events: a mask is inserted for it, and the mask is replaced by the token. A document of
L tokens has 2L of them. Some have happened; the model says how many tokens are still missing in each gap, and what
stands behind each mask. No time is given to the model: whether the document is complete is a question of its own.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.growth import Growth, growth_of
from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Batch, Loss, Vocab
from anyorder.processes.cross_entropy import token_nll
from anyorder.processes.levels import Draw, levels
from anyorder.processes.thin import Documents, Thinned, documents, end_of, how_many, ranks_within, without


@dataclass(frozen=True)
class FlexMDM:
    """FlexMDM: masks come, then become tokens; a number of these events, uniform on 0..2L, is undone.

    With a tokens absent and m masked, the loss of a document is

        (2L + 1) [1/(rate a + m) (sum over gaps of count_loss + sum over masks of cross-entropy) + stop if m = 0].

    The first part is the published loss with its weight 1/(1 - t), integrated over t: between two events, which are
    1/(rate a + m) apart on the clock -log(1 - t), neither the row nor what the model says of it changes. The bound in
    `nelbo` is tighter: it leaves out when the events happen, and the g log g that the loss pays where any of g tokens
    may have come first. The prompt is never touched.

    Args:
        rate: at which an absent token becomes a mask, against the rate 1 at which a mask becomes its token. 1 is the
            published linear schedules; 2 makes all (2L)!/2^L orders of the events equally likely, so that a row tells
            as much as its history: only then is the bound of the best model its law, and only then may masks be
            replaced in any order.
        draw, group, pack: as in `Insertion`.
    Raises:
        ValueError: a rate that is not positive.
    Source:
        arXiv:2509.01025, whose network reads t and needs no stop. The form without time and the bound are ours, tested
        by enumeration.
    """

    paper: ClassVar[str] = "arXiv:2509.01025"
    rate: float = 2.0
    draw: Draw = "antithetic"
    group: int = 1
    pack: bool = True

    def __post_init__(self) -> None:
        if not self.rate > 0.0:
            raise ValueError(f"rate={self.rate}: must be > 0; 1 is published, 2 needs no time")

    def loss(self, model: Denoiser, batch: Batch, *, noise: Noise) -> Loss:
        """Sum over documents, nats.

        Raises:
            ValueError: as `Insertion.loss`, or a model whose rows do not grow.
        """
        given = documents(batch, vocab=model.vocab)
        level = levels(batch.sample_id, draw=self.draw, group=self.group, noise=noise)
        events = dataclasses.replace(given, size=2 * given.size)
        to_come = how_many(events, level, batch.sample_id, noise=noise)
        grown = corrupt(batch, given, to_come, rate=self.rate, vocab=model.vocab, noise=noise, pack=self.pack)
        canvas = grown.thinned.canvas
        read = canvas.window | grown.first
        told = told_of(growth_of(model(canvas, read), model.vocab), grown, read, rate=self.rate)
        times = 2 * grown.thinned.size + 1
        bound = (times * told.bound()).detach()
        return Loss(
            total=(times * told.loss()).sum(),
            nelbo=bound.new_zeros(len(batch.tokens)).index_add(0, grown.thinned.row, bound),
            num_tokens=int(grown.thinned.size.sum()),
        )


@dataclass(frozen=True)
class Grown:
    """Rows part of whose events have happened.

    Args:
        thinned: what is there, masks among it, and what is absent.
        masked: where the M masks stand.
        token: what stands behind each.
        first: where the documents begin.
    """

    thinned: Thinned
    masked: Bool[Tensor, "B L"]
    token: Int[Tensor, " M"]
    first: Bool[Tensor, "B L"]


def corrupt(
    batch: Batch, given: Documents, to_come: Int[Tensor, " S"], *, rate: float, vocab: Vocab, noise: Noise, pack: bool
) -> Grown:
    """Undo the last events of each document: an absent token waits an exponential time of the rate, a mask one of 1."""
    position = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    u, v = (noise.at(name).uniform(batch.sample_id[:, None], 0, position)[given.body] for name in ("insert", "unmask"))
    came = -u.log() / rate
    of = given.of[given.body]
    twice = torch.cat([of, of])
    done = ranks_within(torch.cat([came, came - v.log()]), twice, 2 * given.size) < (2 * given.size - to_come)[twice]
    there, clear = done.view(2, -1)
    gone = torch.zeros_like(given.body).masked_scatter(given.body, ~there)
    hidden = torch.zeros_like(given.body).masked_scatter(given.body, there & ~clear)
    marked = batch.tokens + vocab.num_ids * hidden  # a mark that moves with its token
    thinned = without(dataclasses.replace(batch, tokens=marked), given, gone, vocab=vocab, pack=pack)
    canvas = thinned.canvas
    masked = canvas.x >= vocab.num_ids
    shown = dataclasses.replace(canvas, x=canvas.x.masked_fill(masked, vocab.mask_id))
    return Grown(
        thinned=dataclasses.replace(thinned, canvas=shown),
        masked=masked,
        token=canvas.x[masked] - vocab.num_ids,
        first=canvas.x == end_of(vocab),
    )


@dataclass(frozen=True)
class Told:
    """What a model says of S documents, each summed up.

    Args:
        flow: the rates of its gaps, summed.
        count: the sum of `count_loss` over its gaps.
        place: sum over absent tokens of -log of their gap's expected number of them.
        value: the sum of the masks' cross-entropies.
        absent, masks: a and m.
        stop: cross-entropy of "nothing is missing", 0 where masks stand.
    """

    flow: Float[Tensor, " S"]
    count: Float[Tensor, " S"]
    place: Float[Tensor, " S"]
    value: Float[Tensor, " S"]
    absent: Int[Tensor, " S"]
    masks: Int[Tensor, " S"]
    stop: Float[Tensor, " S"]
    rate: float

    @property
    def true(self) -> Float[Tensor, " S"]:
        """The rate at which something happens to the document."""
        return (self.rate * self.absent + self.masks).to(self.flow.dtype)

    def loss(self) -> Float[Tensor, " S"]:
        """The published terms, divided by the rate of events, and the stop."""
        each = (self.count + self.value) / self.true.clamp(min=min(self.rate, 1.0))
        return torch.where(self.true > 0, each, 0.0) + self.stop

    def bound(self) -> Float[Tensor, " S"]:
        """-log of the next event's chance, less -log of its chance among the document's own; its mean is a bound."""
        true = self.true.clamp(min=min(self.rate, 1.0))
        mean = (self.rate * self.place + self.value) / true
        return torch.where(self.true > 0, mean + ((self.flow + self.masks) / true).log(), 0.0) + self.stop


def told_of(said: Growth, grown: Grown, read: Bool[Tensor, "B L"], *, rate: float) -> Told:
    """The answer at the named positions, summed over each document."""
    thinned = grown.thinned
    log_rate = said.log_rate[thinned.canvas.window[read]].to(torch.promote_types(said.log_rate.dtype, torch.float32))
    value = token_nll(said.tokens[grown.masked[read]], grown.token).to(log_rate.dtype)
    missing = thinned.gap.bincount(minlength=len(log_rate)).to(log_rate.dtype)
    assert thinned.canvas.segment is not None  # those that are thinned have one
    of_mask = thinned.canvas.segment[grown.masked] - 1
    odds = said.stop[grown.first[read]].to(log_rate.dtype)

    def summed(value: Float[Tensor, " K"], of: Int[Tensor, " K"]) -> Float[Tensor, " S"]:
        return value.new_zeros(len(thinned.size)).index_add(0, of, value)

    masks = summed(torch.ones_like(value), of_mask)
    stop = F.binary_cross_entropy_with_logits(odds, (thinned.missing == 0).to(odds.dtype), reduction="none")
    return Told(
        flow=summed(log_rate.exp(), thinned.document),
        count=summed(count_loss(log_rate, rate * missing), thinned.document),
        place=summed(missing * (math.log(rate) - log_rate), thinned.document),
        value=summed(value, of_mask),
        absent=thinned.missing,
        masks=masks.long(),
        stop=torch.where(masks > 0, 0.0, stop),
        rate=rate,
    )


def count_loss(log_rate: Float[Tensor, " N"], true: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """ghat - g + g log(g / ghat) of a rate ghat and what it should be, g: 0 where they are equal.

    Its mean is least where ghat is the mean of g.
    """
    loss: Float[Tensor, " N"] = log_rate.exp() - true + torch.special.xlogy(true, true) - true * log_rate
    return loss
