"""The likelihood of what is given around a gap: exact for perfect models, by which the true length is found."""

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.likelihood.bound import Rows
from anyorder.likelihood.given import given_bound
from anyorder.likelihood.rows import rows_of
from anyorder.testing.oracle import MarkovOracle, RandomTable

NOISE = Noise.of(11)
M = 3
CHAIN = MarkovOracle.random(3, noise=NOISE.at("chain"))


def gaps(before: list[int], after: list[int], sizes: list[int], mask: int = M) -> Rows:
    rows = rows_of(
        [[*before, *[mask] * n, *after] for n in sizes], begins=[0] * len(sizes), row_id=[0] * len(sizes), device=None
    )
    return Rows(rows.tokens, rows.target & (rows.tokens != mask), rows.segment, rows.row_id)


def test_the_mean_is_exact_for_a_perfect_model() -> None:
    """Of a Markov chain what is given has the chance of its steps, and of one long step over the gap."""
    before, after, sizes = [0, 2], [1, 1, 0], [0, 1, 2, 5]
    rows = gaps(before, after, sizes)
    found = torch.stack([given_bound(CHAIN, rows, draws=20, noise=NOISE.at("mean").at(i)) for i in range(40)])
    over = torch.stack([torch.linalg.matrix_power(CHAIN.transition, n + 1)[2, 1] for n in sizes]).log()
    rest = CHAIN.log_prob(torch.tensor([before])) + CHAIN.transition.log()[[1, 1], [1, 0]].sum()
    error = found.std(0) / 40**0.5
    assert bool((((found.mean(0) + over + rest) / error).abs() < 4).all())
    between = found - found[:, :1]  # differences have less noise
    assert bool((between.std(0) < 0.5 * found.std(0)).all())
    assert bool(((between.mean(0) + over - over[0]).abs() <= 4 * between.std(0) / 40**0.5 + 1e-9).all())


def test_the_length_of_a_cycle_is_found() -> None:
    """0 -> 1 -> 2 -> 0 nearly always: from 0 to 0 it is two tokens, or five."""
    law = torch.full((3, 3), 0.01, dtype=torch.float64) + 0.97 * torch.eye(3, dtype=torch.float64).roll(1, 1)
    chain = MarkovOracle(torch.full((3,), 1 / 3, dtype=torch.float64), law)
    nats = given_bound(chain, gaps([1, 2, 0], [0, 1], list(range(8))), draws=32, noise=NOISE)
    assert nats.argsort()[:2].tolist() == [2, 5]


def test_draws_hide_the_same_tokens_in_every_row() -> None:
    """Two rows that differ in padding alone: equal to the last bit at any number of draws."""
    table = RandomTable(3, NOISE.at("table"))
    rows = gaps([0, 2], [1, 0], [2, 2, 4])
    nats = given_bound(table, rows, draws=2, noise=NOISE)
    assert nats[0] == nats[1]
    few, many = (given_bound(table, rows, draws=d, noise=NOISE.at("x")) for d in (2000, 4000))
    torch.testing.assert_close(few, many, atol=0.1, rtol=0)


def test_rows_must_hold_the_same_tokens() -> None:
    rows = gaps([0], [1], [1, 2])
    with pytest.raises(ValueError, match="the same targets, at least one"):
        given_bound(
            CHAIN, Rows(rows.tokens, torch.zeros_like(rows.target), rows.segment, rows.row_id), draws=2, noise=NOISE
        )
    target = rows.target.clone()
    target[0, 0] = False
    with pytest.raises(ValueError, match="the same targets"):
        given_bound(CHAIN, Rows(rows.tokens, target, rows.segment, rows.row_id), draws=2, noise=NOISE)
