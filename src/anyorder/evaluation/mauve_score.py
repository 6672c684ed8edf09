"""MAUVE: how far apart two sets of texts lie in a judge's hidden states. Extra `mauve` (its library is under GPLv3)."""

import importlib
from typing import Any

from jaxtyping import Float
from torch import Tensor

LEAST = 100  # texts on each side; published figures use 5000


def check_mauve(num_texts: int) -> None:
    """Refuses too few texts, and a library that is not there, before any text is written.

    Raises:
        ValueError: fewer than 100 texts, or no library `mauve`.
    """
    if num_texts < LEAST:
        raise ValueError(f"n={num_texts}: MAUVE needs at least {LEAST} samples, and published figures 5000; raise n")
    _library()


def mauve(p: Float[Tensor, "N D"], q: Float[Tensor, "M D"]) -> float:
    """MAUVE of two sets of features, in (0, 1]; 1 for the same law. Its k-means has a seed of its own, always the same.

    Comparable only between sets of the same size under the same judge.

    Raises:
        ValueError: fewer than 100 features on a side, or no library `mauve`.
    Source:
        arXiv:2102.01454, with the settings of its authors' library.
    """
    check_mauve(min(len(p), len(q)))
    made = _library().compute_mauve(p_features=p.float().numpy(), q_features=q.float().numpy(), verbose=False)
    return float(made.mauve)


def _library() -> Any:
    try:
        return importlib.import_module("mauve")
    except ImportError:
        raise ValueError("MAUVE needs the mauve library; install it with: pip install 'anyorder[mauve]'") from None
