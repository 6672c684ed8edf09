"""How the rows of a step share their corruption levels: alone, or evenly spread, which lowers the loss's variance."""

from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from anyorder.core.noise import Noise

Draw = Literal["independent", "stratified", "antithetic"]


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
