"""Revise rules: which written tokens go back to the mask, so that a sampler can change its mind."""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.categorical import log_prob_of
from anyorder.samplers.certainty import certainty
from anyorder.samplers.count import at_step, check_num_steps, flips
from anyorder.samplers.look import CountRule, Look
from anyorder.samplers.position import TIE, best
from anyorder.samplers.remasking import Remasking


@runtime_checkable
class ReviseRule(Protocol):
    """Which of the tokens visible before a step go back to the mask in it."""

    @property
    def num_steps(self) -> int:
        """The number of steps in which a token of a row without masks can go back; 0 for none."""
        ...

    def __call__(self, look: Look) -> Bool[Tensor, "B L"]:
        """Only tokens of `look.written`."""
        ...


@dataclass(frozen=True)
class Keep:
    """What is written stays."""

    num_steps: ClassVar[int] = 0

    def __call__(self, look: Look) -> Bool[Tensor, "B L"]:
        return torch.zeros_like(look.open)


@dataclass(frozen=True)
class ReMDM:
    """Each written token goes back with its step's chance, on its own; goes with `Written` of the same path.

    Source:
        arXiv:2503.00307 (ReMDM); which of its samplers, the path says.
    """

    path: Remasking

    @property
    def num_steps(self) -> int:
        return self.path.num_steps - 1

    def chance(self, look: Look) -> Float[Tensor, "B L"]:
        """With which chance each written token goes back, 0 elsewhere."""
        sigma = at_step(self.path.back, look)[:, None].expand(look.open.shape)
        if self.path.by_confidence:
            assert look.carry.logp is not None
            doubt = (-look.carry.logp.exp()).masked_fill(~look.written, -torch.inf)
            sigma = sigma * doubt.softmax(-1)
        return sigma.masked_fill(~look.written, 0.0)

    def __call__(self, look: Look) -> Bool[Tensor, "B L"]:
        sigma = self.chance(look)
        row, position = (sigma > 0).nonzero(as_tuple=True)
        u = look.noise.at("revise").uniform(look.canvas.row_id[row], look.carry.step[row], position)
        return torch.zeros_like(look.open).index_put((row, position), u < sigma[row, position])


@dataclass(frozen=True)
class Written:
    """The count rule of `ReMDM`: every open position is written with its step's chance, on its own."""

    path: Remasking

    @property
    def one_at_a_time(self) -> bool:
        return False

    def chance(self, look: Look) -> Float[Tensor, " B"]:
        return at_step(self.path.write, look)

    def __call__(self, look: Look) -> Int[Tensor, " B"]:
        return flips(self.chance(look), look)


@dataclass(frozen=True)
class LowestConfidence:
    """The written tokens that are not among a step's best go back; goes with `Best` of the same settings.

    Source:
        arXiv:2502.03540 (P2, self-planning).
    """

    best: "Best"

    num_steps: ClassVar[int] = 0

    def __call__(self, look: Look) -> Bool[Tensor, "B L"]:
        return look.written & ~self.best.kept(look)


@dataclass(frozen=True)
class Best:
    """After step i of N a row keeps its n0 - floor(n0 (1 - (i + 1)/N)) best tokens, written or drawn in this step.

    A token drawn at a mask scores its probability; a written one eta times its own, given everything else.

    Args:
        eta: below 1 written tokens go back more easily; 0 lets any drawn token replace any written one.
    Raises:
        ValueError: num_steps < 1, eta < 0.
    Source:
        arXiv:2502.03540 (P2). Its public code scores written positions by tokens drawn anew, this by their own.
    """

    num_steps: int
    eta: float = 1.0

    def __post_init__(self) -> None:
        check_num_steps(self.num_steps)
        if not 0.0 <= self.eta < torch.inf:
            raise ValueError(
                f"sampler.eta={self.eta}: must be >= 0 and finite; 1 judges written and drawn tokens alike"
            )

    @property
    def one_at_a_time(self) -> bool:
        return False

    def chance(self, look: Look) -> None:
        return None

    def __call__(self, look: Look) -> Int[Tensor, " B"]:
        return (look.open & self.kept(look)).sum(-1)

    def kept(self, look: Look) -> Bool[Tensor, "B L"]:
        """Which positions show a token after this step."""
        either = look.open | look.written
        everywhere = look.everywhere
        ours = log_prob_of(everywhere[look.written[either]], look.canvas.x[look.written])
        scale = torch.tensor(self.eta, dtype=torch.float64).log().item()
        score = certainty(look, "drawn").masked_scatter(look.written, ours + scale).clamp(min=LEAST)
        total = either.sum(-1)
        done = (look.carry.step + 1).clamp(max=self.num_steps)
        return best(score, total - total * (self.num_steps - done) // self.num_steps, allowed=either, tie=TIE)


LEAST = -1e9  # nats; stands for impossible, so that scores can be compared


def check_paths(count: CountRule, revise: ReviseRule, order: str) -> None:
    """Raises ValueError unless the rules to write and to go back belong together."""
    if isinstance(count, Best) or isinstance(revise, LowestConfidence):
        if not (isinstance(revise, LowestConfidence) and revise.best == count and order == "draw_first"):
            raise ValueError(
                f"sampler.revise={type(revise).__name__}: Best and LowestConfidence go together; use count=best, "
                "revise=LowestConfidence(best), position=Confidence('drawn') and order='draw_first'"
            )
        return
    writes = count.path if isinstance(count, Written) else None
    revises = revise.path if isinstance(revise, ReMDM) else None
    if writes != revises or (writes is None and not isinstance(revise, Keep)):
        raise ValueError(
            f"sampler.revise={type(revise).__name__}: needs count=Written(path) and revise=ReMDM(path) of one and the "
            f"same path, or revise=Keep(), not count={type(count).__name__}"
        )
