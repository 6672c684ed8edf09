"""Writing by insertion: choose a gap, then a token for it, until the model says that nothing is missing."""

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.categorical import log_prob_of, log_probs
from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas, Carry, Vocab, Write
from anyorder.samplers.inserted import Reading, insert, insertions, read, room_of
from anyorder.samplers.token import TokenRule


@dataclass(frozen=True)
class Room:
    """How many tokens a gap takes: at least `least`, at most `most` (None: any number).

    Raises:
        ValueError: a negative number, or at most less than at least.
    """

    least: int = 0
    most: int | None = None

    def __post_init__(self) -> None:
        if self.least < 0 or (self.most is not None and self.most < self.least):
            raise ValueError(
                f"a gap of at least {self.least} and at most {self.most} tokens: the first number must be >= 0 and not "
                "above the second"
            )


@dataclass(frozen=True)
class Insert:
    """One step: stop or go on; if on, a position by its mass over all tokens, then a token to put just after it.

    Rows are written from the left and padded (segment 0) at the right, which is the room they have: a row of length T
    takes T tokens and then stops. `canvas.window` says after which positions a token may be inserted; what is inserted
    is open like the token before it. Nothing that stands is ever changed. The log-probability of a written token is
    that of its position and its value, given that the row went on.

    Without truncation, position first and then token is the joint softmax of the training objective.

    At temperature 0 of both and a number for `stop` nothing is drawn, and every log-probability is 0.

    Args:
        position, token: temperature, top-k and top-p of either draw; over positions, and over the tokens of one.
        stop: None draws the stop with its chance; a number in (0, 1) stops when the chance reaches it.
        gaps: how many tokens each gap takes, in reading order, a gap being a position open at the beginning and all
            that is inserted there; None: any number. A stop that comes before every gap has its least leaves only those
            open that lack some.
        at_once: k > 1 inserts into the k gaps drawn first (without replacement), a token each, from one pass: faster,
            and no longer the model's law; the log-probability is then that of the value alone.
    Raises:
        ValueError: stop outside (0, 1), or at_once < 1; (in `init`) gaps that are not those of the rows, or more at
            least than there is room for.
    Source:
        arXiv:2505.05755, whose stop is a threshold.
    """

    position: TokenRule = field(default_factory=TokenRule)
    token: TokenRule = field(default_factory=TokenRule)
    stop: float | None = None
    gaps: tuple[Room, ...] | None = None
    at_once: int = 1

    paper: ClassVar[str] = "arXiv:2505.05755"

    def __post_init__(self) -> None:
        if self.stop is not None and not 0.0 < self.stop < 1.0:
            raise ValueError(f"sampler.stop={self.stop}: must be between 0 and 1; leave it out to draw the stop")
        if self.at_once < 1:
            raise ValueError(f"sampler.at_once={self.at_once}: must be >= 1 token a pass")

    @property
    def exact(self) -> bool:
        plain = self.position.exact and self.token.exact
        return plain and self.stop is None and self.gaps is None and self.at_once == 1

    def init(self, canvas: Canvas, *, vocab: Vocab) -> Carry:
        is_open, room = canvas.window & canvas.valid, room_of(canvas)
        if self.gaps is not None:
            if bool((is_open.sum(-1) != len(self.gaps)).any()):
                raise ValueError(
                    f"sampler.gaps: names {len(self.gaps)} gaps; every row must have as many open positions"
                )
            least = sum(gap.least for gap in self.gaps)
            if least > int(room.min()):
                raise ValueError(
                    f"gaps: at least {least} tokens are asked for and there is room for {int(room.min())}; "
                    "ask for fewer, or shorten the text"
                )
        return Carry(
            step=torch.zeros_like(room),
            start=room,
            more=torch.where(is_open.any(-1), room, 0),
            gap=torch.where(is_open, is_open.long().cumsum(-1) - 1, -1),
        )

    def step(self, model: Denoiser, canvas: Canvas, carry: Carry, *, noise: Noise) -> Write:
        assert carry.gap is not None  # from `init`
        said = read(model, canvas)
        ends = self._ends(said, canvas, carry, noise=noise)
        is_open, lacking = self._open(said, canvas, carry.gap, ends)
        live = is_open.any(-1) & (~ends | lacking)
        chosen, logp_of_position = self._choose(said.mass.masked_fill(~is_open, -torch.inf), live, canvas, carry, noise)
        row, position = chosen.nonzero(as_tuple=True)
        u = noise.at("token").uniform(canvas.row_id[row], carry.step[row], position)
        token, logp = self.token(said.at(chosen), u)
        new, gap, origin = insert(canvas, carry.gap, chosen, token)
        wrote = (origin < 0) & new.valid & live[:, None]
        return Write(
            canvas=new,
            carry=dataclasses.replace(carry, step=carry.step + 1, more=torch.where(live, room_of(new), 0), gap=gap),
            wrote=wrote,
            logp=torch.zeros_like(said.mass).masked_scatter(wrote, logp + logp_of_position[chosen]),
            origin=origin,
        )

    def log_prob(self, model: Denoiser, before: Canvas, carry: Carry, after: Canvas) -> Float[Tensor, " B"]:
        """As `Scorable`: that the row stopped, or went on and came to read as it does; nats, float64.

        A token inserted into a run of its equals may have come after any of them; their chances add up.

        Raises:
            ValueError: gaps with a number of tokens, or several tokens a pass.
        """
        if self.gaps is not None or self.at_once > 1:
            raise ValueError("sampler: steps have a likelihood only without numbers for gaps and with at_once=1")
        said = read(model, before)
        grew = after.valid.sum(-1) > before.valid.sum(-1)
        where = insertions(before, after) & said.open & grew[:, None]
        row, position = where.nonzero(as_tuple=True)
        logp = log_prob_of(self.token.law(said.at(where)), after.x[row, position + 1])
        place = log_probs(self.position.law(said.mass.masked_fill(~said.open, -torch.inf)))
        event = torch.full_like(said.mass, -torch.inf).masked_scatter(where, place[where] + logp)
        return torch.where(grew, self._log_odds(said, go=True) + event.logsumexp(-1), self._log_odds(said, go=False))

    def _log_odds(self, said: Reading, *, go: bool) -> Float[Tensor, " B"]:
        """Log-chance of going on, or of stopping."""
        if self.stop is None:
            return F.logsigmoid(-said.stop if go else said.stop)
        stops = said.stop.sigmoid() >= self.stop
        return torch.where(stops != go, 0.0, -torch.inf).double()

    def _ends(self, said: Reading, canvas: Canvas, carry: Carry, *, noise: Noise) -> Bool[Tensor, " B"]:
        """Whether each row is said to be complete."""
        chance = said.stop.sigmoid()
        if self.stop is not None:
            return chance >= self.stop
        return noise.at("stop").uniform(canvas.row_id, carry.step) < chance

    def _open(
        self, said: Reading, canvas: Canvas, gap: Int[Tensor, "B L"], ends: Bool[Tensor, " B"]
    ) -> tuple[Bool[Tensor, "B L"], Bool[Tensor, " B"]]:
        """Where a token may go now, and whether the row's gaps still lack some."""
        if self.gaps is None:
            return said.open, torch.zeros_like(ends)
        inserted = (canvas.valid & ~canvas.fixed).long()
        held = inserted.new_zeros(len(gap), len(self.gaps)).scatter_add(-1, gap.clamp(min=0), inserted)
        least = torch.tensor([g.least for g in self.gaps], device=gap.device)
        most = torch.tensor([canvas.x.shape[1] if g.most is None else g.most for g in self.gaps], device=gap.device)
        lack = (least - held).clamp(min=0)
        free = said.open & (held < most).gather(-1, gap.clamp(min=0))
        only = (ends | (lack.sum(-1) >= room_of(canvas))) & (lack.sum(-1) > 0)
        return torch.where(only[:, None], free & (lack > 0).gather(-1, gap.clamp(min=0)), free), lack.sum(-1) > 0

    def _choose(
        self, mass: Float[Tensor, "B L"], live: Bool[Tensor, " B"], canvas: Canvas, carry: Carry, noise: Noise
    ) -> tuple[Bool[Tensor, "B L"], Float[Tensor, "B L"]]:
        """The positions after which a token goes, and the log-probability of each to be chosen."""
        rows = live.nonzero().squeeze(-1)
        chosen, logp = torch.zeros_like(mass, dtype=torch.bool), torch.zeros_like(mass)
        if self.at_once == 1:
            u = noise.at("position").uniform(canvas.row_id[rows], carry.step[rows])
            position, where = self.position(mass[rows], u)
            return chosen.index_put((rows, position), live[rows]), logp.index_put((rows, position), where)
        score = mass[rows]
        if self.position.temperature > 0:
            place = torch.arange(mass.shape[1], device=mass.device)
            u = noise.at("race").uniform(canvas.row_id[rows][:, None], carry.step[rows][:, None], place)
            score = log_probs(self.position.law(score)) - torch.log(-torch.log(u))
        possible = (mass[rows] != -torch.inf) & (score != -torch.inf)  # nan too, to be refused when its token is drawn
        many = torch.minimum(possible.sum(-1).clamp(max=self.at_once), room_of(canvas)[rows])
        ranks = score.masked_fill(~possible, -torch.inf).argsort(dim=-1, descending=True, stable=True).argsort(-1)
        return chosen.index_put((rows,), ranks < many[:, None]), logp
