"""Checkpoints that come without a configuration: what their shapes say, and what must be said besides."""

import re
from collections.abc import Mapping
from typing import Any

from anyorder.hub.source import Source
from anyorder.models.config import SIZES

SMDM_MARK = "transformer.h.0.mlp.swiglu.w1.weight"
ILM_MARK = "length_output_layer.linear.weight"
GIVE = "say how many with --heads"


def bare_config(source: Source, *, heads: int | None) -> dict[str, Any] | None:
    """The configuration of a checkpoint that has none, from its shapes; None if its tensors are of no known kind.

    Args:
        heads: attention heads, which no tensor shows; None: those of the published size with these shapes.
    Raises:
        ValueError: shapes that do not go together, or no published size has them.
    """
    shapes = {name: entry.shape for name, entry in source.entries.items()}
    if SMDM_MARK in shapes:
        return _smdm(shapes, source, heads)
    return _ilm(shapes, source, heads) if ILM_MARK in shapes else None


def _smdm(shapes: Mapping[str, tuple[int, ...]], source: Source, heads: int | None) -> dict[str, Any]:
    f, d = _matrix(shapes, SMDM_MARK, source)
    rows, _ = _matrix(shapes, "transformer.wte.weight", source)
    size, _ = _matrix(shapes, "lm_head.weight", source)
    layers = _layers(shapes, r"transformer\.h\.(\d+)\.")
    published = [s.num_heads for s in SIZES.values() if (s.num_layers, s.d_model, s.d_ff) == (layers, d, f)]
    if heads is None and not published:
        raise ValueError(f"{source.place}: {layers} layers of width {d} are no published size of SMDM; {GIVE}")
    return {
        "model_type": "smdm",
        "vocab_size": size,
        "embedding_rows": rows,
        "n_layer": layers,
        "n_head": heads or published[0],
        "n_embd": d,
        "intermediate_size": f,
        "block_size": 2048,
        "rope_base": 10_000.0,
        "rope_bfloat16": True,
        "norm_eps": 1e-5,
    }


def _ilm(shapes: Mapping[str, tuple[int, ...]], source: Source, heads: int | None) -> dict[str, Any]:
    if heads is None:
        raise ValueError(f"{source.place}: no tensor of ILM shows the number of attention heads; {GIVE}")
    size, d = _matrix(shapes, "embed_tokens.weight", source)
    return {
        "model_type": "ilm",
        "vocab_size": size,
        "hidden_size": d,
        "intermediate_size": _matrix(shapes, "encoder.0.mlp.0.weight", source)[0],
        "num_layers": _layers(shapes, r"encoder\.(\d+)\."),
        "num_heads": heads,
    }


def _matrix(shapes: Mapping[str, tuple[int, ...]], name: str, source: Source) -> tuple[int, int]:
    if len(shapes.get(name, ())) != 2:
        what = f"has shape {shapes[name]}, expected a matrix" if name in shapes else "is missing"
        raise ValueError(f"{source.place}: tensor {name!r} {what}")
    return shapes[name][0], shapes[name][1]


def _layers(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    found = (re.match(pattern, name) for name in shapes)
    return 1 + max(int(m[1]) for m in found if m is not None)
