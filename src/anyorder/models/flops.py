"""What a pass costs, from its configuration: a multiply-add is two FLOPs; norms, softmax, rotary are left out."""

from anyorder.models.config import ModelConfig
from anyorder.models.network import NetworkConfig


def matmul_params(config: NetworkConfig) -> int:
    """Weights that multiply every position: the blocks' matrices, without norms, embedding and head."""
    return config.num_layers * config.num_layer_weights


def forward_flops(config: NetworkConfig, *, rows: int, length: int, head_positions: int, vocab_size: int) -> int:
    """FLOPs of one forward pass over `rows` x `length`, with logits at `head_positions` positions in all.

    Attention counts 4 L H K per position and layer, also for causal models: the plain kernel computes all of it. The
    last feed-forward of a `Transformer` runs at the head's positions only. What is computed once for all positions is
    left out: modulation of a `DiT`, stop heads; and the BOS that an `Ilm` puts into its rows.
    """
    positions = rows * length
    last_feed = 3 * config.d_model * config.d_ff if isinstance(config, ModelConfig) else 0
    blocks = 2 * (matmul_params(config) - last_feed) * positions + 2 * last_feed * head_positions
    attention = 4 * config.num_layers * length * config.num_heads * config.d_head * positions
    head = 2 * config.d_model * vocab_size * head_positions
    return blocks + attention + head


def training_flops(config: NetworkConfig, *, rows: int, length: int, head_positions: int, vocab_size: int) -> int:
    """FLOPs of forward and backward: three times the forward pass."""
    return 3 * forward_flops(config, rows=rows, length=length, head_positions=head_positions, vocab_size=vocab_size)
