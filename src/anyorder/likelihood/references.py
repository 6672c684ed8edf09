"""The estimators of public code by name, to compare with and to reproduce published numbers; prefer `count_form`."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.noise import Noise, ranks
from anyorder.core.protocols import Denoiser
from anyorder.likelihood.bound import Estimate, Rows, masked_nll, summary

BATCH = 16  # rows of one low-discrepancy group in their scripts


def smdm_form(
    model: Denoiser, rows: Rows, *, draws: int, noise: Noise, batch: int = BATCH, rows_per_pass: int = 64
) -> Estimate:
    """SMDM's Monte-Carlo bound: t_b = (u + b/B) mod 1, each target masked with chance t_b, weight 1/t_b.

    Unbiased, with the infinite variance of 1/t near 0.

    Args:
        draws: a multiple of `batch`, at least two batches.
    Raises:
        ValueError: other draws.
    Source:
        arXiv:2410.18514, appendix C.2, and its public evaluation code.
    """
    groups = _groups(draws, batch)
    shift = noise.at("time").uniform(rows.row_id[:, None], 0, torch.arange(groups, device=rows.row_id.device))
    comb = torch.arange(batch, dtype=torch.float64, device=rows.row_id.device) / batch
    t = torch.remainder(shift[..., None] + comb, 1.0).flatten(1)

    def corrupt(row: Int[Tensor, " R"], draw: Int[Tensor, " R"]) -> Bool[Tensor, "R L"]:
        return (_keys(noise, rows, row, draw) < t[row, draw, None]) & rows.target[row]

    nll = masked_nll(model, rows, corrupt, draws=draws, rows_per_pass=rows_per_pass)
    return _estimate(nll / t, rows, draws * model.nfe, batch, "smdm_form")


def llada_form(
    model: Denoiser, rows: Rows, *, draws: int, noise: Noise, batch: int = BATCH, rows_per_pass: int = 64
) -> Estimate:
    """LLaDA's bound: exactly l_b = 1 + (round(k + b T/B) - 1 mod T) targets masked, k uniform on 1..T, weight T/l_b.

    Biased where b T/B ends in .5: rounding half to even draws even counts too often.

    Args:
        draws: a multiple of `batch`, at least two batches.
    Raises:
        ValueError: other draws.
    Source:
        arXiv:2502.09992, equation 14, and its public code.
    """
    groups = _groups(draws, batch)
    n = llada_counts(rows.target.sum(-1), rows.row_id, groups=groups, batch=batch, noise=noise.at("count"))

    def corrupt(row: Int[Tensor, " R"], draw: Int[Tensor, " R"]) -> Bool[Tensor, "R L"]:
        return (ranks(_keys(noise, rows, row, draw), rows.target[row]) < n[row, draw, None]) & rows.target[row]

    nll = masked_nll(model, rows, corrupt, draws=draws, rows_per_pass=rows_per_pass)
    value = rows.target.sum(-1, keepdim=True).double() / n * nll
    return _estimate(value, rows, draws * model.nfe, batch, "llada_form")


def llada_counts(
    sizes: Int[Tensor, " B"], row_id: Int[Tensor, " B"], *, groups: int, batch: int, noise: Noise
) -> Int[Tensor, "B D"]:
    """How many of T targets each draw masks, as LLaDA's code has it."""
    u = noise.uniform(row_id[:, None], 0, torch.arange(groups, device=row_id.device))
    first = 1 + (u * sizes[:, None]).floor()
    step = torch.arange(batch, dtype=torch.float64, device=row_id.device) / batch * sizes[:, None, None]
    count = torch.round(first[..., None] + step)
    return (1 + torch.remainder(count - 1, sizes[:, None, None])).flatten(1).long()


def _groups(draws: int, batch: int) -> int:
    if draws < 2 * batch or draws % batch:
        raise ValueError(f"draws={draws}: must be a multiple of batch={batch}, at least two batches")
    return draws // batch


def _keys(noise: Noise, rows: Rows, row: Int[Tensor, " R"], draw: Int[Tensor, " R"]) -> Float[Tensor, "R L"]:
    position = torch.arange(rows.tokens.shape[1], device=row.device)
    return noise.at("mask").uniform(rows.row_id[row][:, None], draw[:, None], position)


def _estimate(value: Float[Tensor, "B D"], rows: Rows, nfe: int, batch: int, name: str) -> Estimate:
    means = value.view(len(value), -1, batch).mean(-1)
    return summary(means, num_tokens=rows.target.sum(-1), nfe=nfe, estimator=name)
