"""The network of an insertion language model: the shared transformer, read at every position instead of at masks."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas, InsertionOut, Vocab
from anyorder.models.config import ModelConfig
from anyorder.models.linear import Linear
from anyorder.models.transformer import Transformer, begins


class Inserter(nn.Module):
    """An `Inserting` network. Rows begin with end-of-document, in whose state a second head reads whether to stop.

    Args:
        config: the size; attention is full.
        vocab: ids; it has an end-of-document.
        dtype: of the activations.
    Raises:
        ValueError: a causal configuration, a tied head, or a vocabulary without end-of-document.
    Source:
        arXiv:2505.05755, on the architecture of SMDM (arXiv:2410.18514) instead of its own.
    """

    nfe = 1

    def __init__(self, config: ModelConfig, vocab: Vocab, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if config.causal or config.tied_head or config.shift_logits:
            raise ValueError("model.insertion=True: goes with full attention and a head of its own only")
        if vocab.eos_id is None:
            raise ValueError(
                "vocab.eos_id=None: an insertion model reads it before the first token; give the vocabulary one"
            )
        self.config, self.vocab, self.dtype = config, vocab, dtype
        self.trunk = Transformer(config, vocab, dtype=dtype)
        self.stop_hidden = Linear(config.d_model, config.d_model, bias=True)
        self.stop_out = Linear(config.d_model, 1, bias=True)

    @property
    def rope_cos(self) -> Tensor:
        return self.trunk.rope_cos

    def set_rope(self, device: torch.device | None = None) -> None:
        """As `Transformer.set_rope`."""
        self.trunk.set_rope(device)

    def compile(self) -> None:  # type: ignore[override]
        """As `Transformer.compile`."""
        self.trunk.compile()

    def init_weights(self, noise: Noise) -> None:
        """The trunk as `Transformer.init_weights`; the stop head says 1/2 of everything at first."""
        self.trunk.init_weights(noise)
        d = self.config.d_model
        draws = noise.at("stop_hidden").normal(torch.arange(d)[:, None], 0, torch.arange(d))
        self.stop_hidden.weight.data.copy_(draws / math.sqrt(d))
        nn.init.zeros_(self.stop_hidden.bias)
        nn.init.zeros_(self.stop_out.weight)
        nn.init.zeros_(self.stop_out.bias)

    def insertion(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> InsertionOut:
        """As `Inserting`."""
        first = begins(canvas) & canvas.valid
        read = at | first
        states = self.trunk.states(canvas, read)
        stop = self.stop_out(F.silu(self.stop_hidden(states[first[read]])))[:, 0]
        assert self.trunk.head is not None  # a tied one is refused
        return InsertionOut(states=states[at[read]], head=self.trunk.head.weight, stop=stop.float())

    def forward(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        """Scores of inserting each token after the named positions, and the stop, as `Inserting`."""
        return dense(self.insertion(canvas, at), canvas, at, self.vocab)


def dense(out: InsertionOut, canvas: Canvas, at: Bool[Tensor, "B L"], vocab: Vocab) -> Float[Tensor, "N V"]:
    """All scores of an answer, the log-odds of stopping in the column of end-of-document at first positions."""
    assert vocab.eos_id is not None
    scores = out.states @ out.head.to(out.states.dtype).T
    scores[:, vocab.eos_id] = -math.inf
    first = begins(canvas) & canvas.valid
    asked = at[first]  # documents whose first position is named
    scores[first[at], vocab.eos_id] = out.stop[asked].to(scores.dtype)
    return scores
