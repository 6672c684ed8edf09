"""A small model folder that writes digits, and records of it, for the tests of traces."""

from pathlib import Path

import torch

from anyorder.api import GAP, LanguageModel, load
from anyorder.core.noise import Noise
from anyorder.data.tokenizer import SymbolTokenizer
from anyorder.hub.save import save_model
from anyorder.models.config import ModelConfig
from anyorder.models.transformer import Transformer
from anyorder.trace.record import Record

ROW = ["1", GAP(5), "3", GAP(9)]


def make_model(folder: Path, *, seed: int = 0) -> LanguageModel:
    """An untrained network with sharp opinions, saved and loaded."""
    tokenizer = SymbolTokenizer("1234.")
    network = Transformer(ModelConfig(num_layers=1, num_heads=2, d_model=16, d_ff=16, max_length=16), tokenizer.vocab)
    network.init_weights(Noise.of(seed).at("weights"))
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(3.0)
    save_model(folder, network, tokenizer)
    return load(folder)


def record_of(model: LanguageModel, sampler: str, *, n: int = 2, seed: int = 0, num_steps: int | None = None) -> Record:
    """The record of a few rows of `ROW`."""
    kept: list[Record] = []
    model.infill(ROW, n=n, sampler=sampler, num_steps=num_steps, seed=seed, on_record=kept.append)
    (record,) = kept
    return record
