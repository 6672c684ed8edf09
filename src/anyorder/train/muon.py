"""Muon: momentum whose matrices are made orthogonal before they are added to the weights."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from anyorder.models.attention import Attention
from anyorder.models.layer import SwiGLU

MOMENTUM = 0.95
RMS = 0.2  # of an update at learning rate 1, that of AdamW's: one learning rate serves both
# Coefficients of Newton-Schulz iterations that bring all singular values between 0.7 and 1.2 within five rounds.
QUINTIC = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Muon for matrices, fused AdamW for everything else, under one learning rate.

    The update of a matrix is its Nesterov momentum with all singular values brought near 1, scaled to the size that
    AdamW's updates have. What a fused matrix holds (queries, keys and values; gate and up) is treated apart.

    Args:
        matrices: 2-D weights (out, in), each with the rows of its parts: [out] where it is one matrix.
        others: parameter groups of AdamW.
    Source:
        Jordan et al., Muon (2024); the scale 0.2 sqrt(max(out, in)) is that of arXiv:2502.16982, section 2.2.
    """

    def __init__(
        self,
        matrices: list[tuple[nn.Parameter, list[int]]],
        others: list[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        super().__init__([{"params": [p for p, _ in matrices], "weight_decay": weight_decay}], {"lr": lr})
        self.parts = [rows for _, rows in matrices]
        self.adamw = torch.optim.AdamW(others, lr=lr, betas=betas, fused=True)
        self.adamw.state = self.state  # one state and one list of groups, so that checkpoints and schedules see both
        self.param_groups += self.adamw.param_groups

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all weights; a matrix without a gradient stays as it is."""
        assert closure is None
        group = self.param_groups[0]
        by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for p, rows in zip(group["params"], self.parts):
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                state["momentum"] = torch.zeros_like(p)
            state["momentum"].lerp_(p.grad, 1 - MOMENTUM)
            ahead = p.grad.lerp(state["momentum"], MOMENTUM)
            p.mul_(1 - group["lr"] * group["weight_decay"])
            for part, update in zip(p.split(rows), ahead.split(rows)):
                by_shape.setdefault(part.shape, []).append((part, update))
        for shape, pairs in by_shape.items():  # equal shapes in one batched product
            size = RMS * max(shape) ** 0.5 * group["lr"]
            for (part, _), update in zip(pairs, orthogonalize(torch.stack([update for _, update in pairs]))):
                part.sub_(update, alpha=size)
        self.adamw.step()


def fused_rows(model: nn.Module) -> dict[int, list[int]]:
    """Rows of each part of the matrices that hold several, by the id of the parameter."""
    found = {}
    for module in model.modules():
        if isinstance(module, Attention):
            heads, keys = module.num_heads * module.d_head, module.kv_heads * module.d_head
            found[id(module.qkv.weight)] = [heads, keys, keys]
        elif isinstance(module, SwiGLU):
            found[id(module.gate_up.weight)] = [len(module.gate_up.weight) // 2] * 2
    return found


def orthogonalize(matrices: Float[Tensor, "N O I"], *, rounds: int = 5) -> Float[Tensor, "N O I"]:
    """Each matrix with its singular values brought near 1 (0.7 to 1.2), its singular vectors kept; 0 stays 0."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    a, b, c = QUINTIC
    for _ in range(rounds):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
