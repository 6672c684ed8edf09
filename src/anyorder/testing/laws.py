"""Exact output laws by enumeration, written without the samplers' code so that they can check it.

A law is a vector of probabilities over all K^L sequences in lexicographic order, as `Oracle.states` lists them. The
denoiser is asked about every one of the (K+1)^L canvases once, so keep K and L small; its mask_id must be K.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas
from anyorder.testing.oracle import Oracle, states_of


def ancestral_law(denoiser: Denoiser, length: int, *, alphas: Sequence[float | int]) -> Float[Tensor, " S"]:
    """Law of ancestral sampling: each step opens every mask with chance (alpha_s - alpha_t) / (1 - alpha_t).

    Args:
        alphas: alpha at the N + 1 grid times, from t = 1 to t = 0; increasing, the last one 1.
    """
    if len(alphas) < 2 or alphas[-1] != 1 or any(b <= a for a, b in itertools.pairwise(alphas)):
        raise ValueError(f"alphas={list(alphas)}: must increase and end with 1, from t=1 to t=0")
    canvases, cond = _conditionals(denoiser, length)
    law = _all_masked(canvases)
    for before, after in itertools.pairwise(alphas):
        chance = torch.full((length,), (after - before) / (1 - before), dtype=torch.float64)
        law = law @ _kernel(canvases, cond, chance)
    return _complete(law, canvases)


def group_law(denoiser: Denoiser, length: int, *, sizes: Sequence[int]) -> Float[Tensor, " S"]:
    """Law of writing groups of the given sizes at uniformly random masked positions, each group from one prediction."""
    if sum(sizes) != length:
        raise ValueError(f"sizes={list(sizes)}: must sum to length={length}")
    canvases, cond = _conditionals(denoiser, length)
    law = _all_masked(canvases)
    for size in sizes:
        new = torch.zeros_like(law)
        for group in itertools.combinations(range(length), size):
            free = (canvases[:, list(group)] == denoiser.vocab.size).all(-1)
            new = new + torch.where(free, law, 0.0) @ _kernel(canvases, cond, _chosen(group, length))
        law = new / new.sum()  # each canvas has the same number of free groups
    return _complete(law, canvases)


def random_order_law(denoiser: Denoiser, length: int) -> Float[Tensor, " S"]:
    """Law of writing one position at a time in a uniformly random order: the first-hitting sampler's."""
    return group_law(denoiser, length, sizes=[1] * length)


def order_law(denoiser: Denoiser, order: Sequence[int]) -> Float[Tensor, " S"]:
    """Law of writing one position at a time in the given order of all positions."""
    if sorted(order) != list(range(len(order))):
        raise ValueError(f"order={list(order)}: must be a permutation of 0..{len(order) - 1}")
    canvases, cond = _conditionals(denoiser, len(order))
    law = _all_masked(canvases)
    for position in order:
        law = law @ _kernel(canvases, cond, _chosen((position,), len(order)))
    return _complete(law, canvases)


def _conditionals(denoiser: Denoiser, length: int) -> tuple[Int[Tensor, "C L"], Float[Tensor, "C L V"]]:
    """All canvases, and the denoiser's probabilities at their masked positions (0 elsewhere)."""
    vocab = denoiser.vocab
    if vocab.mask_id != vocab.size:
        raise ValueError(f"vocab.mask_id={vocab.mask_id}: laws by enumeration need mask_id = size = {vocab.size}")
    canvases = states_of(vocab.size + 1, length)
    masked = canvases == vocab.mask_id
    logits = denoiser(Canvas.of(canvases, vocab=vocab), masked)
    cond = torch.zeros(*canvases.shape, vocab.size, dtype=torch.float64)
    return canvases, cond.masked_scatter(masked[..., None], logits.double().softmax(-1))


def _kernel(
    canvases: Int[Tensor, "C L"], cond: Float[Tensor, "C L V"], chance: Float[Tensor, " L"]
) -> Float[Tensor, "C C"]:
    """Chance to go from one canvas (row) to another (column) when each mask opens with its position's chance."""
    count, length, size = cond.shape
    kernel = torch.ones(count, count, dtype=torch.float64)
    for j in range(length):
        here = canvases[:, j]
        to = torch.zeros(count, size + 1, dtype=torch.float64)  # law of the new symbol at j, by old canvas
        to[:, :size] = chance[j] * cond[:, j]
        to[:, size] = 1 - chance[j]
        stay = torch.nn.functional.one_hot(here, size + 1).double()
        kernel = kernel * torch.where((here == size)[:, None], to, stay)[:, here]
    return kernel


def _chosen(group: Sequence[int], length: int) -> Float[Tensor, " L"]:
    return torch.isin(torch.arange(length), torch.tensor(list(group), dtype=torch.int64)).double()


def _all_masked(canvases: Int[Tensor, "C L"]) -> Float[Tensor, " C"]:
    law = torch.zeros(len(canvases), dtype=torch.float64)
    law[-1] = 1.0  # the mask is the last symbol
    return law


def _complete(law: Float[Tensor, " C"], canvases: Int[Tensor, "C L"]) -> Float[Tensor, " S"]:
    done: Bool[Tensor, " C"] = (canvases != canvases.max()).all(-1)
    return law[done]


def z_curve(oracle: Oracle) -> Float[Tensor, " L"]:
    """Z_k = mean of H(X_l | X_S) over sets S of k positions and l outside S, nats; sums to the entropy.

    The best possible cross-entropy per token at n masks is Z_{L-n}.

    Source:
        arXiv:2409.02908, Prop. 3.1: the count form, taken apart by count.
    """
    length, joint = oracle.length, oracle.table.reshape([oracle.size] * oracle.length)
    entropy = {}
    for k in range(length + 1):
        for kept in itertools.combinations(range(length), k):
            gone = [j for j in range(length) if j not in kept]
            p = joint.sum(gone) if gone else joint
            entropy[kept] = -float(torch.special.xlogy(p, p).sum())
    level = [0.0] * (length + 1)
    for kept, h in entropy.items():
        level[len(kept)] += h / math.comb(length, len(kept))
    return torch.tensor(level, dtype=torch.float64).diff()  # the mean over S, l of H(S + l) - H(S) telescopes


def total_variation(p: Float[Tensor, " S"], q: Float[Tensor, " S"]) -> float:
    """Half the L1 distance of two laws."""
    return float((p - q).abs().sum()) / 2


def chi_square_p(counts: Int[Tensor, " S"], law: Float[Tensor, " S"]) -> float:
    """p-value of Pearson's test of observed counts against a law; 0 if something impossible was seen.

    Cells with fewer than 5 expected counts are pooled into one.
    """
    if bool((counts[law == 0] > 0).any()):
        return 0.0
    expected = law.double() * counts.sum()
    rare = expected < 5
    seen = torch.cat([counts[~rare].double(), counts[rare].sum().double()[None]])
    want = torch.cat([expected[~rare], expected[rare].sum()[None]])
    keep = want > 0
    statistic = ((seen - want)[keep] ** 2 / want[keep]).sum()
    freedom = torch.tensor((int(keep.sum()) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, statistic / 2)) if freedom > 0 else 1.0
