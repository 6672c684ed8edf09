"""Published checkpoints as data: LLaDA, Dream, SMDM, MDLM, ILM, Llama, Qwen2, Qwen3 and their A2D conversions.

Every value comes from the checkpoint's own config.json; where a field may be left out there, what its absence means in
that format stands here as a default. A field with another value than the network here has stops the reading.
"""

from collections.abc import Mapping
from typing import Any

from anyorder.core.config import parse_config
from anyorder.core.types import Vocab
from anyorder.data.hub_tokenizer import SPECIAL_IDS
from anyorder.hub.family import Family, Plan
from anyorder.hub.fields import Fields
from anyorder.hub.names import DIT_NAMES, ILM_NAMES, LLADA_NAMES, LLAMA_NAMES, SMDM_NAMES
from anyorder.models.config import ModelConfig
from anyorder.models.dit import DitConfig
from anyorder.models.ilm import IlmConfig

DIT_BUFFERS = (r"backbone\.rotary_emb\.inv_freq", r"backbone\.block_diff_mask", r"sampling_eps_(min|max)")
ILM_BUFFERS = (r"encoder\.\d+\.rotary_emb\.(inv_freq|sin|cos)", r"type_embeddings\.weight")  # these are never added
ILM_ONLY = {"final_layer_without_normalization": True, "input_constraint": False}
LLAMA_ONLY = {
    "hidden_act": "silu",
    "mlp_bias": False,
    "use_sliding_window": False,
    "use_mrope": False,
    "partial_rotary_factor": 1.0,
    "pretraining_tp": 1,
    "attention_bias": False,
}
QWEN2_ONLY = {key: value for key, value in LLAMA_ONLY.items() if key != "attention_bias"}  # some say so, some do not
DREAM_ONLY = QWEN2_ONLY | {"architectures": ["DreamModel"]}
LLADA_ONLY = {
    "block_type": "llama",
    "block_group_size": 1,
    "activation_type": "silu",
    "layer_norm_type": "rms",
    "rope": True,
    "alibi": False,
    "include_bias": False,
    "bias_for_layer_norm": False,
    "attention_layer_norm": False,
    "input_emb_norm": False,
    "scale_logits": False,
    "multi_query_attention": False,
}
LLADA_NEVER = {"rope_scaling": None, "rope_parameters": None, "partial_rotary_factor": 1.0, "clip_qkv": None}


