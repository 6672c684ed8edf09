"""Left to right, one token per step: an autoregressive model's own way to write."""

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.categorical import log_prob_of
from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas, Carry, Vocab, Write
from anyorder.samplers.token import TokenRule
from anyorder.samplers.unmask import start


@dataclass(frozen=True)
class Causal:
    """The next open position of each row, given what stands to its left; the network reads nothing beyond it.

    An autoregressive model never looks right, so cutting the row there changes nothing and makes early steps cheap. Any
    other denoiser is asked for its law given the left side alone.

    Args:
        stop_at_eos: after a drawn end-of-document token, fill what is open in the row with it, at no cost, and stop.
    Raises:
        ValueError: (in `init`) stop_at_eos with a vocabulary that has no such token.
    """

    token: TokenRule = field(default_factory=TokenRule)
    stop_at_eos: bool = False

    paper: ClassVar[str] = "arXiv:2005.14165"

    @property
    def exact(self) -> bool:
        return self.token.exact and not self.stop_at_eos

    def init(self, canvas: Canvas, *, vocab: Vocab) -> Carry:
        if self.stop_at_eos and vocab.eos_id is None:
            raise ValueError("sampler.stop_at_eos=True: the vocabulary has no end-of-document token; set it to False")
        return start(canvas, vocab=vocab)

    def step(self, model: Denoiser, canvas: Canvas, carry: Carry, *, noise: Noise) -> Write:
        free = canvas.open(model.vocab) & canvas.window
        position = free.int().argmax(-1)
        at = one_hot(position, canvas.x.shape[1])
        left = left_of(canvas, position)
        logits = model(left, at[:, : left.x.shape[1]])
        u = noise.at("token").uniform(canvas.row_id, carry.step, position)
        token, logp = self.token(logits, u)
        x, wrote = torch.where(at, token.unsqueeze(-1), canvas.x), at
        if self.stop_at_eos and model.vocab.eos_id is not None:
            rest = free & (token == model.vocab.eos_id)[:, None]
            x, wrote = x.masked_fill(rest, model.vocab.eos_id), wrote | rest
        return Write(
            canvas=dataclasses.replace(canvas, x=x),
            carry=dataclasses.replace(carry, step=carry.step + 1),
            wrote=wrote,
            logp=torch.where(at, logp.unsqueeze(-1), 0.0),
        )

    def log_prob(self, model: Denoiser, before: Canvas, carry: Carry, after: Canvas) -> Float[Tensor, " B"]:
        """As `Scorable`: of the token at the first open position."""
        position = (before.open(model.vocab) & before.window).int().argmax(-1)
        left = left_of(before, position)
        logits = model(left, one_hot(position, left.x.shape[1]))
        row = torch.arange(len(position), device=position.device)
        return log_prob_of(self.token.law(logits), after.x[row, position])


def one_hot(position: Int[Tensor, " B"], length: int) -> Bool[Tensor, "B {length}"]:
    """True at one position per row."""
    return torch.arange(length, device=position.device) == position.unsqueeze(-1)


def left_of(canvas: Canvas, position: Int[Tensor, " B"]) -> Canvas:
    """The columns up to each row's position; where rows end at different ones, the shorter ones are padded."""
    last = position.tolist()
    end = max(last) + 1
    x, segment = canvas.x[:, :end], None if canvas.segment is None else canvas.segment[:, :end]
    if min(last) + 1 < end:
        beyond = torch.arange(end, device=x.device) > position[:, None]
        segment = (torch.ones_like(x) if segment is None else segment).masked_fill(beyond, 0)
    return dataclasses.replace(canvas, x=x, fixed=canvas.fixed[:, :end], window=canvas.window[:, :end], segment=segment)
