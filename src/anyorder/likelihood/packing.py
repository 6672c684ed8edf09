"""Mask sets that share orders: draws of one replicate mask disjoint stretches of one random order while they fit."""

import torch
from jaxtyping import Int
from torch import Tensor


def packed(n: Int[Tensor, "B R D"], sizes: Int[Tensor, " B"]) -> tuple[Int[Tensor, "B R D"], Int[Tensor, "B R D"]]:
    """For draws that mask n of T targets: the number of the random order each uses, and where in it its stretch begins.

    Every stretch is a uniformly random set of n targets, so an estimate stays unbiased. Disjoint sets are better than
    independent ones: small sets, whose weight T/n is large, then cover all targets evenly. Draws are taken in the
    order of n; a new random order begins when the next stretch does not fit.

    Args:
        sizes: T of each row.
    """
    order = torch.argsort(n, dim=-1, stable=True)
    length = n.gather(-1, order)
    group, begin = torch.zeros_like(n[..., 0]), torch.zeros_like(n[..., 0])
    groups, begins = [], []
    for draw in range(n.shape[-1]):
        fresh = begin + length[..., draw] > sizes[:, None]
        group, begin = group + fresh, torch.where(fresh, 0, begin)
        groups.append(group)
        begins.append(begin)
        begin = begin + length[..., draw]
    back = order.argsort(-1)
    return torch.stack(groups, -1).gather(-1, back), torch.stack(begins, -1).gather(-1, back)
