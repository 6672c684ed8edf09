"""Tensors on disk by name: safetensors, in one file or in shards with an index; memory-mapped, read one at a time."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from anyorder.core.files import read_object
from anyorder.core.text import command

WEIGHTS, CONFIG, INDEX = "model.safetensors", "config.json", "model.safetensors.index.json"
PICKLED, PICKLE_INDEX = (".pt", ".pth", ".ckpt", ".bin"), "pytorch_model.bin.index.json"
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMED = 10  # faults that one message names
WAY_OUT = "the file is not whole or belongs to another model, get it again"


@dataclass(frozen=True)
class Entry:
    """A tensor that has not been read yet."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


@dataclass(frozen=True)
class Source:
    """What lies at a path: the configuration as it stands in the file ({} if there is none) and its tensors.

    Args:
        place: what messages name.
        folder: where other files of the checkpoint are looked for.
        note: which of several sets of weights these are, "" if there is one.
    """

    place: Path
    folder: Path
    config: Mapping[str, Any]
    entries: Mapping[str, Entry]
    note: str = ""

    @property
    def said_in(self) -> Path:
        """What messages about the configuration name: its file, or the weights where there is none."""
        return self.folder / CONFIG if self.config else self.place

    def read(self, name: str, *, any_values: bool = False) -> Tensor:
        """The tensor, checked. It is mapped from the file where that is possible, so copy it before the file changes.

        Args:
            any_values: let a matrix whose values are all equal pass.
        Raises:
            ValueError: NaN or infinite values, or a matrix whose values are all equal: it was never trained.
        """
        value = self.entries[name].read()
        if not value.is_floating_point() or not value.numel():
            return value
        low, high = (float(v) for v in value.aminmax())
        if not (abs(low) < float("inf") and abs(high) < float("inf")):
            raise ValueError(f"{self.place}: tensor {name!r} holds NaN or infinite values; get the file again")
        if value.ndim > 1 and value.numel() > 1 and low == high and not any_values:
            raise ValueError(
                f"{self.place}: every value of {name!r} is {low:g}, as in a network that was never trained"
            )
        return value

    def check(self, expected: Mapping[str, tuple[int, ...]], *, optional: Iterable[str] = ()) -> None:
        """Raises ValueError unless names and shapes are those expected; it names the first ten faults."""
        spare = set(optional)
        faults = [f"tensor {name!r} is missing" for name in expected if name not in self.entries]
        faults += [f"tensor {name!r} is unknown" for name in self.entries if name not in expected and name not in spare]
        faults += [
            f"{name} has shape {self.entries[name].shape}, expected {shape}"
            for name, shape in expected.items()
            if name in self.entries and self.entries[name].shape != shape
        ]
        if faults:
            more = f"; and {len(faults) - NAMED} more faults" if len(faults) > NAMED else ""
            raise ValueError(f"{self.place}: {'; '.join(faults[:NAMED])}{more}; {WAY_OUT}")


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a folder.

    Raises:
        ValueError: no such file, or one that is no JSON object.
    """
    try:
        return read_object(folder / CONFIG)
    except FileNotFoundError:
        raise ValueError(f"{folder}: no model here (no {CONFIG}); name a run folder or a model folder") from None


def open_folder(folder: Path, *, config: Mapping[str, Any]) -> Source:
    """The tensors of a folder: those of its index, or of its only safetensors file.

    Raises:
        ValueError: no weights, weights as pickles, several files without an index, or an index that does not fit.
    """
    if (folder / INDEX).exists():
        return Source(folder / INDEX, folder, config, indexed(folder / INDEX, entries_of))
    files = sorted(folder.glob("*.safetensors"))
    chosen = folder / WEIGHTS if folder / WEIGHTS in files or not files else files[0]
    if len(files) > 1 and chosen.name != WEIGHTS:
        raise ValueError(f"{folder}: holds {len(files)} safetensors files and no {INDEX}; restore it")
    pickles = [] if files else pickles_of(folder)
    if pickles:
        raise ValueError(
            f"{pickles[0]}: is a pickle, which can run code when it is read; only anyorder convert reads one, "
            f"and tensors alone: {command('anyorder', 'convert', folder, 'OUT')}"
        )
    return Source(chosen, folder, config, entries_of(chosen))


def pickles_of(folder: Path) -> list[Path]:
    """Files of a folder that may be weights as pickles: its index alone if there is one.

    Raises:
        ValueError: several, and nothing says which.
    """
    if (folder / PICKLE_INDEX).exists():
        return [folder / PICKLE_INDEX]
    files = [file for file in sorted(folder.glob("*")) if file.suffix in PICKLED]
    usual = [file for file in files if file.name == "pytorch_model.bin"]
    if len(files) > 1 and not usual:
        raise ValueError(
            f"{folder}: holds {len(files)} pickles and no {PICKLE_INDEX}; name the one that holds the weights: "
            f"anyorder convert {files[0]} OUT"
        )
    return usual or files


def check_whole(path: Path) -> None:
    """Raises ValueError if the file is one part of several, of which an index beside it tells."""
    for index in (path.parent / INDEX, path.parent / PICKLE_INDEX):
        if index.exists() and path.name in files_of(index).values():
            raise ValueError(f"{path}: is one part of a checkpoint; name its folder, {path.parent}")


def open_file(path: Path) -> Source:
    """The tensors of one safetensors file; the configuration is that of a config.json beside it, if there is one."""
    check_whole(path)
    config = read_config(path.parent) if (path.parent / CONFIG).exists() else {}
    return Source(path, path.parent, config, entries_of(path))


def entries_of(path: Path) -> dict[str, Entry]:
    """The tensors of a safetensors file, from its header alone.

    Raises:
        ValueError: no such file, or not one of safetensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {
                name: Entry(tuple(s.get_shape()), DTYPES[s.get_dtype()], _reader(path, name))
                for name, s in slices.items()
            }
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; the checkpoint is not whole, get it again") from None
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file ({error}); get it again") from None
    except KeyError as error:
        raise ValueError(f"{path}: holds tensors of type {error}, which are not read") from None


def _reader(path: Path, name: str) -> Callable[[], Tensor]:
    """Maps the file anew for each tensor, so that what has been read leaves memory with the tensor."""

    def read() -> Tensor:
        with safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    return read


def files_of(index: Path) -> dict[str, str]:
    """The file that holds each tensor, as an index says it.

    Raises:
        ValueError: not an index, or one that names anything but files beside it.
    """
    files = read_object(index).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(f, str) and Path(f).name == f for f in files.values()):
        raise ValueError(f"{index}: not an index of tensors; get it again")
    return files


def indexed(index: Path, read: Callable[[Path], Mapping[str, Entry]]) -> dict[str, Entry]:
    """The tensors of all files of an index, each read by `read`.

    Raises:
        ValueError: a file that is not there, or one that holds other tensors than the index says.
    """
    files, found = files_of(index), dict[str, Entry]()
    for file in sorted(set(files.values())):
        held = read(index.parent / file)
        listed = {name for name, where in files.items() if where == file}
        if held.keys() != listed:
            wrong = sorted(held.keys() ^ listed)[0]
            what = "lists" if wrong in listed else "does not list"
            raise ValueError(f"{index}: {what} {wrong!r} for {file}, which differs; get both again")
        found |= held
    return found
