"""How many tokens a step writes, drawn so that all steps together write all of them: no step is wasted.

With `left` masks and `ahead` steps behind this one, a step writes 1 + j tokens, j beta-binomial on 0..left - 1 - ahead:
a point of the simplex, step by step. A Gaussian on the share that stays masked makes many actions one, by rounding, and
lets steps write nothing.
"""

from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

EDGE: Final = 0.02  # the mean keeps so far inside (0, 1), or 0.4 tokens if that is less: there it can still be moved


@dataclass(frozen=True)
class Room:
    """Where rows stand before a step.

    Args:
        start: masks each row began with.
        left: masks it has now.
        ahead: steps behind this one.
        may_finish: they need not be taken.
    """

    start: Int[Tensor, " B"]
    left: Int[Tensor, " B"]
    ahead: Int[Tensor, " B"]
    may_finish: bool = False

    @property
    def spare(self) -> Int[Tensor, " B"]:
        """Tokens this step may write beyond one, if every later step that must be taken is to write one."""
        later = 0 if self.may_finish else self.ahead
        return (self.left - 1 - later).clamp(min=0)


@dataclass(frozen=True)
class Counts:
    """The law of a step's count, around the count of a schedule made by hand.

    Args:
        concentration: a + b of the beta law; larger is closer to the mean.
    Raises:
        ValueError: concentration <= 0.
    """

    concentration: float = 20.0

    def __post_init__(self) -> None:
        if not self.concentration > 0:
            raise ValueError(f"counts.concentration={self.concentration}: must be > 0; larger explores less")

    def share(self, ratio: Float[Tensor, " B"], added: Float[Tensor, " B"], room: Room) -> Float[Tensor, " B"]:
        """The mean of j / spare: that of the schedule, moved by `added` as a logit.

        Args:
            ratio: the share of masks the schedule leaves, rounded down to whole ones.
        """
        spare = room.spare.clamp(min=1).double()
        edge = (0.4 / spare).clamp(max=EDGE)
        by_hand = (room.left - (room.start * ratio).floor() - 1) / spare
        inside = torch.minimum(torch.maximum(by_hand, edge), 1 - edge)
        return (inside.logit() + added).sigmoid().clamp(1e-6, 1 - 1e-6)

    def take(self, share: Float[Tensor, " B"], room: Room, u: Float[Tensor, " B"] | None) -> Int[Tensor, " B"]:
        """Tokens to write: drawn by the uniforms, or without them the mean, rounded."""
        if u is None:
            extra = (room.spare * share).round().long()
        else:
            j = torch.arange(int(room.spare.max()) + 1, device=share.device)
            mass = self._log_mass(j.expand(len(share), -1), share[:, None], room.spare[:, None]).exp().cumsum(-1)
            extra = (mass < u[:, None] * mass[:, -1:]).sum(-1)
        return torch.where(room.ahead == 0, room.left, torch.minimum(1 + extra, room.left))

    def log_prob(self, share: Float[Tensor, " B"], room: Room, written: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Log-probability of writing so many; 0 where there is no choice; nats."""
        spare = room.spare
        logp = self._log_mass((written - 1).clamp(min=0)[:, None], share[:, None], spare[:, None])[:, 0]
        return torch.where((room.ahead == 0) | (spare == 0), 0.0, logp)

    def ratio(self, written: Int[Tensor, " B"], room: Room) -> Float[Tensor, " B"]:
        """The share of masks left after writing so many, as `samplers.steered.Steering` has it."""
        start = room.start.clamp(min=1)
        return ((room.left - written).double() + 0.5).clamp(max=start.double()) / start

    def _log_mass(
        self, j: Int[Tensor, "B J"], share: Float[Tensor, "B 1"], spare: Int[Tensor, "B 1"]
    ) -> Float[Tensor, "B J"]:
        """Beta-binomial, -inf beyond `spare`."""
        a, b = share * self.concentration, (1 - share) * self.concentration
        n, k = spare.double(), torch.minimum(j, spare).double()
        choose = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
        logp = choose + _log_beta(k + a, n - k + b) - _log_beta(a, b)
        return logp.masked_fill(j > spare, -torch.inf)


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
