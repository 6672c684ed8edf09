"""Self-attention: full or causal, inside documents when rows are packed.

Axes: B rows, L positions, H heads, K head width, D = H*K. Two kernels with one law: plain matmul, softmax, matmul; and
PyTorch's fused one. On CPUs the fused kernel's bfloat16 backward is slow, so short rows are plain (docs/benchmarks.md).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anyorder.models.config import ModelConfig
from anyorder.models.linear import Linear
from anyorder.models.rope import rotate

# Takes the keys and values of some columns and gives those of all columns they may read (models/cache.py).
Memory = Callable[[Float[Tensor, "B H L K"], Float[Tensor, "B H L K"]], tuple[Tensor, Tensor]]

PLAIN_UP_TO = 1024  # CPU rows no longer than this use the plain kernel; measured in benchmarks/training.py


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
    k_BHTK: Float[Tensor, "B H T K"],
    v_BHTK: Float[Tensor, "B H T K"],
    *,
    bias: Float[Tensor, "Bm 1 L T"] | None,
) -> Float[Tensor, "B H L K"]:
    """Softmax(q k^T / sqrt(K) + bias) v, by the faster of two kernels for this device and length."""
    if q_BHLK.device.type != "cpu" or q_BHLK.shape[2] > PLAIN_UP_TO:
        return F.scaled_dot_product_attention(q_BHLK, k_BHTK, v_BHTK, attn_mask=bias)
    scores_BHLT = (q_BHLK * q_BHLK.shape[-1] ** -0.5) @ k_BHTK.transpose(-1, -2)
    if bias is not None:
        scores_BHLT = scores_BHLT + bias
    out: Tensor = scores_BHLT.softmax(-1) @ v_BHTK
    return out


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions, no biases."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = Linear(config.d_model, 3 * config.d_model)
        self.out = Linear(config.d_model, config.d_model)

    def forward(
        self,
        x_BLD: Float[Tensor, "B L D"],
        rope: tuple[Float[Tensor, "*R L K"], Float[Tensor, "*R L K"]],
        bias: Float[Tensor, "Bm 1 L T"] | None,
        memory: Memory | None = None,
    ) -> Float[Tensor, "B L D"]:
        """Each position's reading of all columns, or with a memory of all that it knows."""
        b, length, d = x_BLD.shape
        qkv_BLNK = self.qkv(x_BLD).view(b, length, 3 * self.num_heads, d // self.num_heads)
        qk_BLNK, v_BLHK = qkv_BLNK.split([2 * self.num_heads, self.num_heads], dim=2)
        q_BLHK, k_BLHK = rotate(qk_BLNK, *rope).chunk(2, dim=2)
        k_BHTK, v_BHTK = k_BLHK.transpose(1, 2), v_BLHK.transpose(1, 2)
        if memory is not None:
            k_BHTK, v_BHTK = memory(k_BHTK, v_BHTK)
        y_BHLK = attend(q_BLHK.transpose(1, 2), k_BHTK, v_BHTK, bias=bias)
        out: Tensor = self.out(y_BHLK.transpose(1, 2).reshape(b, length, d))
        return out
