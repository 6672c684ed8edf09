"""The optimiser and its learning-rate curve."""

import math

import torch
from torch import nn

from anyorder.train.config import OptimConfig
from anyorder.train.muon import Muon, fused_rows


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW, or Muon for the matrices inside blocks and AdamW for the rest; norms and embeddings do not decay."""
    named = list(model.named_parameters())
    decayed = [p for name, p in named if p.ndim > 1 and "embed" not in name]
    others = [p for name, p in named if p.ndim == 1 or "embed" in name]
    if config.kind == "adamw":
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
    rows = fused_rows(model)
    inside = [p for name, p in named if p.ndim == 2 and name.startswith("blocks.")]
    outside = [p for p in decayed if all(p is not q for q in inside)]
    return Muon(
        [(p, rows.get(id(p), [len(p)])) for p in inside],
        [{"params": outside, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=config.lr,
        betas=config.betas,
        weight_decay=config.weight_decay,
    )


def lr_at(step: int, num_steps: int, config: OptimConfig) -> float:
    """Learning rate of step 0..num_steps-1: linear warm-up, then cosine, stable and linear decay (wsd), or constant.

    Cosine and WSD reach `min_lr_ratio` of the peak exactly at the last step.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    low = config.lr * config.min_lr_ratio
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "wsd":
        tail = max(1, round(config.decay_share * num_steps))
        left = min(1.0, (num_steps - 1 - step) / tail)
        return low + (config.lr - low) * left
    done = (step - config.warmup_steps) / max(1, num_steps - 1 - config.warmup_steps)
    return low + (config.lr - low) * 0.5 * (1 + math.cos(math.pi * done))
