"""Writing that ends as soon as what was written says so: a stop string, an end-of-document token."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser, Sampler
from anyorder.core.types import Canvas, Carry, Vocab, Write


@dataclass(frozen=True)
class Stopping:
    """`inner` until the tokens a row has written before its first gap are done; what is left is then filled at once.

    The row leaves the compute with that step. From left to right that is a stop string the moment it is complete; in
    any other order it is as soon as everything before its end is written too.

    Args:
        done: whether these tokens (a row's own, prompt not included) are an end; a pure function.
        fill: the token that fills what is not written any more, such as end of document.
    """

    inner: Sampler
    done: Callable[[Sequence[int]], bool]
    fill: int

    paper: ClassVar[str] = "arXiv:2405.14782"

    @property
    def exact(self) -> bool:
        return False  # what follows the end is not the model's

    def init(self, canvas: Canvas, *, vocab: Vocab) -> Carry:
        return self.inner.init(canvas, vocab=vocab)

    def step(self, model: Denoiser, canvas: Canvas, carry: Carry, *, noise: Noise) -> Write:
        part = self.inner.step(model, canvas, carry, noise=noise)
        is_open = part.canvas.open(model.vocab)
        before = (is_open.cumsum(-1) == 0) & part.canvas.valid & ~part.canvas.fixed
        ended = torch.tensor(
            [self.done(x[mine].tolist()) for x, mine in zip(part.canvas.x, before)], device=is_open.device
        )
        rest = is_open & ended[:, None]
        later = part.carry
        if later.more is not None:
            later = dataclasses.replace(later, more=later.more.masked_fill(ended, 0))
        written = dataclasses.replace(part.canvas, x=part.canvas.x.masked_fill(rest, self.fill))
        return dataclasses.replace(part, canvas=written, carry=later, wrote=part.wrote | rest)
