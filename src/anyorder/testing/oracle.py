"""Denoisers whose answers are known exactly, to test samplers and estimators against.

All are `Denoiser`s with K writable tokens, mask_id = K, pad_id = K + 1. At a visible position they answer as if it were
masked (given all other visible tokens). Padding (segment 0) tells nothing. A context of probability 0 has no
conditional: every oracle answers with the uniform law there, never nan. Logits are float64 and normalised.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.categorical import draw
from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas, Vocab

CHUNK = 1 << 22
TINY = torch.finfo(torch.float64).tiny


def vocab_of(size: int) -> Vocab:
    """K writable tokens, then the mask, then padding."""
    return Vocab(size=size, mask_id=size, pad_id=size + 1)


def states_of(size: int, length: int) -> Int[Tensor, "S L"]:
    """All size**length sequences in lexicographic order, the first position most significant."""
    return torch.cartesian_prod(*[torch.arange(size)] * length).reshape(-1, length)


def normalised(mass: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
    """Log of the mass over its sum; uniform where the sum is 0."""
    total = mass.sum(-1, keepdim=True)
    return torch.where(total > 0, mass / total, 1.0 / mass.shape[-1]).log()


def _xlogx(p: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    out: Tensor = torch.special.xlogy(p, p)
    return out


@dataclass(frozen=True)
class Oracle:
    """Exact conditionals of a joint law given as a table of `size`**`length` probabilities (lexicographic order)."""

    table: Float[Tensor, " S"]
    size: int
    length: int
    nfe: int = 1

    def __post_init__(self) -> None:
        if self.table.numel() != self.size**self.length:
            raise ValueError(f"table: has {self.table.numel()} entries, needs size**length = {self.size**self.length}")
        if self.table.dtype != torch.float64 or abs(float(self.table.sum()) - 1) > 1e-9 or bool((self.table < 0).any()):
            raise ValueError("table: must be float64 probabilities >= 0 that sum to 1; divide by the sum")

    @classmethod
    def random(cls, size: int, length: int, *, noise: Noise) -> "Oracle":
        """A table of normalised exponentials: uniform on the simplex, every state possible."""
        mass = -torch.log(noise.uniform(torch.arange(size**length)))
        return cls(mass / mass.sum(), size, length)

    @property
    def vocab(self) -> Vocab:
        return vocab_of(self.size)

    @property
    def states(self) -> Int[Tensor, "S L"]:
        """All sequences, in the order of `table`."""
        return states_of(self.size, self.length)

    def log_prob(self, x: Int[Tensor, "B L"]) -> Float[Tensor, " B"]:
        """Log-probability of complete sequences, nats; -inf for impossible ones."""
        place = self.size ** torch.arange(self.length - 1, -1, -1)
        return self.table[(x * place).sum(-1)].log()

    def entropy(self) -> float:
        """Entropy of the law, nats."""
        return -float(_xlogx(self.table).sum())

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        if canvas.x.shape[-1] != self.length:
            raise ValueError(f"canvas length {canvas.x.shape[-1]}: this oracle knows sequences of {self.length} only")
        states = self.states
        seen = (canvas.x != self.vocab.mask_id) & canvas.valid
        wrong = (seen[:, None] & (canvas.x[:, None] != states)).sum(-1)  # (B, S)
        row, position = at.nonzero(as_tuple=True)
        out = [self._conditional(canvas.x, seen, wrong, row[i], position[i]) for i in self._chunks(len(row))]
        return torch.cat(out) if out else self.table.new_zeros(0, self.size)

    def _chunks(self, count: int) -> list[slice]:
        step = max(1, CHUNK // len(self.table))
        return [slice(i, i + step) for i in range(0, count, step)]

    def _conditional(
        self,
        x: Int[Tensor, "B L"],
        seen: Bool[Tensor, "B L"],
        wrong: Int[Tensor, "B S"],
        row: Int[Tensor, " N"],
        position: Int[Tensor, " N"],
    ) -> Float[Tensor, "N V"]:
        value = self.states.T[position]  # (N, S)
        own = seen[row, position][:, None] & (value != x[row, position][:, None])
        mass = torch.where(wrong[row] == own.to(wrong.dtype), self.table, 0.0)
        return normalised(mass.new_zeros(len(row), self.size).scatter_add(-1, value, mass))


@dataclass(frozen=True)
class MarkovOracle:
    """Exact conditionals of a Markov chain at any length, by forward-backward; each document is a chain of its own.

    Args:
        initial: law of a document's first token, float64.
        transition: law of the next token (column) given a token (row), float64.
    """

    initial: Float[Tensor, " K"]
    transition: Float[Tensor, "K K"]
    nfe: int = 1

    @classmethod
    def random(cls, size: int, *, noise: Noise) -> "MarkovOracle":
        """Initial and transition laws uniform on the simplex."""
        mass = -torch.log(noise.uniform(torch.arange(size + 1)[:, None], 0, torch.arange(size)))
        law = mass / mass.sum(-1, keepdim=True)
        return cls(law[0], law[1:])

    @property
    def vocab(self) -> Vocab:
        return vocab_of(len(self.initial))

    def joint(self, length: int) -> Oracle:
        """The same law as a joint table, for lengths small enough to enumerate."""
        size = len(self.initial)
        return Oracle(self.log_prob(states_of(size, length)).exp(), size, length)

    def sample(self, n: int, length: int, *, noise: Noise) -> Int[Tensor, "B L"]:
        """n exact sequences."""
        u = noise.uniform(torch.arange(n)[:, None], 0, torch.arange(length))
        x = [draw(self.initial.log().expand(n, -1), u[:, 0])]
        for j in range(1, length):
            x.append(draw(self.transition.log()[x[-1]], u[:, j]))
        return torch.stack(x, -1)

    def log_prob(self, x: Int[Tensor, "B L"]) -> Float[Tensor, " B"]:
        """Log-probability of complete sequences, one document each, nats."""
        return self.initial.log()[x[:, 0]] + self.transition.log()[x[:, :-1], x[:, 1:]].sum(-1)

    def entropy(self, length: int) -> float:
        """Entropy of a sequence of this length, nats."""
        law, total = self.initial, -_xlogx(self.initial).sum()
        for _ in range(length - 1):
            total = total - law @ _xlogx(self.transition).sum(-1)
            law = law @ self.transition
        return float(total)

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        seen, token = seen_tokens(canvas, self.vocab)
        evidence = torch.where(seen[..., None], torch.eye(len(self.initial), dtype=torch.float64)[token], 1.0)
        return normalised(state_mass(self.initial, self.transition, evidence, segment=canvas.segment)[at])


def seen_tokens(canvas: Canvas, vocab: Vocab) -> tuple[Bool[Tensor, "B L"], Int[Tensor, "B L"]]:
    """Where a token can be read, and the tokens (0 where none can)."""
    seen = (canvas.x != vocab.mask_id) & canvas.valid
    return seen, torch.where(seen, canvas.x, 0)


def state_mass(
    initial: Float[Tensor, " S"],
    transition: Float[Tensor, "S S"],
    evidence: Float[Tensor, "B L S"],
    *,
    segment: Int[Tensor, "B L"] | None,
) -> Float[Tensor, "B L S"]:
    """Unnormalised law of a chain's state at each position given the evidence at the others, by forward-backward.

    Args:
        evidence: chance of what is seen at a position given its state; 1 where nothing is seen.
        segment: a chain begins wherever it changes.
    """
    first = torch.stack([initial, torch.ones_like(initial)])[:, None]  # (2, 1, S): both directions in one loop
    onward = torch.stack([transition, transition.T])
    changed = None if segment is None else segment[:, 1:] != segment[:, :-1]
    message = [first.expand(2, len(evidence), -1)]
    for j, seen in enumerate(torch.stack([evidence, evidence.flip(1)]).unbind(2)[:-1]):
        new = (message[-1] * seen) @ onward
        new = new / new.sum(-1, keepdim=True).clamp(min=TINY)  # long rows do not underflow; impossible ones stay 0
        if changed is not None:
            new = torch.where(torch.stack([changed[:, j], changed[:, -1 - j]])[..., None], first, new)
        message.append(new)
    both = torch.stack(message, 2)
    return both[0] * both[1].flip(1)


@dataclass(frozen=True)
class RandomTable:
    """Random logits as a pure function of the visible canvas and the position: the conditionals of no joint law.

    A perfect oracle hides a wrong order of writing; this denoiser exposes it. It works at any length.
    """

    size: int
    noise: Noise
    scale: float = 1.0
    nfe: int = 1

    @property
    def vocab(self) -> Vocab:
        return vocab_of(self.size)

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        high, low, _, _ = self.noise.at("hash").words(0, 0, torch.arange(canvas.x.shape[1]))
        code = torch.where(canvas.valid, canvas.x + 1, 0) * ((high << 32) | low | 1)  # wraps modulo 2^64
        row, position = at.nonzero(as_tuple=True)
        hashed = code.sum(-1)[row]
        normal = self.noise.at("logits").normal(hashed[:, None], position[:, None], torch.arange(self.size))
        return torch.log_softmax(self.scale * normal, -1)


@dataclass(frozen=True)
class CausalView:
    """A left-to-right model made of any denoiser: position i is answered from the tokens before it alone."""

    inner: Denoiser

    @property
    def nfe(self) -> int:
        return self.inner.nfe

    @property
    def vocab(self) -> Vocab:
        return self.inner.vocab

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        row, position = at.nonzero(as_tuple=True)
        place = torch.arange(canvas.x.shape[1])
        later = place >= position[:, None]  # (N, L)
        x = torch.where(later, self.vocab.mask_id, canvas.x[row])
        segment = None if canvas.segment is None else canvas.segment[row]
        alone = Canvas.of(x, vocab=self.vocab, row_id=canvas.row_id[row], segment=segment)
        return self.inner(alone, place == position[:, None])
