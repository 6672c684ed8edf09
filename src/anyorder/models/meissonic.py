"""Meissonic, which writes the tokens of an image: its network, made of the blocks of `diffusers` (extra `images`).

Parameters carry their published names.
"""

import importlib
from dataclasses import dataclass
from typing import Any, Final

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, PositiveInt, model_validator
from torch import Tensor, nn

from anyorder.core.types import Canvas, Vocab, take_rows
from anyorder.models.norm import RMSNorm

SINUSOIDS: Final = 256  # channels that encode each micro-condition
MICRO: Final = 5  # width, height, left and top of the crop, aesthetic score
TIMES: Final = 1e6  # the share of masks is multiplied by it: by 1,000 before the published network, and again inside
EPS: Final = 1e-6


def of_images(module: str) -> Any:
    """A module of the extra `images`.

    Raises:
        ValueError: its library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        name = module.partition(".")[0]
        raise ValueError(
            f"meissonic: needs the {name} library; install it with: pip install 'anyorder[images]'"
        ) from None


class MeissonicConfig(BaseModel, frozen=True, extra="forbid"):
    """The size of a `MeissonicNetwork`, in the words of its published configuration."""

    num_layers: PositiveInt  # blocks in which text and image have weights of their own
    num_single_layers: PositiveInt  # blocks in which they share them
    num_attention_heads: PositiveInt
    attention_head_dim: PositiveInt
    joint_attention_dim: PositiveInt  # width of the text's states
    pooled_projection_dim: PositiveInt  # width of the text's one vector
    axes_dims_rope: tuple[PositiveInt, PositiveInt, PositiveInt]  # channels of a head rotated by nothing, row, column
    vocab_size: PositiveInt  # ids that are read; the last is the mask
    codebook_size: PositiveInt  # ids that are written
    downsample: bool  # whether the blocks see a grid of half the height and width

    @model_validator(mode="after")
    def _fits(self) -> "MeissonicConfig":
        if sum(self.axes_dims_rope) != self.attention_head_dim or any(axis % 2 for axis in self.axes_dims_rope):
            raise ValueError(
                f"axes_dims_rope={list(self.axes_dims_rope)}: must be even numbers that add up to "
                f"attention_head_dim={self.attention_head_dim}"
            )
        if self.pooled_projection_dim != self.d_model:
            raise ValueError(
                f"pooled_projection_dim={self.pooled_projection_dim}: must be "
                f"num_attention_heads*attention_head_dim={self.d_model}"
            )
        if self.vocab_size < self.codebook_size + 2:
            raise ValueError(f"vocab_size={self.vocab_size}: must be >= codebook_size+2={self.codebook_size + 2}")
        return self

    @property
    def d_model(self) -> int:
        return self.num_attention_heads * self.attention_head_dim


@dataclass(frozen=True)
class Prompts:
    """What images are asked for, as the network reads it. Number 0 is the negative prompt.

    Args:
        states: of each token of the text.
        pooled: of the whole text.
        micro: width and height in pixels, left and top of the crop, aesthetic score.
    """

    states: Float[Tensor, "P S C"]
    pooled: Float[Tensor, "P D"]
    micro: Float[Tensor, "P 5"]


class MeissonicNetwork(nn.Module):
    """Logits of image tokens, given the tokens, a text, five figures about the image, and the share of masks.

    Axes: B rows, H and W of the token grid, S text tokens.

    Raises:
        ValueError: `diffusers` is not installed.
    Source:
        arXiv:2410.08261 and its public code.
    """

    def __init__(self, config: MeissonicConfig) -> None:
        super().__init__()
        embeddings = of_images("diffusers.models.embeddings")
        flux = of_images("diffusers.models.transformers.transformer_flux")
        uvit = of_images("diffusers.models.unets.uvit_2d")
        self.config, d = config, config.d_model
        heads = (d, config.num_attention_heads, config.attention_head_dim)
        self.embed = uvit.UVit2DConvEmbed(d, d, config.vocab_size, True, EPS, False)
        self.down_block = nn.ModuleDict(_halving(d) if config.downsample else {})
        self.project_to_hidden_norm, self.project_to_hidden = RMSNorm(d, eps=EPS), nn.Linear(d, d, bias=False)
        self.context_embedder = nn.Linear(config.joint_attention_dim, d)
        self.encoder_proj_layer_norm = RMSNorm(d, eps=EPS)
        self.cond_embed = embeddings.TimestepEmbedding(MICRO * SINUSOIDS + d, d, sample_proj_bias=False)
        self.time_text_embed = embeddings.CombinedTimestepTextProjEmbeddings(d, d)
        self.pos_embed = flux.FluxPosEmbed(theta=10_000, axes_dim=list(config.axes_dims_rope))
        self.transformer_blocks = nn.ModuleList(flux.FluxTransformerBlock(*heads) for _ in range(config.num_layers))
        self.single_transformer_blocks = nn.ModuleList(
            flux.FluxSingleTransformerBlock(*heads) for _ in range(config.num_single_layers)
        )
        self.project_from_hidden_norm, self.project_from_hidden = RMSNorm(d, eps=EPS), nn.Linear(d, d, bias=False)
        self.up_block = nn.ModuleDict(_doubling(d) if config.downsample else {})
        self.mlm_layer = uvit.ConvMlmLayer(d, d, False, True, EPS, config.codebook_size)
        self._sinusoids = embeddings.get_timestep_embedding

    def forward(
        self, tokens: Int[Tensor, "B H W"], asked: Prompts, *, at: Bool[Tensor, "B H W"]
    ) -> Float[Tensor, "N V"]:
        """Logits at the N = at.sum() named places, row-major; `asked` holds a prompt a row."""
        given = self._conditioning(tokens, asked)
        x = self.embed(tokens)  # (B, D, H, W)
        for layer in self.down_block.values():
            x = layer(x)
        grid = (x.shape[2], x.shape[3])
        x = self.project_to_hidden(self.project_to_hidden_norm(x.flatten(2).mT))  # (B, places, D)
        text = self.encoder_proj_layer_norm(self.context_embedder(asked.states.to(x.dtype)))
        rope = self.pos_embed(_places(text.shape[1], grid, device=x.device))
        for block in (*self.transformer_blocks, *self.single_transformer_blocks):
            text, x = block(hidden_states=x, encoder_hidden_states=text, temb=given, image_rotary_emb=rope)
        x = self.project_from_hidden(self.project_from_hidden_norm(x)).mT.unflatten(-1, grid)
        for layer in self.up_block.values():
            x = layer(x)
        named = x.permute(0, 2, 3, 1)[at]
        logits: Tensor = self.mlm_layer(named[:, :, None, None]).flatten(1)
        return logits

    def _conditioning(self, tokens: Int[Tensor, "B H W"], asked: Prompts) -> Float[Tensor, "B D"]:
        """One vector a row, which modulates every block."""
        dtype = self.context_embedder.weight.dtype
        figures = self._sinusoids(asked.micro.flatten(), SINUSOIDS, flip_sin_to_cos=True, downscale_freq_shift=0)
        figures = figures.view(len(tokens), -1).to(dtype)
        share = (tokens == self.config.vocab_size - 1).float().mean((1, 2))
        text: Tensor = self.cond_embed(torch.cat([asked.pooled.to(dtype), figures], dim=1))
        given: Tensor = self.time_text_embed(share * TIMES, text)
        return given


def _halving(d: int) -> dict[str, nn.Module]:
    """A convolution of 2 x 2 places to one."""
    down = of_images("diffusers.models.downsampling").Downsample2D
    norm = {"norm_type": "rms_norm", "eps": EPS, "elementwise_affine": True}
    return {"downsample": down(d, use_conv=True, padding=0, name="Conv2d_0", kernel_size=2, bias=False, **norm)}


def _doubling(d: int) -> dict[str, nn.Module]:
    """A transposed convolution of one place to 2 x 2."""
    up = of_images("diffusers.models.upsampling").Upsample2D
    norm = {"norm_type": "rms_norm", "eps": EPS, "elementwise_affine": True}
    return {"upsample": up(d, use_conv_transpose=True, kernel_size=2, padding=0, bias=False, interpolate=False, **norm)}


def _places(text: int, grid: tuple[int, int], *, device: torch.device) -> Int[Tensor, "S 3"]:
    """What rotates queries and keys: nothing for text tokens, row and column for places of the grid."""
    rows, columns = (torch.arange(n, device=device) for n in grid)
    image = torch.cartesian_prod(rows.new_zeros(1), rows, columns)
    return torch.cat([image.new_zeros(text, 3), image])


class Meissonic(nn.Module):
    """A Denoiser of images of one size. A row is the number of a prompt, then the tokens of the grid, row by row.

    Rows whose prompt is hidden read the negative prompt, so `Steered(..., without="absent")` guides as published: their
    scale s is our w + 1. Image tokens that are given (inpainting) are read in both cases. The network was trained with
    the share of masks as its time, and it is told that; the public sampler tells it the number of the step instead.

    Args:
        prompts: on the device of the network.
        grid: height and width in tokens.
    Raises:
        ValueError: a grid that is not even where the network halves it.
    """

    nfe = 1

    def __init__(self, network: MeissonicNetwork, prompts: Prompts, *, grid: tuple[int, int]) -> None:
        super().__init__()
        c = network.config
        if c.downsample and (grid[0] % 2 or grid[1] % 2):
            raise ValueError(f"grid={grid}: height and width must be even, the network halves them")
        self.network, self.prompts, self.grid = network, prompts, grid
        self.vocab = Vocab(size=c.codebook_size, mask_id=c.vocab_size - 1, pad_id=c.vocab_size - 2)

    def blank(self, prompt: Int[Tensor, " B"]) -> Canvas:
        """Rows of masks for these prompts, by number, on their device.

        Raises:
            ValueError: a number that no prompt has.
        """
        last = len(self.prompts.pooled) - 1
        if any(not 0 <= number <= last for number in prompt.tolist()):
            raise ValueError(f"prompt={prompt.tolist()}: must be in [0, {last}]; 0 is the negative prompt")
        prompt = prompt.to(self.prompts.pooled.device)
        masks = prompt.new_full((len(prompt), self.grid[0] * self.grid[1]), self.vocab.mask_id)
        asked = self.network.config.vocab_size + prompt
        return Canvas.of(torch.cat([asked[:, None], masks], -1), vocab=self.vocab)

    def image(self, x: Int[Tensor, "B L"]) -> Int[Tensor, "B H W"]:
        """The tokens of the grid."""
        return x[:, 1:].reshape(len(x), *self.grid)

    def forward(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        """As `Denoiser`; a prompt is never asked for."""
        told = canvas.valid[:, 0] & (canvas.x[:, 0] != self.vocab.mask_id)
        number = torch.where(told, canvas.x[:, 0] - self.network.config.vocab_size, 0)
        asked = take_rows(self.prompts, number)
        logits: Tensor = self.network(self.image(canvas.x), asked, at=at[:, 1:].reshape(len(at), *self.grid))
        return logits
