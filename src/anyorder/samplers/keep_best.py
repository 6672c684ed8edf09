"""Keeping the best: draw everywhere, rank drawn and written tokens together, let the worst go back to the mask."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.categorical import log_prob_of
from anyorder.samplers.certainty import certainty
from anyorder.samplers.count import check_num_steps
from anyorder.samplers.look import Look
from anyorder.samplers.position import best


@dataclass(frozen=True)
class Best:
    """After step i of N a row keeps its n0 - floor(n0 r) best tokens, written or drawn in this step.

    A token drawn at a mask scores its probability.

    Args:
        eta: times the score of a written position; below 1 written tokens go back more easily, at 0 any drawn token
            replaces any written one.
        curve: "linear": r = 1 - (i + 1)/N; "cosine": r = cos(pi/2 (i + 1)/N).
        judge: what a written position scores, given everything else: "own" the probability of its token; "drawn" that
            of a token drawn there anew.
    Raises:
        ValueError: num_steps < 1, eta < 0, an unknown curve or judge.
    Source:
        arXiv:2502.03540 (P2; its public code judges by "drawn"); arXiv:2302.05737 (RDM: "drawn").
    """

    num_steps: int
    eta: float = 1.0
    curve: Literal["linear", "cosine"] = "linear"
    judge: Literal["own", "drawn"] = "own"

    def __post_init__(self) -> None:
        check_num_steps(self.num_steps)
        if not 0.0 <= self.eta < torch.inf:
            raise ValueError(
                f"sampler.eta={self.eta}: must be >= 0 and finite; 1 judges written and drawn tokens alike"
            )
        if self.curve not in ("linear", "cosine"):
            raise ValueError(f"sampler.curve={self.curve!r}: must be 'linear' or 'cosine'")
        if self.judge not in ("own", "drawn"):
            raise ValueError(f"sampler.judge={self.judge!r}: must be 'own' or 'drawn'")

    @property
    def one_at_a_time(self) -> bool:
        return False

    def chance(self, look: Look) -> None:
        return None

    def __call__(self, look: Look) -> Int[Tensor, " B"]:
        return (look.open & self.kept(look)).sum(-1)

    def kept(self, look: Look) -> Bool[Tensor, "B L"]:
        """Which positions show a token after this step."""
        written, log_eta = scores_of(look, self._judged(look)), math.log(self.eta) if self.eta else -torch.inf
        score = certainty(look, "drawn").masked_scatter(look.written, written + log_eta).clamp(min=LEAST)
        either = look.open | look.written
        return best(score, either.sum(-1) - self._masked(either.sum(-1), look), allowed=either)

    def _judged(self, look: Look) -> Int[Tensor, " N"]:
        """The token that each written position is judged by."""
        return look.redrawn if self.judge == "drawn" else look.canvas.x[look.written]

    def _masked(self, total: Int[Tensor, " B"], look: Look) -> Int[Tensor, " B"]:
        """How many masks are left after this step."""
        done = (look.carry.step + 1).clamp(max=self.num_steps)
        if self.curve == "linear":
            return total * (self.num_steps - done) // self.num_steps
        rate = torch.cos(math.pi / 2 * done.double() / self.num_steps)
        return torch.where(done == self.num_steps, 0, (total * rate).floor().long())


LEAST = -1e9  # nats; stands for impossible, so that scores can be compared


@dataclass(frozen=True)
class LowestConfidence:
    """The written tokens that are not among a step's best go back; goes with `Best` of the same settings.

    Args:
        only_if: "lowest": all of them; "fallen": those which would be drawn again, but score less than when they were
            written (`Best.judge` must be "drawn").
    Raises:
        ValueError: an unknown condition, or "fallen" with another judge.
    Source:
        arXiv:2502.03540 (P2, self-planning); "fallen": arXiv:2308.12219, arXiv:2302.05737 (conditional routing).
    """

    best: Best
    only_if: Literal["lowest", "fallen"] = "lowest"

    def __post_init__(self) -> None:
        if self.only_if not in ("lowest", "fallen") or (self.only_if == "fallen" and self.best.judge != "drawn"):
            raise ValueError(
                f"sampler.only_if={self.only_if!r}: must be 'lowest', or 'fallen' with Best(..., judge='drawn')"
            )

    @property
    def num_steps(self) -> int:
        return self.best.num_steps - 1 if self.only_if == "fallen" else 0

    @property
    def extra(self) -> int:
        return self.num_steps  # a row may be full before its last step, and tokens fall later

    def __call__(self, look: Look) -> Int[Tensor, "B L"]:
        back = look.written & ~self.best.kept(look)
        if self.only_if == "fallen":
            assert look.carry.logp is not None
            same = look.redrawn == look.canvas.x[look.written]
            fallen = scores_of(look, look.redrawn) < look.carry.logp[look.written]
            back = back & torch.zeros_like(back).masked_scatter(look.written, same & fallen)
        return look.canvas.x.masked_fill(back, look.model.vocab.mask_id)


def scores_of(look: Look, token: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """The model's log-probability of a token at each written position; nats."""
    return log_prob_of(look.logits_written, token)
