"""A linear layer that keeps float32 weights and computes in the dtype of what it is given; it replaces autocast."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Linear(nn.Linear):
    """y = x W^T + b; W is cast to x's dtype (one cast a pass, its gradient returns to float32). No bias by default."""

    def __init__(self, d_in: int, d_out: int, *, bias: bool = False) -> None:
        super().__init__(d_in, d_out, bias=bias)
        if bias:
            nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "*S I"]) -> Float[Tensor, "*S O"]:
        weight, bias = self.weight, self.bias
        if weight.dtype == x.dtype:
            return F.linear(x, weight, bias)
        return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
