"""An exact denoiser of the uniform law on a list of sequences: all sudoku grids, all rows of a constraint problem."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.types import Canvas, Vocab


@dataclass(frozen=True)
class Support:
    """Exact conditionals of the uniform law on `states`; uniform over their tokens where no state fits what is seen.

    Args:
        states: different sequences of writable tokens.
        vocab: whose ids they are; tokens that no state holds get no probability.
    """

    states: Int[Tensor, "S L"]
    vocab: Vocab
    nfe: int = 1

    @property
    def length(self) -> int:
        return self.states.shape[1]

    @cached_property
    def _used(self) -> Bool[Tensor, " V"]:
        return torch.bincount(self.states.flatten(), minlength=self.vocab.size) > 0

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
        counts = self.consistent(canvas).float() @ self._one_hot  # (B, L*V)
        mass = counts.double().reshape(len(counts), self.length, -1)[at]
        total = mass.sum(-1, keepdim=True)
        return torch.where(total > 0, mass / total.clamp(min=1), self._used / self._used.sum()).log()
