"""A toy language small enough to enumerate, and runs that train on it within seconds; shared by tests of training."""

import torch

from anyorder.core.noise import Noise
from anyorder.data.rows import TaskRows
from anyorder.data.tokenizer import SymbolTokenizer
from anyorder.models import ModelConfig
from anyorder.testing.oracle import states_of
from anyorder.train.config import RunConfig
from anyorder.train.loop import RunData

TOKENIZER = SymbolTokenizer("abc")
LENGTH, TARGETS = 4, 3  # a prompt token, then three that follow a joint law
SMALL = ModelConfig(num_layers=2, num_heads=4, d_model=32, d_ff=64, max_length=LENGTH)
STATES = torch.cat([torch.full((27, 1), 2), states_of(3, TARGETS)], 1)
SCORED = (torch.arange(LENGTH) > 0).expand(27, LENGTH)


def law():
    """A random joint law of 3^3 sequences. The prompt breaks a symmetry: a network that only knows how far tokens are
    apart cannot tell the positions of a blank canvas from one another."""
    mass = (1.5 * Noise.of(8).at("law").normal(torch.arange(27))).exp()
    return mass / mass.sum()


def rows(count=4096):
    """Rows in the proportions of the law (rounded), and the law they have exactly."""
    copies = (law() * count).round().long()
    tokens, target = (value.repeat_interleave(copies, 0) for value in (STATES, SCORED))
    return TaskRows(tokens=tokens, target=target, vocab=TOKENIZER.vocab), copies.double() / copies.sum()


def data():
    source, _ = rows()
    held_out = TaskRows(tokens=source.tokens[::50], target=source.target[::50], vocab=source.vocab)
    return RunData(train=source, valid=held_out, tokenizer=TOKENIZER)


def config(kind="mdm", **values):
    """A run of 12 steps with everything switched on: average, validation, checkpoints, two micro-batches."""
    defaults = {
        "task": "toy",
        "process": {"kind": kind},
        "model": SMALL,
        "dtype": "float32",
        "optim": {"lr": 3e-3, "warmup_steps": 3, "ema": 0.8},
        "batch": {"rows": 16, "num_micro": 2},
        "num_steps": 12,
        "evaluate": {"every": 4, "rows": 16, "draws": 2},
        "save_every": 3,
        "log_every": 2,
    }
    return RunConfig.model_validate(defaults | values)
