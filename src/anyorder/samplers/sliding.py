"""Rows longer than the network: any sampler in a window that slides along the row."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser, Sampler
from anyorder.core.types import Canvas, Carry, Vocab, Write
from anyorder.samplers.blockwise import advance, begin


@dataclass(frozen=True)
class Sliding:
    """`inner` writes the first `length` positions, then `stride` more at a time; the network sees the last `length`.

    Of each window the first length - stride positions are written already and serve as prompt.

    Raises:
        ValueError: unless 1 <= stride < length.
    Source:
        arXiv:2406.07524 (MDLM), semi-autoregressive sampling.
    """

    inner: Sampler
    length: int
    stride: int

    paper: ClassVar[str] = "arXiv:2406.07524"

    def __post_init__(self) -> None:
        if not 1 <= self.stride < self.length:
            raise ValueError(
                f"sampler.stride={self.stride}: must be between 1 and {self.length - 1}, so that a window of "
                f"{self.length} positions begins with some that are written"
            )

    @property
    def exact(self) -> bool:
        return False  # what lies behind the window is forgotten

    def init(self, canvas: Canvas, *, vocab: Vocab) -> Carry:
        return begin(self.inner, canvas, self._blocks(canvas), vocab=vocab)

    def step(self, model: Denoiser, canvas: Canvas, carry: Carry, *, noise: Noise) -> Write:
        seen = Seen(model, self.length, self.stride)
        return advance(self.inner, seen, canvas, carry, block=self._blocks(canvas), noise=noise)

    def _blocks(self, canvas: Canvas) -> Int[Tensor, "B L"]:
        position = torch.arange(canvas.x.shape[1], device=canvas.x.device)
        return block_of(position, self.length, self.stride).expand(canvas.x.shape)


@dataclass(frozen=True)
class Seen:
    """A denoiser that reads, of each row, the `length` positions that end with the block it is asked about."""

    model: Denoiser
    length: int
    stride: int

    @property
    def nfe(self) -> int:
        return self.model.nfe

    @property
    def vocab(self) -> Vocab:
        return self.model.vocab

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        width = canvas.x.shape[1]
        if width <= self.length:
            return self.model(canvas, at)
        position = torch.arange(width, device=at.device)
        last = torch.where(at, position, 0).amax(-1)
        begin_at = (block_of(last, self.length, self.stride) * self.stride).clamp(max=width - self.length)
        columns = begin_at[:, None] + position[: self.length]
        segment = None if canvas.segment is None else canvas.segment.gather(-1, columns)
        part = dataclasses.replace(
            canvas,
            x=canvas.x.gather(-1, columns),
            fixed=canvas.fixed.gather(-1, columns),
            window=canvas.window.gather(-1, columns),
            segment=segment,
        )
        return self.model(part, at.gather(-1, columns))


def block_of(position: Int[Tensor, "*S"], length: int, stride: int) -> Int[Tensor, "*S"]:
    """0 for the first `length` positions, then one more for each `stride`."""
    return ((position - length).div(stride, rounding_mode="floor") + 1).clamp(min=0)
