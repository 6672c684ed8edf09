"""Revise rules: which written tokens go back to the mask or are replaced, so that a sampler can change its mind."""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anyorder.core.categorical import greedy
from anyorder.samplers.certainty import top_log_prob
from anyorder.samplers.count import at_step, flips
from anyorder.samplers.keep_best import Best, LowestConfidence
from anyorder.samplers.look import CountRule, Look
from anyorder.samplers.remasking import Remasking


@runtime_checkable
class ReviseRule(Protocol):
    """What becomes of the tokens visible before a step."""

    @property
    def num_steps(self) -> int:
        """The number of steps in which a token of a row without masks can go back; 0 for no such number."""
        ...

    @property
    def extra(self) -> int:
        """Steps with a pass that a row without masks may take, until one changes nothing; 0: its steps cost nothing."""
        ...

    def __call__(self, look: Look) -> Int[Tensor, "B L"]:
        """The row's tokens, those of `look.written` as they shall be: the mask where one goes back."""
        ...


@dataclass(frozen=True)
class Keep:
    """What is written stays."""

    num_steps: ClassVar[int] = 0
    extra: ClassVar[int] = 0

    def __call__(self, look: Look) -> Int[Tensor, "B L"]:
        return look.canvas.x


@dataclass(frozen=True)
class Edit:
    """A written token is replaced by the likeliest one there if that has probability above tau, given all the others.

    Args:
        extra: passes a row may take after its last mask, until one of them changes nothing.
    Raises:
        ValueError: tau outside [0, 1], extra < 0.
    Source:
        arXiv:2602.08676 (LLaDA2.1, token-to-token editing), for models trained to correct tokens they can see.
    """

    tau: float = 0.9
    extra: int = 16

    num_steps: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.tau <= 1.0:
            raise ValueError(f"sampler.tau={self.tau}: must be in [0, 1]; 1 edits nothing")
        if self.extra < 0:
            raise ValueError(f"sampler.extra={self.extra}: must be >= 0 passes after the last mask")

    def __call__(self, look: Look) -> Int[Tensor, "B L"]:
        logits = look.logits_written
        now, sure = look.canvas.x[look.written], top_log_prob(logits) > math.log(max(self.tau, LEAST))
        return look.canvas.x.masked_scatter(look.written, torch.where(sure, greedy(logits), now))


LEAST = 1e-300


@dataclass(frozen=True)
class ReMDM:
    """Each written token goes back with its step's chance, on its own; goes with `Written` of the same path.

    Source:
        arXiv:2503.00307 (ReMDM); which of its samplers, the path says.
    """

    path: Remasking

    extra: ClassVar[int] = 0

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

    def __call__(self, look: Look) -> Int[Tensor, "B L"]:
        sigma = self.chance(look)
        row, position = (sigma > 0).nonzero(as_tuple=True)
        u = look.noise.at("revise").uniform(look.canvas.row_id[row], look.carry.step[row], position)
        back = torch.zeros_like(look.open).index_put((row, position), u < sigma[row, position])
        return look.canvas.x.masked_fill(back, look.model.vocab.mask_id)


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


def check_paths(count: CountRule, revise: ReviseRule, order: str) -> None:
    """Raises ValueError unless the rules to write and to go back belong together."""
    if isinstance(count, Best) or isinstance(revise, LowestConfidence):
        if not (isinstance(revise, LowestConfidence) and revise.best == count and order == "draw_first"):
            raise ValueError(
                f"sampler.revise={type(revise).__name__}: Best and LowestConfidence go together; use count=best, "
                "revise=LowestConfidence(best), position=Confidence('drawn') and order='draw_first'"
            )
        return
    if isinstance(revise, Edit) and not isinstance(count, Written):
        return
    writes = count.path if isinstance(count, Written) else None
    revises = revise.path if isinstance(revise, ReMDM) else None
    if writes != revises or (writes is None and not isinstance(revise, Keep)):
        raise ValueError(
            f"sampler.revise={type(revise).__name__}: needs count=Written(path) and revise=ReMDM(path) of one and the "
            f"same path, or revise=Keep(), not count={type(count).__name__}"
        )
