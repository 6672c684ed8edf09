"""The languages of the study of error rates: every continuation possible, or some sequences impossible."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from jaxtyping import Float
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.testing.hidden import (
    HiddenMarkovOracle,
    clock,
    clock_entropy,
    ngram,
    ngram_entropy,
    sparse_laws,
    stationary,
)

DRAWN = Noise.of(2502).at("languages")  # the same languages whatever the seed of the samples
PHASES = 2


@dataclass(frozen=True)
class Language:
    """A language whose law is known.

    Args:
        soft: whether every sequence is possible.
        entropy: of a sequence by its length, nats, exact; None where no closed form is known.
        law: of the next token given the last, for 2-grams.
    """

    name: str
    oracle: HiddenMarkovOracle
    soft: bool
    entropy: Callable[[int], float] | None = None
    law: Float[Tensor, "K K"] | None = None


def soft_languages() -> list[Language]:
    """2-, 3- and 4-grams over 3 tokens in which every continuation is possible: no sequence is wrong."""
    laws = {n: sparse_laws(3 ** (n - 1), 3, noise=DRAWN.at(f"soft {n}"), sharpness=1.5) for n in (2, 3, 4)}
    return [
        Language(f"{n}-gram", ngram(law), True, partial(ngram_entropy, law), law if n == 2 else None)
        for n, law in laws.items()
    ]


def hard_languages() -> list[Language]:
    """Languages with impossible sequences.

    A 2-gram over 4 tokens, each of which forbids one next; a clock of 2 phases and 4 tokens; a random hidden Markov
    chain of 8 states and 8 tokens, where 2 states can follow each state and 2 tokens can be emitted by it.
    """
    law = sparse_laws(4, 4, noise=DRAWN.at("hard"), forbidden=1)
    transition = sparse_laws(8, 8, noise=DRAWN.at("hidden transition a"), forbidden=6)
    emission = sparse_laws(8, 8, noise=DRAWN.at("hidden emission a"), forbidden=6)
    return [
        Language("sparse 2-gram", ngram(law), False, partial(ngram_entropy, law), law),
        Language("clock", clock(PHASES, 4), False, partial(clock_entropy, PHASES, 4)),
        Language("hidden Markov", HiddenMarkovOracle(stationary(transition), transition, emission), False),
    ]
