"""A small folder in Meissonic's published layout, and what its transformer computes.

Names, shapes and the forward pass of the transformer are stated a second time, from the paper and the public code's
behaviour; nothing is shared with the package or with diffusers. The VQ model and CLIP are their libraries' own classes.
"""

import json
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import pre_tokenizers

from anyorder.core.noise import Noise

TRANSFORMER = {
    "_class_name": "Transformer2DModel",
    "_diffusers_version": "0.30.3",
    "patch_size": 1,
    "in_channels": 64,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "pooled_projection_dim": 32,
    "guidance_embeds": False,
    "axes_dims_rope": [4, 6, 6],
    "vocab_size": 40,
    "codebook_size": 32,
    "downsample": True,
    "upsample": True,
}
PUBLISHED = TRANSFORMER | {
    "num_layers": 14,
    "num_single_layers": 28,
    "attention_head_dim": 128,
    "num_attention_heads": 8,
    "joint_attention_dim": 1024,
    "pooled_projection_dim": 1024,
    "axes_dims_rope": [16, 56, 56],
    "vocab_size": 8256,
    "codebook_size": 8192,
}


def shapes(config):
    """Names and shapes of the tensors of transformer/."""
    d, k = config["attention_head_dim"] * config["num_attention_heads"], config["attention_head_dim"]
    out = {
        "embed.embeddings.weight": (config["vocab_size"], d),
        "embed.layer_norm.weight": (d,),
        "embed.conv.weight": (d, d, 1, 1),
        "project_to_hidden_norm.weight": (d,),
        "project_to_hidden.weight": (d, d),
        "encoder_proj_layer_norm.weight": (d,),
        "cond_embed.linear_1.weight": (d, 1280 + config["pooled_projection_dim"]),
        "cond_embed.linear_2.weight": (d, d),
        "project_from_hidden_norm.weight": (d,),
        "project_from_hidden.weight": (d, d),
        "mlm_layer.conv1.weight": (d, d, 1, 1),
        "mlm_layer.layer_norm.weight": (d,),
        "mlm_layer.conv2.weight": (config["codebook_size"], d, 1, 1),
    }
    if config["downsample"]:
        for part in ("down_block.downsample", "up_block.upsample"):
            out |= {f"{part}.norm.weight": (d,), f"{part}.conv.weight": (d, d, 2, 2)}
    out |= with_bias("context_embedder", d, config["joint_attention_dim"])
    out |= with_bias("time_text_embed.timestep_embedder.linear_1", d, 256)
    for name in ("timestep_embedder.linear_2", "text_embedder.linear_1", "text_embedder.linear_2"):
        out |= with_bias(f"time_text_embed.{name}", d, d)
    for i in range(config["num_layers"]):
        block = f"transformer_blocks.{i}"
        for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0", "to_add_out"):
            out |= with_bias(f"{block}.attn.{name}", d, d)
        out |= {f"{block}.attn.{name}.weight": (k,) for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k")}
        for norm, ff in (("norm1", "ff"), ("norm1_context", "ff_context")):
            out |= with_bias(f"{block}.{norm}.linear", 6 * d, d)
            out |= with_bias(f"{block}.{ff}.net.0.proj", 4 * d, d) | with_bias(f"{block}.{ff}.net.2", d, 4 * d)
    for i in range(config["num_single_layers"]):
        block = f"single_transformer_blocks.{i}"
        for name in ("to_q", "to_k", "to_v"):
            out |= with_bias(f"{block}.attn.{name}", d, d)
        out |= {f"{block}.attn.{name}.weight": (k,) for name in ("norm_q", "norm_k")}
        out |= with_bias(f"{block}.norm.linear", 3 * d, d) | with_bias(f"{block}.proj_mlp", 4 * d, d)
        out |= with_bias(f"{block}.proj_out", d, 5 * d)
    return out


def with_bias(name, rows, columns):
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def random_weights(wanted, *, seed=0):
    """Gains around 1, biases and matrices small: a matrix keeps the size of what it multiplies."""
    noise, out = Noise.of(seed).at("meissonic"), {}
    for name, shape in wanted.items():
        z = noise.at(name).normal(torch.arange(math.prod(shape))).float().view(shape)
        if len(shape) == 1:
            out[name] = 0.2 * z + (0.0 if name.endswith("bias") else 1.0)
        else:
            out[name] = z / math.sqrt(math.prod(shape[1:]))
    return out


def write_folder(folder, *, config=TRANSFORMER):
    """The published layout with random weights; the text encoder is 24 wide, images are 4 pixels a token."""
    import diffusers
    import transformers

    (folder / "transformer").mkdir(parents=True)
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    save_file(random_weights(shapes(config)), folder / "transformer" / "diffusion_pytorch_model.safetensors")
    vq = diffusers.VQModel(
        block_out_channels=(8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=6,
        num_vq_embeddings=config["codebook_size"],
        norm_num_groups=4,
        mid_block_add_attention=False,
        lookup_from_codebook=True,
    )
    vq.load_state_dict(random_weights({name: tuple(p.shape) for name, p in vq.named_parameters()}))
    vq.save_pretrained(folder / "vqvae")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    text = transformers.CLIPTextModelWithProjection(
        transformers.CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            projection_dim=32,
            **ends,
        )
    )
    text.load_state_dict(random_weights({name: tuple(p.shape) for name, p in text.named_parameters()}))
    text.save_pretrained(folder / "text_encoder")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    about = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(about))
    return folder


