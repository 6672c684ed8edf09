"""What theory says of the errors of writing several tokens at once with a perfect denoiser: closed forms and sums.

Ancestral sampling of N steps opens a position in step i = 0..N-1 with chance 1/N, whatever i is, and sees a share i/N
of the others; equal groups do the same, but two positions share a step with chance (L/N - 1)/(L - 1) instead of 1/N.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anyorder.core.categorical import entropy
from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas
from anyorder.testing.hidden import stationary

REACH = 24  # tokens further away than this are taken to tell nothing


def clock_error(phases: int, length: int, num_steps: int) -> float:
    """Chance that ancestral sampling of the clock (`testing/hidden.py`) writes an impossible sequence; exact.

    All depends on the first step that writes: with m tokens in it they agree with chance phases^(1-m), and everything
    later follows them.
    """
    left = 1 - torch.arange(1, num_steps + 1, dtype=torch.float64) / num_steps  # still masked after each step
    agree = (left + 1 / (phases * num_steps)) ** length - left**length
    return float(1 - phases * agree.sum())


def clock_error_of_groups(phases: int, length: int, num_steps: int) -> float:
    """The same for equal groups: length / num_steps tokens in the first step; exact."""
    return 1 - math.exp((1 - length / num_steps) * math.log(phases))


@dataclass(frozen=True)
class Pairs:
    """Two tokens of a stationary 2-gram language drawn at once, d apart, nothing between them visible, seeing the
    nearest visible tokens at distances l to the left and r to the right.

    Args:
        excess: expected -log q of what lies between them, minus what it is when the second is drawn given the first,
            nats; by d - 1, l - 1, r - 1. What has not been written is then written one by one.
        broken: chance that no possible sequence joins them.
    """

    excess: Float[Tensor, "D R R"]
    broken: Float[Tensor, "D R R"]

    @classmethod
    def of(cls, law: Float[Tensor, "K K"]) -> "Pairs":
        """By sums over the four tokens, from the law of the next token.

        The excess is finite only if every token can follow every other; otherwise it is nan.
        """
        powers = torch.stack([torch.linalg.matrix_power(law, d) for d in range(3 * REACH + 1)])
        once = -torch.xlogy(law, law)
        paths = [once]  # sum over the paths of d steps of P(path) * -log P(path)
        for d in range(1, REACH):
            paths.append(paths[-1] @ law + powers[d] @ once)
        start = stationary(law)
        excess, broken = [], []
        for d in range(1, REACH + 1):
            nats = paths[d - 1] / powers[d]
            drawn = _expected(powers, start, d, torch.stack([nats, (powers[d] == 0).double()]))
            excess.append(drawn[0] - start @ paths[d - 1].sum(-1))
            broken.append(drawn[1])
        return cls(torch.stack(excess), torch.stack(broken))

    def total(self, what: Float[Tensor, "D R R"], *, length: int, num_steps: int, groups: bool) -> float:
        """Expected sum of `excess` or `broken` over the pairs of a row, to first order in the chance to be together."""
        step = torch.arange(num_steps, dtype=torch.float64)
        seen, unseen = step / num_steps, 1 - (step + 1) / num_steps
        far = torch.arange(REACH, dtype=torch.float64)
        near = seen[:, None] * (1 - seen[:, None]) ** far  # chance of each distance to the nearest visible token
        near = torch.cat([near[:, :-1], (1 - seen[:, None]) ** far[-1:]], 1)
        pairs = unseen[:, None] ** far * (length - 1 - far).clamp(min=0)  # nothing between them is opened so far
        together = (length / num_steps - 1) / (length - 1) if groups else 1 / num_steps
        mean = torch.einsum("nd,dlr,nl,nr->", pairs, what, near, near) / num_steps
        return float(mean) * together


def _expected(
    powers: Float[Tensor, "P K K"], start: Float[Tensor, " K"], d: int, value: Float[Tensor, "F K K"]
) -> Float[Tensor, "F R R"]:
    """Mean of value(u, v) over u and v drawn on their own given the tokens l to the left and r to the right."""
    reach = torch.arange(1, REACH + 1)
    whole = powers[reach[:, None] + d + reach]  # (R, R, K, K): between the visible tokens
    weight = torch.where(whole > 0, start[:, None] / whole.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
    left = torch.einsum("lau,lav->lauv", powers[reach], powers[reach + d])
    right = torch.einsum("rub,rvb,fuv->frbuv", powers[reach + d], powers[reach], value)
    return torch.einsum("lrab,lauv,frbuv->flr", weight, left, right)


@torch.no_grad()
def visible_curve(oracle: Denoiser, tokens: Int[Tensor, "B L"], *, points: int, noise: Noise) -> Float[Tensor, " C"]:
    """Z(a) at a = i/points, i = 0..points: mean entropy of a token when each other is visible with chance a, nats.

    Args:
        oracle: answers visible positions as if they were masked, so that one pass serves every position.
        tokens: exact samples; what is visible of them grows from point to point.
    """
    row = torch.arange(len(tokens))
    u = noise.uniform(row[:, None], 0, torch.arange(tokens.shape[1]))
    curve = []
    for i in range(points + 1):
        x = tokens.masked_fill(u * points >= i, oracle.vocab.mask_id)
        canvas = Canvas.of(x, vocab=oracle.vocab, row_id=row)
        curve.append(entropy(oracle(canvas, torch.ones_like(canvas.fixed))).mean())
    return torch.stack(curve)


def path_cost(curve: Float[Tensor, " C"], num_steps: int) -> float:
    """Path-KL per token of ancestral sampling in N steps, nats: the mean of Z(i/N), i < N, minus the integral of Z.

    KL of the law of the sampler's paths from that of q's own: at least KL(q || output) / L. The integral is H/L;
    the trapezoid rule gives it from the same rows, so that their noise cancels.

    Raises:
        ValueError: N does not divide the curve's number of intervals.
    """
    points = len(curve) - 1
    if points % num_steps:
        raise ValueError(f"num_steps={num_steps}: must divide the curve's {points} intervals")
    integral = (curve[:-1] + curve[1:]).mean() / 2
    return float(curve[: -1 : points // num_steps].mean() - integral)
