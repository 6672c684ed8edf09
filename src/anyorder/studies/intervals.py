"""95 % intervals of a share: over independent runs, or over the problems of one."""

import math
from collections.abc import Sequence
from typing import Final

Z: Final = 1.959964  # of the normal law, 97.5 %
T: Final = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)  # of Student's, 1, 2, ... degrees


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """Where the chance lies of which so many of the trials are hits; holds its level near 0 and 1 too.

    Source:
        Wilson 1927, the score interval of a binomial.
    """
    share, spread = hits / trials, Z**2 / trials
    middle = share + spread / 2
    half = math.sqrt(spread * (share * (1 - share) + spread / 4))
    low, high = (middle - half) / (1 + spread), (middle + half) / (1 + spread)
    return max(0.0, low), min(1.0, high)


def over_runs(shares: Sequence[float]) -> tuple[float, float]:
    """Where the mean over all runs there could be lies, from a few, cut off at 0 and 1.

    Raises:
        ValueError: fewer than two runs, or more than ten.
    """
    mean, half = mean_and_half(shares)
    return max(0.0, mean - half), min(1.0, mean + half)


def mean_and_half(values: Sequence[float]) -> tuple[float, float]:
    """The mean of a few runs, and half the width of its interval (Student's t).

    Raises:
        ValueError: as `over_runs`.
    """
    n = len(values)
    if not 2 <= n <= len(T) + 1:
        raise ValueError(f"{n} runs: an interval takes 2 to {len(T) + 1} of them; use `wilson` for one")
    mean = sum(values) / n
    return mean, T[n - 2] * math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)
