"""Meissonic's published folder: a transformer, a VQ model, a text encoder, a tokenizer. Extra `images`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Int, UInt8
from torch import Tensor, nn

from anyorder.core.files import read_object
from anyorder.hub.fields import Fields
from anyorder.hub.source import CONFIG, Source, entries_of
from anyorder.models.meissonic import Meissonic, MeissonicConfig, MeissonicNetwork, Prompts, of_images
from anyorder.models.network import without_values

WEIGHTS: Final = "diffusion_pytorch_model.safetensors"
FILES: Final = (
    f"transformer/{CONFIG}",
    f"transformer/{WEIGHTS}",
    f"vqvae/{CONFIG}",
    f"vqvae/{WEIGHTS}",
    f"text_encoder/{CONFIG}",
    "text_encoder/model.safetensors",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
)
SOURCE: Final = "MeissonFlow/Meissonic on the hub"
TEXT_TOKENS: Final = 77  # of a prompt that are read
SCORE: Final = 6.0  # the aesthetic score that is asked for


@dataclass(frozen=True)
class Painter:
    """What paints: the network that writes image tokens, what encodes prompts for it, and what makes pixels of tokens.

    Args:
        vq: `VQModel` of diffusers.
        text, tokenizer: CLIP's, of transformers.
    """

    network: MeissonicNetwork
    vq: Any
    text: Any
    tokenizer: Any

    @property
    def scale(self) -> int:
        """Pixels a token is high and wide."""
        return int(2 ** (len(self.vq.config.block_out_channels) - 1))

    def asked(self, prompts: Sequence[str], *, negative: str = "", size: tuple[int, int] = (1024, 1024)) -> Meissonic:
        """A denoiser that paints the prompts, numbered from 1; their first 77 tokens are read, as published.

        Args:
            negative: what guidance pushes away from.
            size: height and width in pixels.
        Raises:
            ValueError: a size that is no whole (and even, if the network halves it) number of tokens.
        """
        height, width = size
        if height % self.scale or width % self.scale or min(size) < self.scale:
            raise ValueError(f"size={size}: height and width must be multiples of {self.scale} pixels")
        grid = (height // self.scale, width // self.scale)
        return Meissonic(self.network, self._encoded([negative, *prompts], size), grid=grid)

    @torch.no_grad()
    def pixels(self, tokens: Int[Tensor, "B H W"]) -> UInt8[Tensor, "B Y X 3"]:
        """The pictures that these tokens of the codebook stand for."""
        codes = self.vq.quantize.embedding(tokens).movedim(-1, 1)
        picture: Tensor = self.vq.decoder(self.vq.post_quant_conv(codes))
        return (picture.clamp(0, 1) * 255).round().to(torch.uint8).movedim(1, -1)

    @torch.no_grad()
    def _encoded(self, prompts: Sequence[str], size: tuple[int, int]) -> Prompts:
        device = self.text.device
        read = {"padding": "max_length", "truncation": True, "max_length": TEXT_TOKENS, "return_tensors": "pt"}
        said = self.text(self.tokenizer(list(prompts), **read).input_ids.to(device), output_hidden_states=True)
        micro = torch.tensor([[size[1], size[0], 0.0, 0.0, SCORE]], device=device).expand(len(prompts), -1)
        return Prompts(states=said.hidden_states[-2], pooled=said.text_embeds, micro=micro)


def load_meissonic(folder: Path, *, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> Painter:
    """The painter of a published folder, in evaluation mode; nothing is downloaded, no pickle is read.

    Args:
        dtype: of the network and the text encoder; the VQ model stays in float32.
    Raises:
        ValueError: a library or files are missing, or what is there does not fit together.
    Source:
        arXiv:2410.08261 and its public code.
    """
    absent = [str(folder / name) for name in FILES if not (folder / name).is_file()]
    if absent:
        raise ValueError(f"meissonic: missing {', '.join(absent)} ({SOURCE}); put it there, nothing is downloaded")
    vq_model, transformers = of_images("diffusers.models").VQModel, of_images("transformers")
    config = meissonic_config(read_object(folder / "transformer" / CONFIG), source=str(folder / "transformer" / CONFIG))
    network = filled(lambda: MeissonicNetwork(config), folder / "transformer" / WEIGHTS, dtype=dtype, device=device)
    about = read_object(folder / "vqvae" / CONFIG)
    Fields(about, str(folder / "vqvae" / CONFIG)).only(
        {"norm_type": "group", "num_vq_embeddings": config.codebook_size}
    )
    vq = filled(lambda: vq_model.from_config(about), folder / "vqvae" / WEIGHTS, dtype=torch.float32, device=device)
    text = _text_encoder(transformers, folder / "text_encoder", dtype=dtype).to(device)
    widths = (text.config.hidden_size, text.config.projection_dim)
    if widths != (config.joint_attention_dim, config.pooled_projection_dim):
        raise ValueError(
            f"{folder / 'text_encoder' / CONFIG}: hidden_size, projection_dim={widths}, and the transformer reads "
            f"{(config.joint_attention_dim, config.pooled_projection_dim)}; get both of {SOURCE}"
        )
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    return Painter(network, vq, text, tokenizer)


def meissonic_config(about: Mapping[str, Any], *, source: str) -> MeissonicConfig:
    """The configuration of a published transformer/config.json, which `source` names in messages.

    Raises:
        ValueError: a field is missing, does not fit, or asks for what the network does not have.
    """
    fields = Fields(about, source)
    halves = fields.flag("downsample", False)
    fields.only({"patch_size": 1, "guidance_embeds": False, "upsample": halves})
    counts = {
        name: fields.whole(name) for name, field in MeissonicConfig.model_fields.items() if field.annotation is int
    }
    try:
        return MeissonicConfig(**counts, axes_dims_rope=about["axes_dims_rope"], downsample=halves)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{source}: {error}") from None


def filled(make: Callable[[], nn.Module], path: Path, *, dtype: torch.dtype, device: torch.device | None) -> Any:
    """A module whose parameters are the tensors of a file, in evaluation mode; names and shapes must be the same.

    Raises:
        ValueError: tensors are missing, unknown, of another shape, or were never trained.
    """
    with without_values():
        module = make()
    source = Source(path, path.parent, {}, entries_of(path))
    parameters = dict(module.named_parameters())
    source.check({name: tuple(p.shape) for name, p in parameters.items()})
    for name in parameters:
        owner, _, last = name.rpartition(".")
        value = source.read(name).to(device=device, dtype=dtype, copy=True)
        module.get_submodule(owner).register_parameter(last, nn.Parameter(value, requires_grad=False))
    return module.eval()


def _text_encoder(transformers: Any, folder: Path, *, dtype: torch.dtype) -> Any:
    """CLIP's, with nothing missing; what its library would fill in at random is refused."""
    options = {"local_files_only": True, "use_safetensors": True, "ignore_mismatched_sizes": True}
    read = transformers.CLIPTextModelWithProjection.from_pretrained
    text, found = read(folder, dtype=dtype, output_loading_info=True, **options)
    faults = sorted({*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])})
    if faults:
        raise ValueError(f"{folder}: tensors are missing or of another shape: {', '.join(faults[:10])}; get it again")
    return text.eval().requires_grad_(False)
