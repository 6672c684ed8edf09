"""A published checkpoint: of which family it is, whether all it needs is there, its tensors one at a time."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from anyorder.core.config import nearest
from anyorder.hub.bare import whole_config
from anyorder.hub.families import FAMILIES
from anyorder.hub.family import Family, Plan
from anyorder.hub.fields import Fields
from anyorder.hub.parts import Part
from anyorder.hub.source import CONFIG, Source
from anyorder.models.network import kind_of

Named = tuple[str, Part]  # a tensor's name in the file, and what it is of ours
Held = Callable[[torch.dtype], torch.dtype]  # the dtype in memory for that in the file


@dataclass(frozen=True)
class Published:
    """A checkpoint whose configuration, names and shapes fit; no weight of it has been read.

    Args:
        name: of its family, a key of `FAMILIES`.
        plan: what its configuration says.
        tensors: every published tensor, in the order of ours.
    """

    name: str
    source: Source
    plan: Plan
    tensors: tuple[Named, ...]

    @property
    def kind(self) -> str:
        """As `kind_of`."""
        return kind_of(self.plan.config)

    @property
    def num_params(self) -> int:
        """Entries of all published tensors."""
        return sum(math.prod(part.shape) for _, part in self.tensors)

    @property
    def num_bytes(self) -> int:
        """Bytes of all published tensors."""
        sizes = ((math.prod(part.shape), self.source.entries[name].dtype) for name, part in self.tensors)
        return sum(count * dtype.itemsize for count, dtype in sizes)

    def scalars(self) -> dict[str, float]:
        """Single numbers that the file keeps beside its weights, by name."""
        names = (name for name, entry in self.source.entries.items() if entry.shape == ())
        return {name: float(self.source.read(name)) for name in names}


def family_of(source: Source) -> str:
    """The key in `FAMILIES` of a checkpoint, from `model_type`, else `architectures`, of its configuration.

    Raises:
        ValueError: another model type, or none.
    """
    model_type, classes = source.config.get("model_type"), source.config.get("architectures")
    classes = classes if isinstance(classes, list) else []
    for name, family in FAMILIES.items():
        if model_type in family.model_types or (
            model_type is None and any(name in classes for name in family.architectures)
        ):
            return name
    where = source.said_in
    if not source.config:
        raise ValueError(
            f"{where}: no {CONFIG} lies beside it, and shapes alone do not tell its family; put one there that says "
            "model_type and sizes as the family's does, or get it from where the weights are from"
        )
    if model_type is None:
        raise ValueError(f"{where}: names neither model_type nor a known architecture; known: {', '.join(FAMILIES)}")
    known = [t for family in FAMILIES.values() for t in family.model_types]
    raise ValueError(f"{where}: model_type={model_type!r}: not read here; {nearest(str(model_type), known)}")


def published(source: Source, *, heads: int | None = None, tokenizer: Path | None = None) -> Published:
    """The checkpoint of a source, after its configuration, names and shapes have been checked.

    Args:
        heads: attention heads of a checkpoint that has no configuration.
        tokenizer: the file of its tokenizer, or its folder; None: beside it.
    Raises:
        ValueError: an unknown family, a configuration without a needed field, tensors that do not fit.
    """
    where = str(source.said_in)
    source = dataclasses.replace(source, config=whole_config(source, heads=heads, tokenizer=tokenizer))
    name = family_of(source)
    family = FAMILIES[name]
    plan = family.read(Fields(source.config, where))
    tensors = tuple(family.parts(plan))
    kept = [name for name in source.entries if not family.is_buffer(name)]
    spare = family.spare(plan)
    dataclasses.replace(source, entries={n: source.entries[n] for n in kept}).check(
        {n: part.shape for n, part in tensors}, optional=[] if spare is None else [spare]
    )
    _check_spare(source, spare, family)
    return Published(name, source, plan, tensors)


def _check_spare(source: Source, spare: str | None, family: Family) -> None:
    """A head that is stored although it is tied must be the embedding."""
    if spare in source.entries and spare is not None:
        embedding = family.names["embed"]
        if not torch.equal(source.entries[spare].read(), source.entries[embedding].read()):
            raise ValueError(
                f"{source.place}: {spare!r} differs from {embedding!r} although tie_word_embeddings is true; "
                "set it to false in config.json, or get the file again"
            )


def stream(
    source: Source, tensors: Sequence[Named], *, held: Held, device: torch.device | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Our tensors, one at a time, each in new memory on the device; what is read of the file leaves memory again.

    Peak memory: all tensors that the caller keeps, and the largest tensor of the file.

    Raises:
        ValueError: NaN or infinite values, a matrix that was never trained.
    """
    for ours, group in groupby(tensors, key=lambda named: named[1].ours):
        parts = list(group)
        shape = (sum(part.shape[0] for _, part in parts), *parts[0][1].shape[1:])
        dtype = held(source.entries[parts[0][0]].dtype)
        out = torch.empty(shape, dtype=dtype, device=device)
        for name, part in parts:
            out[part.start : part.start + part.shape[0]].copy_(part.to_ours(source.read(name)))
        yield ours, out


def restream(read: Callable[[str], Tensor], tensors: Sequence[Named]) -> Iterator[tuple[str, Tensor]]:
    """Published tensors, one at a time, from ours; inverse of `stream`."""
    for name, part in tensors:
        rows = read(part.ours)[part.start : part.start + part.shape[0]]
        yield name, part.to_theirs(rows).clone()
