"""Checkpoints that come without a whole configuration: what their shapes say, and what must be said besides."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anyorder.data.hub_tokenizer import special_ids
from anyorder.hub.source import Source
from anyorder.models.config import SIZES

SMDM_MARK = "transformer.h.0.mlp.swiglu.w1.weight"
ILM_MARK = "length_output_layer.linear.weight"
ILM_TRUNK = ("encoder.0.attn_qkv.weight", "encoder.0.norm1.bias")
ILM_KEY = "nhead"  # stands in configurations of ILM, which name no model type
GIVE = "say how many with --heads"


def whole_config(source: Source, *, heads: int | None, tokenizer: Path | None) -> Mapping[str, Any]:
    """The configuration of a checkpoint, with what its shapes and its tokenizer say where it says nothing itself.

    Args:
        heads: attention heads, which no tensor shows; None: those of the published size with these shapes.
        tokenizer: the file that names the special tokens of an ILM, or its folder; None: beside the checkpoint.
    Raises:
        ValueError: shapes that do not go together, no published size has them, or an Insertion Transformer.
    """
    shapes = {name: entry.shape for name, entry in source.entries.items()}
    if ILM_MARK in shapes:
        return _ilm(shapes, source, heads) | special_ids(tokenizer or source.folder) | dict(source.config)
    if all(name in shapes for name in ILM_TRUNK):
        raise ValueError(
            f"{source.place}: is an insertion model without a stop head, as the Insertion Transformers published with "
            "ILM are; only those with one are read"
        )
    if source.config or SMDM_MARK not in shapes:
        return source.config
    named = special_ids(tokenizer or source.folder)  # its evaluation reads <s> first, its training read </s>
    return _smdm(shapes, source, heads) | {k: i for k, i in named.items() if k == "bos_token_id"}


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
    """The arguments of its public code that shapes show."""
    if heads is None and ILM_KEY not in source.config:
        raise ValueError(f"{source.place}: no tensor of ILM shows the number of attention heads; {GIVE}")
    size, d = _matrix(shapes, "embed_tokens.weight", source)
    return {
        "model_type": "ilm",
        "num_embeddings": size,
        "d_model": d,
        "dim_feedforward": _matrix(shapes, "encoder.0.mlp.0.weight", source)[0],
        "num_layers": _layers(shapes, r"encoder\.(\d+)\."),
        ILM_KEY: heads,
    }


def _matrix(shapes: Mapping[str, tuple[int, ...]], name: str, source: Source) -> tuple[int, int]:
    if len(shapes.get(name, ())) != 2:
        what = f"has shape {shapes[name]}, expected a matrix" if name in shapes else "is missing"
        raise ValueError(f"{source.place}: tensor {name!r} {what}")
    return shapes[name][0], shapes[name][1]


def _layers(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    found = (re.match(pattern, name) for name in shapes)
    return 1 + max(int(m[1]) for m in found if m is not None)
