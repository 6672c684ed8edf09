"""The cost of a pass, against a count of the matrix products it really makes."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from anyorder.core.types import Canvas, Vocab
from anyorder.models import ModelConfig, attention, forward_flops, training_flops
from anyorder.models.dit import DitConfig
from anyorder.models.network import network

VOCAB = Vocab(size=19, mask_id=19, pad_id=20, eos_id=18)
CONFIG = ModelConfig(num_layers=3, num_heads=2, d_model=12, d_ff=28, max_length=16)


@pytest.fixture(autouse=True)
def _plain_attention(monkeypatch):
    """The counter knows the plain kernel's products; the fused one's on CPUs are unknown to it."""
    monkeypatch.setattr(attention, "PLAIN_UP_TO", dict.fromkeys(attention.PLAIN_UP_TO, 1024))


def counted(config, rows, length, positions, *, backward=False):
    with torch.device("meta"):
        model = network(config, VOCAB)
    model = model.to_empty(device="cpu")
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data.fill_(0.01)
    at = torch.zeros(rows * length, dtype=torch.bool)
    at[:positions] = True
    x = torch.zeros(rows, length, dtype=torch.int64)
    counter = FlopCounterMode(display=False)
    with counter:
        logits = model(Canvas.of(x, vocab=VOCAB), at.view(rows, length))
        if backward:
            logits.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("positions", [0, 1, 17, 40])
def test_forward_flops_are_those_of_the_plain_kernel(causal, positions):
    config = CONFIG.model_copy(update={"causal": causal})
    expected = forward_flops(config, rows=4, length=10, head_positions=positions, vocab_size=VOCAB.size)
    assert counted(config, 4, 10, positions) == expected


OTHERS = [
    CONFIG.model_copy(update={"num_kv_heads": 1, "head_width": 10, "qk_norm": True, "tied_head": True}),
    CONFIG.model_copy(update={"num_heads": 3, "num_kv_heads": 1, "qkv_bias": True}),
    DitConfig(num_layers=3, num_heads=2, d_model=12, d_ff=28, max_length=16),
]


@pytest.mark.parametrize("config", OTHERS)
def test_forward_flops_of_networks_of_published_checkpoints(config):
    expected = forward_flops(config, rows=4, length=10, head_positions=17, vocab_size=VOCAB.size)
    assert counted(config, 4, 10, 17) == expected


def test_training_flops_are_three_forward_passes():
    expected = training_flops(CONFIG, rows=4, length=10, head_positions=17, vocab_size=VOCAB.size)
    assert counted(CONFIG, 4, 10, 17, backward=True) == expected


def test_six_n_d_is_the_large_width_limit():
    """Without attention over positions and head, forward and backward cost 6 FLOPs a weight and token."""
    config = ModelConfig(num_layers=24, num_heads=16, d_model=4096, d_ff=16384)
    cost = training_flops(config, rows=1, length=2, head_positions=2, vocab_size=0)
    assert cost == pytest.approx(6 * config.num_block_params * 2, rel=1e-4)
