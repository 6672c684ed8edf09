"""A small insertion model that writes bytes, saved and loaded, for the tests of what is built upon one."""

from pathlib import Path

import torch

from anyorder.api import LanguageModel, load
from anyorder.core.noise import Noise
from anyorder.data.tokenizer import ByteTokenizer
from anyorder.hub.save import save_model
from anyorder.models.config import ModelConfig
from anyorder.models.network import network

SHAPE = ModelConfig(num_layers=1, num_heads=2, d_model=16, d_ff=16, max_length=25, insertion=True)


def make_ilm(folder: Path, *, stop: float = -2.0, seed: int = 0) -> LanguageModel:
    """An untrained network with sharp opinions, which finds a text complete with these log-odds or so; 24 tokens."""
    tokenizer = ByteTokenizer()
    model = network(SHAPE, tokenizer.vocab)
    model.init_weights(Noise.of(seed).at("weights"))
    noise = Noise.of(seed).at("stop")
    with torch.no_grad():
        for index, (name, p) in enumerate(model.named_parameters()):
            p.mul_(1.5)
            if "stop" in name and not bool(p.any()):
                p.copy_(0.1 * noise.normal(index, 0, torch.arange(p.numel())).view(p.shape))
                last = p
        last.fill_(stop)  # the bias of the stop head's output
    save_model(folder, model, tokenizer)
    return load(folder)
