"""Small checkpoints in published layouts, and what their networks compute: written from papers and model cards alone.

Nothing here is shared with the package: names, shapes and the forward passes are stated a second time.
"""

import json
import math

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from anyorder.core.noise import Noise

EOS, MASK = 256, 257  # ids of the tokenizer's two special tokens; the 256 bytes come first
ROWS = 264  # of embedding and head: rounded up


def byte_tokenizer(*, mask="<|mask|>"):
    """tokenizer.json of 256 bytes and the two special tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    library = Tokenizer(models.BPE({c: i for i, c in enumerate(letters)}, []))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens([AddedToken(name, special=True) for name in ("<|endoftext|>", mask) if name])
    return library.to_str()


def sentencepiece_tokenizer():
    """tokenizer.json in the style of Llama 2: ▁ for a space, <0x0A> for a byte, a space put before a text."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", "a", "b", "c", "▁a", "bc"]
    merges = [("▁", "a"), ("b", "c")]
    model = models.BPE(
        {w: i for i, w in enumerate(words)}, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True
    )
    spec = json.loads(Tokenizer(model).to_str())
    prepend = {"type": "Prepend", "prepend": "▁"}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    spec["normalizer"] = {"type": "Sequence", "normalizers": [prepend, replace]}
    back = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    spec["decoder"] = {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    spec["added_tokens"] = [{"id": i, "content": word} | flags for i, word in enumerate(words[:3])]
    return json.dumps(spec)


def random_tensors(shapes, *, seed=0):
    """Weights of these shapes: gains around 1, everything else small."""
    noise, out = Noise.of(seed).at("checkpoint"), {}
    for name, shape in shapes.items():
        n = math.prod(shape)
        z = noise.at(name).normal(torch.arange(n)).float().view(shape)
        gain = len(shape) == 1 and not name.endswith("bias")
        out[name] = 1 + 0.2 * z if gain else z * 0.5 / (math.sqrt(shape[-1]) if len(shape) > 1 else 2)
    return out


def write(folder, config, tensors, *, tokenizer=None):
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    if tokenizer is not None:
        (folder / "tokenizer.json").write_text(tokenizer)
    return folder


LLAMA = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "vocab_size": ROWS,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "eos_token_id": EOS,
    "bos_token_id": EOS,
}
SCALED = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
CONFIGS = {
    "llama": LLAMA | {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
    "llama scaled": LLAMA
    | {"model_type": "llama", "rope_scaling": SCALED, "tie_word_embeddings": True, "bos_token_id": 7},
    "llama, parameters of version 5": {k: v for k, v in LLAMA.items() if k != "rope_theta"}
    | {"model_type": "llama", "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
    "qwen2": LLAMA | {"model_type": "qwen2", "rope_theta": 1e6, "rms_norm_eps": 1e-6, "attention_bias": True},
    "qwen3": LLAMA | {"model_type": "qwen3", "head_dim": 10, "rope_theta": 1e6, "attention_bias": False},
    "dream": LLAMA | {"model_type": "Dream", "architectures": ["DreamModel"], "rope_theta": 1e6, "mask_token_id": MASK},
    "a2d-llama": LLAMA | {"model_type": "a2d-llama", "mask_token_id": MASK},
    "a2d-qwen2": LLAMA | {"model_type": "a2d-qwen2", "rope_theta": 1e6, "tie_word_embeddings": True},
    "a2d-qwen3": LLAMA | {"model_type": "a2d-qwen3", "rope_theta": 1e6, "head_dim": 10, "tie_word_embeddings": True},
    "llada": {
        "model_type": "llada",
        "architectures": ["LLaDAModelLM"],
        "d_model": 24,
        "n_layers": 2,
        "n_heads": 4,
        "n_kv_heads": 4,
        "mlp_hidden_size": 40,
        "mlp_ratio": 4,
        "vocab_size": ROWS,
        "embedding_size": ROWS,
        "max_sequence_length": 64,
        "rope": True,
        "rope_theta": 500000.0,
        "rope_full_precision": True,
        "rms_norm_eps": 1e-5,
        "layer_norm_type": "rms",
        "activation_type": "silu",
        "block_type": "llama",
        "block_group_size": 1,
        "weight_tying": False,
        "include_bias": False,
        "include_qkv_bias": False,
        "alibi": False,
        "multi_query_attention": None,
        "mask_token_id": MASK,
        "eos_token_id": EOS,
        "pad_token_id": EOS,
    },
}  # fmt: skip
CONFIGS["llada, shared keys"] = CONFIGS["llada"] | {"n_kv_heads": 2}


def llama_shapes(c):
    """Names and shapes of a Llama-like checkpoint of this configuration."""
    d, f, hd = c["hidden_size"], c["intermediate_size"], c.get("head_dim", c["hidden_size"] // c["num_attention_heads"])
    q, kv = c["num_attention_heads"] * hd, c["num_key_value_heads"] * hd
    out = {"model.embed_tokens.weight": (c["vocab_size"], d)}
    for i in range(c["num_hidden_layers"]):
        own = f"model.layers.{i}."
        for name, rows in (("q", q), ("k", kv), ("v", kv)):
            out[f"{own}self_attn.{name}_proj.weight"] = (rows, d)
            if c["model_type"] in ("qwen2", "a2d-qwen2", "Dream"):
                out[f"{own}self_attn.{name}_proj.bias"] = (rows,)
        if "qwen3" in c["model_type"]:
            out |= {f"{own}self_attn.{n}_norm.weight": (hd,) for n in "qk"}
        out[f"{own}self_attn.o_proj.weight"] = (d, q)
        out |= {f"{own}mlp.gate_proj.weight": (f, d), f"{own}mlp.up_proj.weight": (f, d)}
        out[f"{own}mlp.down_proj.weight"] = (d, f)
        out |= {f"{own}input_layernorm.weight": (d,), f"{own}post_attention_layernorm.weight": (d,)}
    out["model.norm.weight"] = (d,)
    return out if c["tie_word_embeddings"] else out | {"lm_head.weight": (c["vocab_size"], d)}


LLADA_LAYER = {  # role in Llama's names -> in LLaDA's
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "q_proj",
    "self_attn.k_proj": "k_proj",
    "self_attn.v_proj": "v_proj",
    "self_attn.o_proj": "attn_out",
    "post_attention_layernorm": "ff_norm",
    "mlp.gate_proj": "ff_proj",
    "mlp.up_proj": "up_proj",
    "mlp.down_proj": "ff_out",
}


def llada_as_llama(c):
    """The same network's configuration in Llama's words."""
    return {
        "model_type": "a2d-llama",
        "hidden_size": c["d_model"],
        "intermediate_size": c["mlp_hidden_size"],
        "num_hidden_layers": c["n_layers"],
        "num_attention_heads": c["n_heads"],
        "num_key_value_heads": c["n_kv_heads"],
        "rms_norm_eps": c["rms_norm_eps"],
        "rope_theta": c["rope_theta"],
        "vocab_size": c["embedding_size"],
        "tie_word_embeddings": c["weight_tying"],
    }


def llada_name(name):
    """What LLaDA calls a tensor of Llama's name."""
    fixed = {"model.embed_tokens": "wte", "model.norm": "ln_f", "lm_head": "ff_out"}
    stem = name.removesuffix(".weight")
    if stem in fixed:
        return f"model.transformer.{fixed[stem]}.weight"
    _, _, i, role = stem.split(".", 3)
    return f"model.transformer.blocks.{i}.{LLADA_LAYER[role]}.weight"


def shapes_of(c):
    """Names and shapes of a checkpoint with this configuration."""
    if c["model_type"] != "llada":
        return llama_shapes(c)
    return {llada_name(name): shape for name, shape in llama_shapes(llada_as_llama(c)).items()}


def expected_logits(c, tensors, x):
    """What the published network computes for ids (B, L): (B, L, rows), position i predicting token i."""
    if c["model_type"] == "llada":
        c = llada_as_llama(c)
        tensors = {name: tensors[llada_name(name)] for name in llama_shapes(c)}
    return llama_logits(c, tensors, x)


def llama_logits(c, tensors, x):
    """Llama, Qwen2, Qwen3 and Dream, in float64, a head at a time."""
    t = {name: value.double() for name, value in tensors.items()}
    causal = c["model_type"] in ("llama", "qwen2", "qwen3")
    if causal:  # position i has read the start and everything before i
        x = torch.cat([torch.full_like(x[:, :1], c["bos_token_id"]), x[:, :-1]], 1)
    h, length = t["model.embed_tokens.weight"][x], x.shape[1]
    heads, groups = c["num_attention_heads"], c["num_key_value_heads"]
    width = c.get("head_dim", c["hidden_size"] // heads)
    angles = torch.outer(torch.arange(length).double(), frequencies(c, width))

    def rms(v, gain):
        return gain * v / (v.pow(2).mean(-1, keepdim=True) + c["rms_norm_eps"]).sqrt()

    def turned(v):  # the two halves of a head are the two coordinates
        a, b = v[..., : width // 2], v[..., width // 2 :]
        return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)

    for i in range(c["num_hidden_layers"]):
        own = {n.removeprefix(f"model.layers.{i}."): v for n, v in t.items() if n.startswith(f"model.layers.{i}.")}
        y = rms(h, own["input_layernorm.weight"])
        q, k, v = (
            y @ own[f"self_attn.{n}_proj.weight"].T + own.get(f"self_attn.{n}_proj.bias", torch.zeros(()).double())
            for n in "qkv"
        )
        mixed = []
        for head in range(heads):
            of = head * groups // heads  # the key and value this head reads
            qh, kh, vh = (m[..., n * width : (n + 1) * width] for m, n in ((q, head), (k, of), (v, of)))
            if "self_attn.q_norm.weight" in own:
                qh, kh = rms(qh, own["self_attn.q_norm.weight"]), rms(kh, own["self_attn.k_norm.weight"])
            scores = turned(qh) @ turned(kh).transpose(1, 2) / math.sqrt(width)
            if causal:
                scores = scores.masked_fill(torch.ones(length, length).triu(1) > 0, -math.inf)
            mixed.append(scores.softmax(-1) @ vh)
        h = h + torch.cat(mixed, -1) @ own["self_attn.o_proj.weight"].T
        y = rms(h, own["post_attention_layernorm.weight"])
        gate = y @ own["mlp.gate_proj.weight"].T
        h = h + (gate * torch.sigmoid(gate) * (y @ own["mlp.up_proj.weight"].T)) @ own["mlp.down_proj.weight"].T
    head = t["model.embed_tokens.weight" if c["tie_word_embeddings"] else "lm_head.weight"]
    logits = rms(h, t["model.norm.weight"]) @ head.T
    if c["model_type"] == "Dream":  # the output at i-1 predicts i; the first position keeps its own
        logits = torch.cat([logits[:, :1], logits[:, :-1]], 1)
    return logits


def frequencies(c, width):
    """Radians per position of each pair of channels."""
    parameters = c.get("rope_parameters") or c.get("rope_scaling") or {}
    base = parameters.get("rope_theta") or c["rope_theta"]
    out = []
    for i in range(width // 2):
        f = base ** (-2 * i / width)
        if parameters.get("rope_type") == "llama3":
            length = 2 * math.pi / f  # positions of one turn
            slow = parameters["original_max_position_embeddings"] / parameters["low_freq_factor"]
            fast = parameters["original_max_position_embeddings"] / parameters["high_freq_factor"]
            if length > slow:
                f = f / parameters["factor"]
            elif length > fast:
                span = parameters["high_freq_factor"] - parameters["low_freq_factor"]
                smooth = (
                    parameters["original_max_position_embeddings"] / length - parameters["low_freq_factor"]
                ) / span
                f = (1 - smooth) * f / parameters["factor"] + smooth * f
        out.append(f)
    return torch.tensor(out, dtype=torch.float64)


SMDM = {"layers": 2, "heads": 4, "width": 24, "ffn": 40}


def smdm_shapes(s=SMDM, *, causal, size=259):
    """Names and shapes of SMDM: queries, keys and values of a head lie together, head after head."""
    d, f = s["width"], s["ffn"]
    out = {"lm_head.weight": (size, d), "transformer.wte.weight": (size if causal else size + 1, d)}
    for i in range(s["layers"]):
        own = f"transformer.h.{i}."
        out |= {f"{own}norm_1.weight": (d,), f"{own}attn.attn.weight": (3 * d, d), f"{own}attn.proj.weight": (d, d)}
        out |= {f"{own}norm_2.weight": (d,), f"{own}mlp.swiglu.w1.weight": (f, d), f"{own}mlp.swiglu.w2.weight": (f, d)}
        out[f"{own}mlp.swiglu.w3.weight"] = (d, f)
    return out | {"transformer.ln_f.weight": (d,)}


def smdm_tables(length, width, *, dtype=torch.float32):
    """Cosines and sines of each position and pair of channels, every step of the angle rounded to `dtype`."""
    step = 1.0 / 10000 ** (torch.arange(0, width, 2).to(dtype) / width)
    angle = torch.arange(length).to(dtype)[:, None] * step
    return angle.cos(), angle.sin()


def smdm_logits(tensors, x, *, causal, start, rounded=True, heads=SMDM["heads"]):
    """SMDM in float64; cosines and sines of float32 angles, rounded to bfloat16."""
    t = {name: value.double() for name, value in tensors.items()}
    if causal:
        x = torch.cat([torch.full_like(x[:, :1], start), x[:, :-1]], 1)
    h, length = t["transformer.wte.weight"][x], x.shape[1]
    d, width = h.shape[-1], h.shape[-1] // heads

    def rms(v, gain):
        return gain * v / (v.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()

    cos, sin = smdm_tables(length, width) if rounded else smdm_tables(length, width, dtype=torch.float64)
    cos, sin = (table.bfloat16().double() if rounded else table for table in (cos, sin))

    def turned(v):
        a, b = v[..., : width // 2], v[..., width // 2 :]
        return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)

    for i in range(SMDM["layers"]):
        own = {n.removeprefix(f"transformer.h.{i}."): v for n, v in t.items() if n.startswith(f"transformer.h.{i}.")}
        fused = rms(h, own["norm_1.weight"]) @ own["attn.attn.weight"].T
        mixed = []
        for head in range(heads):
            q, k, v = fused[..., 3 * width * head : 3 * width * (head + 1)].split(width, -1)
            scores = turned(q) @ turned(k).transpose(1, 2) / math.sqrt(width)
            if causal:
                scores = scores.masked_fill(torch.ones(length, length).triu(1) > 0, -math.inf)
            mixed.append(scores.softmax(-1) @ v)
        h = h + torch.cat(mixed, -1) @ own["attn.proj.weight"].T
        y = rms(h, own["norm_2.weight"])
        gate = y @ own["mlp.swiglu.w1.weight"].T
        h = h + (gate * torch.sigmoid(gate) * (y @ own["mlp.swiglu.w2.weight"].T)) @ own["mlp.swiglu.w3.weight"].T
    assert d == heads * width
    return rms(h, t["transformer.ln_f.weight"]) @ t["lm_head.weight"].T


MDLM = {
    "model_type": "mdlm",
    "hidden_dim": 24,
    "cond_dim": 10,
    "n_blocks": 2,
    "n_heads": 2,
    "model_length": 32,
    "vocab_size": ROWS,
    "dropout": 0.1,
    "time_conditioning": False,
    "return_dict": False,
}
DITS = {
    "mdlm": MDLM,
    "bd3lm": MDLM | {"model_type": "bd3lm", "block_size": 4, "adaln": True, "attn_backend": "flex", "causal": False},
    "bd3lm, full attention": MDLM | {"model_type": "bd3lm", "block_size": 4, "adaln": True, "cross_attn": False},
    "bd3lm, no modulation": MDLM | {"model_type": "bd3lm", "block_size": 3, "adaln": False},
}


def dit_shapes(c):
    """Names and shapes of the weights of MDLM and BD3-LM."""
    d, given, size = c["hidden_dim"], c["cond_dim"], c["vocab_size"]
    modulated = c.get("adaln", True)
    out = {"vocab_embed.embedding": (size, d)}
    if modulated:
        out |= {"sigma_map.mlp.0.weight": (given, 256), "sigma_map.mlp.0.bias": (given,)}
        out |= {"sigma_map.mlp.2.weight": (given, given), "sigma_map.mlp.2.bias": (given,)}
    for i in range(c["n_blocks"]):
        own = f"blocks.{i}."
        out |= {f"{own}norm1.weight": (d,), f"{own}attn_qkv.weight": (3 * d, d), f"{own}attn_out.weight": (d, d)}
        out |= {f"{own}norm2.weight": (d,), f"{own}mlp.0.weight": (4 * d, d), f"{own}mlp.0.bias": (4 * d,)}
        out |= {f"{own}mlp.2.weight": (d, 4 * d), f"{own}mlp.2.bias": (d,)}
        if modulated:
            out |= {f"{own}adaLN_modulation.weight": (6 * d, given), f"{own}adaLN_modulation.bias": (6 * d,)}
    last = "output_layer."
    out |= {f"{last}norm_final.weight": (d,), f"{last}linear.weight": (size, d), f"{last}linear.bias": (size,)}
    if modulated:
        out |= {f"{last}adaLN_modulation.weight": (2 * d, given), f"{last}adaLN_modulation.bias": (2 * d,)}
    return {f"backbone.{name}": shape for name, shape in out.items()}


def dit_buffers(c):
    """What their classes register beside weights: a file of theirs holds it, and a strict load asks for it."""
    width = c["hidden_dim"] // c["n_heads"]
    out = {"backbone.rotary_emb.inv_freq": 1 / 10000 ** (torch.arange(0, width, 2).float() / width)}
    if c["model_type"] == "bd3lm" and c.get("var_min", True):
        out |= {"sampling_eps_min": torch.tensor(0.001), "sampling_eps_max": torch.tensor(0.999)}
    return out


def dit_logits(c, tensors, x):
    """MDLM and BD3-LM in float64: noise level 0, SUBS left to the caller; BD3-LM reads rows block by block."""
    t = {name.removeprefix("backbone."): value.double() for name, value in tensors.items()}
    d, heads, length = c["hidden_dim"], c["n_heads"], x.shape[1]
    width, silu = d // heads, torch.nn.functional.silu
    frequency = torch.tensor([math.exp(-math.log(10000) * i / 128) for i in range(128)]).double()
    level = torch.cat([(0.0 * frequency).cos(), (0.0 * frequency).sin()])
    if c.get("adaln", True):
        level = silu(t["sigma_map.mlp.0.weight"] @ level + t["sigma_map.mlp.0.bias"])
        given = silu(t["sigma_map.mlp.2.weight"] @ level + t["sigma_map.mlp.2.bias"])

    def normed(v, gain):
        centred = v - v.mean(-1, keepdim=True)
        return gain * centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()

    def chunks(own, number):
        if not c.get("adaln", True):
            return [torch.zeros(d).double() if i % 3 < 2 else torch.ones(d).double() for i in range(number)]
        return (t[f"{own}adaLN_modulation.weight"] @ given + t[f"{own}adaLN_modulation.bias"]).chunk(number)

    angles = torch.outer(
        torch.arange(length).double(), torch.tensor([10000 ** (-2 * i / width) for i in range(width // 2)]).double()
    )

    def turned(v):
        a, b = v[..., : width // 2], v[..., width // 2 :]
        return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)

    h = t["vocab_embed.embedding"][x]
    hidden = torch.zeros(length, length, dtype=torch.bool)
    if c["model_type"] == "bd3lm" and c.get("cross_attn", True):  # without it, no mask is made
        blocks = [i // c["block_size"] for i in range(length)]
        hidden = torch.tensor([[blocks[j] > blocks[i] for j in range(length)] for i in range(length)])
    for i in range(c["n_blocks"]):
        own = f"blocks.{i}."
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = chunks(own, 6)
        fused = (normed(h, t[f"{own}norm1.weight"]) * (1 + scale_a) + shift_a) @ t[f"{own}attn_qkv.weight"].T
        q, k, v = fused.view(*x.shape, 3, heads, width).unbind(2)
        mixed = []
        for n in range(heads):
            scores = turned(q[:, :, n]) @ turned(k[:, :, n]).transpose(1, 2) / math.sqrt(width)
            mixed.append(scores.masked_fill(hidden, -math.inf).softmax(-1) @ v[:, :, n])
        h = h + gate_a * (torch.cat(mixed, -1) @ t[f"{own}attn_out.weight"].T)
        y = normed(h, t[f"{own}norm2.weight"]) * (1 + scale_m) + shift_m
        y = y @ t[f"{own}mlp.0.weight"].T + t[f"{own}mlp.0.bias"]
        y = 0.5 * y * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
        h = h + gate_m * (y @ t[f"{own}mlp.2.weight"].T + t[f"{own}mlp.2.bias"])
    shift, scale = chunks("output_layer.", 2)
    h = normed(h, t["output_layer.norm_final.weight"]) * (1 + scale) + shift
    return h @ t["output_layer.linear.weight"].T + t["output_layer.linear.bias"]
