"""Questions to a language model: which of several answers it prefers."""

import hashlib
import json

from anyorder.api.scoring import rows_at_once
from anyorder.core.device import canvas_device
from anyorder.data.tokenizer import Tokenizer
from anyorder.evaluation.subject import Subject
from anyorder.models.config import ModelConfig
from anyorder.models.network import Network


def subject_of(kind: str, model: Network, tokenizer: Tokenizer, *, weights: str = "") -> Subject:
    """A network with its tokenizer as evaluations see it.

    Args:
        weights: names them, such as their SHA-256; needed where results are kept.
    Raises:
        ValueError: an insertion model.
    """
    if kind == "ilm":
        raise ValueError(
            "answers are ranked, and texts written to a stop string, by masked diffusion and autoregressive models; "
            "an insertion model (ILM) takes sample, infill and score"
        )
    length, dtype = model.config.max_length, str(model.dtype)
    start = [model.config.start_id] if isinstance(model.config, ModelConfig) and model.config.causal else []
    named = json.dumps([weights, tokenizer.hash, dtype, *start])
    return Subject(
        kind=kind,
        model=model,
        tokenizer=tokenizer,
        max_length=length,
        identity=hashlib.sha256(named.encode()).hexdigest(),
        rows_per_pass=rows_at_once(length, vocab_size=model.vocab.size),
        device=canvas_device(model.rope_cos.device),
    )
