"""From a published checkpoint to a model folder of ours and back, one tensor in memory at a time."""

import itertools
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from anyorder.core.config import nearest
from anyorder.core.files import write_folder
from anyorder.core.types import Vocab
from anyorder.data.hub_tokenizer import tokenizer_file
from anyorder.hub.families import FAMILIES
from anyorder.hub.family import Plan
from anyorder.hub.fetch import HUB, PICKLES, SETTINGS, fetch
from anyorder.hub.fields import Fields
from anyorder.hub.find import model_folder
from anyorder.hub.load import is_published, own_source, own_tokenizer, published_tokenizer, read_about, shapes_of
from anyorder.hub.pickles import open_pickle, open_pickles
from anyorder.hub.published import published, restream, stream
from anyorder.hub.save import describe, write_tensors
from anyorder.hub.source import CONFIG, PICKLED, Source, open_file, open_folder, pickles_of, read_config
from anyorder.models.config import ModelConfig
from anyorder.models.network import NetworkConfig, config_of, fields_of

OURS = "anyorder"
BESIDE_TOKENIZER = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json")


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote.

    Args:
        layout: of the new folder: "anyorder" or a family.
        num_tensors, num_params: in the new folder.
        note: which of several sets of weights in the file these are, "" if there is one.
    """

    folder: Path
    family: str
    layout: str
    num_tensors: int
    num_params: int
    note: str = ""


def open_checkpoint(path: Path) -> Source | None:
    """The tensors of a published checkpoint: a folder, a file, or a name of the hub; None for anything else.

    Raises:
        ValueError: a checkpoint that cannot be opened.
    """
    place = path
    if str(path).startswith(HUB):
        place = fetch(str(path))
        if place.is_dir() and not any(place.glob("*.safetensors")):
            place = fetch(str(path), PICKLES)
    if place.is_file() and place.suffix in PICKLED:
        beside = read_config(place.parent) if (place.parent / CONFIG).exists() else {}
        return open_pickle(place, config=beside if is_published(beside) else {})
    if place.is_file():
        source = open_file(place) if place.suffix == ".safetensors" else None
        return None if source is None or (source.config and not is_published(source.config)) else source
    config = read_config(place) if (place / CONFIG).exists() else {}
    if config and not is_published(config):
        return None
    if any(place.glob("*.safetensors")):
        return open_folder(place, config=config)
    if place.is_dir() and pickles_of(place):
        return open_pickles(place, config=config)
    return open_folder(place, config=config) if config else None


def convert(
    path: Path,
    out: Path,
    *,
    to: str | None = None,
    tokenizer: Path | None = None,
    dtype: torch.dtype | None = None,
    heads: int | None = None,
) -> Converted:
    """Write a published checkpoint as a model folder of ours, or one of ours in the layout of a family (`to`).

    Args:
        tokenizer: tokenizer.json of a checkpoint that has none beside it, its folder, or a name of the hub.
        dtype: of the new weights; None: as they are.
        heads: attention heads of a checkpoint that has no configuration.
    Raises:
        ValueError: nothing there, an unknown layout, one that cannot hold the model, or a fault of the checkpoint.
    """
    if to is not None and to not in (OURS, *FAMILIES):
        raise ValueError(f"to={to!r}: unknown; {nearest(to, (OURS, *FAMILIES))}")
    if out.exists():
        raise ValueError(f"{out}: is there already; name a new folder")
    source = open_checkpoint(path)
    if source is None:
        if to in (None, OURS):
            raise ValueError(
                f"{path}: is a model of ours already; name the layout it is to have, --to {nearest('', FAMILIES)}"
            )
        return _to_theirs(model_folder(path), out, family=str(to), dtype=dtype)
    if to not in (None, OURS):
        raise ValueError(f"{path}: is a published checkpoint; convert it to a folder of ours first, without --to")
    return _to_ours(source, out, tokenizer=tokenizer, dtype=dtype, heads=heads)


def _to_ours(
    source: Source, out: Path, *, tokenizer: Path | None, dtype: torch.dtype | None, heads: int | None
) -> Converted:
    if tokenizer is not None and str(tokenizer).startswith(HUB):
        tokenizer = fetch(str(tokenizer), SETTINGS)
    checkpoint = published(source, heads=heads, tokenizer=tokenizer)
    read = published_tokenizer(checkpoint, tokenizer or source.folder)
    config = checkpoint.plan.config

    def fill(place: Path) -> None:
        tensors = stream(checkpoint.source, checkpoint.tensors, held=lambda stored: dtype or stored)
        files = write_tensors(place, tensors)
        read.save(place)
        keep_beside(place, settings=source.folder, tokenizer=tokenizer or source.folder)
        about = describe(place, files, config=config, vocab=read.vocab, tokenizer=read)
        about["published"] = {
            "family": checkpoint.name,
            "config": dict(checkpoint.source.config),
            "scalars": checkpoint.scalars(),
        }
        (place / CONFIG).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    write_folder(out, fill)
    shapes = [shape for _, shape in shapes_of(config, read.vocab)]
    number = sum(map(math.prod, shapes))
    return Converted(out, checkpoint.name, OURS, len(shapes), number, note=checkpoint.source.note)


def _to_theirs(folder: Path, out: Path, *, family: str, dtype: torch.dtype | None) -> Converted:
    about = read_about(folder)
    read, source = own_tokenizer(folder, about), own_source(folder, about)
    plan, config = _plan(about, read.vocab, family, str(folder))
    tensors = tuple(FAMILIES[family].parts(plan))
    scalars = (about.get("published") or {}).get("scalars", {})
    constants = FAMILIES[family].constants(plan, config | scalars)

    def fill(place: Path) -> None:
        theirs = restream(source.read, tensors)
        kept = ((name, t if dtype is None else t.to(dtype)) for name, t in theirs)
        write_tensors(place, itertools.chain(kept, constants.items()), metadata={"format": "pt"})
        read.save(place)
        keep_beside(place, settings=folder, tokenizer=folder)
        (place / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")

    write_folder(out, fill)
    number = len(tensors) + len(constants)
    return Converted(out, family, family, number, sum(math.prod(part.shape) for _, part in tensors))


def keep_beside(place: Path, *, settings: Path, tokenizer: Path) -> None:
    """Copy what lies beside a published model and others read: settings of its tokenizer, chat template, generation."""
    named = [tokenizer_file(tokenizer).parent / name for name in BESIDE_TOKENIZER]
    for file in [settings / "generation_config.json", *named]:
        if file.is_file():
            shutil.copyfile(file, place / file.name)


def _plan(about: Mapping[str, Any], vocab: Vocab, family: str, where: str) -> tuple[Plan, dict[str, Any]]:
    """How a family says what this model is; the configuration it came with, if it came in this layout.

    Raises:
        ValueError: a family that cannot say it.
    """
    config = config_of(about["model"], source=where)
    origin = about.get("published") or {}
    write = FAMILIES[family].write
    if origin.get("family") == family:
        written = dict(origin["config"])
    elif write is None or not isinstance(config, ModelConfig):
        raise ValueError(f"{where}: {family} has no word for this network; choose another --to")
    else:
        written = write(config, vocab)
    plan = FAMILIES[family].read(Fields(written, f"{where} as {family}"))
    found, asked = _plain(plan.config, vocab), _plain(config, vocab)
    lost = [key for key in asked if found.get(key) != asked[key]]
    if lost:
        said = ", ".join(f"{key}={asked[key]!r}" for key in lost)
        raise ValueError(f"{where}: {family} has no word for {said}; choose another --to")
    try:
        mask = plan.vocab(mask_id=vocab.mask_id, eos_id=vocab.eos_id).mask_id
    except ValueError:  # it has no row there
        mask = None
    if mask != vocab.mask_id:
        raise ValueError(f"{where}: the mask, id {vocab.mask_id}, has another place in {family}; choose another --to")
    return plan, written


def _plain(c: NetworkConfig, vocab: Vocab) -> dict[str, Any]:
    """A configuration without what may be said in two ways."""
    if not isinstance(c, ModelConfig):
        return fields_of(c)
    start = (vocab.eos_id if c.start_id is None else c.start_id) if c.causal else None
    same = {"embed_rows": None, "start_id": start, "num_kv_heads": c.kv_heads, "head_width": c.d_head}
    return c.model_copy(update=same).model_dump()
