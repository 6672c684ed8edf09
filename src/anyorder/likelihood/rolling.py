"""Documents of any length: windows in which every token is scored once, given some of what stands before it.

Windows of all documents go through the network together. Each draws noise of its own, named by its document and its
number, so a document's values do not depend on the others.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.likelihood.bound import Estimate, Rows, count_form
from anyorder.likelihood.chain import chain_rule, exact_causal
from anyorder.likelihood.insertion import insertion_bound
from anyorder.likelihood.rows import bucket_of, rows_of


@dataclass(frozen=True)
class Window:
    """A piece of a document: tokens begin..end-1 are read, fresh..end-1 are scored."""

    begin: int
    fresh: int
    end: int


@dataclass(frozen=True)
class Rolled:
    """What the windows of a document add up to.

    Args:
        nats: negative log-likelihood of its tokens, or the bound on it.
        stderr: Monte-Carlo standard error; windows are independent, so their variances add.
        num_tokens: that were scored.
        nfe: network passes of all windows together.
        estimator: name of the function that made it.
    """

    nats: float
    stderr: float
    num_tokens: int
    windows: int
    nfe: int
    estimator: str


@dataclass(frozen=True)
class Piece:
    """A window with its tokens, the number of its document, and the name of its noise."""

    document: int
    row_id: int
    tokens: Sequence[int]
    fresh: int


def windows(num_tokens: int, *, length: int, context: int = 0, given: int = 0) -> list[Window]:
    """Windows of at most `length` tokens that score each of `num_tokens` once; one of them if the document fits.

    Args:
        context: tokens of each window but the first that were scored before and are only read; 0 for disjoint windows.
            A token has at least so many before it (fewer at the beginning), and at most length - 1.
        given: tokens at the beginning that are only read.
    Raises:
        ValueError: no token to score, or a context outside 0..length-1.
    """
    if num_tokens <= given:
        raise ValueError("the document has no tokens, so there is nothing to score; leave it out")
    if not 0 <= context < length:
        raise ValueError(f"context={context}: must be between 0 and {length - 1}, so that a window scores a token")
    found = [Window(0, min(given, length), min(length, num_tokens))]
    while (done := found[-1].end) < num_tokens:
        found.append(Window(done - context, done, min(done - context + length, num_tokens)))
    return found


def rolling(
    model: Denoiser,
    documents: Sequence[Sequence[int]],
    *,
    names: Sequence[int],
    estimator: str,
    length: int,
    context: int = 0,
    given: int = 0,
    draws: int,
    noise: Noise,
    replicates: int = 4,
    rows_at_once: int = 64,
    device: torch.device | None = None,
) -> list[Rolled]:
    """The likelihood of each document.

    Args:
        documents: as tokens.
        names: of each document's noise, any numbers; window w draws that of row name + w.
        estimator: "count" or "chain" for a masked model, "causal" for an autoregressive one, as in `score_answers`;
            "insertion" for one that inserts: every window is a document, whose end is scored with it.
        length: the longest row the model reads.
        context, given: as in `windows`.
        draws: masked or thinned copies of each window, for "count" and "insertion".
        rows_at_once: windows, and rows of a network pass, that are held together.
    Raises:
        ValueError: as `windows`, or an unknown estimator.
    """
    if estimator not in ("count", "chain", "causal", "insertion"):
        raise ValueError(f"estimator={estimator!r}: must be one of count, chain, causal, insertion")
    pieces: list[Piece] = []
    for number, (ids, name) in enumerate(zip(documents, names)):
        for w, window in enumerate(windows(len(ids), length=length, context=context, given=given)):
            tokens = ids[window.begin : window.end]
            pieces.append(Piece(number, _wrapped(name + w), tokens, window.fresh - window.begin))
    made: list[list[Rolled]] = [[] for _ in documents]
    for part, rows in _batches(pieces, rows_at_once, device):
        if estimator == "causal":
            got = exact_causal(model, rows.tokens, target=rows.target, segment=rows.segment, row_id=rows.row_id)
        elif estimator == "chain":
            got = _chain(model, rows, rows_at_once)
        else:
            bound = insertion_bound if estimator == "insertion" else count_form
            got = bound(
                model,
                rows.tokens,
                target=rows.target,
                segment=rows.segment,
                row_id=rows.row_id,
                draws=draws,
                noise=noise,
                replicates=replicates,
                rows_per_pass=rows_at_once,
            )
        for piece, nats, stderr in zip(part, got.nats.tolist(), got.stderr.tolist()):
            size = len(piece.tokens) - piece.fresh
            passes = size * model.nfe if estimator == "chain" else got.nfe
            made[piece.document].append(Rolled(nats, stderr, size, 1, passes, got.estimator))
    return [_sum(parts) for parts in made]


def _wrapped(name: int) -> int:
    """The number as one of 64 bits with a sign."""
    return (name + 2**63) % 2**64 - 2**63


def _batches(
    pieces: Sequence[Piece], rows_at_once: int, device: torch.device | None
) -> Iterator[tuple[list[Piece], Rows]]:
    """Windows of about one length together, the longest first."""
    groups: dict[int, list[Piece]] = {}
    for piece in pieces:
        groups.setdefault(bucket_of(len(piece.tokens)), []).append(piece)
    for _, group in sorted(groups.items(), reverse=True):
        for start in range(0, len(group), rows_at_once):
            part = group[start : start + rows_at_once]
            yield (
                part,
                rows_of(
                    [p.tokens for p in part],
                    begins=[p.fresh for p in part],
                    row_id=[p.row_id for p in part],
                    device=device,
                ),
            )


def _chain(model: Denoiser, rows: Rows, rows_per_pass: int) -> Estimate:
    return chain_rule(
        model,
        rows.tokens,
        target=rows.target,
        segment=rows.segment,
        row_id=rows.row_id,
        rows_per_pass=rows_per_pass,
    )


def _sum(parts: Sequence[Rolled]) -> Rolled:
    return Rolled(
        nats=math.fsum(p.nats for p in parts),
        stderr=math.sqrt(math.fsum(p.stderr**2 for p in parts)),
        num_tokens=sum(p.num_tokens for p in parts),
        windows=len(parts),
        nfe=sum(p.nfe for p in parts),
        estimator=parts[0].estimator,
    )
