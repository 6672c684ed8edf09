"""What a schedule policy sees: nothing but the step, a few figures of the canvas, or the network's states.

Where passes have prices, the last figure of a feature is the row's (`SchedulePolicy`).
"""

import math
from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from anyorder.core.noise import Noise
from anyorder.models.transformer import Transformer
from anyorder.samplers.certainty import SCORES, of_law, spread
from anyorder.samplers.look import Look

FIGURES: Final = ("share of masks", "mean entropy", "least entropy", "mean log max p", "largest log max p", "margin")


class StepTable(nn.Module):
    """A number for each knob of each step: a schedule that is the same for all rows, or a line in their price."""

    def __init__(self, num_steps: int, *, priced: bool = False) -> None:
        super().__init__()
        self.added = nn.Parameter(torch.zeros(num_steps, 4))
        self.by_price = nn.Parameter(torch.zeros(num_steps, 4)) if priced else None

    def feature(self, look: Look) -> Float[Tensor, "B 0"]:
        return torch.zeros(len(look.left), 0, device=look.left.device)

    def forward(self, feature: Float[Tensor, "B F"], step: Int[Tensor, " B"]) -> Float[Tensor, "B 4"]:
        if self.by_price is None:
            return self.added[step]
        return self.added[step] + feature * self.by_price[step]


class Figures(nn.Module):
    """A small network that sees the step and six figures of the canvas and of the model's answer (`FIGURES`)."""

    def __init__(self, num_steps: int, *, width: int = 64, priced: bool = False, noise: Noise) -> None:
        super().__init__()
        self.num_steps = num_steps
        self.layers = nn.Sequential(
            nn.Linear(num_steps + len(FIGURES) + priced, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, 4),
        )
        init_linear(self.layers, noise=noise)
        zero(self.layers[-1])

    def feature(self, look: Look) -> Float[Tensor, "B F"]:
        entropy = -spread(look, of_law(look, SCORES["entropy"])).masked_fill(~look.open, 0.0)
        top = spread(look, of_law(look, SCORES["prob"]))
        margin = spread(look, of_law(look, SCORES["margin"])).masked_fill(~look.open, 0.0)
        n = look.left.clamp(min=1)
        figures = [
            look.left / look.carry.start.clamp(min=1),
            entropy.sum(-1) / n,
            entropy.masked_fill(~look.open, torch.inf).amin(-1),
            top.masked_fill(~look.open, 0.0).sum(-1) / n,
            top.amax(-1),
            margin.sum(-1) / n,
        ]
        return torch.stack([f.double() for f in figures], -1).float()

    def forward(self, feature: Float[Tensor, "B F"], step: Int[Tensor, " B"]) -> Float[Tensor, "B 4"]:
        told = F.one_hot(step, self.num_steps).to(feature.dtype)
        out: Tensor = self.layers(torch.cat([told, feature], -1))
        return out


class Adaptive(nn.Module):
    """AdaNAT's: the last states of a network at all positions of a token grid, through a convolution and three layers.

    The tower is asked once a step, beside the pass the sampler makes; its weights are those the policy was made with.

    Args:
        tower: the network whose states are seen; not trained, not part of the policy's checkpoint.
        grid: height and width of the token grid, which ends the row.
        widths: AdaNAT's are 512, 128, 1024 and 512.
    Source:
        arXiv:2409.00342 and its public code: steps enter by modulated norms that begin as none; the last layer as 0.
    """

    def __init__(
        self,
        tower: Transformer,
        grid: tuple[int, int],
        *,
        widths: Sequence[int] = (512, 128, 1024, 512),
        priced: bool = False,
        noise: Noise,
    ) -> None:
        super().__init__()
        self._tower, self.grid = [tower], grid  # in a list: no part of this module
        first, second, third, fourth = widths
        height, width = grid
        self.enter, self.enter_norm = nn.Linear(tower.config.d_model, first), Modulated(first)
        self.spatial = nn.Conv2d(first, first, 3, stride=2, padding=1, groups=first)
        self.mix = nn.Conv2d(first, second, 1)
        self.third = nn.Linear(second * math.ceil(height / 2) * math.ceil(width / 2), third)
        self.third_norm, self.fourth, self.fourth_norm = Modulated(third), nn.Linear(third, fourth), Modulated(fourth)
        self.out = nn.Linear(fourth, 4)
        self.price = nn.Linear(1, STEP_WIDTH) if priced else None
        init_linear(self, noise=noise)
        for norm in (self.enter_norm, self.third_norm, self.fourth_norm):
            zero(norm.modulate)
        zero(self.out)

    def feature(self, look: Look) -> Float[Tensor, "B F"]:
        tower, cells = self._tower[0], self.grid[0] * self.grid[1]
        at = torch.zeros_like(look.open)
        at[:, -cells:] = True
        return tower.states(look.canvas, at).float().view(len(at), -1)

    def forward(self, feature: Float[Tensor, "B F"], step: Int[Tensor, " B"]) -> Float[Tensor, "B 4"]:
        rows, (height, width) = len(feature), self.grid
        told = sinusoid(step)
        if self.price is not None:
            told, feature = told + self.price(feature[:, -1:]), feature[:, :-1]
        h = self.enter_norm(self.enter(feature.reshape(rows, height * width, -1)), told[:, None])
        h = F.gelu(self.spatial(h.transpose(1, 2).reshape(rows, -1, height, width)))
        h = F.gelu(self.mix(h)).flatten(1)
        h = F.gelu(self.third_norm(self.third(h), told))
        h = F.gelu(self.fourth_norm(self.fourth(h), told))
        out: Tensor = self.out(h)
        return out


class Modulated(nn.Module):
    """A layer norm whose scale and shift depend on the step; at first they do not."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden, self.modulate = nn.Linear(STEP_WIDTH, width), nn.Linear(width, 2 * width)

    def forward(self, h: Float[Tensor, "*S D"], told: Float[Tensor, "*T E"]) -> Float[Tensor, "*S D"]:
        shift, scale = self.modulate(F.silu(self.hidden(told))).chunk(2, -1)
        out: Tensor = F.layer_norm(h, h.shape[-1:]) * (1 + scale) + shift
        return out


STEP_WIDTH: Final = 256


def sinusoid(step: Int[Tensor, " B"]) -> Float[Tensor, "B E"]:
    """A step as 256 sines and cosines."""
    rate = torch.exp(-math.log(10_000.0) * torch.arange(STEP_WIDTH // 2, device=step.device) / (STEP_WIDTH // 2))
    angle = step[:, None] * rate
    return torch.cat([angle.cos(), angle.sin()], -1)


def init_linear(module: nn.Module, *, noise: Noise) -> None:
    """Weights N(0, 1/inputs), biases 0, by our noise."""
    for name, p in module.named_parameters():
        if p.ndim > 1:
            draws = noise.at(name).normal(torch.arange(p.numel()))
            p.data.copy_((draws / math.sqrt(p[0].numel())).view(p.shape))
        else:
            nn.init.zeros_(p)


def zero(layer: nn.Module) -> None:
    """Its weights and biases are 0."""
    for p in layer.parameters():
        nn.init.zeros_(p)
