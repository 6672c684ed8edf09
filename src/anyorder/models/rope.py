"""Rotary position embedding, half-split convention (HF-Llama, SMDM): rotates q and k by position-dependent angles."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from anyorder.models.config import RopeScaling


def rope_tables(
    length: int, d_head: int, *, base: float, scaling: RopeScaling | None = None, rounded: bool = False
) -> tuple[Float[Tensor, "L K"], Float[Tensor, "L K"]]:
    """cos and signed sin of every (position, channel), float32; the sign of the half-split rotation is in the sine.

    Args:
        rounded: angles in float32, cos and sin rounded to bfloat16, as in SMDM's code. Float64 angles would round 0.2 %
            of the entries to the other side, which moves its logits by 4e-3 at 2,048 tokens.
    """
    if torch.get_default_device().type == "meta":  # a network without values; products there import torch's compiler
        return torch.empty(length, d_head), torch.empty(length, d_head)
    dtype = torch.float32 if rounded else torch.float64
    exponent = torch.arange(0, d_head, 2, dtype=dtype) / d_head
    frequency = 1 / base**exponent if rounded else base**-exponent
    if scaling is not None:
        frequency = _scaled(frequency, scaling)
    angle = torch.outer(torch.arange(length, dtype=dtype), frequency)
    cos, sin = angle.cos(), angle.sin()
    if rounded:
        cos, sin = cos.bfloat16(), sin.bfloat16()
    cos, sin = cos.float(), sin.float()
    return torch.cat([cos, cos], dim=1), torch.cat([-sin, sin], dim=1)


def _scaled(frequency: Float[Tensor, " H"], s: RopeScaling) -> Float[Tensor, " H"]:
    turns = s.original_max_position_embeddings * frequency / (2 * math.pi)  # in the length it was first trained on
    kept = ((turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor)).clamp(0, 1)
    return frequency * (kept + (1 - kept) / s.factor)


def rotate(
    x_BLNK: Float[Tensor, "B L N K"], cos_LR: Float[Tensor, "*Rows L R"], sin_LR: Float[Tensor, "*Rows L R"]
) -> Float[Tensor, "B L N K"]:
    """Each head's channels (i, i + R/2) rotated by its position's angle; N runs over q and k heads together.

    Tables of R < K channels leave the others as they are. The angles are those of all rows, or with a first axis of B
    rows of each row by itself. Computed in the wider of the dtypes of x and angles, returned in that of x.
    """
    width = cos_LR.shape[-1]
    turned = x_BLNK[..., :width]
    first, second = turned.chunk(2, dim=-1)
    swapped = torch.cat([second, first], dim=-1)
    turned = (turned * cos_LR.unsqueeze(-2) + swapped * sin_LR.unsqueeze(-2)).to(x_BLNK.dtype)
    return turned if width == x_BLNK.shape[-1] else torch.cat([turned, x_BLNK[..., width:]], dim=-1)
