"""An exponential moving average of the weights, kept in float32."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """average <- decay * average + (1 - decay) * weights after each step; starts at the initial weights."""

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        averages = list(self.weights.values())
        torch._foreach_lerp_(averages, [p.detach() for p in model.parameters()], 1 - self.decay)

    @contextmanager
    def swapped_in(self, model: nn.Module) -> Iterator[None]:
        """The model with the averaged weights, for evaluation; its own are back afterwards, bit for bit."""
        own = {name: p.data for name, p in model.named_parameters()}
        self._set(model, self.weights)
        try:
            yield
        finally:
            self._set(model, own)

    @staticmethod
    def _set(model: nn.Module, weights: dict[str, Tensor]) -> None:
        for name, p in model.named_parameters():
            p.data = weights[name]
