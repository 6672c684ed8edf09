"""Read a model folder back, strictly: every key, every shape, every checksum."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from anyorder.core.config import parse_config
from anyorder.core.files import sha256_of
from anyorder.data.tokenizer import Tokenizer, load_tokenizer
from anyorder.hub.save import CONFIG, FORMAT, WEIGHTS
from anyorder.models.config import ModelConfig
from anyorder.models.transformer import Transformer


@dataclass(frozen=True)
class LoadedModel:
    """A network and the tokenizer it was trained with; `kind` is "mdm" or "arm"."""

    kind: str
    model: Transformer
    tokenizer: Tokenizer


def load_model(folder: Path, *, dtype: torch.dtype = torch.float32) -> LoadedModel:
    """The model of a folder written by `save_model`, in evaluation mode; activations in `dtype`.

    Raises:
        ValueError: no model there, another format, a missing, truncated or altered file, or tensors that do not fit.
    """
    about = read_about(folder)
    config = parse_config(ModelConfig, about["model"], source=str(folder / CONFIG))
    tokenizer = load_tokenizer(folder)
    if tokenizer.hash != about["tokenizer_hash"]:
        raise ValueError(f"{folder}: tokenizer.json is not the one the model was trained with; restore it")
    vocab = tokenizer.vocab
    if about["vocab"] != dataclasses.asdict(vocab):
        raise ValueError(f"{folder / CONFIG}: vocab is not that of tokenizer.json; the file was altered, restore it")
    weights = _read_weights(folder / WEIGHTS, about["sha256"].get(WEIGHTS))
    with torch.device("meta"):
        shapes = {n: p.shape for n, p in Transformer(config, vocab).named_parameters()}
    for name in sorted(shapes.keys() ^ weights.keys()):
        raise ValueError(f"{folder / WEIGHTS}: tensor {name!r} is {'missing' if name in shapes else 'unknown'}")
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            raise ValueError(
                f"{folder / WEIGHTS}: {name} has shape {tuple(weights[name].shape)}, expected {tuple(shape)}"
            )
    model = Transformer(config, vocab, dtype=dtype)
    model.load_state_dict(weights)
    return LoadedModel(kind=about["kind"], model=model.eval().requires_grad_(False), tokenizer=tokenizer)


def read_about(folder: Path) -> dict[str, Any]:
    """config.json of a model folder; ValueError if it is not one of ours."""
    try:
        about: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder}: no model here (no {CONFIG}); name a run folder or a model folder") from None
    except ValueError:
        raise ValueError(f"{folder / CONFIG}: not JSON; the file was altered, restore it") from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        found = about.get("format") if isinstance(about, dict) else about
        raise ValueError(f"{folder / CONFIG}: format={found!r}, expected {FORMAT!r}")
    for key in ("kind", "model", "vocab", "tokenizer_hash", "sha256"):
        if key not in about:
            raise ValueError(f"{folder / CONFIG}: key {key!r} is missing; the file was altered, restore it")
    return about


def _read_weights(path: Path, sha256: str | None) -> dict[str, torch.Tensor]:
    if not path.exists() or sha256_of(path) != sha256:
        raise ValueError(f"{path}: missing, truncated or altered (its SHA-256 differs from config.json); restore it")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file ({error})") from None
