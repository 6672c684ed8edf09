"""L&O-NAE-SAT: uniform bits (latents), then for fixed random triples of them whether they are not all equal.

Latents first, every observation is a table look-up of three bits; an observation before its latents makes the latents
a constraint satisfaction problem. A masked diffusion model is trained on both kinds of subproblem. Each bit follows a
symbol of its own that is always given: with rotary positions alone, a network cannot tell masked positions apart.

Source:
    arXiv:2502.06768 (latents-and-observations laws with NAE observations, sections 3 and 4).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Final, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.data.rows import TaskRows
from anyorder.data.tasks.base import Problems, check_counts
from anyorder.data.tokenizer import PLACEHOLDER, SymbolTokenizer

FIRST_NAME: Final = 0x100  # the letters from here on name the positions
MOST_BITS: Final = 336
GIVEN: Final = ("nothing", "latents", "observations")
MOST_LATENTS: Final = 62  # a row's bits are one int64, by which held-out rows are known again


def nae(latents: Int[Tensor, "B N"], triples: Int[Tensor, "P 3"]) -> Int[Tensor, "B P"]:
    """1 where the three bits of a triple are not all equal."""
    ones = latents[:, triples].sum(-1)  # (B, P)
    return ((ones > 0) & (ones < 3)).to(latents.dtype)


def bits(number: Int[Tensor, " B"], size: int) -> Int[Tensor, "B N"]:
    """The lowest `size` binary digits of each number, the lowest first."""
    return (number[:, None] >> torch.arange(size)) & 1


@final
@dataclass(frozen=True)
class NaeSat:
    """The task: rows of `latents` bits and `observations` bits, each after its name.

    Args:
        latents: N, at most 62.
        observations: P.
        triples_seed: decides which three different latents each observation reads; part of the task.
        given: what of a held-out row a sampler starts from: "nothing" (write a consistent row), "latents", or
            "observations" (find latents that explain them: the hard direction).
        num_train: rows drawn to train on; those that are held out are then left out.
        num_test: held-out rows.
    """

    latents: int = 10
    observations: int = 30
    triples_seed: int = 0
    given: str = "nothing"
    num_train: int = 50_000
    num_test: int = 256
    summary: ClassVar[str] = "bits, and whether triples of them are not all equal (L&O-NAE-SAT)"

    def __post_init__(self) -> None:
        if not 3 <= self.latents <= MOST_LATENTS:
            raise ValueError(f"nae-sat latents={self.latents}: must be between 3 and {MOST_LATENTS}")
        room = MOST_BITS - self.latents
        if not 1 <= self.observations <= room:
            raise ValueError(f"nae-sat observations={self.observations}: must be between 1 and {room}")
        check_counts(self, "nae-sat", ("num_train",))
        most = 2 ** (self.latents - 1)
        if not 1 <= self.num_test <= most:
            raise ValueError(f"nae-sat num_test={self.num_test}: must be between 1 and {most}, half of all rows")
        if self.given not in GIVEN:
            raise ValueError(f"nae-sat given={self.given!r}: must be one of {', '.join(GIVEN)}")

    @property
    def size(self) -> int:
        """Bits of a row."""
        return self.latents + self.observations

    @cached_property
    def tokenizer(self) -> SymbolTokenizer:
        return SymbolTokenizer("01" + "".join(chr(FIRST_NAME + i) for i in range(self.size)))

    @property
    def length(self) -> int:
        return 2 * self.size

    @property
    def triples(self) -> Int[Tensor, "P 3"]:
        """The latents that each observation reads: three different ones, every set with the same chance."""
        noise = Noise.of(self.triples_seed).at("nae-sat triples")
        u = noise.uniform(torch.arange(self.observations)[:, None], 0, torch.arange(self.latents))
        return u.argsort(-1)[:, :3]

    @property
    def is_bit(self) -> Bool[Tensor, " L"]:
        """Which positions hold bits, not names."""
        return torch.arange(self.length) % 2 == 1

    @property
    def is_latent(self) -> Bool[Tensor, " L"]:
        """Which positions hold latents; those of the observations are the other bits."""
        return self.is_bit & (torch.arange(self.length) < 2 * self.latents)

    def rows(self, latents: Int[Tensor, "B N"]) -> Int[Tensor, "B L"]:
        """Whole rows from their latents."""
        written = torch.cat([latents, nae(latents, self.triples)], 1)
        names = torch.arange(2, 2 + self.size).expand(len(latents), -1)
        return torch.stack([names, written], -1).flatten(1)

    def every_row(self) -> Int[Tensor, "S L"]:
        """All 2^N rows, each as likely as the others: the law itself, for an exact oracle.

        Raises:
            ValueError: more than 20 latents.
        """
        if self.latents > 20:
            raise ValueError(f"nae-sat latents={self.latents}: all rows are listed for at most 20")
        return self.rows(bits(torch.arange(2**self.latents), self.latents))

    def train(self, *, noise: Noise) -> TaskRows:
        """Rows to train on, none with the latents of a held-out one."""
        drawn = _numbers(self.num_train, self.latents, noise.at("train rows"))
        kept = drawn[~torch.isin(drawn, self._held_out(noise))]
        tokens = self.rows(bits(kept, self.latents))
        return TaskRows(tokens=tokens, target=self.is_bit.expand(len(tokens), -1), vocab=self.tokenizer.vocab)

    def test(self, *, noise: Noise) -> Problems:
        """Held-out rows, all different, with what is given kept."""
        x0 = self.rows(bits(self._held_out(noise), self.latents))
        asked = {"nothing": self.is_bit, "latents": self.is_bit & ~self.is_latent, "observations": self.is_latent}
        vocab = self.tokenizer.vocab
        return Problems(canvas=Canvas.of(x0.masked_fill(asked[self.given], vocab.mask_id), vocab=vocab), x0=x0)

    def agreement(self, x: Int[Tensor, "B L"]) -> Float[Tensor, " B"]:
        """Share of each row's observations that are what its own latents say; independent ones agree in 5 of 8."""
        written = x[:, self.is_bit]
        said = nae(written[:, : self.latents], self.triples)
        return (said == written[:, self.latents :]).double().mean(-1)

    def correct(self, problems: Problems, x: Int[Tensor, "B L"]) -> Bool[Tensor, " B"]:
        """Whether each row keeps what was given and every observation is what its latents say."""
        kept = (~problems.canvas.fixed | (x == problems.canvas.x)).all(-1)
        return kept & (x[:, self.is_bit] < 2).all(-1) & (self.agreement(x) == 1.0)

    def render(self, row: Int[Tensor, " L"]) -> str:
        """Latents, then observations, without names."""
        written = row[self.is_bit].tolist()
        mask = self.tokenizer.vocab.mask_id
        shown = "".join("01"[i] if i < 2 else PLACEHOLDER if i == mask else "?" for i in written)
        return f"{shown[: self.latents]} -> {shown[self.latents :]}"

    def _held_out(self, noise: Noise) -> Int[Tensor, " T"]:
        """The latents of held-out rows as numbers, in the order they were drawn."""
        drawn = _numbers(8 * self.num_test + 64, self.latents, noise.at("test rows"))
        values, where = drawn.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        first = torch.full_like(values, len(drawn)).scatter_reduce(0, where, torch.arange(len(drawn)), "amin")
        return drawn[first.sort().values][: self.num_test]


def _numbers(count: int, size: int, noise: Noise) -> Int[Tensor, " B"]:
    """Numbers of `size` uniform bits each."""
    u = noise.uniform(torch.arange(count)[:, None], 0, torch.arange(size))
    return ((u < 0.5).long() << torch.arange(size)).sum(-1)
