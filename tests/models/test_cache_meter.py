"""The cache-error meter where the answer is known: 0 where nothing that is remembered could have changed."""

import dataclasses
import math

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas, Vocab
from anyorder.models import ModelConfig, Transformer
from anyorder.models.cache import BlockCache
from anyorder.models.cache_error import CacheError
from anyorder.models.dit import DiT, DitConfig
from anyorder.samplers.base import generate
from anyorder.samplers.presets import make_sampler

NOISE = Noise.of(4)
VOCAB = Vocab(size=9, mask_id=9, pad_id=10, eos_id=8)
BLOCK = 4
X = torch.tensor([[1, 5, 0, 2] + [VOCAB.mask_id] * 12, [3, 3, 7, 1] + [VOCAB.mask_id] * 12])


def random_weights(model):
    for name, p in model.named_parameters():
        z = NOISE.at(name).normal(torch.arange(p.numel())).view(p.shape)
        p.data = (1 + 0.1 * z if p.ndim == 1 else z * 1.5 / math.sqrt(p.shape[-1])).to(p.dtype)
    return model.requires_grad_(False).eval()


def read_by(cached, model):
    """The meter after two rows have been written block by block."""
    meter = CacheError(cached, model)
    generate(make_sampler("first-hitting", block=BLOCK), meter, Canvas.of(X, vocab=VOCAB), noise=NOISE)
    assert meter.positions == 24
    return meter


@pytest.mark.parametrize("kind", ["prefix", "dual"])
def test_keys_of_a_single_layer_depend_on_nothing_but_their_token(kind):
    for layers, exact in ((1, True), (2, False)):
        size = ModelConfig(num_layers=layers, num_heads=4, d_model=32, d_ff=40, max_length=16)
        model = random_weights(Transformer(size, VOCAB))
        meter = read_by(BlockCache(model, kind=kind), model)
        assert (meter.max < 1e-9) == exact
        assert (meter.mean > 1e-6) != exact


class UpToBlock:
    """What a network says of rows that end with the block being written, as a memory of earlier blocks has it read."""

    nfe, vocab = 1, VOCAB

    def __init__(self, model):
        self.model = model

    def __call__(self, canvas, at):
        end = (int(at.nonzero()[:, 1].max()) // BLOCK + 1) * BLOCK
        part = {name: getattr(canvas, name)[:, :end] for name in ("x", "fixed", "window")}
        return self.model(dataclasses.replace(canvas, **part), at[:, :end])


def test_block_causal_attention_forgets_nothing():
    for block, exact in ((BLOCK, True), (None, False)):
        size = DitConfig(num_layers=3, num_heads=4, d_model=32, d_ff=64, d_cond=8, max_length=16, block=block)
        model = random_weights(DiT(size, VOCAB))
        meter = read_by(UpToBlock(model), model)
        assert (meter.max < 1e-9) == exact
        assert (meter.mean > 1e-6) != exact
