"""Schedule policies: what turns the knobs of a `Steered` sampler, learned from rewards.

A policy adds what it has learned to a schedule made by hand, before squashing: it begins as exactly that schedule. What
it adds is drawn from a Gaussian of fixed width while it explores, and is its mean when it is used.
"""

from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from anyorder.core.noise import Noise
from anyorder.rl.counts import Counts, Room
from anyorder.rl.kl import gaussian_kl
from anyorder.samplers.look import Look
from anyorder.samplers.schedules import Table

EXPLORED: Final = ("all", "ratio", "ratio-only")
LEAST: Final = 1e-3  # knobs are moved from at least so far inside their range: there what is learned has an effect


def squash(raw: Float[Tensor, "*S 4"]) -> Float[Tensor, "*S 4"]:
    """Any numbers to knobs: the logistic function for the ratio, softplus for the others."""
    return torch.cat([raw[..., :1].sigmoid(), F.softplus(raw[..., 1:])], -1)


def unsquash(knobs: Float[Tensor, "*S 4"]) -> Float[Tensor, "*S 4"]:
    """The inverse of `squash`, of knobs moved inside their range."""
    ratio, others = knobs[..., :1].clamp(LEAST, 1 - LEAST), knobs[..., 1:].clamp(min=LEAST)
    return torch.cat([ratio.logit(), others + torch.log(-torch.expm1(-others))], -1)


@runtime_checkable
class Body(Protocol):
    """What a policy sees, and what it makes of it."""

    def feature(self, look: Look) -> Float[Tensor, "B F"]:
        """What it sees of each row, float32 without gradient."""
        ...

    def __call__(self, feature: Float[Tensor, "B F"], step: Int[Tensor, " B"]) -> Float[Tensor, "B 4"]:
        """What it adds to the schedule made by hand; 0 at first."""
        ...


@dataclass(frozen=True)
class Turn:
    """How the knobs of one step were turned.

    Args:
        mean, action: what was added to the schedule before squashing, without and with exploration.
        setting: the knobs.
    """

    feature: Float[Tensor, "B F"]
    mean: Float[Tensor, "B 4"]
    action: Float[Tensor, "B 4"]
    setting: Float[Tensor, "B 4"]


