"""The size of a transformer: configuration, the 30 published SMDM sizes, exact parameter counts."""

from pydantic import BaseModel, PositiveInt, model_validator


class ModelConfig(BaseModel, frozen=True, extra="forbid"):
    """A Llama-style transformer; `causal` makes it the autoregressive twin (see `Transformer`)."""

    num_layers: PositiveInt = 4  # blocks
    num_heads: PositiveInt = 4  # of attention
    d_model: PositiveInt = 128  # width of the residual stream
    d_ff: PositiveInt = 512  # width inside SwiGLU
    max_length: PositiveInt = 2048  # longest row it reads
    causal: bool = False
    rope_base: float = 10_000.0
    norm_eps: float = 1e-5

    @model_validator(mode="after")
    def _heads_divide(self) -> "ModelConfig":
        if self.d_model % (2 * self.num_heads):
            raise ValueError(
                f"model.d_model={self.d_model}: must be a multiple of 2*num_heads={2 * self.num_heads}; "
                "rotary embeddings need an even head width"
            )
        return self

    @property
    def d_head(self) -> int:
        return self.d_model // self.num_heads

    @property
    def num_block_params(self) -> int:
        """N: parameters of blocks and final norm, without embedding and head (arXiv:2410.18514)."""
        d, f = self.d_model, self.d_ff
        return self.num_layers * (4 * d * d + 3 * d * f + 2 * d) + d

    def num_params(self, *, vocab_size: int, num_ids: int) -> int:
        """All parameters: N, an input table of `num_ids` rows, an untied head of `vocab_size` rows."""
        return self.num_block_params + (num_ids + vocab_size) * self.d_model


def _size(num_layers: int, num_heads: int, d_model: int, d_ff: int) -> ModelConfig:
    return ModelConfig(num_layers=num_layers, num_heads=num_heads, d_model=d_model, d_ff=d_ff)


SIZES: dict[str, ModelConfig] = {
    "tiny": _size(2, 2, 32, 96),
    "0.3M": _size(3, 4, 96, 256),
    "1M": _size(4, 4, 128, 512),
    "3M": _size(5, 6, 192, 768),
    # The 30 sizes of SMDM (arXiv:2410.18514, table of its trainer), named by N in millions.
    "6M": _size(6, 4, 256, 1024),
    "19M": _size(8, 6, 384, 1536),
    "34M": _size(8, 8, 512, 2048),
    "48M": _size(9, 9, 576, 2304),
    "66M": _size(10, 10, 640, 2560),
    "75M": _size(16, 8, 640, 1600),
    "85M": _size(13, 10, 640, 2560),
    "113M": _size(12, 12, 768, 3072),
    "142M": _size(15, 12, 768, 3072),
    "170M": _size(18, 12, 768, 3072),
    "180M": _size(14, 14, 896, 3584),
    "206M": _size(16, 14, 896, 3584),
    "231M": _size(18, 14, 896, 3584),
    "268M": _size(16, 16, 1024, 4096),
    "302M": _size(18, 16, 1024, 4096),
    "336M": _size(20, 16, 1024, 4096),
    "472M": _size(18, 10, 1280, 5120),
    "551M": _size(21, 10, 1280, 5120),
    "571M": _size(18, 11, 1408, 5632),
    "629M": _size(24, 10, 1280, 5120),
    "666M": _size(21, 11, 1408, 5632),
    "717M": _size(19, 12, 1536, 6144),
    "761M": _size(24, 11, 1408, 5632),
    "831M": _size(22, 12, 1536, 6144),
    "944M": _size(25, 12, 1536, 6144),
    "1028M": _size(20, 14, 1792, 7168),
    "1233M": _size(24, 14, 1792, 7168),
    "1476M": _size(22, 16, 2048, 8192),
    "1678M": _size(25, 16, 2048, 8192),
    "2121M": _size(28, 17, 2176, 8704),
}
