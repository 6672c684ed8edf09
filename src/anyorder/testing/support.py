"""An exact denoiser of the uniform law on a list of sequences: all sudoku grids, all rows of a constraint problem."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.types import Canvas, Vocab


@dataclass(frozen=True)
class Support:
    """Exact conditionals of the uniform law on `states`.

    Where no state fits what is seen there is no conditional; the answer is then the law of the position alone.

    Args:
        states: different sequences of writable tokens.
        vocab: whose ids they are.
    """

    states: Int[Tensor, "S L"]
    vocab: Vocab
    nfe: int = 1

    @property
    def length(self) -> int:
        return self.states.shape[1]

    @cached_property
    def _one_hot(self) -> Float[Tensor, "S K"]:
        """One column per (position, token); sums of these are exact in float32 up to 2^24 states."""
        return torch.nn.functional.one_hot(self.states, self.vocab.size).flatten(1).float()

    def consistent(self, canvas: Canvas) -> Bool[Tensor, "B S"]:
        """Which states keep every visible token."""
        seen = (canvas.x != self.vocab.mask_id) & canvas.valid
        token = torch.where(seen, canvas.x, 0)
        hot = torch.nn.functional.one_hot(token, self.vocab.num_ids)[..., : self.vocab.size] * seen[..., None]
        return hot.flatten(1).float() @ self._one_hot.T == seen.sum(-1, keepdim=True)

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        """Log-probabilities; at a visible position, those of its own token given everything visible.

        Raises:
            ValueError: rows of another length than the states.
        """
        if canvas.x.shape[-1] != self.length:
            raise ValueError(f"canvas length {canvas.x.shape[-1]}: this oracle knows sequences of {self.length} only")
        fits = self.consistent(canvas)
        fits = fits | ~fits.any(-1, keepdim=True)
        mass = (fits.float() @ self._one_hot).double().reshape(len(fits), self.length, -1)[at]
        return (mass / mass.sum(-1, keepdim=True)).log()
