"""Schedules from the loss-by-mask-count curve: what a plan of groups costs, and the best plan for a number of passes.

Z_k is the mean entropy of one more token when k are visible. Writing g tokens from one prediction, k visible, costs
sum_{i<g} (Z_k - Z_{k+i}) nats of KL along the path: a left Riemann sum. Small groups belong where Z falls fast.
"""

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anyorder.samplers.look import Look


def path_kl(z: Float[Tensor, " L"], groups: Sequence[int]) -> float:
    """Cost in nats of writing groups of these sizes at random positions with a perfect denoiser; 0 for all ones.

    An upper bound of KL(data || output), tight up to what the output law forgets of the path.

    Args:
        z: Z_0..Z_{L-1}, nats; L is the sum of the groups.
    Raises:
        ValueError: the groups do not add up to L.
    """
    if sum(groups) != len(z):
        raise ValueError(f"groups={list(groups)}: add up to {sum(groups)}, must be {len(z)}, the length of the curve")
    starts = itertools.accumulate(groups, initial=0)
    return float(sum((z[a] - z[a : a + g]).sum() for a, g in zip(starts, groups)))


def non_increasing(z: Float[Tensor, " L"]) -> Float[Tensor, " L"]:
    """The non-increasing curve nearest to z in squares: what a curve measured with noise says of one that must fall.

    Z_k of any law falls with k; a plan fitted to the bumps of a measured curve promises what it does not keep.

    Source:
        pool adjacent violators (isotonic regression).
    """
    pools: list[tuple[float, int]] = []  # mean and size
    for value in z.tolist():
        mean, size = value, 1
        while pools and pools[-1][0] < mean:
            before, count = pools.pop()
            mean, size = (before * count + mean * size) / (count + size), count + size
        pools.append((mean, size))
    return torch.tensor([mean for mean, size in pools for _ in range(size)], dtype=z.dtype, device=z.device)


def best_groups(z: Float[Tensor, " L"], num_passes: int) -> list[int]:
    """The sizes of at most `num_passes` groups of least `path_kl`, by dynamic programming in O(num_passes L^2).

    Ties take the earlier cut. A measured curve need not fall everywhere; the plan is the best for the curve given.

    Raises:
        ValueError: num_passes < 1.
    """
    if num_passes < 1:
        raise ValueError(f"plan.nfe={num_passes}: must be >= 1 passes")
    length = len(z)
    total = torch.cat([z.new_zeros(1), z.cumsum(0)]).double()
    a, b = torch.arange(length)[:, None], torch.arange(length + 1)[None, :]
    cost = (b - a) * z.double()[:, None] - (total[None, :] - total[:-1, None])  # of one group from a to b
    cost = cost.masked_fill(b <= a, torch.inf)
    least, cuts = cost[0], []
    for _ in range(min(num_passes, length) - 1):
        through = least[:length, None] + cost  # the last group starts at a
        best = through.min(0)
        cuts.append(torch.where(best.values < least, best.indices, -1))
        least = torch.minimum(best.values, least)
    ends, end = [], length
    for cut in reversed(cuts):
        if (start := int(cut[end])) >= 0:
            ends.append(end)
            end = start
    bounds = [0, end, *reversed(ends)]
    return [after - before for before, after in itertools.pairwise(bounds)]


@dataclass(frozen=True)
class Planned:
    """A count rule: write up to the next boundary of a plan, counted in visible tokens, so a prompt starts further on.

    Args:
        groups: sizes of the plan's groups, first to last; rows are as long as their sum.
    Raises:
        ValueError: no groups, or one below 1.
    """

    groups: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.groups or min(self.groups) < 1:
            raise ValueError(f"sampler.groups={list(self.groups)}: must be sizes >= 1")

    @property
    def one_at_a_time(self) -> bool:
        return max(self.groups) == 1

    def chance(self, look: Look) -> None:
        return None

    def __call__(self, look: Look) -> Int[Tensor, " B"]:
        ends = list(itertools.accumulate(self.groups))
        visible = [max(0, ends[-1] - n) for n in look.left.tolist()]
        goal = [ends[min(bisect.bisect_right(ends, v), len(ends) - 1)] for v in visible]
        return torch.tensor([max(1, g - v) for g, v in zip(goal, visible)], device=look.left.device)
