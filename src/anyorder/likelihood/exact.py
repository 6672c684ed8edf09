"""Likelihoods of a masked model by enumeration of every set of masked positions: exact, for a handful of targets."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.categorical import log_prob_of
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas

MAX_TARGETS = 12
ROWS_PER_PASS = 4096


def nelbo_enumerated(
    model: Denoiser, x0: Int[Tensor, "B L"], *, target: Bool[Tensor, "B L"] | None = None
) -> Float[Tensor, " B"]:
    """The masked-diffusion bound on -log p(x0), nats per row: all numbers n and all sets of n masked targets.

    sum over n of the mean over sets S of size n of (1/n) sum over l in S of -log p(x_l | x outside S).

    Args:
        target: positions that are scored; the others are always visible. None: all.
    Raises:
        ValueError: a row has more than MAX_TARGETS targets.
    Source:
        arXiv:2409.02908, Proposition 3.1.
    """
    nll, masked = _nll_table(model, x0, target)
    n = masked.sum(-1).double()  # (M,)
    targets = _targets(x0, target).sum(-1, keepdim=True).double()  # (B, 1)
    ways = torch.lgamma(targets + 1) - torch.lgamma(n + 1) - torch.lgamma((targets - n).clamp(min=0) + 1)
    real = (n > 0) & (torch.arange(len(n)) < 2**targets)  # codes beyond a row's own targets repeat nothing
    weight = torch.where(real, (-ways).exp() / n.clamp(min=1), 0.0)
    return (weight * nll.sum(-1)).sum(-1)


def nelbo_any_order(
    model: Denoiser, x0: Int[Tensor, "B L"], *, target: Bool[Tensor, "B L"] | None = None
) -> Float[Tensor, " B"]:
    """Mean over all orders of -log p of writing the targets one by one, nats per row; equal to `nelbo_enumerated`.

    Raises:
        ValueError: a row has more than MAX_TARGETS targets.
    Source:
        arXiv:2409.02908, Appendix C.1.
    """
    nll, masked = _nll_table(model, x0, target)
    cost = torch.zeros_like(nll[..., 0])  # (B, M): mean cost of writing set M
    for code in range(1, len(masked)):
        ranks = masked[code].nonzero().squeeze(-1)
        cost = cost.index_copy(
            1, torch.tensor([code]), (nll[:, code, ranks] + cost[:, code - 2**ranks]).mean(-1, keepdim=True)
        )
    return _of_full_set(cost, x0, target)


def any_order_mixture(
    model: Denoiser, x0: Int[Tensor, "B L"], *, target: Bool[Tensor, "B L"] | None = None
) -> Float[Tensor, " B"]:
    """-log of the chance that writing one by one in a uniformly random order gives x0, nats per row.

    The exact likelihood of the first-hitting sampler; never above the NELBO, equal to it for consistent conditionals.

    Raises:
        ValueError: a row has more than MAX_TARGETS targets.
    """
    nll, masked = _nll_table(model, x0, target)
    logp = torch.zeros_like(nll[..., 0])
    for code in range(1, len(masked)):
        ranks = masked[code].nonzero().squeeze(-1)
        paths = logp[:, code - 2**ranks] - nll[:, code, ranks]
        mean = paths.logsumexp(-1, keepdim=True) - torch.tensor(float(len(ranks))).double().log()
        logp = logp.index_copy(1, torch.tensor([code]), mean)
    return -_of_full_set(logp, x0, target)


def _targets(x0: Int[Tensor, "B L"], target: Bool[Tensor, "B L"] | None) -> Bool[Tensor, "B L"]:
    return torch.ones_like(x0, dtype=torch.bool) if target is None else target


def _of_full_set(
    value: Float[Tensor, "B M"], x0: Int[Tensor, "B L"], target: Bool[Tensor, "B L"] | None
) -> Float[Tensor, " B"]:
    full = 2 ** _targets(x0, target).sum(-1, keepdim=True) - 1
    return value.gather(-1, full).squeeze(-1)


def _nll_table(
    model: Denoiser, x0: Int[Tensor, "B L"], target: Bool[Tensor, "B L"] | None
) -> tuple[Float[Tensor, "B M T"], Bool[Tensor, "M T"]]:
    """-log p of the target of each rank (T) when the ranks set in the bits of M are masked; 0 for visible ones."""
    scored = _targets(x0, target)
    most = int(scored.sum(-1).max())
    if most > MAX_TARGETS:
        raise ValueError(f"target: a row has {most} positions; enumeration stops at {MAX_TARGETS}, use count_form")
    codes = torch.arange(2**most)
    masked = ((codes[:, None] >> torch.arange(most)) & 1).bool()
    rank = (scored.cumsum(-1) - 1).clamp(min=0)
    row, code = torch.cartesian_prod(torch.arange(len(x0)), codes).unbind(-1)
    table = torch.zeros(len(x0), len(codes), most, dtype=torch.float64)
    for i in range(0, len(row), ROWS_PER_PASS):
        r, c = row[i : i + ROWS_PER_PASS], code[i : i + ROWS_PER_PASS]
        at = scored[r] & masked[c[:, None], rank[r]]
        x = torch.where(at, model.vocab.mask_id, x0[r])
        canvas = Canvas(x=x, fixed=~at, window=torch.ones_like(at), segment=None, row_id=r)
        k, position = at.nonzero(as_tuple=True)
        nll = -log_prob_of(model(canvas, at), x0[r[k], position])
        table = table.index_put((r[k], c[k], rank[r[k], position]), nll)
    return table, masked
