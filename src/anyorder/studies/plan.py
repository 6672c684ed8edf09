"""Plan how many tokens to write per pass, from a model's own loss curve, and measure what the plan costs."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from anyorder.core import dist
from anyorder.core.config import load_config
from anyorder.core.device import canvas_device
from anyorder.core.noise import Noise
from anyorder.core.types import moved
from anyorder.data.loader import in_order
from anyorder.hub.find import model_folder
from anyorder.hub.load import load_model
from anyorder.likelihood.by_count import loss_by_count
from anyorder.likelihood.groups import group_nll
from anyorder.samplers.plan import best_groups, non_increasing, path_kl
from anyorder.train.config import RunConfig
from anyorder.train.data import run_data
from anyorder.train.loop import CONFIG


@dataclass(frozen=True)
class Cost:
    """What a schedule costs against one token per pass, nats per row.

    Args:
        predicted: path-KL of the measured curve.
        measured, stderr: mean over held-out rows of the difference in -log p, same order for both; its standard error.
    """

    name: str
    groups: list[int]
    predicted: float
    measured: float
    stderr: float


@dataclass(frozen=True)
class Plan:
    """A model's curve Z_0..Z_{L-1}, made to fall, and the costs of the best and the usual schedules for some passes."""

    z: list[float]
    rows: int
    costs: list[Cost]


def plan(run: Path, *, nfe: int, rows: int = 64, seed: int = 0) -> Plan:
    """The best groups for `nfe` passes on full rows of a run's held-out data, beside equal and cosine groups.

    The curve is measured on one half of the rows and the costs on the other.

    Raises:
        ValueError: no finished MDM of text, nfe < 1, or rows < 4.
    """
    folder = model_folder(run)
    loaded = load_model(folder, device=dist.device())
    config = load_config(RunConfig, folder.parent / CONFIG) if loaded.kind == "mdm" else None
    if config is None or config.task is not None:
        raise ValueError(f"{run}: plans are made for masked diffusion models of text; name such a run")
    if rows < 4:
        raise ValueError(f"rows={rows}: must be >= 4, half for the curve and half for the costs")
    batch = moved(next(in_order(run_data(config).valid, rows=rows, limit=rows)), canvas_device(dist.device()))
    whole = batch.target.all(-1)
    tokens, row_id = batch.tokens[whole], batch.sample_id[whole]
    length, noise = tokens.shape[1], Noise.of(seed).at("plan")
    curve = loss_by_count(
        loaded.model,
        tokens[::2],
        target=torch.ones_like(tokens[::2], dtype=torch.bool),
        row_id=row_id[::2],
        counts=range(1, length + 1),
        noise=noise.at("curve"),
    )
    z = non_increasing(torch.tensor([c.nats for c in reversed(curve)], dtype=torch.float64))
    schedules = {"best": best_groups(z, nfe), "equal": equal_groups(length, nfe), "cosine": cosine_groups(length, nfe)}

    def nats(groups: Sequence[int]) -> Float[Tensor, " B"]:
        return group_nll(loaded.model, tokens[1::2], groups=groups, row_id=row_id[1::2], noise=noise.at("cost"))

    single = nats([1] * length)
    costs = []
    for name, groups in schedules.items():
        extra = nats(groups) - single
        stderr = float(extra.std() / math.sqrt(len(extra)))
        costs.append(Cost(name, groups, path_kl(z, groups), float(extra.mean()), stderr))
    return Plan(z=z.tolist(), rows=len(tokens), costs=costs)


def equal_groups(length: int, num_passes: int) -> list[int]:
    """Sizes that differ by at most one, the larger ones first."""
    num = min(num_passes, length)
    return [length // num + (i < length % num) for i in range(num)]


def cosine_groups(length: int, num_passes: int) -> list[int]:
    """MaskGIT's plan: floor(L cos(pi/2 i/N)) masks left after pass i (arXiv:2202.04200)."""
    num = min(num_passes, length)
    left = [length]
    for i in range(1, num):
        goal = math.floor(length * math.cos(math.pi / 2 * i / num))
        left.append(min(max(goal, num - i), left[-1] - 1))
    left.append(0)
    return [before - after for before, after in itertools.pairwise(left)]
