"""A model as a folder anyone can read: model.safetensors, config.json, tokenizer.json."""

import dataclasses
import json
from pathlib import Path

from safetensors.torch import save_file

from anyorder.core.files import sha256_of, write_folder
from anyorder.data.tokenizer import Tokenizer
from anyorder.models.transformer import Transformer

FORMAT = "anyorder-model-1"
WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save_model(folder: Path, model: Transformer, tokenizer: Tokenizer) -> None:
    """Write the folder under a temporary name, then rename it; an older model there is replaced."""

    def fill(place: Path) -> None:
        save_file({name: p.detach().cpu().contiguous() for name, p in model.named_parameters()}, place / WEIGHTS)
        tokenizer.save(place)
        about = {
            "format": FORMAT,
            "kind": "arm" if model.config.causal else "mdm",
            "model": model.config.model_dump(),
            "vocab": dataclasses.asdict(model.vocab),
            "tokenizer_hash": tokenizer.hash,
            "sha256": {WEIGHTS: sha256_of(place / WEIGHTS)},
        }
        (place / CONFIG).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    write_folder(folder, fill)
