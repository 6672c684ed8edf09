"""Read a model back, strictly: a folder of ours (every key, shape, checksum) or a published checkpoint."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anyorder.core.files import sha256_of
from anyorder.core.types import Vocab
from anyorder.data.hub_tokenizer import HubTokenizer, read_hub_tokenizer, special_id, tokenizer_file
from anyorder.data.tokenizer import FILE, Tokenizer, is_ours, load_tokenizer
from anyorder.hub.bare import ILM_KEY
from anyorder.hub.families import FAMILIES
from anyorder.hub.parts import same_parts
from anyorder.hub.published import Held, Published, published, stream
from anyorder.hub.save import FORMAT
from anyorder.hub.source import CONFIG, WEIGHTS, Source, entries_of, open_folder, read_config
from anyorder.models.config import ModelConfig
from anyorder.models.network import Network, NetworkConfig, config_of, fields_of, network, without_values


@dataclass(frozen=True)
class LoadedModel:
    """A network and its tokenizer; `kind` is "mdm", "arm" or "ilm"."""

    kind: str
    model: Network
    tokenizer: Tokenizer


def load_model(
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    bos: str | None = None,
) -> LoadedModel:
    """The model of a folder, in evaluation mode; activations in `dtype`.

    Weights stored in float32 stay float32; those stored in half precision take on `dtype`. They are read one tensor at
    a time, straight to the device: memory peaks at the model and its largest tensor.

    Args:
        bos: special token that an autoregressive model reads before every row; None: its own.
    Raises:
        ValueError: no model there, another format, a missing, truncated or altered file, tensors that do not fit, or a
            `bos` that the tokenizer or the kind of model does not have.
    """
    config = read_config(folder)
    held: Held = lambda stored: stored if stored in (torch.float32, torch.float64) else dtype  # noqa: E731
    if is_published(config):
        checkpoint = published(open_folder(folder, config=config))
        tokenizer = published_tokenizer(checkpoint, folder)
        tensors = stream(checkpoint.source, checkpoint.tensors, held=held, device=device)
        shape = _starting(checkpoint.plan.config, tokenizer, bos)
        model = build(shape, tokenizer.vocab, tensors, dtype=dtype, device=device)
        return LoadedModel(checkpoint.kind, model, tokenizer)
    about = read_about(folder)
    shape = config_of(about["model"], source=str(folder / CONFIG))
    tokenizer = own_tokenizer(folder, about)
    source = own_source(folder, about)
    parts = [(part.ours, part) for part in same_parts(shapes_of(shape, tokenizer.vocab))]
    source.check({name: part.shape for name, part in parts})
    tensors = stream(source, parts, held=held, device=device)
    model = build(_starting(shape, tokenizer, bos), tokenizer.vocab, tensors, dtype=dtype, device=device)
    return LoadedModel(about["kind"], model, tokenizer)


def _starting(config: NetworkConfig, tokenizer: Tokenizer, bos: str | None) -> NetworkConfig:
    """The configuration of a network that reads this token before every row."""
    if bos is None:
        return config
    if not isinstance(config, ModelConfig) or not config.causal:
        raise ValueError(f"bos={bos!r}: only an autoregressive model reads a token before every row; leave it out")
    return config.model_copy(update={"start_id": special_id(tokenizer, bos)})


def build(
    config: NetworkConfig,
    vocab: Vocab,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    dtype: torch.dtype,
    device: torch.device | None,
) -> Network:
    """A network whose parameters are these tensors themselves; it never has any other values."""
    with without_values():
        model = network(config, vocab, dtype=dtype)
    model.set_rope(device)
    for name, tensor in tensors:
        owner, _, last = name.rpartition(".")
        model.get_submodule(owner).register_parameter(last, torch.nn.Parameter(tensor, requires_grad=False))
    left = [name for name, p in model.named_parameters() if p.is_meta]
    assert not left, f"never read: {left}"  # names were checked before
    return model.eval()


def shapes_of(config: NetworkConfig, vocab: Vocab) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a network's parameters, made without allocating them."""
    with without_values():
        return [(name, tuple(p.shape)) for name, p in network(config, vocab).named_parameters()]


