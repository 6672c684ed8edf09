"""What a rule may see of one step, computed when first asked for and then shared by all rules of the step."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas, Carry, take_rows
from anyorder.samplers.token import TokenRule

BY_ROW = ("open", "left", "u", "gumbel")


@dataclass(frozen=True)
class Look:
    """One step seen by its rules. A rule that needs no logits costs no network pass; rules that need them share one."""

    model: Denoiser
    canvas: Canvas
    carry: Carry
    noise: Noise
    token: TokenRule = field(default_factory=TokenRule)
    memo: dict[str, Float[Tensor, "B L"]] = field(default_factory=dict, compare=False)  # scores already computed

    @cached_property
    def open(self) -> Bool[Tensor, "B L"]:
        """Where this step may write: open positions inside the window."""
        return self.canvas.open(self.model.vocab) & self.canvas.window

    @cached_property
    def written(self) -> Bool[Tensor, "B L"]:
        """Tokens inside the window that are neither prompt nor padding: a step may send them back to the mask."""
        canvas = self.canvas
        return (canvas.x != self.model.vocab.mask_id) & ~canvas.fixed & canvas.valid & canvas.window

    @cached_property
    def left(self) -> Int[Tensor, " B"]:
        """How many positions are open."""
        return self.open.sum(-1)

    @cached_property
    def u(self) -> Float[Tensor, "B L"]:
        """One uniform for each open position, 1 elsewhere; float64.

        Shared by the rules on purpose: counting those below delta and then writing the smallest ones is the event that
        each position flips on its own with probability delta.
        """
        row, position = self.open.nonzero(as_tuple=True)
        u = self.noise.at("position").uniform(self.canvas.row_id[row], self.carry.step[row], position)
        return torch.ones_like(self.open, dtype=torch.float64).index_put((row, position), u)

    @cached_property
    def gumbel(self) -> Float[Tensor, "B L"]:
        """A standard Gumbel variable for each open position, float64; independent of `u`."""
        row, position = self.open.nonzero(as_tuple=True)
        u = self.noise.at("race").uniform(self.canvas.row_id[row], self.carry.step[row], position)
        empty = torch.zeros_like(self.open, dtype=torch.float64)
        return empty.index_put((row, position), -torch.log(-torch.log(u.clamp(max=1 - 2.0**-53))))

    @cached_property
    def logits(self) -> Float[Tensor, "N V"]:
        """The network's output at all open positions, row-major: the step's one pass."""
        if "everywhere" in self.__dict__:
            return self.everywhere[self.open[self.open | self.written]]
        return self.model(self.canvas, self.open)

    @cached_property
    def everywhere(self) -> Float[Tensor, "N V"]:
        """The output at open and written positions, for rules that judge both; to be asked before `logits`."""
        return self.model(self.canvas, self.open | self.written)

    @property
    def asked(self) -> bool:
        """Whether the logits are known."""
        return "logits" in self.__dict__ or "everywhere" in self.__dict__

    def logits_at(self, chosen: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        """Logits at some open positions: from the pass already made, else from one that names only these."""
        return self.logits[chosen[self.open]] if self.asked else self.model(self.canvas, chosen)

    @cached_property
    def drawn(self) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"]]:
        """A token for every open position, and its log-probability under the token rule, for drawing first."""
        return self.token(self.logits, self.token_noise(self.open))

    @cached_property
    def logits_written(self) -> Float[Tensor, "N V"]:
        """The output at the written positions: what the network would put there, itself in view."""
        return self.everywhere[self.written[self.open | self.written]]

    @cached_property
    def redrawn(self) -> Int[Tensor, " N"]:
        """A token drawn anew for every written position."""
        return self.token(self.logits_written, self.token_noise(self.written))[0]

    def token_noise(self, at: Bool[Tensor, "B L"]) -> Float[Tensor, " N"]:
        """The uniform each position draws its token with in this step, whoever else is drawn."""
        row, position = at.nonzero(as_tuple=True)
        return self.noise.at("token").uniform(self.canvas.row_id[row], self.carry.step[row], position)

    def take(self, rows: Int[Tensor, " N"]) -> "Look":
        """The same step seen for some rows, given in ascending order; what is known stays known."""
        if len(rows) == len(self.canvas.x):
            return self
        part = Look(
            self.model,
            take_rows(self.canvas, rows),
            take_rows(self.carry, rows),
            self.noise,
            self.token,
            {name: score[rows] for name, score in self.memo.items()},
        )
        part.__dict__.update({name: self.__dict__[name][rows] for name in BY_ROW if name in self.__dict__})
        if self.asked:
            kept = torch.zeros_like(self.left, dtype=torch.bool).index_fill(0, rows, True)
            here = kept[self.open.nonzero(as_tuple=True)[0]]
            part.__dict__["logits"] = self.logits[here]
            if "drawn" in self.__dict__:
                part.__dict__["drawn"] = (self.drawn[0][here], self.drawn[1][here])
        return part


@runtime_checkable
class CountRule(Protocol):
    """How many positions each row writes in a step: at least 0, and in the end all."""

    @property
    def one_at_a_time(self) -> bool:
        """Whether no step ever writes two positions of a row, so that no dependence between tokens is lost."""
        ...

    def chance(self, look: Look) -> Float[Tensor, " B"] | None:
        """If the number is drawn: the chance of each open position to be counted, on its own. None: nothing is."""
        ...

    def __call__(self, look: Look) -> Int[Tensor, " B"]: ...


@runtime_checkable
class PositionRule(Protocol):
    """Which open positions each row writes: exactly `k` of them."""

    def weights(self, look: Look) -> Float[Tensor, "B L"] | None:
        """If positions are drawn, one after the other without replacement: their log weights. None: nothing is."""
        ...

    def __call__(self, look: Look, k: Int[Tensor, " B"]) -> Bool[Tensor, "B L"]: ...