def _llama_like(
    f: Fields, *, only: Mapping[str, Any], causal: bool, qkv_bias: bool, qk_norm: bool, shift_logits: bool
) -> Plan:
    f.only(only)
    layers = f.values.get("layer_types") or []
    if not isinstance(layers, list) or any(kind != "full_attention" for kind in layers):
        raise ValueError(f"{f.source}: layer_types={layers!r:.80}: only 'full_attention' is supported here")
    base, scaling = f.rope(default_base=None if qkv_bias or qk_norm else 10_000.0)
    size, heads = f.whole("vocab_size"), f.whole("num_attention_heads")
    eos, bos = f.token("eos_token_id"), f.token("bos_token_id")
    config = ModelConfig(
        num_layers=f.whole("num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=f.whole("num_key_value_heads", None if qkv_bias or qk_norm else heads),
        head_width=f.whole("head_dim") if qk_norm or f.has("head_dim") else None,
        d_model=f.whole("hidden_size"),
        d_ff=f.whole("intermediate_size"),
        max_length=f.whole("max_position_embeddings"),
        causal=causal,
        rope_base=base,
        rope_scaling=scaling,
        norm_eps=f.number("rms_norm_eps"),
        qkv_bias=qkv_bias,
        qk_norm=qk_norm,
        tied_head=f.flag("tie_word_embeddings", False),
        shift_logits=shift_logits,
        embed_rows=size,
        start_id=bos if causal else None,
    )
    return Plan(config, size, None if causal else f.token("mask_token_id"), eos)


def _llada(f: Fields) -> Plan:
    f.only(LLADA_ONLY | LLADA_NEVER)
    size = f.whole("embedding_size", f.whole("vocab_size"))
    config = ModelConfig(
        num_layers=f.whole("n_layers"),
        num_heads=f.whole("n_heads"),
        num_kv_heads=f.whole("n_kv_heads", f.whole("n_heads")),
        d_model=f.whole("d_model"),
        d_ff=f.whole("mlp_hidden_size"),
        max_length=f.whole("max_sequence_length"),
        rope_base=f.number("rope_theta"),
        norm_eps=f.number("rms_norm_eps"),
        qkv_bias=f.flag("include_qkv_bias", False),
        tied_head=f.flag("weight_tying", False),
        rope="float32" if f.flag("rope_full_precision", True) else "activations",
        embed_rows=size,
    )
    return Plan(config, size, f.token("mask_token_id"), f.token("eos_token_id"))


def _smdm(f: Fields) -> Plan:
    """SMDM publishes no configuration; `hub.bare` makes this one from shapes. The mask is one row after the head's."""
    size, rows = f.whole("vocab_size"), f.whole("embedding_rows")
    causal = rows == size
    if rows not in (size, size + 1):
        raise ValueError(f"{f.source}: embedding_rows={rows}: must be vocab_size={size}, or one more for the mask")
    config = ModelConfig(
        num_layers=f.whole("n_layer"),
        num_heads=f.whole("n_head"),
        num_kv_heads=f.whole("n_query_groups", f.whole("n_head")),
        d_model=f.whole("n_embd"),
        d_ff=f.whole("intermediate_size"),
        max_length=f.whole("block_size"),
        causal=causal,
        rope_base=f.number("rope_base"),
        norm_eps=f.number("norm_eps"),
        rope="bfloat16" if f.flag("rope_bfloat16", True) else "activations",
        embed_rows=rows,
        start_id=f.token("bos_token_id") if causal else None,
    )
    return Plan(config, size, None if causal else size, f.token("eos_token_id"))


def _dit(f: Fields, *, blocks: bool) -> Plan:
    """The mask is the last id. The files name no end of document; the tokenizer does.

    Without `cross_attn` a BD3-LM was trained with full attention, as MDLM, and is read so: it has no blocks.
    """
    f.only({"time_conditioning": False, "causal": False})
    blocks = blocks and f.flag("cross_attn", True)
    width, size = f.whole("hidden_dim"), f.whole("vocab_size")
    config = DitConfig(
        num_layers=f.whole("n_blocks"),
        num_heads=f.whole("n_heads"),
        d_model=width,
        d_ff=4 * width,
        d_cond=f.whole("cond_dim") if f.flag("adaln", True) else None,
        max_length=f.whole("model_length"),
        block=f.whole("block_size") if blocks else None,
    )
    return Plan(config, size, size - 1, f.token("eos_token_id"))


def _ilm(f: Fields) -> Plan:
    """Fields are the arguments of its public code, and ids of special tokens, which `hub.bare` adds."""
    f.only(ILM_ONLY)
    size, width = f.whole("num_embeddings"), f.whole("d_model")
    named = {key: i for key in SPECIAL_IDS if (i := f.token(key)) is not None}
    for key, i in named.items():
        if i >= size:
            raise ValueError(f"{f.source}: {key}={i}: the embedding has {size} rows; the files do not belong together")
    values = {
        "num_layers": f.whole("num_layers"),
        "num_heads": f.whole("nhead"),
        "d_model": width,
        "d_ff": f.whole("dim_feedforward", 4 * width),
        "max_length": f.whole("max_length", 1024),
        "activation": f.values.get("activation", "relu"),
        "rotary_width": f.whole("rotary_emb_dim", 64),
        "norm_eps": f.number("layer_norm_eps", 1e-5),
        "bos_id": named.get("bos_token_id"),
        "closed": tuple(sorted({i for key, i in named.items() if key != "cls_token_id"})),
    }
    return Plan(parse_config(IlmConfig, values, source=f.source), size, None, named.get("cls_token_id"))


def _write_llama_like(c: ModelConfig, vocab: Vocab, *, model_type: str, architecture: str) -> dict[str, Any]:
    scaling = None if c.rope_scaling is None else {"rope_type": "llama3", **c.rope_scaling.model_dump()}
    return {
        "model_type": model_type,
        "architectures": [architecture],
        "vocab_size": vocab.size,
        "hidden_size": c.d_model,
        "intermediate_size": c.d_ff,
        "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.d_head,
        "max_position_embeddings": c.max_length,
        "rope_theta": c.rope_base,
        "rope_scaling": scaling,
        "rms_norm_eps": c.norm_eps,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": c.tied_head,
        "bos_token_id": vocab.eos_id if c.start_id is None else c.start_id,
        "eos_token_id": vocab.eos_id,
    } | ({} if c.causal else {"mask_token_id": vocab.mask_id})


def _write_llada(c: ModelConfig, vocab: Vocab) -> dict[str, Any]:
    return {
        "model_type": "llada",
        "architectures": ["LLaDAModelLM"],
        "vocab_size": vocab.size,
        "embedding_size": vocab.size,
        "d_model": c.d_model,
        "mlp_hidden_size": c.d_ff,
        "n_layers": c.num_layers,
        "n_heads": c.num_heads,
        "n_kv_heads": c.kv_heads,
        "max_sequence_length": c.max_length,
        "rope_theta": c.rope_base,
        "rope_full_precision": c.rope == "float32",
        "rms_norm_eps": c.norm_eps,
        "include_qkv_bias": c.qkv_bias,
        "weight_tying": c.tied_head,
        "mask_token_id": vocab.mask_id,
        "eos_token_id": vocab.eos_id,
        **LLADA_ONLY,
    }


def _write_smdm(c: ModelConfig, vocab: Vocab) -> dict[str, Any]:
    return {
        "model_type": "smdm",
        "vocab_size": vocab.size,
        "embedding_rows": vocab.size if c.causal else vocab.size + 1,
        "n_layer": c.num_layers,
        "n_head": c.num_heads,
        "n_query_groups": c.kv_heads,
        "n_embd": c.d_model,
        "intermediate_size": c.d_ff,
        "block_size": c.max_length,
        "rope_base": c.rope_base,
        "rope_bfloat16": c.rope == "bfloat16",
        "norm_eps": c.norm_eps,
        "eos_token_id": vocab.eos_id,
    } | ({"bos_token_id": vocab.eos_id if c.start_id is None else c.start_id} if c.causal else {})


def _like_llama(
    about: str,
    *papers: str,
    model_type: str,
    architecture: str,
    causal: bool,
    qkv_bias: bool = False,
    qk_norm: bool = False,
    shift_logits: bool = False,
    only: Mapping[str, Any] = LLAMA_ONLY,
) -> Family:
    return Family(
        about=about,
        papers=papers,
        names=LLAMA_NAMES,
        read=lambda f: _llama_like(
            f, only=only, causal=causal, qkv_bias=qkv_bias, qk_norm=qk_norm, shift_logits=shift_logits
        ),
        write=lambda c, vocab: _write_llama_like(c, vocab, model_type=model_type, architecture=architecture),
        model_types=(model_type, model_type.lower()),
        architectures=(architecture,),
        buffers=(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",),
    )


FAMILIES: dict[str, Family] = {
    "llada": Family(
        about="LLaDA-8B Base and Instruct, LLaDA-1.5: masked diffusion",
        papers=("arXiv:2502.09992",),
        names=LLADA_NAMES,
        read=_llada,
        write=_write_llada,
        model_types=("llada",),
        architectures=("LLaDAModelLM",),
    ),
    "dream": _like_llama(
        "Dream-7B, Dream-Coder-7B: masked diffusion, logits shifted by one", "arXiv:2508.15487",
        model_type="Dream", architecture="DreamModel", causal=False, qkv_bias=True,
        shift_logits=True, only=DREAM_ONLY,
    ),
    "smdm": Family(
        about="SMDM, masked diffusion and autoregressive, every size",
        papers=("arXiv:2410.18514",),
        names=SMDM_NAMES,
        read=_smdm,
        write=_write_smdm,
        model_types=("smdm",),
        tokenizer="hub:TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T",
    ),
    "mdlm": Family(
        about="MDLM trained on OpenWebText: masked diffusion",
        papers=("arXiv:2406.07524",),
        names=DIT_NAMES,
        read=lambda f: _dit(f, blocks=False),
        model_types=("mdlm",),
        buffers=DIT_BUFFERS,
        tokenizer="hub:openai-community/gpt2",
    ),
    "bd3lm": Family(
        about="BD3-LM trained on OpenWebText: masked diffusion within blocks that are written one after the other",
        papers=("arXiv:2503.09573",),
        names=DIT_NAMES,
        read=lambda f: _dit(f, blocks=True),
        model_types=("bd3lm",),
        buffers=DIT_BUFFERS,
        tokenizer="hub:openai-community/gpt2",
    ),
    "ilm": Family(
        about="insertion language models (ILM) trained on LM1B, stories, OpenWebText, star graphs and zebra puzzles",
        papers=("arXiv:2505.05755",),
        names=ILM_NAMES,
        read=_ilm,
        model_types=("ilm",),
        buffers=ILM_BUFFERS,
    ),
    "a2d-llama": _like_llama(
        "diffusion conversions of Llama", model_type="a2d-llama", architecture="A2DLlamaLMHeadModel", causal=False
    ),
    "a2d-qwen2": _like_llama(
        "diffusion conversions of Qwen2 and Qwen2.5",
        model_type="a2d-qwen2", architecture="A2DQwen2LMHeadModel", causal=False, qkv_bias=True,
        only=QWEN2_ONLY,
    ),
    "a2d-qwen3": _like_llama(
        "diffusion conversions of Qwen3",
        model_type="a2d-qwen3", architecture="A2DQwen3LMHeadModel", causal=False, qk_norm=True,
    ),
    "llama": _like_llama(
        "Llama 2 and 3, TinyLlama: autoregressive", model_type="llama", architecture="LlamaForCausalLM", causal=True
    ),
    "qwen2": _like_llama(
        "Qwen2 and Qwen2.5: autoregressive",
        model_type="qwen2", architecture="Qwen2ForCausalLM", causal=True, qkv_bias=True, only=QWEN2_ONLY,
    ),
    "qwen3": _like_llama(
        "Qwen3: autoregressive", model_type="qwen3", architecture="Qwen3ForCausalLM", causal=True, qk_norm=True
    ),
}  # fmt: skip
