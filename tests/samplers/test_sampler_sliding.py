"""Rows longer than the network reads."""

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.samplers.base import generate
from anyorder.samplers.blockwise import Blockwise
from anyorder.samplers.causal import Causal
from anyorder.samplers.count import PerStep
from anyorder.samplers.sliding import Sliding, block_of
from anyorder.samplers.unmask import Unmask
from anyorder.testing.contracts import blank, check_exact, check_sampler
from anyorder.testing.oracle import CausalView, MarkovOracle, RandomTable

NOISE = Noise.of(3)
CHAIN = MarkovOracle.random(2, noise=Noise.of(5))
TABLE = RandomTable(3, Noise.of(4))


class Watched:
    """Notes what it reads."""

    nfe, vocab = 1, TABLE.vocab

    def __init__(self):
        self.seen = []

    def __call__(self, canvas, at):
        self.seen.append(canvas.x[0].tolist())
        return TABLE(canvas, at)


def test_blocks_are_the_first_window_then_strides():
    assert block_of(torch.arange(12), 5, 3).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3]


def test_the_network_reads_one_window_whose_beginning_is_written():
    model = Watched()
    sample = generate(Sliding(Unmask(PerStep(2)), 4, 2), model, blank(TABLE.vocab, 1, 9), noise=NOISE)
    m, x = TABLE.vocab.mask_id, sample.canvas.x[0].tolist()
    assert {len(row) for row in model.seen} == {4}
    assert model.seen[0] == [m] * 4
    assert model.seen[2:] == [[*x[2:4], m, m], [*x[4:6], m, m], [*x[5:8], m]], "the last window ends with the row"
    assert sample.nfe.tolist() == [5]
    order = sample.order[0].tolist()
    assert sorted(order[:4]) == [0, 0, 1, 1]
    assert order[4:] == [2, 2, 3, 3, 4]


def test_a_chain_without_memory_is_sampled_exactly():
    law = CHAIN.joint(6).table
    check_exact(Sliding(Unmask(), 3, 2), CHAIN, law, length=6, generate=generate, noise=NOISE, rows=40_000)
    left = Sliding(Causal(), 3, 1)
    check_exact(left, CausalView(CHAIN), law, length=6, generate=generate, noise=NOISE, rows=40_000)


def test_the_contract_is_kept_and_short_rows_are_one_window():
    canvas = blank(TABLE.vocab, 7, 9)
    check_sampler(lambda: Sliding(Unmask(), 4, 3), TABLE, canvas, generate=generate, noise=NOISE, law=None)
    short = generate(Sliding(Unmask(), 9, 3), TABLE, canvas, noise=NOISE)
    assert torch.equal(short.canvas.x, generate(Blockwise(Unmask(), 9), TABLE, canvas, noise=NOISE).canvas.x)


def test_a_stride_leaves_some_context():
    for stride in (0, 4, 9):
        with pytest.raises(ValueError, match=rf"sampler\.stride={stride}: must be between 1 and 3"):
            Sliding(Unmask(), 4, stride)
