"""How much of a row is masked: levels evenly spread over the rows of a step, uniform or bell-shaped."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anyorder.core.noise import Noise

Draw = Literal["independent", "stratified", "antithetic"]
Density = Literal["uniform", "bell"]


def levels(sample_id: Int[Tensor, " B"], *, draw: Draw, group: int, noise: Noise) -> Float[Tensor, " B"]:
    """Each row's level in (0, 1), float64: uniform by itself, evenly spread within its group.

    Args:
        draw: "independent", "stratified" (i + u_i)/G, or "antithetic" (u_0 + i/G) mod 1.
        group: G, rows that share a draw; row i of group g has sample_id = g*G + i.
    """
    shared, i = sample_id // group, sample_id % group
    if draw == "independent":
        return noise.at("level").uniform(sample_id)
    if draw == "stratified":
        return (i + noise.at("level").uniform(sample_id)) / group
    u = (noise.at("level").uniform(shared) + i / group) % 1.0
    return u.clamp(2.0**-64, 1 - 2.0**-53)


def bell_cdf(t: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Probability of a level below t under the bell density 6t(1-t), the Beta(2, 2) distribution: 3t^2 - 2t^3.

    Source:
        arXiv:2605.13026 trains with bell-shaped levels (its exact density is another); GIDD's dynamic weight at p_u=0
        (arXiv:2503.04482) and RDM's (arXiv:2302.05737) are this one.
    """
    return t * t * (3 - 2 * t)


def bell_quantile(u: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """The level below which the bell density has probability u, the inverse of `bell_cdf`."""
    return 0.5 - torch.sin(torch.asin(1 - 2 * u) / 3)