def published_tokenizer(checkpoint: Published, place: Path) -> Tokenizer:
    """The tokenizer of a checkpoint, from its folder or from the file given; one of ours if it was exported from here.

    Raises:
        ValueError: no tokenizer there, or one that does not match the embedding.
    """
    path = tokenizer_file(place)
    if path.name == FILE and path.is_file() and is_ours(path):
        own = load_tokenizer(path.parent)
        if checkpoint.plan.vocab(mask_id=None, eos_id=None) == own.vocab:
            return own
        raise ValueError(f"{path}: its {own.vocab.size} ids are not the {checkpoint.plan.size} of the checkpoint")
    if not path.exists() and place == checkpoint.source.folder:
        source, known = checkpoint.source, FAMILIES[checkpoint.name].tokenizer
        weights = source.folder if (source.folder / CONFIG).exists() else source.place
        hint = f" (the family's is {known})" if known else ""
        raise ValueError(
            f"{place}: has no {FILE}; name the one the model was trained with{hint}: "
            f"anyorder convert {weights} OUT --tokenizer FOLDER"
        )
    text, mask, eos = read_hub_tokenizer(path)
    try:
        return HubTokenizer(text, checkpoint.plan.vocab(mask_id=mask, eos_id=eos))
    except ValueError as error:
        raise ValueError(f"{path.parent}: {error}") from None


def read_about(folder: Path) -> dict[str, Any]:
    """What a model folder says of itself, as in config.json of ours; of a published checkpoint made from its files.

    Raises:
        ValueError: no model there.
    """
    about = read_config(folder)
    if is_published(about):
        return _about_published(folder, about)
    if about.get("format") != FORMAT:
        raise ValueError(f"{folder / CONFIG}: format={about.get('format')!r}, expected {FORMAT!r}")
    for key, kind in (("kind", str), ("model", dict), ("vocab", dict), ("tokenizer_hash", str), ("sha256", dict)):
        if not isinstance(about.get(key), kind):
            what = (
                f"{key}={about[key]!r:.40}: must be {'a text' if kind is str else 'an object'}"
                if key in about
                else f"key {key!r} is missing"
            )
            raise ValueError(f"{folder / CONFIG}: {what}; the file was altered, restore it")
    return about


def weights_hash(about: Mapping[str, Any]) -> str:
    """The SHA-256 of the weights; of several files, that of their hashes in the order of their names.

    Those of a published checkpoint, which names none, are computed.
    """
    named = about["sha256"] or {file.name: sha256_of(file) for file in Path(about["folder"]).glob("*.safetensors")}
    hashes = [value for _, value in sorted(named.items())]
    return str(hashes[0]) if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def is_published(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a published checkpoint."""
    return "format" not in config and any(key in config for key in ("model_type", "architectures", ILM_KEY))


def _about_published(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    checkpoint = published(open_folder(folder, config=config))
    tokenizer = published_tokenizer(checkpoint, folder)
    return {
        "kind": checkpoint.kind,
        "model": fields_of(checkpoint.plan.config),
        "vocab": dataclasses.asdict(tokenizer.vocab),
        "tokenizer_hash": tokenizer.hash,
        "sha256": {},
        "folder": str(folder),
    }


def own_tokenizer(folder: Path, about: dict[str, Any]) -> Tokenizer:
    """The tokenizer of a model folder of ours; ValueError if it is not the one its config.json names."""
    try:
        vocab = Vocab(**about["vocab"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG}: vocab: {error}; the file was altered, restore it") from None
    if about.get("tokenizer") == "published":
        tokenizer: Tokenizer = HubTokenizer(read_hub_tokenizer(folder)[0], vocab)
    else:
        tokenizer = load_tokenizer(folder)
    if tokenizer.hash != about["tokenizer_hash"]:
        raise ValueError(f"{folder}: tokenizer.json is not the one the model was trained with; restore it")
    if about["vocab"] != dataclasses.asdict(tokenizer.vocab):
        raise ValueError(f"{folder / CONFIG}: vocab is not that of tokenizer.json; the file was altered, restore it")
    return tokenizer


def own_source(folder: Path, about: dict[str, Any]) -> Source:
    """The tensors of a model folder of ours, after a look at every checksum."""
    for name in about["sha256"] or [WEIGHTS]:
        path = folder / name
        if not path.exists() or sha256_of(path) != about["sha256"].get(name):
            raise ValueError(
                f"{path}: missing, truncated or altered (its SHA-256 differs from config.json); restore it, "
                "or install anyorder again if it is the starter's"
            )
    if WEIGHTS not in about["sha256"]:
        return open_folder(folder, config=about)
    return Source(folder / WEIGHTS, folder, about, entries_of(folder / WEIGHTS))
