"""How varied written rows are: entropy of their own tokens, distinct n-grams, repetition. Functions of token ids.

Rows are a tensor of them, or a list of tensors where they have different lengths.
"""

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor


def unigram_entropy(x: Iterable[Int[Tensor, " _"]]) -> Float[Tensor, " B"]:
    """Entropy of each row's own token frequencies, nats, float64; 0 for one token only, ln L for L different ones.

    The diversity figure of the literature: natural logarithm, no smoothing, averaged over rows by the caller. It cannot
    exceed ln L, so only rows of one length compare.

    Source:
        arXiv:2409.02908, appendix H.1.
    """
    found = []
    for row in x:
        share = row.unique(return_counts=True)[1].double() / len(row)  # type: ignore[no-untyped-call]
        found.append(-torch.xlogy(share, share).sum())
    return torch.stack(found)


def distinct(x: Iterable[Int[Tensor, " _"]], n: int) -> float:
    """Different n-grams over all n-grams of the rows together, in (0, 1]; nan if all rows are shorter than n.

    It falls with the number of rows: only sets of one size compare.

    Raises:
        ValueError: n < 1.
    Source:
        arXiv:1510.03055, on token ids instead of words, and divided by n-grams instead of tokens.
    """
    grams = torch.cat(_grams(x, n))
    if not len(grams):
        return math.nan
    return len(grams.unique(dim=0)) / len(grams)  # type: ignore[no-untyped-call]


def repetition(x: Iterable[Int[Tensor, " _"]], n: int = 4) -> float:
    """Share of a row's n-grams that stand in it already, mean over the rows that have one, in [0, 1); nan if none has.

    Raises:
        ValueError: n < 1.
    Source:
        arXiv:1908.04319, seq-rep-n.
    """
    grams = [row for row in _grams(x, n) if len(row)]
    if not grams:
        return math.nan
    shares = [1 - len(row.unique(dim=0)) / len(row) for row in grams]  # type: ignore[no-untyped-call]
    return sum(shares) / len(grams)


def _grams(x: Iterable[Int[Tensor, " _"]], n: int) -> list[Int[Tensor, "_ n"]]:
    """The n-grams of each row."""
    if n < 1:
        raise ValueError(f"n={n}: an n-gram has at least 1 token")
    return [row.unfold(0, n, 1) if n <= len(row) else row.new_zeros(0, n) for row in x]
