"""First-hitting sampling in groups that uses two predictions for a token: extrapolated in time, or corrected later.

Both remember the last prediction: a float32 number for each position and token of the rows being written.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser, Schedule
from anyorder.core.schedule import Linear
from anyorder.core.types import Canvas, Carry, Past, Vocab, Write
from anyorder.samplers.count import Quota, check_num_steps
from anyorder.samplers.look import Look
from anyorder.samplers.position import Uniform
from anyorder.samplers.token import TokenRule
from anyorder.samplers.unmask import start


@dataclass(frozen=True)
class Extrapolated:
    """Equal groups at random positions; a token's law is the line through the last two predictions, at its own time.

    The tokens of a group hit at falling times, as in first-hitting sampling; the prediction belongs to the first. A
    line through two laws can leave them: it is cut at 0 and normalised (ours; the paper does not say).

    Raises:
        ValueError: num_steps < 1.
    Source:
        arXiv:2409.02908, appendix G.1 (algorithm 3, order 2).
    """

    num_steps: int
    token: TokenRule = field(default_factory=TokenRule)
    schedule: Schedule = field(default_factory=Linear)

    paper: ClassVar[str] = "arXiv:2409.02908"

    def __post_init__(self) -> None:
        check_num_steps(self.num_steps)

    @property
    def exact(self) -> bool:
        return False

    def init(self, canvas: Canvas, *, vocab: Vocab) -> Carry:
        return remembering(canvas, vocab=vocab)

    def step(self, model: Denoiser, canvas: Canvas, carry: Carry, *, noise: Noise) -> Write:
        look, past = Look(model, canvas, carry, noise, self.token), carry.past
        assert past is not None
        chosen = group(look, self.num_steps)
        hit, gamma = hits(look, chosen, past.log_gamma)
        time = self.schedule.inverse(-torch.expm1(hit))
        now = time.masked_fill(~chosen, -torch.inf).amax(-1)  # of the first hit, which the prediction is made for
        law = laws(look.logits, look.open)
        beyond = (now[:, None] - time) / (past.time - now)[:, None]
        beyond = torch.where((carry.step > 0)[:, None], beyond, 0.0)[chosen][:, None]
        line = ((1 + beyond) * law[chosen] - beyond * past.law[chosen]).clamp(min=0.0)
        token, logp = self.token(line.log(), look.token_noise(chosen))
        return written(look, [(chosen, token, logp)], Past(law, now, gamma))


@dataclass(frozen=True)
class Corrected:
    """Equal groups at random positions; each group is drawn again, with the same noise, once the next prediction is in.

    Experimental: the paper's algorithm is known from its prose alone. A token is drawn again from the mean of the law
    it was drawn from and the new prediction at its position, which sees the token. The last group stays as it is.

    Raises:
        ValueError: num_steps < 1.
    Source:
        arXiv:2409.02908, appendix J.2.1 (algorithm 4).
    """

    num_steps: int
    token: TokenRule = field(default_factory=TokenRule)

    paper: ClassVar[str] = "arXiv:2409.02908"

    def __post_init__(self) -> None:
        check_num_steps(self.num_steps)

    @property
    def exact(self) -> bool:
        return False

    def init(self, canvas: Canvas, *, vocab: Vocab) -> Carry:
        return remembering(canvas, vocab=vocab)

    def step(self, model: Denoiser, canvas: Canvas, carry: Carry, *, noise: Noise) -> Write:
        look, past = Look(model, canvas, carry, noise, self.token), carry.past
        assert past is not None
        chosen = group(look, self.num_steps)
        last = (past.law > 0).any(-1)
        law = laws(model(canvas, chosen | last), chosen | last)
        first = self.token(law[chosen].log(), look.token_noise(chosen))
        before = Look(model, canvas, dataclasses.replace(carry, step=carry.step - 1), noise)
        again = self.token((law + past.law)[last].log(), before.token_noise(last))
        kept = dataclasses.replace(past, law=law.masked_fill(~chosen[..., None], 0.0))
        return written(look, [(last, *again), (chosen, *first)], kept)


def remembering(canvas: Canvas, *, vocab: Vocab) -> Carry:
    """The carry of rows that have taken no step and remember no prediction."""
    zero = torch.zeros_like(canvas.row_id, dtype=torch.float64)
    nothing = torch.zeros(*canvas.x.shape, vocab.size, device=canvas.x.device)
    return dataclasses.replace(start(canvas, vocab=vocab), past=Past(nothing, zero + 1, zero))


def group(look: Look, num_steps: int) -> Bool[Tensor, "B L"]:
    """The positions of this step's group: equal sizes, the larger first, the rest in the last step."""
    return Uniform()(look, torch.minimum(Quota(num_steps)(look), look.left))


def hits(
    look: Look, chosen: Bool[Tensor, "B L"], log_gamma: Float[Tensor, " B"]
) -> tuple[Float[Tensor, "B L"], Float[Tensor, " B"]]:
    """log(1 - alpha) at which each chosen position is hit, in the order of its `look.u`; and after the last of them.

    With n masks left, 1 - alpha is multiplied by u^(1/n) (arXiv:2409.02908, Proposition 4.1).
    """
    rank = look.u.masked_fill(~chosen, torch.inf).argsort(-1).argsort(-1)
    event = torch.arange(chosen.shape[-1], device=chosen.device)
    number = (look.carry.start - look.left)[:, None] + event  # of the event, counted over the whole row
    u = look.noise.at("time").uniform(look.canvas.row_id[:, None], number, 0)
    left = (look.left[:, None] - event).clamp(min=1)
    after = log_gamma[:, None] + (u.log() / left).cumsum(-1)
    k = chosen.sum(-1)
    last = torch.where(k > 0, after.gather(-1, (k - 1).clamp(min=0)[:, None]).squeeze(-1), log_gamma)
    return after.gather(-1, rank), last


def laws(logits: Float[Tensor, "N V"], at: Bool[Tensor, "B L"]) -> Float[Tensor, "B L V"]:
    """The predictions at their places, 0 elsewhere; float32."""
    law = torch.zeros(*at.shape, logits.shape[-1], device=at.device)
    return law.masked_scatter(at[..., None], logits.float().softmax(-1))


def written(
    look: Look, parts: list[tuple[Bool[Tensor, "B L"], Int[Tensor, " _"], Float[Tensor, " _"]]], past: Past
) -> Write:
    """The step that writes tokens at some positions, and more at others."""
    x, wrote = look.canvas.x, torch.zeros_like(look.open)
    logp = torch.zeros_like(x, dtype=torch.float64)
    for at, token, chance in parts:
        x, wrote, logp = x.masked_scatter(at, token), wrote | at, logp.masked_scatter(at, chance)
    carry = dataclasses.replace(look.carry, step=look.carry.step + 1, past=past)
    return Write(canvas=dataclasses.replace(look.canvas, x=x), carry=carry, wrote=wrote, logp=logp)
