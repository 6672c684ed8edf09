"""Rolling out: rows written by a steered sampler, with everything that was decided on the way."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas, Carry, Vocab, Write
from anyorder.rl.likelihood import order_terms, recorded, rescored
from anyorder.rl.policy import SchedulePolicy, Turn
from anyorder.rl.trajectory import NEVER, Trajectory
from anyorder.samplers.base import steps
from anyorder.samplers.look import Look
from anyorder.samplers.passes import Passes, places
from anyorder.samplers.steered import Decision, Steered


def roll_out(
    model: Denoiser,
    sampler: Steered,
    canvas: Canvas,
    *,
    noise: Noise,
    policy: SchedulePolicy | None,
    explore: bool,
    price: Float[Tensor, " B"] | None = None,
) -> Trajectory:
    """Finished rows and how they came about. Equal rows of a step share a network pass, so a group's first is one.

    Args:
        policy: turns the knobs instead of `sampler.steering`; at its mean, or exploring.
        noise: of the sampler; below it "knobs", of the policy.
        price: of a pass, as a policy with prices sees it.
    """
    known = None if price is None else (canvas.row_id, price)
    recorder = Recorder(sampler, policy, noise.at("knobs") if explore else None, known)
    written, nfe, last = torch.full_like(canvas.x, NEVER), torch.zeros_like(canvas.row_id), canvas
    for index, step in enumerate(steps(recorder, model, canvas, noise=noise.at("draws"))):
        written = torch.where(step.wrote, index, written)
        nfe, last = nfe + step.nfe, step.canvas
    return recorder.trajectory(canvas, last, written, nfe)


@dataclass
class Recorder:
    """A sampler that notes what it decides."""

    sampler: Steered
    policy: SchedulePolicy | None
    noise: Noise | None
    price: tuple[Int[Tensor, " B"], Float[Tensor, " B"]] | None = None  # of the rows of these names
    taken: list[tuple[Int[Tensor, " N"], int, Turn, Decision]] = field(default_factory=list)

    paper: ClassVar[str] = "arXiv:2512.22288"
    exact: ClassVar[bool] = False

    def init(self, canvas: Canvas, *, vocab: Vocab) -> Carry:
        return self.sampler.init(canvas, vocab=vocab)

    def step(self, model: Denoiser, canvas: Canvas, carry: Carry, *, noise: Noise) -> Write:
        look = Look(model, canvas, carry, noise)
        turn = self._turn(look)
        decision = self.sampler.decide(look, turn.setting)
        self.taken.append((canvas.row_id, int(carry.step[0]), turn, decision))
        return self.sampler.written(canvas, carry, decision)

    def trajectory(
        self, canvas: Canvas, last: Canvas, written: Int[Tensor, "B L"], nfe: Int[Tensor, " B"]
    ) -> Trajectory:
        """All steps of all rows; what a row that had ended would have done is left at its default."""
        shape = (len(self.taken), *canvas.x.shape)
        width = self.taken[0][2].feature.shape[-1] if self.taken else 0
        token, rank = (torch.full(shape, -1, device=canvas.x.device) for _ in range(2))
        logp, order_logp = (torch.zeros(shape, dtype=torch.float64, device=canvas.x.device) for _ in range(2))
        setting, action, mean = (
            torch.zeros(*shape[:2], 4, dtype=torch.float64, device=canvas.x.device) for _ in range(3)
        )
        feature = torch.zeros(*shape[:2], width, device=canvas.x.device)
        for row_id, step, turn, decision in self.taken:
            at = places(row_id, among=canvas.row_id)
            token[step, at], rank[step, at], logp[step, at] = decision.token, decision.rank, decision.logp
            ran = decision.weights > -torch.inf
            order_logp[step, at] = order_terms(decision.weights, decision.rank, allowed=ran)
            setting[step, at], action[step, at], mean[step, at] = turn.setting, turn.action, turn.mean
            feature[step, at] = turn.feature
        return Trajectory(
            final=last.x,
            written=written,
            fixed=canvas.fixed,
            segment=torch.ones_like(canvas.x) if canvas.segment is None else canvas.segment,
            row_id=canvas.row_id,
            token=token,
            logp=logp,
            order_logp=order_logp,
            rank=rank,
            setting=setting,
            action=action,
            mean=mean,
            feature=feature,
            nfe=nfe,
        )

    def _turn(self, look: Look) -> Turn:
        if self.policy is not None:
            price = None if self.price is None else self.price[1][places(look.canvas.row_id, among=self.price[0])]
            return self.policy.turn(look, noise=self.noise, price=price)
        none = torch.zeros(len(look.left), 4, dtype=torch.float64, device=look.left.device)
        return Turn(none.new_zeros(len(none), 0).float(), none, none, self.sampler.steering(look))


def replayed(kind: str, sampler: Steered, model: Denoiser, taken: Trajectory) -> float:
    """The largest difference between recorded and recomputed terms, nats: 0 with the weights that drew, in any dtype.

    The model is asked as the sampler asked it, for matrix products of other shapes round otherwise. Rows that waited
    (`may_wait`) were answered from memory, and may differ by rounding.
    """
    worst = 0.0
    for step in range(taken.num_steps):
        rows = taken.rows(taken.live(step).nonzero().squeeze(-1))
        with torch.no_grad():
            again = rescored(kind, sampler, Passes(model), rows, step, ask_all=True)
        worst = max(worst, float((again - recorded(kind, rows, step)).abs().max()))
    return worst
