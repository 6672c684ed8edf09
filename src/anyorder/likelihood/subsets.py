"""The bound of short targets without any draw: every set of masks once."""

import math

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from anyorder.core.protocols import Denoiser
from anyorder.likelihood.bound import Estimate, Rows, masked_nll


def subset_form(model: Denoiser, rows: Rows, *, rows_per_pass: int = 64) -> Estimate:
    """The bound exactly, from the 2^T - 1 ways to mask some of T targets; every row has the same T.

    One token costs one pass, and its bound is its -log p.

    Raises:
        ValueError: rows with different numbers of targets, or none.
    Source:
        arXiv:2409.02908, Proposition 3.1.
    """
    sizes = rows.target.sum(-1)
    size = int(sizes.max())
    if size < 1 or bool((sizes != size).any()):
        raise ValueError(f"target: rows have {sorted(set(sizes.tolist()))} targets; all must have the same number >= 1")
    place = (rows.target.cumsum(-1) - 1).clamp(min=0)  # of a target among its row's targets

    def corrupt(row: Int[Tensor, " R"], draw: Int[Tensor, " R"]) -> Bool[Tensor, "R L"]:
        return rows.target[row] & (((draw + 1)[:, None] >> place[row]) & 1 > 0)

    count = 2**size - 1
    nll = masked_nll(model, rows, corrupt, draws=count, rows_per_pass=rows_per_pass)
    n = [(code + 1).bit_count() for code in range(count)]
    weight = torch.tensor([1 / (k * math.comb(size, k)) for k in n], dtype=torch.float64, device=nll.device)
    nats = nll @ weight
    return Estimate(nats, torch.zeros_like(nats), sizes, nfe=count * model.nfe, estimator="subset_form")
