"""Mask sets that share random orders: each uniform, disjoint while they fit."""

import itertools

import torch

from anyorder.core.noise import Noise, ranks
from anyorder.likelihood.packing import packed
from anyorder.testing.laws import chi_square_p


def test_stretches_are_disjoint_until_a_new_order_begins():
    n = torch.tensor([[[3, 1, 6, 2, 2, 5]]])
    group, begin = packed(n, torch.tensor([6]))
    assert group.tolist() == [[[1, 0, 3, 0, 0, 2]]]
    assert begin.tolist() == [[[0, 0, 0, 1, 3, 0]]]
    for a, b in itertools.combinations(range(6), 2):
        if group[0, 0, a] == group[0, 0, b]:
            ends = [int(begin[0, 0, i] + n[0, 0, i]) for i in (a, b)]
            assert ends[0] <= int(begin[0, 0, b]) or ends[1] <= int(begin[0, 0, a])


def test_rows_and_replicates_pack_on_their_own():
    n = torch.tensor([[[1, 2], [2, 2]], [[3, 1], [3, 3]]])
    group, begin = packed(n, torch.tensor([3, 3]))
    assert group.tolist() == [[[0, 0], [0, 1]], [[1, 0], [0, 1]]]
    assert begin.tolist() == [[[0, 1], [0, 0]], [[0, 0], [0, 0]]]


def test_a_stretch_of_a_random_order_is_a_uniform_set():
    rows, sizes = 30_000, torch.full((30_000,), 4)
    _, begin = packed(torch.tensor([[[1, 2, 2]]]).expand(rows, 1, 3), sizes)
    u = Noise.of(1).uniform(torch.arange(rows)[:, None], 0, torch.arange(4))
    rank = ranks(u, torch.ones(rows, 4, dtype=torch.bool))
    start = begin[:, 0, 1:2]
    assert int(start[0]) == 1
    chosen = (rank >= start) & (rank < start + 2)
    pairs = torch.bincount((chosen * 2 ** torch.arange(4)).sum(-1), minlength=16)
    law = torch.tensor([1 / 6 if i.bit_count() == 2 else 0.0 for i in range(16)], dtype=torch.float64)
    assert chi_square_p(pairs, law) > 1e-4
