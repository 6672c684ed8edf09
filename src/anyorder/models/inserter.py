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

    With `config.slots` there is no second head: each position has a softmax of its own, over tokens and
    end-of-document, which says that nothing is missing there. A text is complete as surely as its least sure position.

    Args:
        config: the size; attention is full.
        vocab: ids; it has an end-of-document.
        dtype: of the activations.
    Raises:
        ValueError: a causal configuration, a tied head, or a vocabulary without end-of-document.
    Source:
        arXiv:2505.05755, on the architecture of SMDM (arXiv:2410.18514) instead of its own; slots: arXiv:1902.03249.
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
        self.stop = None if config.slots else StopHead(config.d_model)

    @property
    def rope_cos(self) -> Tensor:
        return self.trunk.rope_cos

    def set_rope(self, device: torch.device | None = None) -> None:
        """As `Transformer.set_rope`."""
        self.trunk.set_rope(device)

    def compile(self) -> None:  # type: ignore[override]
        """As `Transformer.compile`, for rows that have lost tokens: every batch has another shape."""
        self.trunk.compile(dynamic=True)

    def init_weights(self, noise: Noise) -> None:
        """The trunk as `Transformer.init_weights`; the stop head says 1/2 of everything at first."""
        self.trunk.init_weights(noise)
        if self.stop is not None:
            self.stop.init_weights(noise.at("stop"))

    def insertion(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> InsertionOut:
        """As `Inserting`."""
        first = begins(canvas) & canvas.valid
        assert self.trunk.head is not None  # a tied one is refused
        if self.stop is None:  # sure of nothing: each position speaks for itself
            states = self.trunk.states(canvas, at)
            return InsertionOut(states, self.trunk.head.weight, torch.zeros(int(first.sum()), device=states.device))
        read = at | first
        states = self.trunk.states(canvas, read)
        return InsertionOut(states[at[read]], self.trunk.head.weight, self.stop(states[first[read]]))

    def forward(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        """Scores of inserting each token after the named positions, and the stop, as `Inserting`."""
        if self.stop is not None:
            return dense(self.insertion(canvas, at), canvas, at, self.vocab)
        return slot_scores(self, canvas, at)


class StopHead(nn.Module):
    """The log-odds that nothing is missing, from the state of a document's first position."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.hidden = Linear(d_model, d_model, bias=True)
        self.out = Linear(d_model, 1, bias=True)

    def init_weights(self, noise: Noise) -> None:
        """It says 1/2 of everything at first."""
        d = self.hidden.in_features
        draws = noise.normal(torch.arange(d)[:, None], 0, torch.arange(d))
        self.hidden.weight.data.copy_(draws / math.sqrt(d))
        for p in (self.hidden.bias, self.out.weight, self.out.bias):
            nn.init.zeros_(p)

    def forward(self, state_SD: Float[Tensor, "S D"]) -> Float[Tensor, " S"]:
        odds: Tensor = self.out(F.silu(self.hidden(state_SD)))[:, 0].float()
        return odds


def slot_scores(model: Inserter, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
    """The answer of a network with slots as `Inserting` has it: log p(token | gap), so that the gap that most surely
    misses something weighs most; and the log-odds that nothing is missing at the open position least sure of it.
    """
    eos = end_id(model.vocab)
    is_open = canvas.window & canvas.valid
    out = model.insertion(canvas, at | is_open)
    logp = (out.states @ out.head.to(out.states.dtype).T).log_softmax(-1, dtype=torch.float32)
    sure = torch.full(at.shape, math.inf, device=at.device).masked_scatter(at | is_open, logp[:, eos])
    least = sure.masked_fill(~is_open, math.inf).amin(-1).clamp(max=-1e-7)
    scores = logp[at[at | is_open]]
    first = (begins(canvas) & canvas.valid)[at]
    row = at.nonzero()[:, 0]
    odds = least - torch.log(-torch.expm1(least))
    scores[:, eos] = torch.where(first, odds[row], -math.inf)
    return scores


def end_id(vocab: Vocab) -> int:
    """End-of-document; the constructor has checked that there is one."""
    assert vocab.eos_id is not None
    return vocab.eos_id


def dense(out: InsertionOut, canvas: Canvas, at: Bool[Tensor, "B L"], vocab: Vocab) -> Float[Tensor, "N V"]:
    """All scores of an answer, the log-odds of stopping in the column of end-of-document at first positions."""
    eos = end_id(vocab)
    scores = out.states @ out.head.to(out.states.dtype).T
    scores[:, eos] = -math.inf
    first = begins(canvas) & canvas.valid
    asked = at[first]  # documents whose first position is named
    scores[first[at], eos] = out.stop[asked].to(scores.dtype)
    return scores
