"""Self-attention: full or causal, inside documents when rows are packed.

Axes: B rows, L positions, H heads, K head width, D = H*K. Two kernels of one function: plain matmul, softmax, matmul;
and PyTorch's fused one. On CPUs the fused kernel's bfloat16 backward is slow, so short rows in half precision are
plain; in float32 it is faster at every length (`benchmarks/attention.py`, docs/benchmarks.md).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anyorder.models.config import ModelConfig
from anyorder.models.linear import Linear
from anyorder.models.norm import RMSNorm
from anyorder.models.rope import rotate

# Takes the keys and values of some columns and gives those of all columns they may read (models/cache.py).
Memory = Callable[[Float[Tensor, "B H L K"], Float[Tensor, "B H L K"]], tuple[Tensor, Tensor]]

# CPU rows no longer than this use the plain kernel. Fixed by dtype, not timed at run time: a run must give the same
# bits when it goes on, however busy the machine is.
PLAIN_UP_TO = {torch.bfloat16: 1024, torch.float16: 1024, torch.float32: 0, torch.float64: 1024}


def attention_mask(
    segment_BL: Int[Tensor, "B L"] | None, length: int, *, causal: bool, device: torch.device
) -> Bool[Tensor, "B #H L L"] | None:
    """Who may look at whom: True where query i may read key j. None when everybody may read everything.

    Padding (segment 0) reads itself only, so that no softmax is empty; nobody else reads it.
    """
    earlier_LL = torch.ones(length, length, dtype=torch.bool, device=device).tril() if causal else None
    if segment_BL is None:
        return None if earlier_LL is None else earlier_LL[None, None]
    same_BLL: Tensor = (segment_BL[:, :, None] == segment_BL[:, None, :]) & (segment_BL > 0)[:, None, :]
    same_BLL = same_BLL | torch.eye(length, dtype=torch.bool, device=device)
    allowed: Tensor = (same_BLL if earlier_LL is None else same_BLL & earlier_LL)[:, None]
    return allowed


def columns_mask(
    columns_BL: Int[Tensor, "B L"], segment_BT: Int[Tensor, "B T"] | None, width: int, *, causal: bool
) -> Bool[Tensor, "B 1 L {width}"] | None:
    """As `attention_mask`, for the queries at some columns of each row; keys are those of the first `width` columns."""
    key_T = torch.arange(width, device=columns_BL.device)
    earlier_BLT = key_T <= columns_BL[:, :, None] if causal else None
    if segment_BT is None:
        return None if earlier_BLT is None else earlier_BLT[:, None]
    own_BL = segment_BT.gather(1, columns_BL)
    same_BLT: Tensor = (own_BL[:, :, None] == segment_BT[:, None, :]) & (own_BL > 0)[:, :, None]
    same_BLT = same_BLT | (key_T == columns_BL[:, :, None])
    allowed: Tensor = (same_BLT if earlier_BLT is None else same_BLT & earlier_BLT)[:, None]
    return allowed


def attend(
    q_BHLK: Float[Tensor, "B H L K"],
    k_BGTK: Float[Tensor, "B G T K"],
    v_BGTK: Float[Tensor, "B G T K"],
    *,
    bias: Float[Tensor, "Bm 1 L T"] | None,
) -> Float[Tensor, "B H L K"]:
    """Softmax(q k^T / sqrt(K) + bias) v, by the faster of two kernels for this device and length.

    With fewer keys than queries, G < H, each serves H/G consecutive query heads.
    """
    shared = q_BHLK.shape[1] // k_BGTK.shape[1]
    k_BHTK = k_BGTK if shared == 1 else k_BGTK.repeat_interleave(shared, dim=1)
    v_BHTK = v_BGTK if shared == 1 else v_BGTK.repeat_interleave(shared, dim=1)
    if q_BHLK.device.type != "cpu" or q_BHLK.shape[2] > PLAIN_UP_TO[q_BHLK.dtype]:
        return F.scaled_dot_product_attention(q_BHLK, k_BHTK, v_BHTK, attn_mask=bias)
    scores_BHLT = (q_BHLK * q_BHLK.shape[-1] ** -0.5) @ k_BHTK.transpose(-1, -2)
    if bias is not None:
        scores_BHLT = scores_BHLT + bias
    out: Tensor = scores_BHLT.softmax(-1) @ v_BHTK
    return out


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions; `qkv` holds the rows of all queries, keys, values, in turn."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.kv_heads, self.d_head = config.num_heads, config.kv_heads, config.d_head
        width = config.num_heads * config.d_head
        self.qkv = Linear(config.d_model, width + 2 * config.kv_heads * config.d_head, bias=config.qkv_bias)
        self.out = Linear(width, config.d_model)
        self.q_norm = RMSNorm(config.d_head, eps=config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.d_head, eps=config.norm_eps) if config.qk_norm else None

    def forward(
        self,
        x_BLD: Float[Tensor, "B L D"],
        rope: tuple[Float[Tensor, "*R L K"], Float[Tensor, "*R L K"]],
        bias: Float[Tensor, "Bm 1 L T"] | None,
        memory: Memory | None = None,
    ) -> Float[Tensor, "B L D"]:
        """Each position's reading of all columns, or with a memory of all that it knows."""
        b, length, _ = x_BLD.shape
        h, g = self.num_heads, self.kv_heads
        qkv_BLNK = self.qkv(x_BLD).view(b, length, h + 2 * g, self.d_head)
        qk_BLNK, v_BLGK = qkv_BLNK.split([h + g, g], dim=2)
        if self.q_norm is not None and self.k_norm is not None:
            qk_BLNK = torch.cat([self.q_norm(qk_BLNK[:, :, :h]), self.k_norm(qk_BLNK[:, :, h:])], dim=2)
        qk_BNLK = rotate(qk_BLNK, *rope).transpose(1, 2)
        k_BGTK, v_BGTK = qk_BNLK[:, h:], v_BLGK.transpose(1, 2)
        if memory is not None:
            k_BGTK, v_BGTK = memory(k_BGTK, v_BGTK)
        y_BHLK = attend(qk_BNLK[:, :h], k_BGTK, v_BGTK, bias=bias)
        out: Tensor = self.out(y_BHLK.transpose(1, 2).reshape(b, length, h * self.d_head))
        return out
