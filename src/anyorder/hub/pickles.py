"""Checkpoints kept as pickles: read by `anyorder convert` alone, with PyTorch's weights-only loader, tensors alone."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anyorder.hub.source import PICKLE_INDEX, Entry, Source, check_whole, indexed, pickles_of

WRAPPERS = ("state_dict", "model")  # under which trainers keep the weights beside other things
PREFIX = "model."  # what they put before every name
COMPILED = "_orig_mod."  # and what torch.compile puts between them
TWINS = "predictor."  # what a second copy of the same tensors begins with
AVERAGES = ("ema", "ema_state_dict", "model_ema", "ema_model")  # under which they keep a moving average of the weights
NO_PARAMETER = re.compile(r"(.*\.)?(inv_freq|sin|cos|pe|freqs|mask|block_diff_mask|sampling_eps_(min|max))")


def open_pickle(path: Path, *, config: Mapping[str, Any]) -> Source:
    """The tensors of a .pt, .pth, .ckpt or .bin file, mapped from it; the moving average where it holds one.

    Args:
        config: of the checkpoint; {} if there is none, and names may then have a trainer's prefix.
    Raises:
        ValueError: no such file, not a pickle of PyTorch, one that holds more than tensors, or an average that is not
            one of these weights.
    """
    check_whole(path)
    held = _load(path)
    weights = weights_of(held)
    key = next((k for k in AVERAGES if isinstance(held, Mapping) and isinstance(held.get(k), Mapping | list)), None)
    if key is not None:
        weights = weights | _average(held[key], weights, f"{path}: {key}")
    entries = _entries(weights, path, prefixed=not config)
    return Source(path, path.parent, config, entries, note="" if key is None else f"the moving average {key!r}")


def open_pickles(folder: Path, *, config: Mapping[str, Any]) -> Source:
    """The tensors of a folder whose weights are pickles: those of its index, or of its only file."""
    place = pickles_of(folder)[0]
    if place.name != PICKLE_INDEX:
        return open_pickle(place, config=config)
    entries = indexed(place, lambda path: _entries(weights_of(_load(path)), path, prefixed=False))
    return Source(place, folder, config, entries)


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it asks for {asked[1]}" if asked else "it is no whole zip file of torch.save"
        raise ValueError(
            f"{path}: not a file of tensors alone, so it is not read ({reason}); where it was written, save its "
            "state_dict (and its ema) alone with torch.save, and convert that"
        ) from None


def _entries(weights: Mapping[str, Tensor], path: Path, *, prefixed: bool) -> dict[str, Entry]:
    """Tensors as entries, without the prefix that trainers put before every name (`prefixed`)."""
    if not weights:
        raise ValueError(f"{path}: holds no tensors by name")
    cut = PREFIX if prefixed and all(n.startswith(PREFIX) for n in weights) else ""
    return {
        n.removeprefix(cut): Entry(tuple(t.shape), t.dtype, lambda t=t: t)  # type: ignore[misc]
        for n, t in weights.items()
    }


def weights_of(held: Any) -> dict[str, Tensor]:
    """The weights by name, out of what trainers and torch.compile put around them."""
    for key in WRAPPERS:
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
            break
    if not isinstance(held, Mapping):
        return {}
    named = {str(n).replace(COMPILED, ""): t for n, t in held.items() if isinstance(t, Tensor)}
    return {n: t for n, t in named.items() if not n.startswith(TWINS)}


def _average(kept: Any, weights: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The moving average of every parameter: by name, or listed in the order of the parameters (`shadow_params`)."""
    parameters = {n: t for n, t in weights.items() if t.is_floating_point() and not NO_PARAMETER.fullmatch(n)}
    listed = kept.get("shadow_params") if isinstance(kept, Mapping) else kept
    if isinstance(listed, list) and len(listed) == len(parameters):
        averages = dict(zip(parameters, listed))
    else:
        averages = {n: t for n, t in weights_of(kept).items() if n in weights}
    fits = parameters.keys() <= averages.keys() and all(
        isinstance(averages[n], Tensor) and averages[n].shape == t.shape for n, t in parameters.items()
    )
    if not fits:
        raise ValueError(
            f"{where}: is no moving average of its {len(parameters)} weights one for one; save the weights you want "
            "alone with torch.save, and convert that"
        )
    return averages
