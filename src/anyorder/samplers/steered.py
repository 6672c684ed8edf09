"""The step of masked image samplers (MaskGIT): four knobs, turned anew in every step of every row.

How many positions stay masked, how noisily positions are ranked, at which temperature tokens are drawn, and how hard
the model is guided. Whoever turns the knobs is a value of its own: a table, or a policy that was learned (rl/).
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.categorical import draw, log_prob_of, wide
from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas, Carry, Vocab, Write
from anyorder.guidance.classifier_free import guided
from anyorder.samplers.certainty import SCORES
from anyorder.samplers.chances import set_log_prob
from anyorder.samplers.look import Look
from anyorder.samplers.position import best
from anyorder.samplers.unmask import start

KNOBS: Final = ("ratio", "rank_temperature", "temperature", "guidance")
COLD: Final = 1e-4  # the least temperature; colder ones are taken as this


@runtime_checkable
class Steering(Protocol):
    """What turns the knobs: a function of the step, and if it likes of the canvas and the model's answer."""

    @property
    def num_steps(self) -> int: ...

    def __call__(self, look: Look) -> Float[Tensor, "B 4"]:
        """Of each row, float64, in the order of `KNOBS`.

        ratio in [0, 1]: floor(ratio n0) of the n0 masks that a row began with are left after the step, at least one,
        and one fewer than before; none after the last step. rank_temperature >= 0: times a Gumbel variable that is
        added to log-probabilities before positions are ranked. temperature >= 0: of the drawn tokens. guidance >= 0: w,
        as in `ClassifierFree`.
        """
        ...


@dataclass(frozen=True)
class Decision:
    """What a step chose in each row.

    Args:
        setting: the knobs.
        token: drawn; -1 where none was.
        logp: log-probability of each drawn token under the law it was drawn from; nats, 0 where none was.
        kept: where a token was written.
        rank: the place of each kept position in the race, 0 for the first; -1 elsewhere.
        weights: log weights of the race, -inf at positions that did not run.
    """

    setting: Float[Tensor, "B 4"]
    token: Int[Tensor, "B L"]
    logp: Float[Tensor, "B L"]
    kept: Bool[Tensor, "B L"]
    rank: Int[Tensor, "B L"]
    weights: Float[Tensor, "B L"]


