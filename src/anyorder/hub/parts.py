"""Which rows of which tensor of ours a published tensor is: the roles that a family of checkpoints gives names to."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anyorder.models.config import ModelConfig
from anyorder.models.dit import SINUSOIDS, DitConfig
from anyorder.models.ilm import IlmConfig


@dataclass(frozen=True)
class Part:
    """One published tensor.

    Args:
        role: what it is; a family maps roles to names.
        layer: number of its block, None outside blocks.
        ours: the tensor of ours that holds it.
        shape: as published.
        start: first row in ours.
        fused: (heads, groups, head width) of queries, keys and values in one tensor, ordered group by group: the
            queries of a group, its key, its value. None: rows in our order.
    """

    role: str
    layer: int | None
    ours: str
    shape: tuple[int, ...]
    start: int = 0
    fused: tuple[int, int, int] | None = None

    def to_ours(self, value: Tensor) -> Tensor:
        """Its rows in our order."""
        return value if self.fused is None else value[_order(*self.fused)]

    def to_theirs(self, value: Tensor) -> Tensor:
        """Its rows in the published order; inverse of `to_ours`."""
        return value if self.fused is None else value[_order(*self.fused).argsort()]


def _order(heads: int, groups: int, width: int) -> Int[Tensor, " R"]:
    """Where the rows of all queries, then all keys, then all values stand when they are ordered group by group."""
    rows = torch.arange((heads + 2 * groups) * width).view(groups, heads // groups + 2, width)
    return torch.cat([rows[:, :-2].flatten(), rows[:, -2].flatten(), rows[:, -1].flatten()])


def transformer_parts(c: ModelConfig, *, size: int, roles: Collection[str]) -> Iterator[Part]:
    """Everything a `Transformer` of this configuration is made of, in the order of its own tensors.

    Args:
        size: rows of the head; of the table too, unless `c.embed_rows` says otherwise.
        roles: those that the family names; "qkv" for a fused tensor instead of "q", "k", "v".
    """
    yield Part("embed", None, "embed.weight", (c.embed_rows or size, c.d_model))
    for i in range(c.num_layers):
        yield from _block_parts(c, i, fused="qkv" in roles)
    yield Part("norm", None, "norm.weight", (c.d_model,))
    if not c.tied_head:
        yield Part("head", None, "head.weight", (size, c.d_model))


def _block_parts(c: ModelConfig, i: int, *, fused: bool) -> Iterator[Part]:
    d, f, own = c.d_model, c.d_ff, f"blocks.{i}."
    q, kv = c.num_heads * c.d_head, c.kv_heads * c.d_head
    yield Part("attn_norm", i, f"{own}attn_norm.weight", (d,))
    if fused:
        heads = (c.num_heads, c.kv_heads, c.d_head)
        yield Part("qkv", i, f"{own}attn.qkv.weight", (q + 2 * kv, d), fused=heads)
    else:
        for role, start, rows in (("q", 0, q), ("k", q, kv), ("v", q + kv, kv)):
            yield Part(role, i, f"{own}attn.qkv.weight", (rows, d), start)
        if c.qkv_bias:
            for role, start, rows in (("q_bias", 0, q), ("k_bias", q, kv), ("v_bias", q + kv, kv)):
                yield Part(role, i, f"{own}attn.qkv.bias", (rows,), start)
    yield Part("out", i, f"{own}attn.out.weight", (d, q))
    if c.qk_norm:
        yield Part("q_norm", i, f"{own}attn.q_norm.weight", (c.d_head,))
        yield Part("k_norm", i, f"{own}attn.k_norm.weight", (c.d_head,))
    yield Part("mlp_norm", i, f"{own}mlp_norm.weight", (d,))
    yield Part("gate", i, f"{own}mlp.gate_up.weight", (f, d))
    yield Part("up", i, f"{own}mlp.gate_up.weight", (f, d), f)
    yield Part("down", i, f"{own}mlp.down.weight", (d, f))


def dit_parts(c: DitConfig, *, size: int) -> Iterator[Part]:
    """Everything a `DiT` of this configuration is made of, in the order of its own tensors."""
    d, f, given = c.d_model, c.d_ff, c.d_cond
    yield Part("embed", None, "embed.weight", (size, d))
    if given is not None:
        yield from _layer("level_1", None, "level_1", given, SINUSOIDS)
        yield from _layer("level_2", None, "level_2", given, given)
    for i in range(c.num_layers):
        own = f"blocks.{i}."
        yield Part("norm_1", i, f"{own}norm_1.weight", (d,))
        yield Part("norm_2", i, f"{own}norm_2.weight", (d,))
        yield Part("qkv", i, f"{own}qkv.weight", (3 * d, d))
        yield Part("out", i, f"{own}out.weight", (d, d))
        yield from _layer("up", i, f"{own}up", f, d)
        yield from _layer("down", i, f"{own}down", d, f)
        if given is not None:
            yield from _layer("modulation", i, f"{own}modulation", 6 * d, given)
    yield Part("norm", None, "norm.weight", (d,))
    if given is not None:
        yield from _layer("last_modulation", None, "modulation", 2 * d, given)
    yield from _layer("head", None, "head", size, d)


def ilm_parts(c: IlmConfig, *, size: int) -> Iterator[Part]:
    """Everything an `Ilm` of this configuration is made of, in the order of its own tensors."""
    d, f = c.d_model, c.d_ff
    yield Part("embed", None, "embed.weight", (size, d))
    for i in range(c.num_layers):
        own = f"blocks.{i}."
        yield from _norm("attn_norm", i, f"{own}attn_norm", d)
        yield Part("qkv", i, f"{own}attn.qkv.weight", (3 * d, d))
        yield Part("out", i, f"{own}attn.out.weight", (d, d))
        yield from _norm("mlp_norm", i, f"{own}mlp_norm", d)
        yield from _layer("up", i, f"{own}up", f, d)
        yield from _layer("down", i, f"{own}down", d, f)
    yield Part("head", None, "head.weight", (size, d))
    yield from _norm("stop_norm", None, "stop.norm", d)
    yield from _layer("stop_up", None, "stop.up", 2 * d, d)
    yield from _layer("stop_down", None, "stop.down", d, 2 * d)
    yield Part("stop_out", None, "stop.out.weight", (2, d))


def _norm(role: str, layer: int | None, ours: str, d: int) -> Iterator[Part]:
    yield Part(f"{role}.weight", layer, f"{ours}.weight", (d,))
    yield Part(f"{role}.bias", layer, f"{ours}.bias", (d,))


def _layer(role: str, layer: int | None, ours: str, d_out: int, d_in: int) -> Iterator[Part]:
    yield Part(f"{role}.weight", layer, f"{ours}.weight", (d_out, d_in))
    yield Part(f"{role}.bias", layer, f"{ours}.bias", (d_out,))


def dit_constants(c: DitConfig, written: Mapping[str, Any], *, blocks: bool) -> dict[str, Tensor]:
    """What the published classes of MDLM and BD3-LM keep beside weights: a strict load of theirs wants it.

    Args:
        written: the published configuration.
        blocks: of BD3-LM, which also keeps the range of mask rates it was trained with.
    """
    out = {"backbone.rotary_emb.inv_freq": _frequencies(c.d_head)}
    if blocks and written.get("var_min", True):
        for key, usual in (("sampling_eps_min", 1e-3), ("sampling_eps_max", 0.999)):
            out[key] = torch.tensor(float(written.get(key, usual)))
    return out


def ilm_constants(c: IlmConfig, written: Mapping[str, Any]) -> dict[str, Tensor]:
    """The same of ILM: frequencies in every block, and the type embeddings, zeros here since they are never added."""
    out = {f"encoder.{i}.rotary_emb.inv_freq": _frequencies(c.rotary_width) for i in range(c.num_layers)}
    kept = written.get("keep_type_embeddings", True)
    return out | ({"type_embeddings.weight": torch.zeros(2, c.d_model)} if kept else {})


def _frequencies(width: int) -> Float[Tensor, " H"]:
    """Radians per position of each pair of channels, in float32 as in their code."""
    return 1.0 / (10_000 ** (torch.arange(0, width, 2).float() / width))


def same_parts(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> Iterator[Part]:
    """Tensors that are published as they are."""
    for name, shape in shapes:
        yield Part(name, None, name, shape)
