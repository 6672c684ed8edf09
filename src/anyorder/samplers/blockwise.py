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

    Raises:
        ValueError: block < 1.
    Source:
        arXiv:2502.09992 (LLaDA), semi-autoregressive remasking.
    """

    inner: Sampler
    block: int

    def __post_init__(self) -> None:
        if self.block < 1:
            raise ValueError(f"sampler.block={self.block}: must be >= 1; leave it out to write the whole row at once")

    paper: ClassVar[str] = "arXiv:2502.09992"

    @property
    def exact(self) -> bool:
        return self.inner.exact

    def init(self, canvas: Canvas, *, vocab: Vocab) -> Carry:
        inner = self.inner.init(self._narrow(canvas, vocab), vocab=vocab)
        return dataclasses.replace(start(canvas, vocab=vocab), inner=inner, more=inner.more)

    def step(self, model: Denoiser, canvas: Canvas, carry: Carry, *, noise: Noise) -> Write:
        assert carry.inner is not None
        now = self._narrow(canvas, model.vocab, more=carry.more)
        part = self.inner.step(model, now, carry.inner, noise=noise)
        after = dataclasses.replace(part.canvas, window=canvas.window)
        advanced = part.carry.step - carry.inner.step  # an inner sampler that is stuck shows from outside
        filled = ~(part.canvas.open(model.vocab) & now.window).any(-1)
        if part.carry.more is not None:
            filled = filled & (part.carry.more == 0)
        fresh = self.inner.init(self._narrow(after, model.vocab), vocab=model.vocab)
        again = filled.nonzero().squeeze(-1)
        inner = put_rows(part.carry, again, take_rows(fresh, again))
        later = dataclasses.replace(carry, step=carry.step + advanced, inner=inner, more=inner.more)
        return dataclasses.replace(part, canvas=after, carry=later)

    def log_prob(self, model: Denoiser, before: Canvas, carry: Carry, after: Canvas) -> Float[Tensor, " B"]:
        """As `Scorable`, by the inner sampler."""
        if not isinstance(self.inner, Scorable) or carry.inner is None:
            raise ValueError(f"sampler.inner={type(self.inner).__name__}: its steps have no likelihood")
        return self.inner.log_prob(model, self._narrow(before, model.vocab), carry.inner, after)

    def _narrow(self, canvas: Canvas, vocab: Vocab, *, more: Int[Tensor, " B"] | None = None) -> Canvas:
        """The canvas with the window of each row cut down to its first block that is not full, or not yet left."""
        writable = canvas.window & canvas.valid & ~canvas.fixed
        block = (writable.cumsum(-1) - 1) // self.block
        beyond = block.amax(-1, keepdim=True) + 1
        now = block.masked_fill(~(canvas.open(vocab) & writable), canvas.x.shape[-1]).amin(-1, keepdim=True)
        now = torch.minimum(now, beyond)
        if more is not None:
            now = now - (more > 0).long()[:, None]
        return dataclasses.replace(canvas, window=writable & (block == now))
