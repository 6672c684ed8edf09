"""Checkpoints: a folder per step, whole or absent, checked against its own checksums when read.

step_000123/{model, optimizer, ema}.safetensors, state.json (step, counters, SHA-256 of each file and of
the rest of itself); no pickles.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from anyorder.core.files import remove_folder, sha256_of, write_folder
from anyorder.train.ema import Ema

State = dict[str, Any]


def save_checkpoint(
    run: Path,
    *,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: Ema | None,
    state: State,
    keep: int,
) -> None:
    """Write step_{step} under a temporary name and rename it; afterwards drop all but the `keep` newest."""

    def fill(folder: Path) -> None:
        save_file({name: p.detach().contiguous() for name, p in model.named_parameters()}, folder / "model.safetensors")
        save_file(_flat_optimizer(model, optimizer), folder / "optimizer.safetensors")
        if ema is not None:
            save_file(ema.weights, folder / "ema.safetensors")
        sums = {f.name: sha256_of(f) for f in sorted(folder.glob("*.safetensors"))}
        body = {"step": step, **state, "sha256": sums}
        (folder / "state.json").write_text(json.dumps({**body, "checksum": _checksum(body)}, indent=1))

    write_folder(run / f"step_{step:06d}", fill)
    for old in checkpoints(run)[:-keep]:
        remove_folder(old)


def checkpoints(run: Path) -> list[Path]:
    """The run's checkpoint folders, oldest first."""
    found = {int(p.name[5:]): p for p in run.glob("step_*") if p.is_dir() and re.fullmatch(r"step_\d{6,}", p.name)}
    return [found[step] for step in sorted(found)]


def load_checkpoint(folder: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema | None) -> State:
    """Put a checkpoint into model, optimiser and average; returns its state.

    Raises:
        ValueError: a file is missing, truncated or altered, or its tensors are not this model's.
    """
    state = read_state(folder)
    weights = load_file(folder / "model.safetensors")
    _copy_into({name: p.data for name, p in model.named_parameters()}, weights, source=folder)
    saved = load_file(folder / "optimizer.safetensors")
    parameters = dict(model.named_parameters())
    for key_of, value in saved.items():  # a parameter that was never updated has no entries
        key, name = key_of.split("/", 1)
        p = parameters[name]
        optimizer.state[p][key] = value.to(p.device)
    if ema is not None:
        _copy_into(ema.weights, load_file(folder / "ema.safetensors"), source=folder)
    return state


def read_state(folder: Path) -> State:
    """state.json of a checkpoint whose files all match their checksums; ValueError otherwise."""
    remedy = f"delete {folder} to resume from the checkpoint before it"
    try:
        state: State = json.loads((folder / "state.json").read_text())
    except (OSError, ValueError):
        raise ValueError(f"{folder}: state.json is missing or unreadable; {remedy}") from None
    if not isinstance(state, dict) or state.pop("checksum", None) != _checksum(state):
        raise ValueError(f"{folder / 'state.json'}: altered (its checksum differs); {remedy}")
    for name, expected in state["sha256"].items():
        file = folder / name
        if not file.exists() or sha256_of(file) != expected:
            raise ValueError(f"{file}: missing, truncated or altered (its SHA-256 differs); {remedy}")
    return state


def _checksum(body: State) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _flat_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{key}/{name}": value.detach().cpu().contiguous()
        for name, p in model.named_parameters()
        for key, value in optimizer.state.get(p, {}).items()
    }


def _copy_into(into: dict[str, Tensor], weights: dict[str, Tensor], *, source: Path) -> None:
    if into.keys() != weights.keys() or any(into[k].shape != weights[k].shape for k in into):
        raise ValueError(
            f"{source}: holds the tensors of another model; use the config.yaml of this run, or another --out"
        )
    for name, value in into.items():
        value.copy_(weights[name])
