"""Entropy, distinct n-grams and repetition of rows, by hand."""

import math

import pytest
import torch

from anyorder.evaluation.diversity import distinct, repetition, unigram_entropy


def test_entropy_of_a_constant_of_all_distinct_and_of_two_halves():
    x = torch.tensor([[5, 5, 5, 5], [1, 2, 3, 4], [7, 8, 8, 7], [6, 6, 6, 9]])
    quarter = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    want = torch.tensor([0, math.log(4), math.log(2), quarter], dtype=torch.float64)
    torch.testing.assert_close(unigram_entropy(x), want)


def test_distinct_counts_over_the_set_and_never_across_rows():
    x = torch.tensor([[1, 2, 1, 2], [1, 2, 3, 3]])
    assert distinct(x, 1) == pytest.approx(3 / 8)
    assert distinct(x, 2) == pytest.approx(4 / 6)  # 12 21 12 | 12 23 33
    assert distinct(x, 3) == pytest.approx(4 / 4)  # 121 212 | 123 233
    assert distinct(x, 4) == pytest.approx(2 / 2)
    assert math.isnan(distinct(x, 5))
    with pytest.raises(ValueError, match="at least 1 token"):
        distinct(x, 0)


def test_repetition_is_of_each_row():
    x = torch.tensor([[1, 2, 1, 2, 1, 2], [1, 2, 3, 4, 5, 6]])
    assert repetition(x, 2) == pytest.approx((3 / 5 + 0) / 2)
    assert repetition(x, 1) == pytest.approx((4 / 6 + 0) / 2)
    assert math.isnan(repetition(x, 7))
    assert repetition(torch.zeros(3, 10, dtype=torch.int64), 4) == pytest.approx(6 / 7)


def test_rows_of_different_lengths():
    rows = [torch.tensor(r, dtype=torch.int64) for r in ([1, 2, 1, 2], [3], [], [1, 2])]
    assert unigram_entropy(rows).tolist() == pytest.approx([math.log(2), 0.0, 0.0, math.log(2)])
    assert distinct(rows, 2) == pytest.approx(2 / 4)  # 12 21 12 | | | 12
    assert repetition(rows, 2) == pytest.approx((1 / 3 + 0) / 2)  # of the rows that have one
    assert math.isnan(repetition(rows, 5))
