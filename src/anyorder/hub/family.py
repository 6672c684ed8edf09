"""What a family of checkpoints is, as values: how its configuration is read, what its tensors are called."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from anyorder.core.types import Vocab
from anyorder.hub.fields import Fields
from anyorder.hub.parts import Part, dit_constants, dit_parts, ilm_constants, ilm_parts, transformer_parts
from anyorder.models.config import ModelConfig
from anyorder.models.dit import DitConfig
from anyorder.models.ilm import IlmConfig
from anyorder.models.network import NetworkConfig


@dataclass(frozen=True)
class Plan:
    """What a configuration says.

    Args:
        size: rows of the head.
        mask_id: None if the configuration does not name it; the tokenizer does then.
        eos_id: the same; of an ILM its CLS, which only the configuration names.
    """

    config: NetworkConfig
    size: int
    mask_id: int | None
    eos_id: int | None

    def vocab(self, *, mask_id: int | None, eos_id: int | None) -> Vocab:
        """Ids as the network reads them; what the configuration says goes before what is given. The mask of a causal
        or inserting network, which has none, and padding lie beyond the published ids.

        Raises:
            ValueError: nobody names the mask of a masked diffusion model, or it has no row in the table; nobody names
                CLS and BOS of an ILM.
        """
        if isinstance(self.config, IlmConfig):
            if self.eos_id is None or self.config.bos_id is None:
                raise ValueError(
                    "cls_token_id, bos_token_id: neither config.json nor the tokenizer names both; add them to "
                    "config.json"
                )
            return Vocab(size=self.size, mask_id=self.size, pad_id=self.size + 1, eos_id=self.eos_id)
        eos = self.eos_id if self.eos_id is not None else eos_id
        if self.config.causal:
            return Vocab(size=self.size, mask_id=self.size, pad_id=self.size + 1, eos_id=eos)
        mask = self.mask_id if self.mask_id is not None else mask_id
        if mask is None:
            raise ValueError(
                "mask_token_id: neither config.json nor the tokenizer names the mask; add it to config.json"
            )
        rows = self.size if isinstance(self.config, DitConfig) else self.config.embed_rows or self.size
        if mask >= rows:
            raise ValueError(f"mask_token_id={mask}: the embedding has {rows} rows; the files do not belong together")
        return Vocab(size=self.size, mask_id=mask, pad_id=max(self.size, mask + 1), eos_id=eos)


@dataclass(frozen=True)
class Family:
    """A layout of checkpoints.

    Args:
        about: one line for people.
        papers: where it is described.
        names: the published name of each role (`hub.parts`); {i} is the number of a block.
        read: a configuration into a plan.
        write: a plan into a configuration, for export; None where only checkpoints that came in this layout go back.
        model_types, architectures: what config.json says.
        buffers: patterns of names that hold no weights and are left out.
        tokenizer: where its tokenizer is, for families that publish none beside the weights.
    """

    about: str
    papers: tuple[str, ...]
    names: Mapping[str, str]
    read: Callable[[Fields], Plan]
    write: Callable[[ModelConfig, Vocab], dict[str, Any]] | None = None
    model_types: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    buffers: tuple[str, ...] = ()
    tokenizer: str = ""

    def parts(self, plan: Plan) -> Iterator[tuple[str, Part]]:
        """Published names, and what each is of ours."""
        if isinstance(plan.config, DitConfig):
            parts = dit_parts(plan.config, size=plan.size)
        elif isinstance(plan.config, IlmConfig):
            parts = ilm_parts(plan.config, size=plan.size)
        else:
            parts = transformer_parts(plan.config, size=plan.size, roles=self.names.keys())
        for part in parts:
            yield self.names[part.role].format(i=part.layer), part

    def constants(self, plan: Plan, written: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Tensors that hold no weights and that the published code wants in a file; `written`: its configuration."""
        if isinstance(plan.config, DitConfig):
            return dit_constants(plan.config, written, blocks="bd3lm" in self.model_types)
        return ilm_constants(plan.config, written) if isinstance(plan.config, IlmConfig) else {}

    def is_buffer(self, name: str) -> bool:
        """Whether a tensor of this name holds no weights."""
        return any(re.fullmatch(pattern, name) for pattern in self.buffers)

    def spare(self, plan: Plan) -> str | None:
        """The name of a head that is tied to the embedding and stored nevertheless; None for an untied one."""
        return self.names["head"] if isinstance(plan.config, ModelConfig) and plan.config.tied_head else None
