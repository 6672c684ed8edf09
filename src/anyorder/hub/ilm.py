"""The published checkpoints of insertion language models (ILM): bare tensors without a configuration.

Their layout is checked and kept; the network that reads them is not here yet.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from anyorder.core.files import write_folder
from anyorder.hub.bare import ILM_MARK
from anyorder.hub.fields import Fields
from anyorder.hub.save import write_tensors
from anyorder.hub.source import CONFIG, Source

BUFFERS = re.compile(r"encoder\.\d+\.rotary_emb\.(inv_freq|sin|cos)")
OPTIONAL = "type_embeddings.weight"  # in files of models that mark the prompt


@dataclass(frozen=True)
class Insertion:
    """A checkpoint whose names and shapes fit.

    Args:
        config: what its shapes say, and the number of heads that was given.
    """

    source: Source
    config: Mapping[str, Any]
    names: tuple[str, ...]

    @property
    def num_params(self) -> int:
        return sum(math.prod(self.source.entries[name].shape) for name in self.names)


def is_insertion(source: Source) -> bool:
    """Whether a checkpoint is one of ILM."""
    return ILM_MARK in source.entries or source.config.get("model_type") == "ilm"


def insertion(source: Source, config: Mapping[str, Any]) -> Insertion:
    """The checkpoint of a source with this configuration.

    Raises:
        ValueError: tensors that do not fit, or heads that do not divide the width.
    """
    shapes = ilm_shapes(Fields(config, str(source.place)))
    width, heads = shapes["embed_tokens.weight"][1], config["num_heads"]
    if heads < 1 or width % (2 * heads):
        raise ValueError(f"{source.place}: heads={heads}: must divide the width {width} into even parts")
    kept = {n: e for n, e in source.entries.items() if not BUFFERS.fullmatch(n)}
    Source(source.place, source.folder, config, kept).check(shapes, optional=[OPTIONAL])
    return Insertion(source, config, tuple(n for n in [*shapes, OPTIONAL] if n in kept))


def ilm_shapes(f: Fields) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a checkpoint: trunk, token head, stop head.

    Source:
        arXiv:2505.05755 (ILM), its published code.
    """
    size, d, ff = f.whole("vocab_size"), f.whole("hidden_size"), f.whole("intermediate_size")
    out: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (size, d)}
    for i in range(f.whole("num_layers")):
        own = f"encoder.{i}."
        out |= {f"{own}norm{n}.{kind}": (d,) for n in (1, 2) for kind in ("weight", "bias")}
        out |= {f"{own}attn_qkv.weight": (3 * d, d), f"{own}o_proj.weight": (d, d)}
        out |= _linear(f"{own}mlp.0", ff, d) | _linear(f"{own}mlp.2", d, ff)
    stop = "length_output_layer."
    out |= {"output_layer.linear.weight": (size, d)}
    out |= {f"{stop}norm_final.weight": (d,), f"{stop}norm_final.bias": (d,)}
    return (
        out | _linear(f"{stop}mlp.0", 2 * d, d) | _linear(f"{stop}mlp.2", d, 2 * d) | {f"{stop}linear.weight": (2, d)}
    )


def _linear(name: str, d_out: int, d_in: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (d_out, d_in), f"{name}.bias": (d_out,)}


def keep(checkpoint: Insertion, out: Path) -> None:
    """Write the tensors under their own names as safetensors, with a config.json."""

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name in checkpoint.names:
            yield name, checkpoint.source.read(name, any_values=name == OPTIONAL).clone()  # may be zeros to fill a file

    def fill(place: Path) -> None:
        write_tensors(place, tensors(), metadata={"format": "pt"})
        (place / CONFIG).write_text(json.dumps(dict(checkpoint.config), indent=1) + "\n", encoding="utf-8")

    write_folder(out, fill)