@dataclass(frozen=True)
class Second:
    """The transformer once more, in float64: `weights` as in the file, one row at a time."""

    config: dict
    weights: dict

    def of(self, name):
        return self.weights[name].double()

    def linear(self, name, x):
        out = x @ self.of(f"{name}.weight").flatten(1).T
        return out + self.of(f"{name}.bias") if f"{name}.bias" in self.weights else out

    def rms(self, name, x):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * self.of(f"{name}.weight")

    def mlp(self, first, second, x, act):
        return self.linear(second, act(self.linear(first, x)))

    def given(self, tokens, pooled, micro):
        """The vector that modulates all blocks."""
        cond = torch.cat([pooled.double(), *(waves(float(v)) for v in micro)])
        text = self.mlp("cond_embed.linear_1", "cond_embed.linear_2", cond, F.silu)
        share = (tokens == self.config["vocab_size"] - 1).double().mean()
        time, name = waves(float(share) * 1e6), "time_text_embed"
        return self.mlp(f"{name}.timestep_embedder.linear_1", f"{name}.timestep_embedder.linear_2", time, F.silu) + (
            self.mlp(f"{name}.text_embedder.linear_1", f"{name}.text_embedder.linear_2", text, F.silu)
        )

    def logits(self, tokens, states, pooled, micro):
        """(H, W, V) of tokens (H, W)."""
        given = F.silu(self.given(tokens, pooled, micro))
        x = self.linear("embed.conv", self.rms("embed.layer_norm", self.of("embed.embeddings.weight")[tokens]))
        if self.config["downsample"]:
            x = self.rms("down_block.downsample.norm", x).unflatten(1, (-1, 2)).unflatten(0, (-1, 2))
            x = torch.einsum("hiwjd,odij->hwo", x, self.of("down_block.downsample.conv.weight"))
        height, width, _ = x.shape
        x = self.linear("project_to_hidden", self.rms("project_to_hidden_norm", x.flatten(0, 1)))
        text = self.rms("encoder_proj_layer_norm", self.linear("context_embedder", states.double()))
        turns = self.turns(len(text), height, width)
        for i in range(self.config["num_layers"]):
            text, x = self.double_block(f"transformer_blocks.{i}", text, x, given, turns)
        both = torch.cat([text, x])
        for i in range(self.config["num_single_layers"]):
            both = self.single_block(f"single_transformer_blocks.{i}", both, given, turns)
        x = self.linear("project_from_hidden", self.rms("project_from_hidden_norm", both[len(text) :]))
        x = x.unflatten(0, (height, width))
        if self.config["downsample"]:
            x = self.rms("up_block.upsample.norm", x)
            x = torch.einsum("hwd,doij->hiwjo", x, self.of("up_block.upsample.conv.weight"))
            x = x.flatten(2, 3).flatten(0, 1)
        return self.linear("mlm_layer.conv2", self.rms("mlm_layer.layer_norm", self.linear("mlm_layer.conv1", x)))

    def turns(self, text, height, width):
        """A complex number of modulus 1 for each token and pair of channels of a head."""
        places = [(0, 0)] * text + [(row, column) for row in range(height) for column in range(width)]
        still, *axes = self.config["axes_dims_rope"]
        angles = [
            [0.0] * (still // 2) + [at * 10_000 ** (-2 * i / n) for at, n in zip(place, axes) for i in range(n // 2)]
            for place in places
        ]
        return torch.polar(torch.ones(len(places), len(angles[0]), dtype=torch.float64), torch.tensor(angles).double())

    def heads(self, x):
        return x.unflatten(-1, (self.config["num_attention_heads"], -1))

    def attention(self, q, k, v, turns):
        """(tokens, heads, channels) each."""
        q, k = (turned(x, turns) for x in (q, k))
        weight = torch.einsum("ihk,jhk->hij", q, k) / math.sqrt(self.config["attention_head_dim"])
        return torch.einsum("hij,jhk->ihk", weight.softmax(-1), v).flatten(1)

    def double_block(self, block, text, x, given, turns):
        parts = []
        for norm, y, q, k, v, norms in (
            ("norm1_context", text, "add_q_proj", "add_k_proj", "add_v_proj", ("norm_added_q", "norm_added_k")),
            ("norm1", x, "to_q", "to_k", "to_v", ("norm_q", "norm_k")),
        ):
            change = self.linear(f"{block}.{norm}.linear", given).chunk(6)
            y_in = normal(y) * (1 + change[1]) + change[0]
            qkv = [self.heads(self.linear(f"{block}.attn.{name}", y_in)) for name in (q, k, v)]
            parts.append(
                (
                    change,
                    self.rms(f"{block}.attn.{norms[0]}", qkv[0]),
                    self.rms(f"{block}.attn.{norms[1]}", qkv[1]),
                    qkv[2],
                )
            )
        mixed = self.attention(*(torch.cat([part[i] for part in parts]) for i in (1, 2, 3)), turns)
        out = []
        mixes = (("to_add_out", "ff_context", text, mixed[: len(text)]), ("to_out.0", "ff", x, mixed[len(text) :]))
        for (change, *_), (name, ff, y, new) in zip(parts, mixes):
            _, _, gate, shift, scale, gate_ff = change
            y = y + gate * self.linear(f"{block}.attn.{name}", new)
            inner = normal(y) * (1 + scale) + shift
            out.append(y + gate_ff * self.mlp(f"{block}.{ff}.net.0.proj", f"{block}.{ff}.net.2", inner, gelu))
        return out

    def single_block(self, block, both, given, turns):
        shift, scale, gate = self.linear(f"{block}.norm.linear", given).chunk(3)
        inner = normal(both) * (1 + scale) + shift
        q, k, v = (self.heads(self.linear(f"{block}.attn.{name}", inner)) for name in ("to_q", "to_k", "to_v"))
        mixed = self.attention(self.rms(f"{block}.attn.norm_q", q), self.rms(f"{block}.attn.norm_k", k), v, turns)
        wide = gelu(self.linear(f"{block}.proj_mlp", inner))
        return both + gate * self.linear(f"{block}.proj_out", torch.cat([mixed, wide], -1))


def waves(value):
    """Cosines and sines of a figure; angles in float32, as in training: a million times a rounded frequency."""
    angle = torch.tensor(value) * torch.exp(-math.log(10_000) * torch.arange(128, dtype=torch.float32) / 128)
    return torch.cat([angle.cos(), angle.sin()]).double()


def turned(x, turns):
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * turns[:, None]
    return torch.view_as_real(pairs).flatten(-2)


def normal(x):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()


def gelu(x):
    return F.gelu(x, approximate="tanh")
