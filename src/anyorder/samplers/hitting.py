"""The times at which first-hitting sampling writes; a network without a time input never asks for them."""

import torch
from jaxtyping import Float
from torch import Tensor

from anyorder.core.protocols import Schedule


def hitting_times(u: Float[Tensor, "B L"], schedule: Schedule) -> Float[Tensor, "B L"]:
    """Times of the L events of each row, falling from 1: with n masks left, 1 - alpha is multiplied by u^(1/n).

    Column j is the time of event j, which leaves k = L - 1 - j masks; there 1 - alpha follows Beta(k + 1, L - k).

    Args:
        u: independent uniforms in (0, 1).
    Source:
        arXiv:2409.02908, Proposition 4.1 (in logarithms, so that long rows do not underflow).
    """
    left = torch.arange(u.shape[-1], 0, -1, device=u.device, dtype=u.dtype)
    return schedule.inverse(-torch.expm1((u.log() / left).cumsum(-1)))
