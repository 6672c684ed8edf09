"""Log-probability of what a rule chose: the number of positions, and the set of them."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.samplers.look import CountRule, Look, PositionRule

CHUNK = 1 << 22


def count_log_prob(rule: CountRule, look: Look, k: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Log-probability that the rule asks for k positions (or more than are left, if all are written)."""
    chance = rule.chance(look)
    if chance is None:
        asked = torch.minimum(rule(look), look.left)
        return torch.where(asked == k, 0.0, -torch.inf).double()
    flipped: Tensor = torch.special.xlogy(k, chance) + torch.special.xlogy(look.left - k, 1 - chance)
    return flipped + log_choose(look.left, k)


def position_log_prob(rule: PositionRule, look: Look, chosen: Bool[Tensor, "B L"]) -> Float[Tensor, " B"]:
    """Log-probability that the rule, asked for so many positions, chooses this set."""
    weights = rule.weights(look)
    if weights is None:
        same = (rule(look, chosen.sum(-1)) == chosen).all(-1)
        return torch.where(same, 0.0, -torch.inf).double()
    return set_log_prob(weights, chosen, allowed=look.open)


def log_choose(n: Int[Tensor, " B"], k: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Logarithm of the number of subsets of k out of n."""
    n, k = n.double(), k.double()
    return torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)


def set_log_prob(
    weights: Float[Tensor, "B L"], chosen: Bool[Tensor, "B L"], *, allowed: Bool[Tensor, "B L"]
) -> Float[Tensor, " B"]:
    """Log-probability that a set is the one drawn, one after the other without replacement (Plackett-Luce, any order).

    Positions race: i arrives at an exponential time of rate w_i, and the first k are taken. With r_i = w_i / W over the
    rest's total W, the chosen all arrive before the rest with probability E over t ~ Exp(1) of prod_i 1 - exp(-r_i t),
    which the trapezoidal rule in log t gives to double precision. Equal weights need none: all sets have one chance.

    Args:
        weights: log weights; those outside `allowed` are ignored.
    Source:
        the order statistics behind Gumbel top-k, arXiv:1903.06059.
    """
    k, n = (chosen & allowed).sum(-1), allowed.sum(-1)
    low = weights.masked_fill(~allowed, torch.inf).amin(-1)
    high = weights.masked_fill(~allowed, -torch.inf).amax(-1)
    simple = (low == high) | (k == 0) | (k == n)
    out = -log_choose(n, k)
    raced = (~simple).nonzero().squeeze(-1)
    if len(raced):
        out = out.index_put((raced,), _race(weights[raced], chosen[raced], allowed[raced]))
    return torch.where((chosen & ~allowed).any(-1), -torch.inf, out)


def _race(
    weights: Float[Tensor, "B L"], chosen: Bool[Tensor, "B L"], allowed: Bool[Tensor, "B L"]
) -> Float[Tensor, " B"]:
    """`set_log_prob` where it takes an integral."""
    total = weights.masked_fill(chosen | ~allowed, -torch.inf).logsumexp(-1, keepdim=True)
    rate = (weights - total).masked_fill(~chosen, torch.inf)  # log r_i; +inf for those who need not arrive
    k = int(chosen.sum(-1).max()) + 1
    grid = min(0.1, 0.5 / math.sqrt(k))  # the integrand is no narrower than about 1 / sqrt(k) in z = log t
    z = torch.arange(-45.0, math.log(k) + 5, grid, dtype=torch.float64, device=weights.device)
    parts = []
    rows = max(1, CHUNK // (len(z) * weights.shape[1]))
    for r in torch.split(rate, rows):
        arrived = (r[:, None] + z[:, None]).exp().neg().expm1().neg().clamp(min=torch.finfo(torch.float64).tiny).log()
        parts.append((arrived.sum(-1) + z - z.exp()).logsumexp(-1) + math.log(grid))
    return torch.cat(parts)
