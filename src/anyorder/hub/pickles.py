"""Checkpoints kept as pickles: read by `anyorder convert` alone, with PyTorch's weights-only loader, tensors alone."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anyorder.hub.source import Entry, Source

PICKLED = (".pt", ".pth", ".ckpt", ".bin")
WRAPPERS = ("state_dict", "model")  # under which trainers keep the weights beside other things
PREFIX = "model."  # what they put before every name
TWINS = "predictor."  # and what a second copy of the same tensors begins with


def open_pickle(path: Path, *, config: Mapping[str, Any]) -> Source:
    """The tensors of a .pt, .pth, .ckpt or .bin file, mapped from it.

    Args:
        config: of the checkpoint; {} if there is none, and names may then have a trainer's prefix.
    Raises:
        ValueError: no such file, not a pickle of PyTorch, or one that holds more than tensors.
    """
    try:
        held: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it asks for {asked[1]}" if asked else "it is no whole zip file of torch.save"
        raise ValueError(f"{path}: not a file of tensors alone, so it is not read ({reason})") from None
    tensors = tensors_of(held, prefixed=not config)
    if not tensors:
        raise ValueError(f"{path}: holds no tensors by name")
    entries = {n: Entry(tuple(t.shape), t.dtype, lambda t=t: t) for n, t in tensors.items()}  # type: ignore[misc]
    return Source(path, path.parent, config, entries)


def tensors_of(held: Any, *, prefixed: bool) -> dict[str, Tensor]:
    """The weights by name, out of what trainers put around them (`prefixed`: and before every name)."""
    for key in WRAPPERS:
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
            break
    if not isinstance(held, Mapping):
        return {}
    found = {str(n): t for n, t in held.items() if isinstance(t, Tensor) and not str(n).startswith(TWINS)}
    if prefixed and all(n.startswith(PREFIX) for n in found):
        return {n.removeprefix(PREFIX): t for n, t in found.items()}
    return found
