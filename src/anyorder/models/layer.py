"""One pre-norm block in two halves: x += Attention(RMSNorm(x)); x += SwiGLU(RMSNorm(x))."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from anyorder.models.attention import Attention, Memory
from anyorder.models.config import ModelConfig
from anyorder.models.linear import Linear
from anyorder.models.norm import RMSNorm


class SwiGLU(nn.Module):
    """W_down(silu(W_gate x) * W_up x); gate and up are one matrix."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.gate_up = Linear(d_model, 2 * d_ff)
        self.down = Linear(d_ff, d_model)

    def forward(self, x_SD: Float[Tensor, "*S D"]) -> Float[Tensor, "*S D"]:
        gate_SF, up_SF = self.gate_up(x_SD).chunk(2, dim=-1)
        y: Tensor = self.down(F.silu(gate_SF) * up_SF)
        return y


class Block(nn.Module):
    """Attention over the row, then SwiGLU at each position by itself; they are called apart (see `Transformer`)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attn_norm = RMSNorm(config.d_model, eps=config.norm_eps)
        self.attn = Attention(config)
        self.mlp_norm = RMSNorm(config.d_model, eps=config.norm_eps)
        self.mlp = SwiGLU(config.d_model, config.d_ff)

    def mix(
        self,
        x_BLD: Float[Tensor, "B L D"],
        rope: tuple[Float[Tensor, "*R L K"], Float[Tensor, "*R L K"]],
        bias: Float[Tensor, "Bm 1 L T"] | None,
        memory: Memory | None = None,
    ) -> Float[Tensor, "B L D"]:
        """x + Attention(RMSNorm(x))."""
        out: Tensor = x_BLD + self.attn(self.attn_norm(x_BLD), rope, bias, memory)
        return out

    def feed(self, x_SD: Float[Tensor, "*S D"]) -> Float[Tensor, "*S D"]:
        """x + SwiGLU(RMSNorm(x)), position by position."""
        out: Tensor = x_SD + self.mlp(self.mlp_norm(x_SD))
        return out
