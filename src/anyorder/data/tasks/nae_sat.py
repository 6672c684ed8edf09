"""L&O-NAE-SAT: uniform bits (latents), then for fixed random triples of them whether they are not all equal.

Latents first, every observation is a table look-up of three bits; an observation before its latents makes the latents
a constraint satisfaction problem. A masked diffusion model is trained on both kinds of subproblem.

Source:
    arXiv:2502.06768 (latents-and-observations laws with NAE observations, sections 3 and 4).
"""

from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.noise import Noise, ranks
from anyorder.core.types import Canvas
from anyorder.data.rows import TaskRows
from anyorder.data.tasks.base import Problems
from anyorder.data.tokenizer import PLACEHOLDER, SymbolTokenizer

TOKENIZER: Final = SymbolTokenizer("01")
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
    """The task: rows of `latents` bits and `observations` bits.

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
        for name, value in (("observations", self.observations), ("num_train", self.num_train)):
            if value < 1:
                raise ValueError(f"nae-sat {name}={value}: must be >= 1")
        most = 2 ** (self.latents - 1)
        if not 1 <= self.num_test <= most:
            raise ValueError(f"nae-sat num_test={self.num_test}: must be between 1 and {most}, half of all rows")
        if self.given not in GIVEN:
            raise ValueError(f"nae-sat given={self.given!r}: must be one of {', '.join(GIVEN)}")

    @property
    def tokenizer(self) -> SymbolTokenizer:
        return TOKENIZER

    @property
    def length(self) -> int:
        return self.latents + self.observations

    @property
    def triples(self) -> Int[Tensor, "P 3"]:
        """The latents that each observation reads: three different ones, every set with the same chance."""
        noise = Noise.of(self.triples_seed).at("nae-sat triples")
        u = noise.uniform(torch.arange(self.observations)[:, None], 0, torch.arange(self.latents))
        return ranks(u, torch.ones_like(u, dtype=torch.bool)).argsort(-1)[:, :3]

    @property
    def is_latent(self) -> Bool[Tensor, " L"]:
        """Which positions hold latents: the first N."""
        return torch.arange(self.length) < self.latents

    def rows(self, latents: Int[Tensor, "B N"]) -> Int[Tensor, "B L"]:
        """Whole rows from their latents."""
        return torch.cat([latents, nae(latents, self.triples)], 1)

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
        return TaskRows(tokens=tokens, target=torch.ones_like(tokens, dtype=torch.bool), vocab=TOKENIZER.vocab)

    def test(self, *, noise: Noise) -> Problems:
        """Held-out rows, all different, with what is given kept."""
        x0 = self.rows(bits(self._held_out(noise), self.latents))
        shown = {"nothing": torch.zeros_like(self.is_latent), "latents": self.is_latent}
        keep = shown.get(self.given, ~self.is_latent)
        return Problems(canvas=Canvas.of(torch.where(keep, x0, TOKENIZER.vocab.mask_id), vocab=TOKENIZER.vocab), x0=x0)

    def _held_out(self, noise: Noise) -> Int[Tensor, " T"]:
        """The latents of held-out rows as numbers, in the order they were drawn."""
        drawn = _numbers(8 * self.num_test + 64, self.latents, noise.at("test rows"))
        values, where = drawn.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        first = torch.full_like(values, len(drawn)).scatter_reduce(0, where, torch.arange(len(drawn)), "amin")
        return drawn[first.sort().values][: self.num_test]

    def agreement(self, x: Int[Tensor, "B L"]) -> Float[Tensor, " B"]:
        """Share of each row's observations that its own latents give, where both are bits."""
        latents, observed = x[:, : self.latents], x[:, self.latents :]
        return (nae(latents, self.triples) == observed).double().mean(-1)

    def correct(self, problems: Problems, x: Int[Tensor, "B L"]) -> Bool[Tensor, " B"]:
        """Whether each row keeps what was given and every observation is what its latents say."""
        kept = (~problems.canvas.fixed | (x == problems.canvas.x)).all(-1)
        return kept & (x < 2).all(-1) & (self.agreement(x) == 1.0)

    def render(self, row: Int[Tensor, " L"]) -> str:
        """Latents, then observations."""
        shown = "".join(
            "01"[i] if i < 2 else PLACEHOLDER if i == TOKENIZER.vocab.mask_id else "?" for i in row.tolist()
        )
        return f"{shown[: self.latents]} -> {shown[self.latents :]}"


def _numbers(count: int, size: int, noise: Noise) -> Int[Tensor, " B"]:
    """Numbers of `size` uniform bits each."""
    u = noise.uniform(torch.arange(count)[:, None], 0, torch.arange(size))
    return ((u < 0.5).long() << torch.arange(size)).sum(-1)
