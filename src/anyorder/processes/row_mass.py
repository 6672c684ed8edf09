"""log sum over the vocabulary of exp(state . head[v]) at each position, without all scores in memory at once."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

CHUNK = 1 << 22  # scores held at a time: 16 MiB in float32


def row_mass(
    states: Float[Tensor, "N D"], head: Float[Tensor, "V D"], *, without: int | None = None
) -> Float[Tensor, " N"]:
    """logsumexp over tokens of the scores at each position, at least float32; both ways a chunk of positions at a time.

    Args:
        without: a token that is left out.
    """
    mass: Tensor = _RowMass.apply(states, head, without)  # type: ignore[no-untyped-call]
    return mass


class _RowMass(torch.autograd.Function):
    """The backward pass computes the scores again instead of keeping them."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, head: Tensor, without: int | None) -> Tensor:
        weight = head.to(states.dtype)
        mass = torch.empty(len(states), dtype=torch.promote_types(states.dtype, torch.float32), device=states.device)
        for rows in _slices(states, head):
            mass[rows] = torch.logsumexp(_scores(states[rows], weight, without).to(mass.dtype), -1)
        ctx.save_for_backward(states, head, mass)
        ctx.without = without
        return mass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        states, head, mass = ctx.saved_tensors
        weight = head.to(states.dtype)
        grad_states = torch.empty_like(states)
        grad_head = torch.zeros_like(head)
        for rows in _slices(states, head):
            scores = _scores(states[rows], weight, ctx.without)
            share = scores.to(mass.dtype).sub_(mass[rows, None]).exp_().mul_(grads[0][rows, None]).to(states.dtype)
            grad_states[rows] = share @ weight
            if head.dtype == states.dtype:
                grad_head.addmm_(share.T, states[rows])
            else:
                grad_head += share.T @ states[rows]
        return grad_states, grad_head, None


def _scores(states: Tensor, weight: Tensor, without: int | None) -> Tensor:
    scores = states @ weight.T
    if without is not None:
        scores[:, without] = -math.inf
    return scores


def _slices(states: Tensor, head: Tensor) -> list[slice]:
    size = max(1, CHUNK // max(1, len(head)))
    return [slice(start, start + size) for start in range(0, len(states), size)]
