"""Philox against Random123's known answers; uniforms: shape, law, independence, invariance."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anyorder.core.noise import BLOCK, MASK32, Noise, philox4x32, philox4x32_numpy

KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(w, 16) for w in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_known_answers(counter, key, answer):
    got = philox4x32(tuple(torch.tensor(w) for w in words(counter)), tuple(words(key)))
    assert [int(w) for w in got] == words(answer)
    assert list(philox4x32(tuple(words(counter)), tuple(words(key)))) == words(answer)
    many = tuple(torch.full((3,), w) for w in words(counter))
    assert [w.tolist() for w in philox4x32_numpy(many, tuple(words(key)))] == [[w] * 3 for w in words(answer)]


def test_philox_is_the_same_in_tensors_and_in_arrays():
    counter = tuple(torch.randint(0, MASK32 + 1, (BLOCK // 2 + 1, 3)) for _ in range(4))
    for one, other in zip(philox4x32(counter, (7, 9)), philox4x32_numpy(counter, (7, 9))):
        assert torch.equal(one, other)


def ks(u: torch.Tensor) -> float:
    """Asymptotic p-value of the Kolmogorov-Smirnov test against the uniform law."""
    x, n = u.flatten().sort().values, u.numel()
    grid = torch.arange(n, dtype=torch.float64) / n
    d = float(torch.maximum((x - grid).max(), (grid + 1 / n - x).max()))
    z = d * (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n))
    return min(1.0, 2 * sum((-1) ** (k - 1) * math.exp(-2 * (k * z) ** 2) for k in range(1, 60)))


@pytest.mark.parametrize("axis", ["row", "step", "position"])
def test_uniform_along_each_counter(axis):
    u = Noise.of(0).at("ks").uniform(*[torch.arange(100_000) if a == axis else 3 for a in ("row", "step", "position")])
    assert u.dtype == torch.float64
    assert ks(u) > 1e-4


def test_uniform_reaches_both_tails():
    u = Noise.of(1).uniform(torch.arange(1 << 20))
    assert 0 < float(u.min()) < 2.0**-17
    assert 1 - 2.0**-17 < float(u.max()) < 1
    assert len(u.unique()) == len(u)  # a lattice of 2^-24 would collide about 32,000 times


def test_streams_and_counters_are_independent():
    n, i = 100_000, torch.arange(100_000)
    root = Noise.of(0)
    streams = [
        root.uniform(i), Noise.of(1).uniform(i), root.at("a").uniform(i), root.at("b").uniform(i),
        root.at("a").at("b").uniform(i), root.uniform(0, i), root.uniform(0, 0, i), root.uniform(i + n),
    ]  # fmt: skip
    # a shared (0, 0, 0) counter is the same number by definition: leave index 0 out
    corr = torch.corrcoef(torch.stack([s[1:] for s in streams]))
    off = corr - torch.eye(len(streams), dtype=torch.float64)
    assert float(off.abs().max()) < 4.5 / math.sqrt(n)


def test_two_uniforms_fill_the_square():
    u = Noise.of(2).uniform(torch.arange(40_000)[:, None], 0, torch.arange(2))
    cell = (u * 10).long()
    counts = torch.bincount(cell[:, 0] * 10 + cell[:, 1], minlength=100).double()
    statistic = ((counts - 400) ** 2 / 400).sum()
    assert float(torch.special.gammaincc(torch.tensor(99 / 2).double(), statistic / 2)) > 1e-4


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=6, unique=True), st.integers(0, 2**31), st.integers(1, 5))
def test_a_row_draws_the_same_in_any_batch(rows, step, length):
    noise = Noise.of(7).at("rows")
    together = noise.uniform(torch.tensor(rows)[:, None], step, torch.arange(length))
    for k in reversed(range(len(rows))):
        assert torch.equal(together[k], noise.uniform(rows[k], step, torch.arange(length)))


@pytest.mark.parametrize("shape", [(1,), (32,), (3, 5), (2, 1, 4), (33,)])
def test_a_few_uniforms_are_bit_for_bit_those_of_many(shape, monkeypatch):
    noise, n = Noise.of(8).at("few"), math.prod(shape)
    r, s, p = (noise.words(torch.arange(n).view(shape), i)[0] << (30 * (i == 0)) for i in range(3))
    found = []
    for few in (0, 1000):
        monkeypatch.setattr("anyorder.core.noise.FEW", few)
        found.append(torch.stack([noise.uniform(r, s, p), noise.uniform(r, 3, p), noise.uniform(-r, s)]))
    assert torch.equal(*found)
    assert found[0].shape == (3, *shape)
    assert len(found[0].unique()) == 3 * n


def test_one_uniform_has_no_axis_and_none_have_their_shape():
    noise = Noise.of(9)
    assert noise.uniform(5).shape == ()
    assert noise.uniform(5, 6, 7) == noise.uniform(torch.full((50,), 5), 6, 7)[49]
    assert noise.uniform(torch.zeros(0, 3, dtype=torch.int64)).shape == (0, 3)


def test_no_bits_and_all_bits_stay_inside(monkeypatch):
    """Both ways to make uniforms, at the ends of what Philox can say."""
    for word, u in ((0, 2.0**-65), (MASK32, 1 - 2.0**-53)):
        for name in ("philox4x32", "philox4x32_numpy"):
            monkeypatch.setattr(f"anyorder.core.noise.{name}", lambda c, key, w=word: tuple(x * 0 + w for x in c))
        assert Noise.of(0).uniform(torch.arange(2)).tolist() == [u] * 2
        assert Noise.of(0).uniform(torch.arange(40)).tolist() == [u] * 40


def test_high_row_bits_count():
    noise = Noise.of(0)
    assert noise.uniform(1) != noise.uniform(1 + 2**32)


def test_normal_moments():
    z = Noise.of(3).normal(torch.arange(100_000))
    assert abs(float(z.mean())) < 4 / math.sqrt(1e5)
    assert abs(float(z.var()) - 1) < 4 * math.sqrt(2 / 1e5)
    assert abs(float((z**4).mean()) - 3) < 4 * math.sqrt(96 / 1e5)
