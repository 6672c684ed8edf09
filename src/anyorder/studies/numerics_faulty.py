"""Sampling with noise too coarse, as samplers, and the exact law of what they draw."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core import categorical
from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas, Carry, Vocab, Write
from anyorder.samplers.count import check_num_steps
from anyorder.samplers.unmask import start

CHUNK = 1 << 20  # classes drawn at once
MOST_POSITIONS = 1 << 20  # of a row, so that each has its own noise


@dataclass(frozen=True)
class JointGumbel:
    """FAULTY on purpose: ancestral sampling that draws each position from tokens and mask at once, as MDLM's code does.

    Linear schedule. All rows must have begun together, as `generate` has them do.

    Args:
        bits: of the uniform noise, 24 for float32.
    Raises:
        ValueError: num_steps < 1.
    Source:
        arXiv:2406.07524; the defect: arXiv:2409.02908, section 5.
    """

    num_steps: int
    bits: int = 24
    paper: ClassVar[str] = "arXiv:2406.07524"

    def __post_init__(self) -> None:
        check_num_steps(self.num_steps)

    @property
    def exact(self) -> bool:
        return False

    def init(self, canvas: Canvas, *, vocab: Vocab) -> Carry:
        return start(canvas, vocab=vocab)

    def step(self, model: Denoiser, canvas: Canvas, carry: Carry, *, noise: Noise) -> Write:
        now = int(carry.step.max())
        reveal = 1 / max(self.num_steps - now, 1)
        at = canvas.open(model.vocab) & canvas.window
        drawn = _coarse(model, canvas, at, reveal=reveal, bits=self.bits, noise=noise.at("joint"), step=now)
        return _written(canvas, carry, at, drawn, vocab=model.vocab)


@dataclass(frozen=True)
class PlainGumbel:
    """FAULTY on purpose: ancestral sampling that settles the positions first, then draws tokens with coarse noise.

    What becomes of our order of things if the noise takes its dtype from half-precision logits. Linear schedule; all
    rows must have begun together.

    Args:
        bits: of the tokens' uniform noise, 8 for bfloat16, 11 for float16; positions are drawn with fine noise.
    Raises:
        ValueError: num_steps < 1.
    Source:
        arXiv:2409.02908, section 5.
    """

    num_steps: int
    bits: int
    paper: ClassVar[str] = "arXiv:2409.02908"

    def __post_init__(self) -> None:
        check_num_steps(self.num_steps)

    @property
    def exact(self) -> bool:
        return False

    def init(self, canvas: Canvas, *, vocab: Vocab) -> Carry:
        return start(canvas, vocab=vocab)

    def step(self, model: Denoiser, canvas: Canvas, carry: Carry, *, noise: Noise) -> Write:
        now = int(carry.step.max())
        u = noise.at("reveal").uniform(canvas.row_id[:, None], now, torch.arange(canvas.x.shape[1]))
        at = canvas.open(model.vocab) & canvas.window & (u < 1 / max(self.num_steps - now, 1))
        drawn = _coarse(model, canvas, at, reveal=1.0, bits=self.bits, noise=noise.at("token"), step=now)
        return _written(canvas, carry, at, drawn, vocab=model.vocab)


def _coarse(
    model: Denoiser, canvas: Canvas, at: Bool[Tensor, "B L"], *, reveal: float, bits: int, noise: Noise, step: int
) -> Int[Tensor, " N"]:
    """A class for each named position: tokens with `reveal` of the mass, and the mask, the id after them."""
    logits = model(canvas, at)
    row, position = at.nonzero(as_tuple=True)
    name = canvas.row_id[row] * MOST_POSITIONS + position
    parts = [row.new_zeros(0)]
    size = max(1, CHUNK // model.vocab.size)
    for index in (slice(begin, begin + size) for begin in range(0, len(row), size)):
        law = reveal * torch.softmax(categorical.wide(logits[index]), -1)
        probs = torch.cat([law, law.new_full((len(law), 1), 1 - reveal)], -1)
        parts.append(categorical.gumbel_argmax_float32_faulty(probs, name[index], noise=noise, step=step, bits=bits))
    return torch.cat(parts)


def _written(canvas: Canvas, carry: Carry, at: Bool[Tensor, "B L"], drawn: Int[Tensor, " N"], *, vocab: Vocab) -> Write:
    x = canvas.x.masked_scatter(at, torch.where(drawn < vocab.size, drawn, vocab.mask_id))
    return Write(
        canvas=dataclasses.replace(canvas, x=x),
        carry=dataclasses.replace(carry, step=carry.step + 1),
        wrote=at & (x != vocab.mask_id),
        logp=torch.zeros_like(x, dtype=torch.float64),
    )


def lattice_law(probs: Float[Tensor, " K"], *, bits: int) -> Float[Tensor, " K"]:
    """The exact law of `gumbel_argmax_float32_faulty` for few bits: all classes on the lattice, float64.

    Every class's score is one of 2^bits values. In their common order, the chance that all other classes stay below is
    a running product; K 2^bits values are sorted.
    """
    size, levels = len(probs), 1 << bits
    u = torch.arange(levels).float() * 2.0**-bits
    score = probs.float()[:, None] / (1e-10 - (u + 1e-10).log())
    order = score.flip(0).flatten().argsort(stable=True)  # of equal scores the last class comes first: argmax's rule
    owner, level = size - 1 - order // levels, order % levels
    growth = torch.where(level > 0, torch.log1p(1 / level.double()), -torch.tensor(levels).log().double())
    below = growth.cumsum(0)  # log of the chance that every class that has begun is at most here
    begun = (level == 0).cumsum(0) == size
    others = below - ((level + 1).double() / levels).log()
    won = torch.where(begun, others.exp() / levels, 0.0)
    return torch.zeros(size, dtype=torch.float64).index_add(0, owner, won)


def lattice_run(law: Float[Tensor, " V"], num_steps: int, *, bits: int) -> Float[Tensor, " V"]:
    """The exact law of a position's token after N steps of `JointGumbel`, the denoiser saying `law` throughout."""
    out, left = torch.zeros_like(law), 1.0
    for i in range(num_steps, 0, -1):
        drawn = lattice_law(torch.cat([law / i, law.new_tensor([1 - 1 / i])]), bits=bits)[:-1]
        out = out + left * drawn
        left *= 1 - float(drawn.sum())
    return out
