"""Which positions are the best: against sorting in plain Python."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from anyorder.samplers.position import best


@given(
    st.lists(st.tuples(st.sampled_from([-2.0, -1.0, 0.5, 0.5 + 1e-6, 3.0]), st.booleans()), min_size=1, max_size=8),
    st.integers(0, 9),
)
def test_best_is_the_head_of_a_stable_sort(row, k):
    score, allowed = torch.tensor([[s for s, _ in row]], dtype=torch.float64), torch.tensor([[a for _, a in row]])
    if True:
        order = sorted((i for i in range(len(row)) if row[i][1]), key=lambda i: (-row[i][0], i))
        chosen = best(score, torch.tensor([k]), allowed=allowed)
        assert chosen[0].nonzero().squeeze(-1).tolist() == sorted(order[:k])


def test_rows_choose_on_their_own():
    score = torch.tensor([[1.0, 2, 3], [3, 2, 1], [2, 2, 2]], dtype=torch.float64)
    chosen = best(score, torch.tensor([1, 2, 0]), allowed=torch.ones(3, 3, dtype=torch.bool))
    assert chosen.tolist() == [[False, False, True], [True, True, False], [False, False, False]]
