"""How varied written rows are: entropy of their own tokens, distinct n-grams, repetition. Functions of token ids."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def unigram_entropy(x: Int[Tensor, "B L"]) -> Float[Tensor, " B"]:
    """Entropy of each row's own token frequencies, nats, float64; 0 for one token only, ln L for L different ones.

    The diversity figure of the literature: natural logarithm, no smoothing, averaged over rows by the caller. It cannot
    exceed ln L, so only rows of one length compare.

    Source:
        arXiv:2409.02908, appendix H.1.
    """
    found = []
    for row in x:
        share = row.unique(return_counts=True)[1].double() / len(row)
        found.append(-torch.xlogy(share, share).sum())
    return torch.stack(found)


def distinct(x: Int[Tensor, "B L"], n: int) -> float:
    """Different n-grams over all n-grams of the rows together, in (0, 1]; nan if the rows are shorter than n.

    It falls with the number of rows: only sets of one size compare.

    Raises:
        ValueError: n < 1.
    Source:
        arXiv:1510.03055, on token ids instead of words, and divided by n-grams instead of tokens.
    """
    grams = _grams(x, n).flatten(0, 1)
    if not len(grams):
        return math.nan
    return len(grams.unique(dim=0)) / len(grams)  # type: ignore[no-untyped-call]


def repetition(x: Int[Tensor, "B L"], n: int = 4) -> float:
    """Share of a row's n-grams that stand in it already, mean over rows, in [0, 1); nan if the rows are shorter than n.

    Raises:
        ValueError: n < 1.
    Source:
        arXiv:1908.04319, seq-rep-n.
    """
    grams = _grams(x, n)
    if not grams.shape[1]:
        return math.nan
    return sum(1 - len(row.unique(dim=0)) / len(row) for row in grams) / len(grams)


def _grams(x: Int[Tensor, "B L"], n: int) -> Int[Tensor, "B G n"]:
    if n < 1:
        raise ValueError(f"n={n}: an n-gram has at least 1 token")
    return x.unfold(1, n, 1) if n <= x.shape[1] else x.new_zeros(len(x), 0, n)
