"""The network: tokens in, logits at the named positions out; full attention for an MDM, causal for an ARM."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas, Vocab, moved
from anyorder.models.attention import attention_mask
from anyorder.models.config import ModelConfig
from anyorder.models.layer import Block
from anyorder.models.linear import Linear
from anyorder.models.local import LocalEmbedding
from anyorder.models.norm import RMSNorm
from anyorder.models.rope import rope_tables


class Transformer(nn.Module):
    """A Denoiser. With `config.causal` it reads its row shifted right, so that the logits at i see only x[:i].

    Args:
        config: the size.
        vocab: ids; the head has `vocab.size` rows, so mask and pad, which lie beyond them, cannot be predicted. A mask
            that lies among them has logit -inf.
        dtype: of the activations (float32 or bfloat16); parameters stay float32.
    Source:
        arXiv:2410.18514 (SMDM), section 5 and its `diffmodel.py`: Llama without the causal mask, one extra input row.
    """

    nfe = 1
    rope_cos: Tensor
    rope_sin: Tensor

    def __init__(self, config: ModelConfig, vocab: Vocab, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if config.causal and vocab.eos_id is None and config.start_id is None:
            raise ValueError(
                "vocab.eos_id=None: a causal model reads it before the first token; give the vocabulary an EOS"
            )
        self.config, self.vocab, self.dtype = config, vocab, dtype
        self.embed = nn.Embedding(config.embed_rows or vocab.num_ids, config.d_model)
        self.embed_local = LocalEmbedding(config, self.embed.num_embeddings) if config.local else None
        self.blocks: list[Block] = nn.ModuleList(Block(config) for _ in range(config.num_layers))  # type: ignore[assignment]
        self.norm = RMSNorm(config.d_model, eps=config.norm_eps)
        self.head = None if config.tied_head else Linear(config.d_model, vocab.size)
        self.set_rope()
        self.mix, self.feed, self.finish = Block.mix, Block.feed, feed_and_norm  # `compile` swaps in compiled forms

    def set_rope(self, device: torch.device | None = None) -> None:
        """Make the rotary tables; they are no part of a checkpoint."""
        c = self.config
        rounded = c.rope == "bfloat16"
        tables = rope_tables(c.max_length, c.d_head, base=c.rope_base, scaling=c.rope_scaling, rounded=rounded)
        for name, table in zip(("rope_cos", "rope_sin"), tables):
            self.register_buffer(name, table.to(device), persistent=False)

    def compile(self, *, dynamic: bool = False) -> None:  # type: ignore[override]
        """Compile the two halves of a block once for all blocks (regional compilation); same law, other rounding.

        Args:
            dynamic: once for batches of all shapes, instead of once for each shape.
        """
        self.mix = torch.compile(Block.mix, dynamic=dynamic)
        self.feed = torch.compile(Block.feed, dynamic=dynamic)
        self.finish = torch.compile(feed_and_norm, dynamic=True)

    def forward(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        """Logits of the named positions; the last feed-forward, the final norm and the head see no other position.

        A canvas may lie on another device than the network (`core.device.canvas_device`); the logits come to it.
        """
        device = self.rope_cos.device
        if at.device == device:
            return self.predict(self.states(canvas, at))
        return self.predict(self.states(moved(canvas, device), at.to(device))).to(at.device)

    def states(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N D"]:
        """Final states, which the head reads, of the named positions."""
        h_BLD, rope, bias = self._embedded(canvas)
        for block in self.blocks[:-1]:
            h_BLD = self.feed(block, self.mix(block, h_BLD, rope, bias))
        last = self.blocks[-1]
        h_BLD = self.mix(last, h_BLD, rope, bias)
        rows = self.outputs(canvas, at)
        h_ND: Tensor = self.finish(last, self.norm, h_BLD.flatten(0, 1).index_select(0, rows))
        return h_ND

    def outputs(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Int[Tensor, " N"]:
        """Which outputs predict the named positions, counted over all rows: their own, or with `config.shift_logits`
        those of the positions before them; the first of a document keeps its own.
        """
        rows = at.flatten().nonzero()[:, 0]
        if not self.config.shift_logits:
            return rows
        return rows - (~begins(canvas)).flatten()[rows].long()

    def predict(self, h_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Logits of the final states; -inf for the mask if it lies inside the vocabulary."""
        size, mask = self.vocab.size, self.vocab.mask_id
        logits: Tensor = (
            F.linear(h_ND, self.embed.weight[:size].to(h_ND.dtype)) if self.head is None else self.head(h_ND)
        )
        return logits if mask >= size else logits.index_fill(-1, torch.tensor([mask], device=h_ND.device), -math.inf)

    def _embedded(self, canvas: Canvas) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor | None]:
        """What the blocks read: embedded tokens, rotary tables and the attention bias, all in the activation dtype."""
        length = canvas.x.shape[1]
        x_BL = self.reads(canvas)
        mask = attention_mask(canvas.segment, length, causal=self.config.causal, device=x_BL.device)
        rope = self.rotation(self.rope_cos[:length]), self.rotation(self.rope_sin[:length])
        return self.embedded(x_BL, canvas.segment), rope, bias_of(mask, self.dtype)

    def embedded(
        self, x_BL: Int[Tensor, "B L"], segment_BL: Int[Tensor, "B L"] | None, at_BC: Int[Tensor, "B C"] | None = None
    ) -> Float[Tensor, "B C D"]:
        """Embeddings of tokens that are read, in the activation dtype; of some columns, or of all."""
        h_BCD: Tensor = self.embed(x_BL if at_BC is None else x_BL.gather(1, at_BC))
        if self.embed_local is not None:
            local_BLD = self.embed_local(x_BL, first_of_segments(x_BL, segment_BL))
            h_BCD = h_BCD + (local_BLD if at_BC is None else local_BLD.take_along_dim(at_BC[..., None], 1))
        return h_BCD.to(self.dtype)

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
        x_BL = canvas.x if self.config.embed_rows is None else canvas.x.clamp(max=self.config.embed_rows - 1)
        if not self.config.causal:
            return x_BL
        start = self.vocab.eos_id if self.config.start_id is None else self.config.start_id
        assert start is not None  # checked by the constructor
        if canvas.segment is None:
            return F.pad(x_BL[:, :-1], (1, 0), value=start)
        return x_BL.roll(1, dims=1).masked_fill(begins(canvas), start)

    def rotation(self, table: Float[Tensor, "*S K"]) -> Float[Tensor, "*S K"]:
        """A rotary table in the dtype the rotation is computed in."""
        return table if self.config.rope == "float32" else table.to(self.dtype)

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


def begins(canvas: Canvas) -> Bool[Tensor, "B L"]:
    """True where a document begins."""
    return first_of_segments(canvas.x, canvas.segment)


def first_of_segments(x_BL: Int[Tensor, "B L"], segment_BL: Int[Tensor, "B L"] | None) -> Bool[Tensor, "B L"]:
    """True where a row or a segment begins."""
    first_BL = torch.zeros_like(x_BL, dtype=torch.bool)
    first_BL[:, :1] = True
    if segment_BL is not None:
        first_BL[:, 1:] = segment_BL[:, 1:] != segment_BL[:, :-1]
    return first_BL


def bias_of(mask: Bool[Tensor, "B #H L T"] | None, dtype: torch.dtype) -> Float[Tensor, "B #H L T"] | None:
    """0 where a query may read a key, -inf elsewhere."""
    if mask is None:
        return None
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, -math.inf)


def feed_and_norm(last: Block, norm: RMSNorm, x_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """The last feed-forward and the final norm, at the named positions only."""
    out: Tensor = norm(last.feed(x_ND))
    return out
