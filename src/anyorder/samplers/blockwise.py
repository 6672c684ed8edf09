"""Semi-autoregressive writing: any sampler, one block of positions after the other."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser, Sampler, Scorable
from anyorder.core.types import Canvas, Carry, Vocab, Write, put_rows, take_rows
from anyorder.samplers.unmask import start


@dataclass(frozen=True)
class Blockwise:
    """`inner` inside a window that moves on when it is full; the network still sees the whole row.

    A row's blocks are `block` positions each, counted over those that are neither prompt nor padding, so prompts may
    have any length and lie anywhere. Rows move on independently. The inner sampler starts anew in each block, so its
    num_steps are steps per block; its noise is named by position, and blocks share none.

    Args:
        aligned: blocks begin at the multiples of `block` in the row instead, prompt included: a prompt that ends within
            a block is the first part of it. For models whose attention has such blocks.
    Raises:
        ValueError: block < 1.
    Source:
        arXiv:2502.09992 (LLaDA), semi-autoregressive remasking; aligned: arXiv:2503.09573 (BD3-LM).
    """

    inner: Sampler
    block: int
    aligned: bool = False

    paper: ClassVar[str] = "arXiv:2502.09992"

    def __post_init__(self) -> None:
        if self.block < 1:
            raise ValueError(f"sampler.block={self.block}: must be >= 1; leave it out to write the whole row at once")

    @property
    def exact(self) -> bool:
        return self.inner.exact

    def init(self, canvas: Canvas, *, vocab: Vocab) -> Carry:
        return begin(self.inner, canvas, self._blocks(canvas), vocab=vocab)

    def step(self, model: Denoiser, canvas: Canvas, carry: Carry, *, noise: Noise) -> Write:
        return advance(self.inner, model, canvas, carry, block=self._blocks(canvas), noise=noise)

    def log_prob(self, model: Denoiser, before: Canvas, carry: Carry, after: Canvas) -> Float[Tensor, " B"]:
        """As `Scorable`, by the inner sampler."""
        if not isinstance(self.inner, Scorable) or carry.inner is None:
            raise ValueError(f"sampler.inner={type(self.inner).__name__}: its steps have no likelihood")
        now = narrow(before, model.vocab, self._blocks(before), more=carry.more)
        return self.inner.log_prob(model, now, carry.inner, after)

    def _blocks(self, canvas: Canvas) -> Int[Tensor, "B L"]:
        """The number of each position's block."""
        if self.aligned:
            return torch.arange(canvas.x.shape[1], device=canvas.x.device).expand(canvas.x.shape) // self.block
        return (writable(canvas).cumsum(-1) - 1) // self.block


def begin(inner: Sampler, canvas: Canvas, block: Int[Tensor, "B L"], *, vocab: Vocab) -> Carry:
    """The carry of rows that have written no block yet."""
    first = inner.init(narrow(canvas, vocab, block), vocab=vocab)
    return dataclasses.replace(start(canvas, vocab=vocab), inner=first, more=first.more)


def advance(
    inner: Sampler, model: Denoiser, canvas: Canvas, carry: Carry, *, block: Int[Tensor, "B L"], noise: Noise
) -> Write:
    """A step of `inner` in each row's block; where it fills the block, `inner` begins anew in the next."""
    assert carry.inner is not None
    now = narrow(canvas, model.vocab, block, more=carry.more)
    part = inner.step(model, now, carry.inner, noise=noise)
    after = dataclasses.replace(part.canvas, window=canvas.window)
    advanced = part.carry.step - carry.inner.step  # an inner sampler that is stuck shows from outside
    filled = ~(part.canvas.open(model.vocab) & now.window).any(-1)
    if part.carry.more is not None:
        filled = filled & (part.carry.more == 0)
    again = filled.nonzero().squeeze(-1)
    fresh = inner.init(narrow(after, model.vocab, block), vocab=model.vocab)
    later = put_rows(part.carry, again, take_rows(fresh, again))
    carry = dataclasses.replace(carry, step=carry.step + advanced, inner=later, more=later.more)
    return dataclasses.replace(part, canvas=after, carry=carry)


def narrow(canvas: Canvas, vocab: Vocab, block: Int[Tensor, "B L"], *, more: Int[Tensor, " B"] | None = None) -> Canvas:
    """The canvas with the window of each row cut down to its first block that is not full, or not yet left (`more`)."""
    mine = writable(canvas)
    beyond = block.amax(-1, keepdim=True) + 1
    now = torch.where(canvas.open(vocab) & mine, block, beyond).amin(-1, keepdim=True)
    if more is not None:
        now = now - (more > 0).long()[:, None]
    return dataclasses.replace(canvas, window=mine & (block == now))


def writable(canvas: Canvas) -> Tensor:
    """Positions inside the window that are neither prompt nor padding."""
    return canvas.window & canvas.valid & ~canvas.fixed
