"""Which network a configuration is of."""

from typing import Any

import torch

from anyorder.core.config import parse_config
from anyorder.core.types import Vocab
from anyorder.models.config import ModelConfig
from anyorder.models.dit import DiT, DitConfig
from anyorder.models.inserter import Inserter
from anyorder.models.transformer import Transformer

NetworkConfig = ModelConfig | DitConfig
Network = Transformer | DiT | Inserter


def network(config: NetworkConfig, vocab: Vocab, *, dtype: torch.dtype = torch.float32) -> Network:
    """A network of this configuration, with weights that mean nothing yet."""
    if isinstance(config, DitConfig):
        return DiT(config, vocab, dtype=dtype)
    return trainable(config, vocab, dtype=dtype)


def trainable(config: ModelConfig, vocab: Vocab, *, dtype: torch.dtype = torch.float32) -> Transformer | Inserter:
    """A network of ours, which has weights to begin with: `init_weights`."""
    return Inserter(config, vocab, dtype=dtype) if config.insertion else Transformer(config, vocab, dtype=dtype)


def config_of(values: dict[str, Any], *, source: str) -> NetworkConfig:
    """A configuration from its fields; one of a `DiT` says so: network: dit.

    Raises:
        ValueError: an unknown or missing field, or a wrong value.
    """
    rest = {key: value for key, value in values.items() if key != "network"}
    if values.get("network") == "dit":
        return parse_config(DitConfig, rest, source=source)
    return parse_config(ModelConfig, rest, source=source)


def kind_of(config: NetworkConfig) -> str:
    """ "mdm", "arm" or "ilm": what a network of this configuration does."""
    if isinstance(config, ModelConfig) and config.insertion:
        return "ilm"
    return "arm" if config.causal else "mdm"


def fields_of(config: NetworkConfig) -> dict[str, Any]:
    """Its fields, as `config_of` reads them."""
    return ({"network": "dit"} if isinstance(config, DitConfig) else {}) | config.model_dump()
