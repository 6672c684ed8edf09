"""Nats per token of held-out documents under models of every kind, each told the same: nothing, or the length."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.likelihood.bound import Estimate, Rows, count_form
from anyorder.likelihood.chain import exact_causal
from anyorder.likelihood.insertion import insertion_bound
from anyorder.likelihood.rows import rows_of
from anyorder.processes.thin import end_of
from anyorder.studies.infilling_runs import NAMES, Trained

ROWS_AT_ONCE: Final = 64


@dataclass(frozen=True)
class Cost:
    """What held-out documents cost under a model.

    Args:
        told: what the model knows beforehand; else its figure includes where each document ends.
        form: exact, or an upper bound.
        nats, stderr: of a document; standard error over documents, which includes that of the draws.
        per_token, per_token_stderr: summed nats over summed tokens, end-of-document not counted.
    """

    model: str
    told: str
    form: str
    documents: int
    nats: float
    stderr: float
    per_token: float
    per_token_stderr: float


def costs(
    models: Mapping[str, Trained],
    documents: Sequence[Sequence[int]],
    *,
    lengths: Sequence[int],
    draws: int,
    noise: Noise,
) -> list[Cost]:
    """Every model on the same documents.

    Args:
        lengths: of the training documents, from which the length of a masked model's text is drawn.
    """
    sizes = torch.tensor([len(d) for d in documents]).double()
    found = []
    for kind, made in models.items():
        nats, form = scored(made.model, documents, kind=kind, draws=draws, noise=noise.at(kind))
        told = "its length" if kind == "mdm" else "nothing"
        found.append(cost(nats, sizes, model=NAMES[kind], told=told, form=form))
        if kind == "mdm":
            whole = nats + length_nats(sizes.long().tolist(), lengths)
            found.append(cost(whole, sizes, model="MDM, and its length from a table", told="nothing", form=form))
    return found


def cost(nats: Float[Tensor, " N"], sizes: Float[Tensor, " N"], *, model: str, told: str, form: str) -> Cost:
    """Nats of each document, summed up."""
    ratio = float(nats.sum() / sizes.sum())
    many = math.sqrt(len(nats))
    return Cost(
        model=model,
        told=told,
        form=form,
        documents=len(nats),
        nats=float(nats.mean()),
        stderr=float(nats.std() / many),
        per_token=ratio,
        per_token_stderr=float((nats - ratio * sizes).std() / many / sizes.mean()),
    )


def length_nats(sizes: Sequence[int], lengths: Sequence[int]) -> Float[Tensor, " N"]:
    """-log of the share of each length among `lengths`, every length up to the longest of both counted once more."""
    count, most = Counter(lengths), max(*sizes, *lengths)
    return torch.tensor([-math.log((count[n] + 1) / (len(lengths) + most)) for n in sizes], dtype=torch.float64)


@torch.no_grad()
def scored(
    model: Denoiser, documents: Sequence[Sequence[int]], *, kind: str, draws: int, noise: Noise
) -> tuple[Float[Tensor, " N"], str]:
    """Nats of each document, and what they are."""
    order = sorted(range(len(documents)), key=lambda i: len(documents[i]))
    nats = torch.zeros(len(documents), dtype=torch.float64)
    form = ""
    for at in range(0, len(order), ROWS_AT_ONCE):
        some = order[at : at + ROWS_AT_ONCE]
        made = _estimate(model, [documents[i] for i in some], some, kind=kind, draws=draws, noise=noise)
        nats[some], form = made.nats, made.estimator
    return nats, "exact" if form == "exact_causal" else "bound"


def _estimate(
    model: Denoiser, documents: Sequence[Sequence[int]], names: Sequence[int], *, kind: str, draws: int, noise: Noise
) -> Estimate:
    """An ARM writes the end too, an MDM sees it, an ILM has none."""
    eos = end_of(model.vocab)
    ids = [list(d) if kind.startswith("ilm") else [*d, eos] for d in documents]
    rows: Rows = rows_of(ids, begins=[0] * len(ids), row_id=names, device=None)
    target = rows.target & (rows.tokens != eos) if kind == "mdm" else rows.target
    if kind.startswith("arm"):
        return exact_causal(model, rows.tokens, target=target, segment=rows.segment, row_id=rows.row_id)
    bound = count_form if kind == "mdm" else insertion_bound
    return bound(model, rows.tokens, target=target, segment=rows.segment, row_id=rows.row_id, draws=draws, noise=noise)
