"""Noise is a value: Philox4x32-10 in integers, keyed by seed and stream name, indexed by counters.

The same (seed, name, counters) give the same number on any device, in any batch, in any order of calls.
Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
"""

import hashlib
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MASK32 = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
FEW = 4  # uniforms on a CPU that come quicker one by one, as Python's numbers, than out of 60 array operations
BLOCK = 1 << 14  # counters whose words stay in a core's cache from round to round

Counter = Int[Tensor, "*#S"] | int
Words = tuple[Tensor, Tensor, Tensor, Tensor]
Word = TypeVar("Word", int, Tensor)
Real = TypeVar("Real", float, Tensor)


def philox4x32(counter: tuple[Word, Word, Word, Word], key: tuple[int, int]) -> tuple[Word, Word, Word, Word]:
    """Four 32-bit words (Python integers, or held in int64) for each counter of four, under a key of two."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = (
            c0 * MULTIPLIERS[0],
            c2 * MULTIPLIERS[1],
        )  # int64 wraps modulo 2^64: the bits are the unsigned product's
        c0, c1 = ((p1 >> 32) & MASK32) ^ c1 ^ k0, p1 & MASK32
        c2, c3 = ((p0 >> 32) & MASK32) ^ c3 ^ k1, p0 & MASK32
        k0, k1 = (k0 + WEYL[0]) & MASK32, (k1 + WEYL[1]) & MASK32
    return c0, c1, c2, c3


def philox4x32_numpy(counter: Words, key: tuple[int, int]) -> Words:
    """What `philox4x32` gives, on the CPU, in a third of its time: both products of a round are one operation."""
    parts = [c.numpy().ravel().view(np.uint64) for c in counter]
    out = torch.empty((4, parts[0].size), dtype=torch.int64)
    mask, multipliers = np.uint64(MASK32), np.array(MULTIPLIERS, np.uint64)[:, None]
    for begin in range(0, parts[0].size, BLOCK):
        block = slice(begin, begin + BLOCK)
        even, odd = np.stack([parts[0][block], parts[2][block]]), np.stack([parts[1][block], parts[3][block]])
        product = np.empty_like(even)
        for i in range(ROUNDS):
            round_key = [[(k + i * w) & MASK32] for k, w in zip(key, WEYL)]
            np.multiply(even, multipliers, out=product)  # wraps modulo 2^64, as two words of 32 bits do not
            np.right_shift(product, np.uint64(32), out=even)
            np.bitwise_xor(even[::-1], odd, out=odd)
            np.bitwise_xor(odd, np.array(round_key, np.uint64), out=odd)
            np.bitwise_and(product, mask, out=product)
            even, odd, product = odd, product[::-1], even
        for word, values in zip(out, (even[0], odd[0], even[1], odd[1])):
            word.numpy().view(np.uint64)[block] = values
    c0, c1, c2, c3 = out.view(4, *counter[0].shape).unbind()
    return c0, c1, c2, c3


@dataclass(frozen=True)
class Noise:
    """A named stream of uniforms. `Noise.of(seed).at("mask").uniform(row, step, position)` is a pure function."""

    key: tuple[int, int]

    @classmethod
    def of(cls, seed: int) -> "Noise":
        """The root stream of a seed; any Python integer will do."""
        return cls._hashed(f"seed:{seed}")

    def at(self, name: str | int) -> "Noise":
        """An independent stream below this one."""
        return self._hashed(f"{self.key[0]}:{self.key[1]}:{name}")

    @classmethod
    def _hashed(cls, text: str) -> "Noise":
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return cls((int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")))

    def words(self, row: Counter, step: Counter = 0, position: Counter = 0) -> Words:
        """Four independent 32-bit words (int64) per broadcast counter; rows may use 64 bits, steps and positions 32."""
        return self._philox(*_broadcast(row, step, position))

    def uniform(self, row: Counter, step: Counter = 0, position: Counter = 0) -> Float[Tensor, "*S"]:
        """Uniforms in (0, 1), float64, of the broadcast shape of the counters.

        Built from 64 bits: resolution 2^-64 near 0, 2^-53 near 1; never 0, never 1, so both tails of an inverse CDF are
        reached (the float32 defect of arXiv:2409.02908, section 5, is a lattice of 2^-24 near 1).
        """
        r, s, p = _broadcast(row, step, position)
        if r.device.type == "cpu" and 0 < r.numel() <= FEW:
            words = [self._philox(*one) for one in zip(*(c.flatten().tolist() for c in (r, s, p)))]
            units = [_unit(float(high), float(low)) for high, low, _, _ in words]
            u = torch.tensor(units, dtype=torch.float64).view(r.shape)
        else:
            high, low, _, _ = self._philox(r, s, p)
            u = _unit(high.double(), low.double())
        return u.clamp(max=1.0 - 2.0**-53)

    def normal(self, row: Counter, step: Counter = 0, position: Counter = 0) -> Float[Tensor, "*S"]:
        """Standard normals, float64: inverse CDF of `uniform`."""
        z: Tensor = torch.special.ndtri(self.uniform(row, step, position))
        return z

    def _philox(self, r: Word, s: Word, p: Word) -> tuple[Word, Word, Word, Word]:
        counter = (p & MASK32, s & MASK32, r & MASK32, (r >> 32) & MASK32)
        if isinstance(r, Tensor) and r.device.type == "cpu":
            return philox4x32_numpy(counter, self.key)
        return philox4x32(counter, self.key)


def _broadcast(row: Counter, step: Counter, position: Counter) -> tuple[Tensor, Tensor, Tensor]:
    """Counters of one shape (int64), on the device of those that have a shape."""
    r, s, p = given = [torch.as_tensor(c, dtype=torch.int64) for c in (row, step, position)]
    if r.shape == s.shape == p.shape and r.device == s.device == p.device:
        return r, s, p
    device = next((c.device for c in given if c.ndim), given[0].device)
    r, s, p = torch.broadcast_tensors(*(c.to(device) for c in given))  # type: ignore[no-untyped-call]
    return r, s, p


def _unit(high: Real, low: Real) -> Real:
    """The middle of the interval of [0, 1] that 64 bits name."""
    return high * 2.0**-32 + (low + 0.5) * 2.0**-64


def ranks(u: Float[Tensor, "B L"], among: Bool[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """Each position's place when a row's positions are ordered by u, those outside `among` last.

    For independent uniforms, `ranks(u, among) < n` inside `among` is a uniformly random set of n of its positions.
    """
    return u.masked_fill(~among, torch.inf).argsort(-1).argsort(-1)
