"""The network of MDLM and BD3-LM: a transformer whose norms are modulated by a conditioning vector (adaLN).

The published checkpoints take no time: their noise level is fed as 0, so the conditioning is one learned vector. With
`block` attention is block-causal, as BD3-LM writes: a block sees itself and the blocks before it.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import BaseModel, PositiveInt, model_validator
from torch import Tensor, nn

from anyorder.core.types import Canvas, Vocab
from anyorder.models.attention import attend, attention_mask
from anyorder.models.linear import Linear
from anyorder.models.norm import LayerNorm
from anyorder.models.rope import rope_tables, rotate
from anyorder.models.transformer import bias_of

SINUSOIDS = 256  # channels that encode the noise level


class DitConfig(BaseModel, frozen=True, extra="forbid"):
    """The size of a `DiT`."""

    num_layers: PositiveInt
    num_heads: PositiveInt
    d_model: PositiveInt
    d_ff: PositiveInt
    d_cond: PositiveInt | None = None  # width of the conditioning; None: no modulation
    max_length: PositiveInt = 1024
    block: PositiveInt | None = None  # tokens of a block that is written at a time; None: every position sees all
    rope_base: float = 10_000.0
    norm_eps: float = 1e-5

    @model_validator(mode="after")
    def _heads_divide(self) -> "DitConfig":
        if self.d_model % (2 * self.num_heads):
            raise ValueError(f"d_model={self.d_model}: must be a multiple of 2*num_heads={2 * self.num_heads}")
        return self

    @property
    def causal(self) -> bool:
        return False

    @property
    def num_layer_weights(self) -> int:
        """Entries of the matrices of one block that multiply every position."""
        return 4 * self.d_model**2 + 2 * self.d_model * self.d_ff

    @property
    def num_block_params(self) -> int:
        """Parameters without embedding and head."""
        d, f, c = self.d_model, self.d_ff, self.d_cond
        modulation = 0 if c is None else (c + 1) * 6 * d
        last = 0 if c is None else (c + 1) * 2 * d + (SINUSOIDS + 1) * c + (c + 1) * c
        return self.num_layers * (self.num_layer_weights + f + d + 2 * d + modulation) + d + last

    def num_params(self, *, vocab_size: int, num_ids: int) -> int:
        """All parameters; the table has a row for each id of the head, `num_ids` is not used."""
        return self.num_block_params + vocab_size * (2 * self.d_model + 1)

    @property
    def d_head(self) -> int:
        return self.d_model // self.num_heads


class DitBlock(nn.Module):
    """x += gate * Attention(modulated norm); x += gate * MLP(modulated norm)."""

    def __init__(self, c: DitConfig) -> None:
        super().__init__()
        self.num_heads = c.num_heads
        self.norm_1, self.norm_2 = LayerNorm(c.d_model, eps=c.norm_eps), LayerNorm(c.d_model, eps=c.norm_eps)
        self.qkv, self.out = Linear(c.d_model, 3 * c.d_model), Linear(c.d_model, c.d_model)
        self.up, self.down = Linear(c.d_model, c.d_ff, bias=True), Linear(c.d_ff, c.d_model, bias=True)
        self.modulation = None if c.d_cond is None else Linear(c.d_cond, 6 * c.d_model, bias=True)

    def forward(
        self,
        x_BLD: Float[Tensor, "B L D"],
        given_C: Float[Tensor, " C"] | None,
        rope: tuple[Float[Tensor, "L K"], Float[Tensor, "L K"]],
        bias: Float[Tensor, "Bm 1 L L"] | None,
    ) -> Float[Tensor, "B L D"]:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = modulations(self.modulation, given_C, x_BLD, 6)
        mixed = self._attend(self.norm_1(x_BLD) * (1 + scale_1) + shift_1, rope, bias)
        x_BLD = x_BLD + gate_1 * mixed
        y_BLD = self.norm_2(x_BLD) * (1 + scale_2) + shift_2
        out: Tensor = x_BLD + gate_2 * self.down(F.gelu(self.up(y_BLD), approximate="tanh"))
        return out

    def _attend(self, x_BLD: Tensor, rope: tuple[Tensor, Tensor], bias: Tensor | None) -> Float[Tensor, "B L D"]:
        b, length, d = x_BLD.shape
        h = self.num_heads
        qkv_BLNK = self.qkv(x_BLD).view(b, length, 3 * h, d // h)
        qk_BNLK = rotate(qkv_BLNK[:, :, : 2 * h], *rope).transpose(1, 2)
        y_BHLK = attend(qk_BNLK[:, :h], qk_BNLK[:, h:], qkv_BLNK[:, :, 2 * h :].transpose(1, 2), bias=bias)
        out: Tensor = self.out(y_BHLK.transpose(1, 2).reshape(b, length, d))
        return out


class DiT(nn.Module):
    """A Denoiser. A mask among the writable ids has logit -inf. Asked for open positions, it copies no visible token.

    Args:
        config: the size.
        vocab: ids; in published checkpoints the mask is the last row of the head.
        dtype: of the activations.
    Source:
        arXiv:2406.07524 (MDLM), arXiv:2503.09573 (BD3-LM).
    """

    nfe = 1
    rope_cos: Tensor
    rope_sin: Tensor

    def __init__(self, config: DitConfig, vocab: Vocab, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        c = config
        self.config, self.vocab, self.dtype = config, vocab, dtype
        self.embed = nn.Embedding(max(vocab.size, vocab.mask_id + 1), c.d_model)
        self.level_1 = None if c.d_cond is None else Linear(SINUSOIDS, c.d_cond, bias=True)
        self.level_2 = None if c.d_cond is None else Linear(c.d_cond, c.d_cond, bias=True)
        self.blocks = nn.ModuleList(DitBlock(c) for _ in range(c.num_layers))
        self.norm = LayerNorm(c.d_model, eps=c.norm_eps)
        self.modulation = None if c.d_cond is None else Linear(c.d_cond, 2 * c.d_model, bias=True)
        self.head = Linear(c.d_model, vocab.size, bias=True)
        self.set_rope()

    def set_rope(self, device: torch.device | None = None) -> None:
        """Make the rotary tables; they are no part of a checkpoint."""
        tables = rope_tables(self.config.max_length, self.config.d_head, base=self.config.rope_base)
        for name, table in zip(("rope_cos", "rope_sin"), tables):
            self.register_buffer(name, table.to(device), persistent=False)

    def forward(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        """Logits of the named positions.

        Raises:
            ValueError: rows longer than `config.max_length`.
        """
        length = canvas.x.shape[1]
        if length > self.config.max_length:
            raise ValueError(
                f"a row of {length} tokens is longer than model.max_length={self.config.max_length}; shorten it"
            )
        h_BLD = self.embed(canvas.x.clamp(max=self.embed.num_embeddings - 1)).to(
            self.dtype
        )  # padding lies beyond the table
        rope = self.rope_cos[:length].to(self.dtype), self.rope_sin[:length].to(self.dtype)
        given_C, bias = self.conditioning(), bias_of(self._mask(canvas), self.dtype)
        for block in self.blocks:
            h_BLD = block(h_BLD, given_C, rope, bias)
        shift, scale = modulations(self.modulation, given_C, h_BLD, 2)
        logits_NV: Tensor = self.head(self.norm(h_BLD[at]) * (1 + scale) + shift)
        if self.vocab.mask_id >= self.vocab.size:
            return logits_NV
        return logits_NV.index_fill(-1, torch.tensor([self.vocab.mask_id], device=logits_NV.device), -math.inf)

    def conditioning(self) -> Float[Tensor, " C"] | None:
        """The conditioning vector of noise level 0: cosines 1, then sines 0, through the two layers; None without."""
        if self.level_1 is None or self.level_2 is None:
            return None
        level = torch.zeros(SINUSOIDS, dtype=self.dtype, device=self.rope_cos.device)
        level = level.index_fill(0, torch.arange(SINUSOIDS // 2, device=level.device), 1.0)
        given: Tensor = F.silu(self.level_2(F.silu(self.level_1(level))))
        return given

    def _mask(self, canvas: Canvas) -> Bool[Tensor, "B #H L L"] | None:
        """Who may look at whom; None when everybody may read everything."""
        length, device = canvas.x.shape[1], canvas.x.device
        mask = attention_mask(canvas.segment, length, causal=False, device=device)
        if self.config.block is None:
            return mask
        block_L = torch.arange(length, device=device) // self.config.block
        earlier_LL = (block_L <= block_L[:, None])[None, None]
        return earlier_LL if mask is None else mask & earlier_LL


def modulations(
    layer: Linear | None, given_C: Float[Tensor, " C"] | None, like: Tensor, number: int
) -> tuple[Tensor, ...]:
    """Shifts, scales and gates from the conditioning; without one, those that change nothing: 0, 0, 1 in turn."""
    if layer is None or given_C is None:
        nothing = like.new_zeros(())
        return (nothing, nothing, nothing + 1, nothing, nothing, nothing + 1)[:number]
    chunks: tuple[Tensor, ...] = layer(given_C).chunk(number)
    return chunks