@dataclass(frozen=True)
class Steered:
    """Draw everywhere, rank by the log-probability of what was drawn, keep the first; or rank first, then draw there.

    Ranking is a race without replacement (Plackett-Luce): position i has weight p_i^(1 / rank temperature).

    Args:
        steering: turns the knobs.
        order: "draw_first": p_i is that of the drawn token, and what is not kept was drawn in vain (MaskGIT);
            "choose_first": p_i is a score of the model's law, tokens are drawn at the chosen positions only.
        score: of "choose_first", a name of `certainty.SCORES`, or "none": every position weighs the same.
        tempered: rank by the law that tokens are drawn from, instead of the model's (guided) own.
        without: the reading that guidance pushes away from, as in `ClassifierFree`.
        may_wait: a step may keep nothing if `ratio` asks for as many masks as there are (AdaNAT).
        may_finish: a step before the last may leave no mask, if `ratio` asks for none: rows then end early.
        alike: rows of equal row_id // alike share the noise of tokens and ranks: common random numbers.
    Raises:
        ValueError: an unknown order or score, or alike < 1.
    Source:
        arXiv:2202.04200 (MaskGIT), arXiv:2410.08261 (Meissonic), arXiv:2512.22288 (Co-GRPO: the knobs are actions).
    """

    steering: Steering
    order: str = "draw_first"
    score: str = "prob"
    tempered: bool = False
    without: str = "masked"
    may_wait: bool = False
    may_finish: bool = False
    alike: int = 1

    paper: ClassVar[str] = "arXiv:2202.04200"
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.order not in ("draw_first", "choose_first"):
            raise ValueError(f"sampler.order={self.order!r}: must be 'draw_first' or 'choose_first'")
        if self.score not in (*SCORES, "none"):
            raise ValueError(f"sampler.score={self.score!r}: must be one of {', '.join([*SCORES, 'none'])}")
        if self.alike < 1:
            raise ValueError(f"sampler.alike={self.alike}: must be >= 1 row that shares noise")

    def init(self, canvas: Canvas, *, vocab: Vocab) -> Carry:
        return start(canvas, vocab=vocab)

    def step(self, model: Denoiser, canvas: Canvas, carry: Carry, *, noise: Noise) -> Write:
        look = Look(model, canvas, carry, noise)
        return self.written(canvas, carry, self.decide(look, self.steering(look)))

    def written(self, canvas: Canvas, carry: Carry, decision: Decision) -> Write:
        """The step of that decision."""
        kept = decision.kept
        return Write(
            canvas=dataclasses.replace(canvas, x=torch.where(kept, decision.token, canvas.x)),
            carry=dataclasses.replace(carry, step=carry.step + 1),
            wrote=kept,
            logp=torch.where(kept, decision.logp, 0.0),
        )

    def decide(self, look: Look, setting: Float[Tensor, "B 4"]) -> Decision:
        """What a step with these knobs writes where, before it is taken."""
        canvas, carry, noise = look.canvas, look.carry, look.noise
        logits, law = self.laws(look.model, canvas, look.open, setting, told=look.logits)
        row, position = look.open.nonzero(as_tuple=True)
        name, step = canvas.row_id[row] // self.alike, carry.step[row]
        u = noise.at("token").uniform(name, step, position)
        race = noise.at("race").uniform(name, step, position).clamp(max=1 - 2.0**-53)
        gumbel = _spread(look.open, -torch.log(-torch.log(race)))
        k = self.how_many(look, setting)
        if self.order == "draw_first":
            token = draw(law, u)  # -1 where there is nothing to draw from, which `steps` refuses
            weights = self.weights(look.open, setting, logits, law, token)
            drawn, drawn_law = look.open, law
            kept = best(weights + gumbel, k, allowed=look.open)
        else:
            weights = self.weights(look.open, setting, logits, law)
            drawn = kept = best(weights + gumbel, k, allowed=look.open)
            drawn_law = law[kept[look.open]]
            token = draw(drawn_law, u[kept[look.open]])
        return Decision(
            setting=setting,
            token=torch.full_like(canvas.x, -1).masked_scatter(drawn, token),
            logp=torch.zeros_like(weights).masked_scatter(drawn, log_prob_of(drawn_law, token.clamp(min=0))),
            kept=kept,
            rank=ranked(weights + gumbel, kept),
            weights=weights,
        )

    def laws(
        self,
        model: Denoiser,
        canvas: Canvas,
        at: Bool[Tensor, "B L"],
        setting: Float[Tensor, "B 4"],
        *,
        told: Float[Tensor, "N V"] | None = None,
    ) -> tuple[Float[Tensor, "N V"], Float[Tensor, "N V"]]:
        """Logits of the guided law, and of the law tokens are drawn from, at the named positions; differentiable."""
        logits = wide(guided(model, canvas, at, setting[:, 3], without=self.without, told=told))
        heat = setting[:, 2].clamp(min=COLD)[at.nonzero()[:, 0], None]
        return logits, logits / heat.to(logits.dtype)

    def weights(
        self,
        at: Bool[Tensor, "B L"],
        setting: Float[Tensor, "B 4"],
        logits: Float[Tensor, "N V"],
        law: Float[Tensor, "N V"],
        token: Int[Tensor, " N"] | None = None,
    ) -> Float[Tensor, "B L"]:
        """Log weights of the race at the named positions, -inf elsewhere; differentiable in the logits.

        Args:
            token: drawn there, if tokens come first.
        """
        judged = law if self.tempered else logits
        if self.order == "draw_first":
            assert token is not None
            score = log_prob_of(judged, token.clamp(min=0))
        elif self.score == "none":
            score = torch.zeros(len(logits), dtype=torch.float64, device=logits.device)
        else:
            score = SCORES[self.score](judged)
        heat = setting[:, 1].clamp(min=COLD)[at.nonzero()[:, 0]]
        return _spread(at, score.double() / heat)

    def how_many(self, look: Look, setting: Float[Tensor, "B 4"]) -> Int[Tensor, " B"]:
        """Positions each row keeps in this step."""
        goal = (look.carry.start * setting[:, 0].clamp(0.0, 1.0)).floor().long()
        last = look.carry.step >= self.steering.num_steps - 1
        most = look.left if self.may_wait else (look.left - 1).clamp(min=0)
        masks = torch.minimum(goal if self.may_finish else goal.clamp(min=1), most)
        return torch.where(last, look.left, look.left - masks)

    def log_prob(self, model: Denoiser, before: Canvas, carry: Carry, after: Canvas) -> Float[Tensor, " B"]:
        """As `Scorable`, of the set that was kept, whatever the order of the race; nats, float64.

        Raises:
            ValueError: "draw_first", whose step depends on tokens that were drawn in vain.
        """
        if self.order != "choose_first":
            raise ValueError(
                "sampler.order='draw_first': its steps have no likelihood without the tokens drawn in vain; use "
                "order='choose_first', or score a recorded trajectory (rl.likelihood 'augmented')"
            )
        look = Look(model, before, carry, Noise.of(0))
        setting = self.steering(look)
        logits, law = self.laws(model, before, look.open, setting, told=look.logits)
        wrote = look.open & (after.x != before.x)
        where = set_log_prob(self.weights(look.open, setting, logits, law), wrote, allowed=look.open)
        tokens = log_prob_of(law[wrote[look.open]], after.x[wrote])
        own = torch.zeros_like(before.x, dtype=torch.float64).masked_scatter(wrote, tokens).sum(-1)
        return torch.where(wrote.sum(-1) == self.how_many(look, setting), where + own, -torch.inf)


def ranked(key: Float[Tensor, "B L"], kept: Bool[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """The place of each kept position by falling key, from 0; -1 elsewhere."""
    place = key.masked_fill(~kept, -torch.inf).argsort(stable=True, dim=-1, descending=True).argsort(-1)
    return torch.where(kept, place, -1)


def _spread(at: Bool[Tensor, "B L"], values: Float[Tensor, " N"]) -> Float[Tensor, "B L"]:
    """Values of the named positions at their places, -inf elsewhere; float64, differentiable."""
    empty = torch.full(at.shape, -torch.inf, dtype=torch.float64, device=at.device)
    return empty.masked_scatter(at, values.double())
