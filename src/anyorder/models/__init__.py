"""Networks: a Llama-style transformer, full or causal, with logits only where asked."""

from anyorder.models.config import SIZES, ModelConfig
from anyorder.models.flops import forward_flops, training_flops
from anyorder.models.transformer import Transformer

__all__ = ["SIZES", "ModelConfig", "Transformer", "forward_flops", "training_flops"]
