"""RMSNorm and LayerNorm, computed in float32."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / rms(x) * gain; the mean square is taken in float32."""

    def __init__(self, d_model: int, *, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.eps = eps

    def forward(self, x_BLD: Float[Tensor, "*S D"]) -> Float[Tensor, "*S D"]:
        x32 = x_BLD.float()
        scale = torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.eps)
        return (x32 * scale * self.weight).to(x_BLD.dtype)


class LayerNorm(nn.Module):
    """(x - mean) / standard deviation * gain, and a bias if it has one."""

    def __init__(self, d_model: int, *, eps: float, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model)) if bias else None
        self.eps = eps

    def forward(self, x_SD: Float[Tensor, "*S D"]) -> Float[Tensor, "*S D"]:
        y_SD = F.layer_norm(x_SD.float(), (x_SD.shape[-1],), eps=self.eps) * self.weight
        return (y_SD if self.bias is None else y_SD + self.bias).to(x_SD.dtype)
