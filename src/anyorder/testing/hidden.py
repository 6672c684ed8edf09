"""Hidden Markov languages with exact conditionals at any length: n-grams, a clock, random ones.

They follow the conventions of `testing/oracle.py`. Tokens or states that can never follow make sequences impossible.
Source: n-gram and hidden Markov languages are those of arXiv:2502.09622; the laws here are ours.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.categorical import draw
from anyorder.core.noise import Noise, ranks
from anyorder.core.types import Canvas, Vocab
from anyorder.testing.oracle import TINY, Oracle, normalised, seen_tokens, state_mass, states_of, vocab_of

SQUARINGS = 50  # of a lazy chain: 2^50 steps


@dataclass(frozen=True)
class HiddenMarkovOracle:
    """Exact conditionals of the tokens that a hidden Markov chain emits; each document is a chain of its own.

    Args:
        initial: law of a document's first state, float64.
        transition: law of the next state (column) given a state (row), float64.
        emission: law of the token (column) given its state (row), float64.
    Raises:
        ValueError: a law is not float64, is negative somewhere, or does not sum to 1.
    """

    initial: Float[Tensor, " S"]
    transition: Float[Tensor, "S S"]
    emission: Float[Tensor, "S K"]
    nfe: int = 1

    def __post_init__(self) -> None:
        for name in ("initial", "transition", "emission"):
            law: Tensor = getattr(self, name)
            if law.dtype != torch.float64 or bool((law < 0).any()) or bool(((law.sum(-1) - 1).abs() > 1e-9).any()):
                raise ValueError(f"{name}: rows must be float64 probabilities >= 0 that sum to 1; divide by the sums")

    @property
    def vocab(self) -> Vocab:
        return vocab_of(self.emission.shape[1])

    def joint(self, length: int) -> Oracle:
        """The same law as a joint table, for lengths small enough to enumerate."""
        size = self.vocab.size
        return Oracle(self.log_prob(states_of(size, length)).exp(), size, length)

    def sample(self, n: int, length: int, *, noise: Noise) -> Int[Tensor, "B L"]:
        """n exact sequences."""
        row, place = torch.arange(n)[:, None], torch.arange(length)
        u, v = noise.at("state").uniform(row, 0, place), noise.at("token").uniform(row, 0, place)
        logits, tokens = self.initial.log().expand(n, -1), []
        for j in range(length):
            state = draw(logits, u[:, j])
            tokens.append(draw(self.emission.log()[state], v[:, j]))
            logits = self.transition.log()[state]
        return torch.stack(tokens, -1)

    def log_prob(self, x: Int[Tensor, "B L"]) -> Float[Tensor, " B"]:
        """Log-probability of complete sequences, one document each, nats; -inf for impossible ones."""
        evidence = self.emission.T[x]  # (B, L, S)
        message, total = self.initial.expand(len(x), -1), torch.zeros(len(x), dtype=torch.float64)
        for seen in evidence.unbind(1):
            joint = message * seen
            chance = joint.sum(-1, keepdim=True)
            total = total + chance.squeeze(-1).log()
            message = (joint / chance.clamp(min=TINY)) @ self.transition
        return total

    def entropy(self, length: int, *, samples: int, noise: Noise) -> tuple[float, float]:
        """Entropy of a sequence of this length, nats, as the mean of -log p over exact samples; its standard error."""
        nats = -self.log_prob(self.sample(samples, length, noise=noise))
        return float(nats.mean()), float(nats.std() / math.sqrt(samples))

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        seen, token = seen_tokens(canvas, self.vocab)
        evidence = torch.where(seen[..., None], self.emission.T[token], 1.0)
        mass = state_mass(self.initial, self.transition, evidence, segment=canvas.segment)[at]
        return normalised(mass @ self.emission)


def stationary(transition: Float[Tensor, "S S"]) -> Float[Tensor, " S"]:
    """The law that a chain keeps.

    Raises:
        ValueError: there is more than one.
    """
    power = (transition + torch.eye(len(transition), dtype=torch.float64)) / 2
    for _ in range(SQUARINGS):
        power = power @ power
        power = power / power.sum(-1, keepdim=True)
    if bool((power - power[0]).abs().max() > 1e-9):
        raise ValueError("transition: has more than one stationary law; let every state reach every other")
    return power[0]


def sparse_laws(
    rows: int, size: int, *, noise: Noise, forbidden: int = 0, sharpness: float = 1.0
) -> Float[Tensor, "R K"]:
    """Random laws, each with so many impossible outcomes: exponential masses to the power `sharpness`, normalised.

    Raises:
        ValueError: forbidden is not in 0..size-1.
    """
    if not 0 <= forbidden < size:
        raise ValueError(f"forbidden={forbidden}: must be in 0..{size - 1}; every law needs a possible outcome")
    row, outcome = torch.arange(rows)[:, None], torch.arange(size)
    mass = (-noise.at("mass").uniform(row, 0, outcome).log()) ** sharpness
    u = noise.at("forbidden").uniform(row, 0, outcome)
    mass = mass.masked_fill(ranks(u, torch.ones_like(u, dtype=torch.bool)) < forbidden, 0.0)
    return mass / mass.sum(-1, keepdim=True)


def ngram_order(law: Float[Tensor, "C K"]) -> int:
    """n, from a law of the next token for each of the K^(n-1) contexts.

    Raises:
        ValueError: the rows are no such power.
    """
    contexts, size = law.shape
    order = round(math.log(contexts, size)) + 1 if size > 1 else 0
    if order < 2 or size ** (order - 1) != contexts:
        raise ValueError(f"law: has {contexts} contexts of {size} tokens, must be {size}^(n-1) with n >= 2")
    return order


def ngram(law: Float[Tensor, "C K"]) -> HiddenMarkovOracle:
    """The stationary n-gram language with this law of the next token: the state is the last n-1 tokens.

    Args:
        law: a row per context of n-1 tokens in lexicographic order, the oldest token most significant.
    Raises:
        ValueError: the rows are no power of the columns, or no single stationary law.
    """
    ngram_order(law)
    contexts, size = law.shape
    context, token = torch.arange(contexts)[:, None], torch.arange(size)
    transition = torch.zeros(contexts, contexts, dtype=torch.float64)
    transition = transition.index_put((context, (context * size + token) % contexts), law)
    emission = torch.nn.functional.one_hot(torch.arange(contexts) % size, size).double()
    return HiddenMarkovOracle(stationary(transition), transition, emission)


def ngram_entropy(law: Float[Tensor, "C K"], length: int) -> float:
    """Exact entropy of `length` tokens of the stationary n-gram language, nats."""
    known = ngram_order(law) - 1
    context = stationary(ngram(law).transition)
    first = context.reshape(law.shape[1] ** min(length, known), -1).sum(-1)
    rate = -context @ torch.xlogy(law, law).sum(-1)
    return float(-torch.xlogy(first, first).sum() + max(0, length - known) * rate)


def clock(phases: int, size: int) -> HiddenMarkovOracle:
    """A hidden clock: the phase goes round by one at each token, and token v (uniform among its own) shows phase
    v mod `phases`. Only the phase of the start is open: one visible token settles what is possible everywhere.

    Raises:
        ValueError: fewer than 2 phases, or a number of tokens that is no multiple of them.
    """
    if phases < 2 or size % phases:
        raise ValueError(f"clock: phases={phases}, size={size}: phases must be >= 2 and divide size")
    phase = torch.arange(phases)
    emission = (torch.arange(size) % phases == phase[:, None]).double() * (phases / size)
    initial = torch.full((phases,), 1.0 / phases, dtype=torch.float64)
    return HiddenMarkovOracle(initial, torch.eye(phases, dtype=torch.float64)[(phase + 1) % phases], emission)


def clock_entropy(phases: int, size: int, length: int) -> float:
    """Exact entropy of `length` tokens of the clock, nats."""
    return math.log(phases) + length * math.log(size / phases)
