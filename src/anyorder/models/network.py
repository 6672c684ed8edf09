"""Which network a configuration is of."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from anyorder.core.config import parse_config
from anyorder.core.types import Vocab
from anyorder.models.config import ModelConfig
from anyorder.models.dit import DiT, DitConfig
from anyorder.models.ilm import Ilm, IlmConfig
from anyorder.models.inserter import Inserter
from anyorder.models.transformer import Transformer

NetworkConfig = ModelConfig | DitConfig | IlmConfig
Network = Transformer | DiT | Inserter | Ilm


def network(config: NetworkConfig, vocab: Vocab, *, dtype: torch.dtype = torch.float32) -> Network:
    """A network of this configuration, with weights that mean nothing yet."""
    if isinstance(config, DitConfig):
        return DiT(config, vocab, dtype=dtype)
    if isinstance(config, IlmConfig):
        return Ilm(config, vocab, dtype=dtype)
    return trainable(config, vocab, dtype=dtype)


def trainable(config: ModelConfig, vocab: Vocab, *, dtype: torch.dtype = torch.float32) -> Transformer | Inserter:
    """A network of ours, which has weights to begin with: `init_weights`."""
    return Inserter(config, vocab, dtype=dtype) if config.insertion else Transformer(config, vocab, dtype=dtype)


class _NoValues(TorchFunctionMode):
    """Leaves initial values out: on the meta device they are drawn by Python, which imports torch's compiler (2 s)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return named.get("tensor", args[0] if args else None)
        return func(*args, **named)


@contextmanager
def without_values() -> Iterator[None]:
    """Networks built inside have parameters with a shape and neither memory nor values."""
    with torch.device("meta"), _NoValues():
        yield


def config_of(values: dict[str, Any], *, source: str) -> NetworkConfig:
    """A configuration from its fields; one of a `DiT` or an `Ilm` says so: network: dit, network: ilm.

    Raises:
        ValueError: an unknown or missing field, or a wrong value.
    """
    rest = {key: value for key, value in values.items() if key != "network"}
    if values.get("network") == "dit":
        return parse_config(DitConfig, rest, source=source)
    if values.get("network") == "ilm":
        return parse_config(IlmConfig, rest, source=source)
    return parse_config(ModelConfig, rest, source=source)


def kind_of(config: NetworkConfig) -> str:
    """ "mdm", "arm" or "ilm": what a network of this configuration does."""
    if isinstance(config, IlmConfig) or (isinstance(config, ModelConfig) and config.insertion):
        return "ilm"
    return "arm" if config.causal else "mdm"


def own_block(model: object) -> int | None:
    """Tokens of the blocks that a network writes one after the other, as its attention was trained; None: any order."""
    return model.config.block if isinstance(model, DiT) else None


def block_to_write(model: object, block: int | None) -> int | None:
    """The block to write with: the network's own if it has one.

    Raises:
        ValueError: another block than its own.
    """
    own = own_block(model)
    if own is not None and block not in (None, own):
        raise ValueError(
            f"block={block}: the model's attention was trained on blocks of {own} tokens and it writes these; leave "
            "block out"
        )
    return own if block is None else block


def fields_of(config: NetworkConfig) -> dict[str, Any]:
    """Its fields, as `config_of` reads them."""
    named = "dit" if isinstance(config, DitConfig) else "ilm" if isinstance(config, IlmConfig) else None
    return ({} if named is None else {"network": named}) | config.model_dump()
