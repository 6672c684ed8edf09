"""Train a small masked diffusion model on a text of your own, from Python.

python examples/train.py notes.txt runs/notes 200
"""

import sys
from pathlib import Path

from anyorder.data.config import DataConfig
from anyorder.train.config import BatchConfig, RunConfig
from anyorder.train.data import run_data
from anyorder.train.loop import train


def main(text: str, out: str, num_steps: int) -> Path:
    config = RunConfig(
        data=DataConfig(corpus=text, tokenizer="bytes", length=64, cache=Path(out) / "data"),
        size="0.3M",
        batch=BatchConfig(rows=16),
        num_steps=num_steps,
    )
    return train(config, run_data(config), Path(out))


if __name__ == "__main__":
    print("the model is in", main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
