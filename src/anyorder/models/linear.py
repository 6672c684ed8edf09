"""A linear layer that keeps float32 weights and computes in the dtype of what it is given; it replaces autocast."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Linear(nn.Linear):
    """y = x W^T without bias; W is cast to x's dtype (one cast a pass, its gradient returns to float32)."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__(d_in, d_out, bias=False)

    def forward(self, x: Float[Tensor, "*S I"]) -> Float[Tensor, "*S O"]:
        return F.linear(x, self.weight.to(x.dtype))
