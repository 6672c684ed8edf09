"""Writing by inserting masks and replacing them by tokens, until a row without masks is complete (FlexMDM)."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.categorical import exponential
from anyorder.core.growth import growth_of
from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas, Carry, Vocab, Write
from anyorder.samplers.certainty import top_log_prob
from anyorder.samplers.inserted import columns, insert, room_of
from anyorder.samplers.token import TokenRule


@dataclass(frozen=True)
class Reading:
    """What a model says of growing rows, one document each.

    Args:
        masked: masks that may be written.
        tokens: logits behind them, row-major.
        log_rate: of inserting a mask after each position; -inf where none may be, or the row is full; float64.
        stop: log-odds that nothing is missing; float64.
    """

    masked: Bool[Tensor, "B L"]
    tokens: Float[Tensor, "M V"]
    log_rate: Float[Tensor, "B L"]
    stop: Float[Tensor, " B"]

    def at(self, chosen: Bool[Tensor, "B L"]) -> Float[Tensor, "K V"]:
        """Logits of some of the masks."""
        return self.tokens[chosen[self.masked]]

    def log_rates(self) -> Float[Tensor, "B E"]:
        """Of all events: inserting a mask after each position, then replacing the mask at each position, E = 2L."""
        return torch.cat([self.log_rate, torch.where(self.masked, 0.0, -torch.inf).double()], -1)

    def sure(self) -> Float[Tensor, "B L"]:
        """Log-probability of each mask's likeliest token, -inf elsewhere."""
        return torch.full_like(self.log_rate, -torch.inf).masked_scatter(
            self.masked, top_log_prob(self.tokens).double()
        )


@dataclass(frozen=True)
class InsertMasks:
    """One step: the next event, each with its rate: a mask is inserted into a gap, or a mask is replaced by a token.

    The times between events are left out: nothing depends on them, so no step size has to be chosen. Rows, their room
    and `canvas.window` are those of `Insert`; masks that are given in the window are written like inserted ones. A row
    without masks ends with the chance that the model says. The log-probability of a token is that of its value.

    Args:
        token: temperature, top-k and top-p of the tokens.
        order: which mask is replaced: "uniform", any; "sure", the one whose likeliest token is most probable, which
            leaves the law of a model of rate 2 as it is (see `FlexMDM`).
        leap: how many events more than the next are expected to fit into one pass: all those whose time comes within
            leap / (sum of rates), at most one a gap; 0 takes the next alone. Faster, and no longer the model's law.
    Raises:
        ValueError: another order, or a negative leap.
    Source:
        arXiv:2509.01025, which leaps over time steps instead.
    """

    token: TokenRule = field(default_factory=TokenRule)
    order: str = "uniform"
    leap: float = 0.0

    paper: ClassVar[str] = "arXiv:2509.01025"

    def __post_init__(self) -> None:
        if self.order not in ("uniform", "sure"):
            raise ValueError(f"sampler.order={self.order!r}: must be uniform or sure")
        if not 0.0 <= self.leap < math.inf:
            raise ValueError(f"sampler.leap={self.leap}: must be >= 0 and finite; 0 takes one event a pass")

    @property
    def exact(self) -> bool:
        return self.token.exact and self.leap == 0.0

    def init(self, canvas: Canvas, *, vocab: Vocab) -> Carry:
        return Carry(
            step=torch.zeros_like(canvas.row_id),
            start=room_of(canvas),
            more=(canvas.window & canvas.valid).any(-1).long(),
        )

    def step(self, model: Denoiser, canvas: Canvas, carry: Carry, *, noise: Noise) -> Write:
        said = read(model, canvas)
        ends = noise.at("stop").uniform(canvas.row_id, carry.step) < said.stop.sigmoid()
        live = (said.masked.any(-1) | ~ends) & (said.log_rates() > -torch.inf).any(-1)
        gaps, masks = self._events(said, live, canvas, carry, noise)
        row, position = masks.nonzero(as_tuple=True)
        u = noise.at("token").uniform(canvas.row_id[row], carry.step[row], position)
        token, logp = self.token(said.at(masks), u)
        broken = said.stop.isnan() | said.log_rate.isnan().any(-1)  # would grow for ever: `steps` refuses the -1
        x = canvas.x.index_put((row, position), token).masked_fill(broken[:, None], -1)
        shown = dataclasses.replace(canvas, x=x)
        new_masks = torch.full((int(gaps.sum()),), model.vocab.mask_id, device=gaps.device)
        grown, _, origin = insert(shown, torch.zeros_like(canvas.x), gaps, new_masks)
        logp_there = torch.zeros_like(said.log_rate).masked_scatter(masks, logp)
        wrote = masks.gather(-1, origin.clamp(min=0)) & (origin >= 0)
        return Write(
            canvas=grown,
            carry=dataclasses.replace(carry, step=carry.step + 1, more=live.long()),
            wrote=wrote,
            logp=logp_there.gather(-1, origin.clamp(min=0)).masked_fill(~wrote, 0.0),
            origin=origin,
        )

    def _events(
        self, said: Reading, live: Bool[Tensor, " B"], canvas: Canvas, carry: Carry, noise: Noise
    ) -> tuple[Bool[Tensor, "B L"], Bool[Tensor, "B L"]]:
        """The gaps that get a mask, and the masks that get their token: a race of exponential times."""
        row, step = canvas.row_id[:, None], carry.step[:, None]
        place = torch.arange(canvas.x.shape[1], device=canvas.x.device)
        u = torch.cat([noise.at(name).uniform(row, step, place) for name in ("insert", "unmask")], -1)
        scores = said.log_rates()
        log_time = torch.where(scores > -torch.inf, exponential(u).log() - scores, torch.inf)
        next_one = torch.zeros_like(log_time, dtype=torch.bool).scatter(
            -1, log_time.argmin(-1, keepdim=True), live[:, None]
        )
        log_leap = math.log(self.leap) if self.leap else -math.inf
        within = log_leap - scores.logsumexp(-1, keepdim=True)
        gaps, masks = (next_one | ((log_time <= within) & live[:, None])).chunk(2, -1)
        gaps = gaps & best(-log_time.chunk(2, -1)[0], room_of(canvas)[:, None])
        if self.order == "sure":
            masks = best(said.sure(), masks.sum(-1, keepdim=True)) & said.masked
        return gaps, masks


def read(model: Denoiser, canvas: Canvas) -> Reading:
    """Ask the model once.

    Raises:
        ValueError: a model whose rows do not grow.
    """
    is_open = canvas.window & canvas.valid
    asked = is_open.clone()
    asked[:, 0] = True  # the stop stands at a document's first position
    width = int(canvas.valid.sum(-1).max())
    said = growth_of(model(columns(canvas, width), asked[:, :width]), model.vocab)
    masked = canvas.open(model.vocab) & canvas.window
    rate = torch.full(asked.shape, -torch.inf, dtype=torch.float64, device=canvas.x.device)
    rate = rate.masked_scatter(asked, said.log_rate.double())
    first = torch.zeros_like(asked).index_fill(1, torch.tensor([0], device=asked.device), True)
    return Reading(
        masked=masked,
        tokens=said.tokens[masked[asked]],
        log_rate=rate.masked_fill(~is_open | (room_of(canvas) == 0)[:, None], -torch.inf),
        stop=said.stop[first[asked]].double(),
    )


def best(score: Float[Tensor, "B E"], count: Int[Tensor, "B 1"]) -> Bool[Tensor, "B E"]:
    """The places of the `count` largest scores of each row, the leftmost among equals."""
    ranks = score.argsort(dim=-1, descending=True, stable=True).argsort(-1)
    return ranks < count
