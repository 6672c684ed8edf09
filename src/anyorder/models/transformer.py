"""The network: tokens in, logits at the named positions out; full attention for an MDM, causal for an ARM."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas, Vocab
from anyorder.models.attention import attention_mask
from anyorder.models.config import ModelConfig
from anyorder.models.layer import Block, RMSNorm
from anyorder.models.linear import Linear
from anyorder.models.rope import rope_tables


class Transformer(nn.Module):
    """A Denoiser. With `config.causal` it reads its row shifted right, so that the logits at i see only x[:i].

    Args:
        config: the size.
        vocab: ids; the head has `vocab.size` rows, so mask and pad, which lie beyond them, cannot be predicted.
        dtype: of the activations (float32 or bfloat16); parameters stay float32.
    Source:
        arXiv:2410.18514 (SMDM), section 5 and its `diffmodel.py`: Llama without the causal mask, one extra input row.
    """

    nfe = 1
    rope_cos: Tensor
    rope_sin: Tensor

    def __init__(self, config: ModelConfig, vocab: Vocab, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if config.causal and vocab.eos_id is None:
            raise ValueError(
                "vocab.eos_id=None: a causal model reads it before the first token; give the vocabulary an EOS"
            )
        self.config, self.vocab, self.dtype = config, vocab, dtype
        self.embed = nn.Embedding(vocab.num_ids, config.d_model)
        self.blocks: list[Block] = nn.ModuleList(Block(config) for _ in range(config.num_layers))  # type: ignore[assignment]
        self.norm = RMSNorm(config.d_model, eps=config.norm_eps)
        self.head = Linear(config.d_model, vocab.size)
        cos, sin = rope_tables(config.max_length, config.d_head, base=config.rope_base)
        self.register_buffer("rope_cos", cos, persistent=False)
        self.register_buffer("rope_sin", sin, persistent=False)
        self.mix, self.feed, self.finish = Block.mix, Block.feed, feed_and_norm  # `compile` swaps in compiled forms

    def compile(self) -> None:  # type: ignore[override]
        """Compile the two halves of a block once for all blocks (regional compilation); same law, other rounding."""
        self.mix = torch.compile(Block.mix, dynamic=False)
        self.feed = torch.compile(Block.feed, dynamic=False)
        self.finish = torch.compile(feed_and_norm, dynamic=True)

    def forward(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        """Logits of the named positions; the last feed-forward, the final norm and the head see no other position."""
        h_BLD, rope, bias = self._embedded(canvas)
        for block in self.blocks[:-1]:
            h_BLD = self.feed(block, self.mix(block, h_BLD, rope, bias))
        last = self.blocks[-1]
        h_BLD = self.mix(last, h_BLD, rope, bias)
        rows = at.flatten().nonzero()[:, 0]
        h_ND = self.finish(last, self.norm, h_BLD.flatten(0, 1).index_select(0, rows))
        logits: Tensor = self.head(h_ND)
        return logits

    def _embedded(self, canvas: Canvas) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor | None]:
        """What the blocks read: embedded tokens, rotary tables and the attention bias, all in the activation dtype."""
        length = canvas.x.shape[1]
        x_BL = self.reads(canvas)
        mask = attention_mask(canvas.segment, length, causal=self.config.causal, device=x_BL.device)
        rope = self.rope_cos[:length].to(self.dtype), self.rope_sin[:length].to(self.dtype)
        return self.embed(x_BL).to(self.dtype), rope, bias_of(mask, self.dtype)

    def reads(self, canvas: Canvas) -> Int[Tensor, "B L"]:
        """The token each position reads: its own; in a causal model the one before it, EOS at a document's first.

        Raises:
            ValueError: rows longer than `config.max_length`.
        """
        if canvas.x.shape[1] > self.config.max_length:
            raise ValueError(
                f"a row of {canvas.x.shape[1]} tokens is longer than model.max_length={self.config.max_length}; "
                "shorten it or train a longer model"
            )
        if not self.config.causal:
            return canvas.x
        eos = self.vocab.eos_id
        assert eos is not None  # checked by the constructor
        shifted_BL = torch.cat([torch.full_like(canvas.x[:, :1], eos), canvas.x[:, :-1]], dim=1)
        if canvas.segment is None:
            return shifted_BL
        first_BL = torch.ones_like(canvas.fixed)
        first_BL[:, 1:] = canvas.segment[:, 1:] != canvas.segment[:, :-1]
        return shifted_BL.masked_fill(first_BL, eos)

    def init_weights(self, noise: Noise) -> None:
        """SMDM's: N(0, 2/(5d)); attention output and down projections N(0, 1/(d num_layers^2)); norms 1."""
        d, layers = self.config.d_model, self.config.num_layers
        for index, (name, p) in enumerate(sorted(self.named_parameters())):
            if p.ndim == 1:
                continue
            narrow = name.endswith(("attn.out.weight", "mlp.down.weight"))
            std = (1 / math.sqrt(d)) / layers if narrow else math.sqrt(2 / (5 * d))
            draws = noise.at(name).normal(index, 0, torch.arange(p.numel(), device=p.device))
            p.data.copy_((draws * std).view(p.shape))


def bias_of(mask: Bool[Tensor, "B #H L T"] | None, dtype: torch.dtype) -> Float[Tensor, "B #H L T"] | None:
    """0 where a query may read a key, -inf elsewhere."""
    if mask is None:
        return None
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, -math.inf)


def feed_and_norm(last: Block, norm: RMSNorm, x_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """The last feed-forward and the final norm, at the named positions only."""
    out: Tensor = norm(last.feed(x_ND))
    return out
