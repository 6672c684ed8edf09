"""What the study of coarse noise simulates and times: runs on Zipf laws, single draws."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from anyorder.core import categorical
from anyorder.core.noise import Noise
from anyorder.core.protocols import Sampler
from anyorder.core.types import Canvas, Vocab
from anyorder.samplers.base import generate
from anyorder.samplers.count import Binomial
from anyorder.samplers.unmask import Unmask
from anyorder.studies.numerics_faulty import JointGumbel, PlainGumbel
from anyorder.testing.laws import chi_square_p, total_variation
from anyorder.testing.oracle import vocab_of


@dataclass(frozen=True)
class Drawn:
    """Tokens of a simulated run on a Zipf(a) law.

    Args:
        sampler: "joint" or "plain" with the bits of its noise, or "ours".
        entropy: of the law the tokens should follow by the closed form, nats.
        p_law, p_model: chi-square p-values against that law and the denoiser's own, over ranks 1, 2-3, 4-7, and so on.
        distance: total variation of the drawn tokens from the denoiser's law; that of finite draws is never 0.
        law_distance: total variation of the closed form from the denoiser's law.
    """

    sampler: str
    a: float
    num_steps: int
    positions: int
    entropy: float
    p_law: float
    p_model: float
    distance: float
    law_distance: float


@dataclass(frozen=True)
class Cost:
    """Microseconds per position of one draw, from logits to a token, its noise made or given."""

    draw: str
    with_noise: float
    noise_given: float


@dataclass(frozen=True)
class Same:
    """A denoiser that says one law everywhere."""

    law: Float[Tensor, " V"]
    nfe: ClassVar[int] = 1

    @property
    def vocab(self) -> Vocab:
        return vocab_of(len(self.law))

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        return self.law.log().float().expand(int(at.sum()), -1)


def coarse_draws(
    sampler: JointGumbel | PlainGumbel,
    law: Float[Tensor, " V"],
    *,
    after: Float[Tensor, " V"],
    a: float,
    positions: int,
    noise: Noise,
) -> Drawn:
    """A run of a sampler whose noise is too coarse, compared with its law `after` and with the denoiser's."""
    counts = _counts(sampler, law, positions, noise)
    name = f"{'joint' if isinstance(sampler, JointGumbel) else 'plain'}, {sampler.bits} bits"
    return _drawn(name, counts, law, after / after.sum(), a=a, num_steps=sampler.num_steps)


def our_draws(law: Float[Tensor, " V"], *, a: float, num_steps: int, positions: int, noise: Noise) -> Drawn:
    """A run of ancestral sampling that settles the positions before it draws tokens."""
    counts = _counts(Unmask(Binomial(num_steps)), law, positions, noise)
    return _drawn("ours", counts, law, law, a=a, num_steps=num_steps)


def _counts(sampler: Sampler, law: Float[Tensor, " V"], positions: int, noise: Noise) -> Int[Tensor, " V"]:
    model = Same(law)
    canvas = Canvas.of(torch.full((1, positions), model.vocab.mask_id), vocab=model.vocab)
    return torch.bincount(generate(sampler, model, canvas, noise=noise).canvas.x[0], minlength=len(law))


def _drawn(
    sampler: str, counts: Int[Tensor, " V"], law: Float[Tensor, " V"], after: Float[Tensor, " V"], *, a: float,
    num_steps: int,
) -> Drawn:  # fmt: skip
    share = counts.double() / counts.sum()
    return Drawn(
        sampler=sampler,
        a=a,
        num_steps=num_steps,
        positions=int(counts.sum()),
        entropy=float(-torch.xlogy(after, after).sum()),
        p_law=chi_square_p(by_octave(counts), by_octave(after)),
        p_model=chi_square_p(by_octave(counts), by_octave(law)),
        distance=total_variation(share, law),
        law_distance=total_variation(after, law),
    )


def by_octave(values: Shaped[Tensor, " V"]) -> Shaped[Tensor, " K"]:
    """Sums over ranks 1, 2-3, 4-7, ...: the loss grows with the rank, and few cells show it in fewer draws."""
    sizes = [1 << k for k in range(len(values).bit_length())]
    sizes[-1] -= sum(sizes) - len(values)
    return torch.stack([part.sum() for part in torch.split(values, sizes)])


def costs(size: int, *, rows: int, noise: Noise, repeats: int = 5) -> list[Cost]:
    """The joint draw in float32 and float64 over `size` tokens and the mask, and our draw; best of some rounds."""
    logits = noise.normal(torch.arange(rows)[:, None], 0, torch.arange(size)).float()
    row, delta = torch.arange(rows), 1e-3
    group, column = torch.arange(-(-(size + 1) // 4)), torch.arange(size + 1)

    def single() -> Float[Tensor, "N K"]:
        words = torch.stack(noise.words(row[:, None], 1, group), -1).flatten(-2)[:, : size + 1]
        return ((words >> 8).float() + 0.5) * 2.0**-24

    def double() -> Float[Tensor, "N K"]:
        return noise.uniform(row[:, None], 1, column)

    def joint(u: Float[Tensor, "N K"]) -> Int[Tensor, " N"]:
        law = delta * torch.softmax(logits, -1, dtype=u.dtype)
        probs = torch.cat([law, law.new_full((rows, 1), 1 - delta)], -1)
        return (probs / -u.log()).argmax(-1)

    def one() -> Float[Tensor, " N"]:
        return noise.uniform(row, 1)

    def ours(u: Float[Tensor, " N"]) -> Int[Tensor, " N"]:
        return categorical.draw(logits, u)

    kinds: list[tuple[str, Callable[[], Tensor], Callable[[Tensor], Tensor]]] = [
        ("joint float32", single, joint),
        ("joint float64", double, joint),
        ("ours", one, ours),
    ]
    found = []
    for name, make, draw in kinds:
        u = make()
        whole = _seconds(lambda make=make, draw=draw: draw(make()), repeats)  # type: ignore[misc]
        given = _seconds(lambda u=u, draw=draw: draw(u), repeats)  # type: ignore[misc]
        found.append(Cost(name, 1e6 * whole / rows, 1e6 * given / rows))
    return found


def _seconds(call: Callable[[], Tensor], repeats: int) -> float:
    best = math.inf
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return best
