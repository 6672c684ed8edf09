"""Documents of any length: windows in which every token is scored once, given some of what stands before it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.likelihood.bound import Estimate, Rows, count_form
from anyorder.likelihood.chain import chain_rule, exact_causal


@dataclass(frozen=True)
class Window:
    """A piece of a document: tokens begin..end-1 are read, fresh..end-1 are scored."""

    begin: int
    fresh: int
    end: int


def windows(num_tokens: int, *, length: int, context: int = 0) -> list[Window]:
    """Windows of at most `length` tokens that score each of `num_tokens` once; one of them if the document fits.

    Args:
        context: tokens of each window but the first that were scored before and are only read; 0 for disjoint windows.
            A token has at least so many before it (fewer at the beginning), and at most length - 1.
    Raises:
        ValueError: no token, or a context outside 0..length-1.
    """
    if num_tokens < 1:
        raise ValueError("the document has no tokens, so there is nothing to score; leave it out")
    if not 0 <= context < length:
        raise ValueError(f"context={context}: must be between 0 and {length - 1}, so that a window scores a token")
    found = [Window(0, 0, min(length, num_tokens))]
    while (done := found[-1].end) < num_tokens:
        found.append(Window(done - context, done, min(done - context + length, num_tokens)))
    return found


def rolling_rows(
    ids: Sequence[int], *, length: int, context: int = 0, rows_at_once: int = 64, device: torch.device | None = None
) -> Iterator[Rows]:
    """The windows of a document as rows, those of one width a few at a time; `row_id` numbers the windows.

    Raises:
        ValueError: as `windows`.
    """
    found = windows(len(ids), length=length, context=context)
    widths = [w.end - w.begin for w in found]
    for width in sorted(set(widths), reverse=True):
        same = [number for number, other in enumerate(widths) if other == width]
        for start in range(0, len(same), rows_at_once):
            part = same[start : start + rows_at_once]
            tokens = torch.tensor([list(ids[found[i].begin : found[i].end]) for i in part], device=device)
            fresh = torch.tensor([found[i].fresh - found[i].begin for i in part], device=device)
            target = torch.arange(width, device=device) >= fresh[:, None]
            yield Rows(tokens=tokens, target=target, segment=None, row_id=torch.tensor(part, device=device))


def rolling(
    model: Denoiser,
    ids: Sequence[int],
    *,
    estimator: str,
    length: int,
    context: int = 0,
    draws: int,
    noise: Noise,
    replicates: int = 4,
    rows_at_once: int = 64,
    device: torch.device | None = None,
) -> list[Estimate]:
    """Estimates of the windows of a document, a few at a time; they are independent, so variances add.

    Args:
        estimator: "count" or "chain" for a masked model, "causal" for an autoregressive one, as in `score_answers`.
        length: the longest row the model reads.
        context: as in `windows`.
        draws: masked copies of each window, for "count".
    Raises:
        ValueError: as `windows`, or an unknown estimator.
    """
    if estimator not in ("count", "chain", "causal"):
        raise ValueError(f"estimator={estimator!r}: must be one of count, chain, causal")
    made = []
    for rows in rolling_rows(ids, length=length, context=context, rows_at_once=rows_at_once, device=device):
        target, row_id = rows.target, rows.row_id
        if estimator == "causal":
            made.append(exact_causal(model, rows.tokens, target=target, row_id=row_id))
        elif estimator == "chain":
            made.append(chain_rule(model, rows.tokens, target=target, row_id=row_id, rows_per_pass=rows_at_once))
        else:
            made.append(
                count_form(
                    model,
                    rows.tokens,
                    target=target,
                    row_id=row_id,
                    draws=draws,
                    noise=noise,
                    replicates=replicates,
                    rows_per_pass=rows_at_once,
                )
            )
    return made
