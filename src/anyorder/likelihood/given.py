"""How likely a masked model finds the tokens that are given, while the tokens between them stay unwritten.

By this rows of different lengths compare that hold the same given tokens: how many tokens are missing in a gap? Under
a law that likes all lengths alike, Bayes' rule makes the chance of a length, given the text, proportional to that of
the given tokens in a row of that length, whatever stands in the gap. It counts the same tokens for every length, so it
favours neither short gaps, as the likelihood of a written row does, nor long ones.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.noise import Noise, ranks
from anyorder.core.protocols import Denoiser
from anyorder.likelihood.bound import Rows, masked_nll, strata


def given_bound(
    model: Denoiser, rows: Rows, *, draws: int, noise: Noise, rows_per_pass: int = 64
) -> Float[Tensor, " B"]:
    """Upper bound on -log p(targets of each row) with all other positions as they are: masks stay masks; nats.

    The rows' targets are the same tokens in the same order, and are hidden together: a draw hides the same ones in
    every row, so that differences between rows have less noise than rows. The mean is exact for a perfect model.

    Args:
        draws: masked copies of each row, an even number, stratified as in `count_form`.
    Raises:
        ValueError: rows of different numbers of targets, or of none.
    """
    size = int(rows.target[0].sum())
    if size < 1 or bool((rows.target.sum(-1) != size).any()):
        raise ValueError("rows: must have the same targets, at least one")
    name = torch.zeros_like(rows.row_id[:1])
    level = strata(name, draws=draws, replicates=2, noise=noise.at("count"))[0]
    n = 1 + (size * level).floor().long()  # (D,), 1..T
    u = noise.at("mask").uniform(0, torch.arange(draws, device=n.device)[:, None], torch.arange(size, device=n.device))
    hidden = ranks(u, torch.ones_like(u, dtype=torch.bool)) < n[:, None]  # (D, T)

    def corrupt(row: Int[Tensor, " R"], draw: Int[Tensor, " R"]) -> Bool[Tensor, "R L"]:
        return rows.target[row].masked_scatter(rows.target[row], hidden[draw])

    nll = masked_nll(model, rows, corrupt, draws=draws, rows_per_pass=rows_per_pass)
    return (size / n * nll).mean(-1)
