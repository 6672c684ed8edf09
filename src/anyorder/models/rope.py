"""Rotary position embedding, half-split convention (HF-Llama, SMDM): rotates q and k by position-dependent angles."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from anyorder.models.config import RopeScaling


def rope_tables(
    length: int, d_head: int, *, base: float, scaling: RopeScaling | None = None
) -> tuple[Float[Tensor, "L K"], Float[Tensor, "L K"]]:
    """cos and signed sin of every (position, channel), float32; the sign of the half-split rotation is in the sine."""
    frequency = base ** -(torch.arange(0, d_head, 2, dtype=torch.float64) / d_head)
    if scaling is not None:
        frequency = _scaled(frequency, scaling)
    angle = torch.outer(torch.arange(length, dtype=torch.float64), frequency)
    cos, sin = angle.cos().float(), angle.sin().float()
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
