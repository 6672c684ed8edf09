"""Whether enough has been drawn to say which of several values is the lowest."""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Lead:
    """How far the lowest of several means is ahead.

    Args:
        nats: the second lowest less the lowest; infinite if there is only one.
        stderr: standard error of that difference.
        p_values: of each other value: the chance that a difference as large would be seen if there were none
            (Student's t on the paired differences, one-sided).
    """

    nats: float
    stderr: float
    p_values: tuple[float, ...]

    def settled(self, level: float) -> bool:
        """Whether all others are behind at this level together (Bonferroni)."""
        return all(p <= level / len(self.p_values) for p in self.p_values)


def lead_of(means: Float[Tensor, "A R"]) -> Lead:
    """The lead among A values known by R independent estimates each, made with common random numbers."""
    average = means.mean(-1)
    best = int(average.argmin())
    others = [a for a in range(len(means)) if a != best]
    if not others:
        return Lead(nats=math.inf, stderr=0.0, p_values=())
    behind = means[others] - means[best]
    size = behind.shape[-1]
    error = behind.std(-1) / math.sqrt(size) if size > 1 else behind[:, 0] * 0.0
    gap = behind.mean(-1)
    second = int(gap.argmin())
    p_values = tuple(_p_value(float(g), float(e), size - 1) for g, e in zip(gap, error))
    return Lead(nats=float(gap[second]), stderr=float(error[second]), p_values=p_values)


def _p_value(gap: float, error: float, freedom: int) -> float:
    if error == 0.0:  # exact values, or answers that are the same
        return 0.0
    return student_t_tail(gap / error, freedom)


def student_t_tail(t: float, freedom: int) -> float:
    """P(T > t) for Student's t with an integer number of degrees of freedom >= 1.

    Source:
        the finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4.
    """
    angle = math.atan2(abs(t), math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2 == 1
    term = cosine if odd else 1.0
    total = 0.0
    for i in range(freedom // 2):
        total += term
        term *= cosine**2 * ((2 * i + 2) / (2 * i + 3) if odd else (2 * i + 1) / (2 * i + 2))
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    tail = (1 - inside) / 2
    return tail if t > 0 else 1 - tail