class SchedulePolicy(nn.Module):
    """A `Steering`: used as one it takes its mean.

    Args:
        base: the schedule made by hand that it begins as. A knob that is 0 in it is off and stays so: what is not
            guided, for one, never costs a second pass.
        body: a module that is a `Body`.
        std: of what is added while exploring.
        explore: "all" knobs, or the "ratio" alone, which decides how many tokens are written: a whole number, through
            which nothing can be differentiated. The others then stay at their mean, and learn as arguments of an exact
            likelihood (`again`); with "ratio-only" they stay as made by hand.
        counts: draw how many tokens each step writes, instead of the share that stays masked (`Counts`).
        may_finish: a count may be all that is left (`Steered.may_finish`).
        prices: the lowest and the highest price of a pass, of which `body` sees a row's as the last figure of its
            feature, 0 for the lowest and 1 for the highest; None: it sees none.
    Raises:
        ValueError: std <= 0, or an unknown choice of explored knobs.
    Source:
        arXiv:2409.00342 (AdaNAT), whose form Co-GRPO (arXiv:2512.22288) builds on.
    """

    base: Tensor
    table: Tensor
    explored: Tensor

    def __init__(
        self,
        base: Table,
        body: Body,
        *,
        std: float = 0.3,
        explore: str = "all",
        counts: Counts | None = None,
        may_finish: bool = False,
        prices: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        if explore not in EXPLORED:
            raise ValueError(f"policy.explore={explore!r}: must be one of {', '.join(EXPLORED)}")
        if not std > 0:
            raise ValueError(f"policy.std={std}: must be > 0; without exploration nothing is learned")
        self.body, self.std, self.counts, self.hand = body, std, counts, base
        self.may_finish, self.prices = may_finish, prices
        self.register_buffer("explored", torch.tensor([1.0] + [float(explore == "all")] * 3), persistent=False)
        self.register_buffer("base", unsquash(base.tensor), persistent=False)
        self.register_buffer("table", base.tensor, persistent=False)

    @property
    def num_steps(self) -> int:
        return self.hand.num_steps

    def forward(self, look: Look) -> Float[Tensor, "B 4"]:
        """The knobs at the policy's mean, at the lowest price."""
        return self.turn(look).setting

    def knobs(self, action: Float[Tensor, "B 4"], step: Int[Tensor, " B"]) -> Float[Tensor, "B 4"]:
        """The schedule's, moved by `action` before squashing; to the bit where that is 0."""
        hand, base = self.table.to(action.device)[step], self.base.to(action.device)[step]
        moved = torch.where(hand > 0, squash(base + action) - squash(base), 0.0)
        knobs = (hand + moved).clamp(min=0.0)
        return torch.cat([knobs[:, :1].clamp(max=1.0), knobs[:, 1:]], -1)

    def turn(self, look: Look, *, noise: Noise | None = None, price: Float[Tensor, " B"] | None = None) -> Turn:
        """The knobs of a step; explored if there is noise, which is named by row and step.

        Args:
            price: of a pass, for each row; None: the lowest.
        """
        with torch.no_grad():
            feature, step = self.seen(look, price), look.carry.step.clamp(max=self.num_steps - 1)
            mean = self.body(feature, step).double()
        action = mean
        if noise is not None:
            knob = torch.arange(4, device=step.device)
            drawn = self.std * noise.normal(look.canvas.row_id[:, None], step[:, None], knob)
            action = mean + drawn * self.explored.to(mean.device)
        setting = self.knobs(action, step)
        if self.counts is not None:
            room = self.room(step, look.left, look.carry.start)
            share = self.counts.share(self.table.to(mean.device)[step, 0], mean[:, 0], room)
            u = None if noise is None else noise.at("count").uniform(look.canvas.row_id, step, 0)
            written = self.counts.take(share, room, u)
            action = torch.cat([written[:, None].double(), action[:, 1:]], 1)
            setting = torch.cat([self.counts.ratio(written, room)[:, None], setting[:, 1:]], 1)
        return Turn(feature, mean, action, setting)

    def again(
        self, setting: Float[Tensor, "B 4"], feature: Float[Tensor, "B F"], step: Int[Tensor, " B"]
    ) -> Float[Tensor, "B 4"]:
        """Recorded knobs, differentiable in what is learned: all but the ratio. They must not have been explored."""
        knobs = self.knobs(self.body(feature, step).double(), step)
        return torch.cat([setting[:, :1], knobs[:, 1:]], 1)

    def seen(self, look: Look, price: Float[Tensor, " B"] | None) -> Float[Tensor, "B F"]:
        """The body's feature, and the price."""
        feature = self.body.feature(look)
        if self.prices is None:
            return feature
        low, high = self.prices
        figure = torch.zeros(len(feature), device=feature.device) if price is None else (price - low) / (high - low)
        return torch.cat([feature, figure[:, None].to(feature.dtype)], -1)

    def room(self, step: Int[Tensor, " B"], left: Int[Tensor, " B"], start: Int[Tensor, " B"]) -> Room:
        """Where rows stand."""
        return Room(start=start, left=left, ahead=self.num_steps - 1 - step, may_finish=self.may_finish)

    def log_prob(
        self,
        feature: Float[Tensor, "B F"],
        step: Int[Tensor, " B"],
        action: Float[Tensor, "B 4"],
        *,
        left: Int[Tensor, " B"],
        start: Int[Tensor, " B"],
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """Log-density of the actions up to a constant, and KL(policy || schedule made by hand) at its mean; nats.

        Args:
            left, start: masks of each row before the step, and at the beginning.
        """
        mean = self.body(feature, step).double()
        off = (action - mean).square() / (2 * self.std**2) * self.explored.to(mean.device)
        away = gaussian_kl(mean, torch.zeros_like(mean), std=self.std)
        if self.counts is None:
            return -off.sum(-1), away
        room = self.room(step, left, start)
        share = self.counts.share(self.table.to(mean.device)[step, 0], mean[:, 0], room)
        return self.counts.log_prob(share, room, action[:, 0].long()) - off[:, 1:].sum(-1), away
