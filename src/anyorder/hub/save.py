"""A model as a folder anyone can read: model.safetensors (or shards and their index), config.json, tokenizer.json."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from anyorder.core.files import sha256_of, write_folder
from anyorder.core.types import Vocab
from anyorder.data.hub_tokenizer import HubTokenizer
from anyorder.data.tokenizer import Tokenizer
from anyorder.hub.source import CONFIG, INDEX, WEIGHTS
from anyorder.models.network import Network, NetworkConfig, fields_of, kind_of

FORMAT = "anyorder-model-1"
SHARD_BYTES = 2 << 30  # of a file of weights; what a conversion holds in memory at once


def save_model(folder: Path, model: Network, tokenizer: Tokenizer) -> None:
    """Write the folder under a temporary name, then rename it; an older model there is replaced."""

    def fill(place: Path) -> None:
        files = write_tensors(place, ((name, p.detach().cpu().contiguous()) for name, p in model.named_parameters()))
        tokenizer.save(place)
        about = describe(place, files, config=model.config, vocab=model.vocab, tokenizer=tokenizer)
        (place / CONFIG).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    write_folder(folder, fill)


def describe(
    place: Path, files: Iterable[str], *, config: NetworkConfig, vocab: Vocab, tokenizer: Tokenizer
) -> dict[str, Any]:
    """config.json of a model folder whose weights have been written."""
    about = {
        "format": FORMAT,
        "kind": kind_of(config),
        "model": fields_of(config),
        "vocab": dataclasses.asdict(vocab),
        "tokenizer_hash": tokenizer.hash,
        "sha256": {name: sha256_of(place / name) for name in files},
    }
    return about | ({"tokenizer": "published"} if isinstance(tokenizer, HubTokenizer) else {})


def write_tensors(
    place: Path,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    shard_bytes: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> list[str]:
    """Write the tensors as they come, in files of at most `shard_bytes` (2 GiB) or one tensor; their names.

    One file is called model.safetensors; several are numbered and listed in an index, as on the Hugging Face hub.
    """
    shards: list[list[str]] = []
    held: dict[str, Tensor] = {}
    total = size = 0
    limit = SHARD_BYTES if shard_bytes is None else shard_bytes

    def flush() -> None:
        save_file(held, place / f"{len(shards)}.part", metadata=None if metadata is None else dict(metadata))
        shards.append(list(held))
        held.clear()

    for name, tensor in tensors:
        if held and size + tensor.nbytes > limit:
            flush()
            size = 0
        held[name] = tensor
        total, size = total + tensor.nbytes, size + tensor.nbytes
    flush()
    if len(shards) == 1:
        (place / "0.part").replace(place / WEIGHTS)
        return [WEIGHTS]
    files = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    for i, file in enumerate(files):
        (place / f"{i}.part").replace(place / file)
    index = {name: file for file, names in zip(files, shards) for name in names}
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=1) + "\n"
    (place / INDEX).write_text(text, encoding="utf-8")
    return [*files, INDEX]
