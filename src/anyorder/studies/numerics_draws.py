"""What the study of float32 noise simulates and times: the joint draw as a sampler, runs on Zipf laws, single draws."""

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from anyorder.core import categorical
from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser, Sampler
from anyorder.core.types import Canvas, Carry, Step, Vocab
from anyorder.hub.find import model_folder
from anyorder.hub.load import load_model
from anyorder.samplers.base import generate
from anyorder.samplers.count import Binomial, check_num_steps
from anyorder.samplers.unmask import Unmask, start
from anyorder.testing.laws import chi_square_p, total_variation
from anyorder.testing.oracle import vocab_of

CHUNK = 1 << 20  # classes drawn at once
MOST_POSITIONS = 1 << 20  # of a row, so that each has its own noise


@dataclass(frozen=True)
class Drawn:
    """Tokens of a simulated run on a Zipf(a) law.

    Args:
        sampler: "joint" or "ours".
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
class Written:
    """What the joint float32 draw does to a trained model.

    Args:
        before, after: entropy (nats, mean over positions) of the prediction on an empty canvas, and of the tokens that
            the first of N steps draws from it, by closed form.
        exact, joint: unigram entropy of samples, nats, mean over rows, and its standard error, both ways of drawing.
    """

    num_steps: int
    rows: int
    before: float
    after: float
    exact: float
    exact_error: float
    joint: float
    joint_error: float


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

    def step(self, model: Denoiser, canvas: Canvas, carry: Carry, *, noise: Noise) -> Step:
        now = int(carry.step.max())
        delta = 1 / max(self.num_steps - now, 1)
        at = canvas.open(model.vocab) & canvas.window
        logits = model(canvas, at)
        row, position = at.nonzero(as_tuple=True)
        name = canvas.row_id[row] * MOST_POSITIONS + position
        parts = []
        size = max(1, CHUNK // model.vocab.size)
        for index in (slice(begin, begin + size) for begin in range(0, len(row), size)):
            law = delta * torch.softmax(categorical.wide(logits[index]), -1)
            joint = torch.cat([law, law.new_full((len(law), 1), 1 - delta)], -1)
            parts.append(
                categorical.gumbel_argmax_float32_faulty(
                    joint, name[index], noise=noise.at("joint"), step=now, bits=self.bits
                )
            )
        drawn = torch.cat(parts)
        token = torch.where(drawn < model.vocab.size, drawn, model.vocab.mask_id)
        x = canvas.x.index_put((row, position), token)
        return Step(
            canvas=dataclasses.replace(canvas, x=x),
            carry=dataclasses.replace(carry, step=carry.step + 1),
            wrote=at & (x != model.vocab.mask_id),
            logp=torch.zeros_like(x, dtype=torch.float64),
            nfe=torch.full_like(canvas.row_id, model.nfe),
        )


def joint_draws(
    law: Float[Tensor, " V"],
    after: Float[Tensor, " V"],
    *,
    a: float,
    num_steps: int,
    bits: int,
    positions: int,
    noise: Noise,
) -> Drawn:
    """A run of `JointGumbel`, compared with its closed form `after` and with the denoiser's law."""
    counts = _counts(JointGumbel(num_steps, bits), law, positions, noise)
    return _drawn("joint", counts, law, after / after.sum(), a=a, num_steps=num_steps)


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


def unigram_entropy(x: Int[Tensor, "B L"]) -> Float[Tensor, " B"]:
    """Entropy of each row's own token frequencies, nats: the diversity figure of the literature."""
    found = []
    for row in x:
        share = row.unique(return_counts=True)[1].double() / len(row)
        found.append(-torch.xlogy(share, share).sum())
    return torch.stack(found)


def written_by(run: Path, *, quick: bool, noise: Noise) -> list[Written]:
    """Samples of a trained model, drawn jointly in float32 and our way, for 64 to 1024 steps.

    Raises:
        ValueError: no finished masked diffusion model there.
    """
    loaded = load_model(model_folder(run))
    if loaded.kind != "mdm":
        raise ValueError(f"{run}: is an autoregressive model, which has no mask; name a masked diffusion model")
    model, rows = loaded.model, 2 if quick else 8
    length = min(loaded.model.config.max_length, 64 if quick else 128)
    canvas = Canvas.of(torch.full((rows, length), model.vocab.mask_id), vocab=model.vocab)
    with torch.no_grad():
        law = torch.softmax(model(canvas, canvas.window), -1, dtype=torch.float64)
    found = []
    for n in (64,) if quick else (64, 256, 1024):
        first = categorical.lattice_gumbel_law((law / n).flatten(), 1.0).view_as(law)
        before, after = (float(categorical.entropy(p.log()).mean()) for p in (law, first))
        exact, joint = (
            unigram_entropy(generate(sampler, model, canvas, noise=noise.at(n)).canvas.x)
            for sampler in (Unmask(Binomial(n)), JointGumbel(n))
        )
        error = [float(h.std() / math.sqrt(rows)) for h in (exact, joint)]
        found.append(Written(n, rows, before, after, float(exact.mean()), error[0], float(joint.mean()), error[1]))
    return found
