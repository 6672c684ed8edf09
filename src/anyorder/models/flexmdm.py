"""The network of FlexMDM: the shared transformer, with a rate of masks to come at every position beside the tokens."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from anyorder.core.growth import Growth
from anyorder.core.noise import Noise
from anyorder.core.types import Canvas, Vocab
from anyorder.models.config import ModelConfig
from anyorder.models.inserter import StopHead
from anyorder.models.linear import Linear
from anyorder.models.transformer import Transformer, begins


class FlexTransformer(nn.Module):
    """A denoiser of growing rows (`core/growth.py`). The head over the vocabulary runs where a mask stands only.

    Args:
        config: the size; attention is full.
        vocab: ids; it has an end-of-document.
        dtype: of the activations.
    Raises:
        ValueError: a causal or shifted configuration, or a vocabulary without end-of-document.
    Source:
        arXiv:2509.01025, on the architecture of SMDM (arXiv:2410.18514), without its time input; the stop is ours.
    """

    nfe = 1

    def __init__(self, config: ModelConfig, vocab: Vocab, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if config.causal or config.shift_logits:
            raise ValueError("model.causal, model.shift_logits: rows that grow need full attention; leave both out")
        if vocab.eos_id is None:
            raise ValueError("vocab.eos_id=None: a row that grows begins with end-of-document; give the vocabulary one")
        self.config, self.vocab = config, vocab
        self.trunk = Transformer(config, vocab, dtype=dtype)
        self.rate = Linear(config.d_model, 1, bias=True)
        self.stop = StopHead(config.d_model)

    def init_weights(self, noise: Noise) -> None:
        """The trunk as `Transformer.init_weights`; at first every rate is 1 and every stop 1/2."""
        self.trunk.init_weights(noise)
        self.stop.init_weights(noise.at("stop"))
        for p in self.rate.parameters():
            nn.init.zeros_(p)

    def forward(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N W"]:
        """Tokens, rate and stop at the named positions, as `Growth.columns`."""
        states = self.trunk.states(canvas, at)
        masked = (canvas.x == self.vocab.mask_id)[at]
        first = (begins(canvas) & canvas.valid)[at]
        tokens = states.new_full((len(states), self.vocab.size), -math.inf)
        tokens = tokens.index_put((masked.nonzero()[:, 0],), self.trunk.predict(states[masked]))
        rate: Tensor = self.rate(states)[:, 0]
        stop = torch.full_like(rate, -math.inf)
        stop = stop.index_put((first.nonzero()[:, 0],), self.stop(states[first]).to(rate.dtype))
        return Growth(tokens, rate, stop).columns()
