"""How likely an insertion model finds a text: an estimate of the bound, and exactly for a handful of tokens.

A text comes about by any of L! orders of insertion. The bound takes their mean logarithm and adds log L!; exact is the
sum over all of them.
"""

import dataclasses
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser, Inserting
from anyorder.core.types import Batch
from anyorder.likelihood.bound import Estimate, strata, summary
from anyorder.likelihood.exact import MAX_TARGETS
from anyorder.models.inserter import Inserter
from anyorder.processes.insertion import draw_of_bound, insertion_nll, mass_of_documents, stop_nll
from anyorder.processes.row_mass import row_mass
from anyorder.processes.thin import documents, end_of, how_many, thin, without


def insertion_bound(
    model: Denoiser,
    tokens: Int[Tensor, "B L"],
    *,
    target: Bool[Tensor, "B L"],
    segment: Int[Tensor, "B L"] | None = None,
    row_id: Int[Tensor, " B"],
    draws: int,
    noise: Noise,
    replicates: int = 4,
    rows_per_pass: int = 64,
) -> Estimate:
    """(L + 1) E[insertion loss + stop loss] - log L!, which bounds -log p of the targets and of their number; nats.

    n, the tokens taken out, is uniform on 0..L and stratified over the draws of a replicate. A row of several documents
    is scored as their sum; the end-of-document that ends one is no token of it.

    Args:
        draws: network rows per row, a multiple of `replicates`.
        replicates: independent stratified groups, at least 2, whose spread gives the standard error.
        rows_per_pass: draws, of one row or of many, that go through the network together.
    Raises:
        ValueError: a model that does not insert, or end-of-document inside a document.
    Source:
        derived in docs/reproduce/ilm.md for the objective of arXiv:2505.05755, which reports no likelihood.
    """
    inserting = inserting_of(model)
    given = documents(Batch(tokens, target, segment, row_id), vocab=model.vocab)
    num_tokens = torch.zeros_like(row_id).index_add(0, given.row, given.size)
    level = strata(row_id, draws=draws, replicates=replicates, noise=noise.at("count"))
    value = torch.zeros(len(tokens) * draws, dtype=torch.float64, device=tokens.device)
    for pair in torch.split(torch.arange(len(value), device=tokens.device), rows_per_pass):
        row, draw = pair // draws, pair % draws
        batch = Batch(tokens[row], target[row], None if segment is None else segment[row], row_id[row])
        given = documents(batch, vocab=model.vocab)
        missing = how_many(given, level[row, draw], batch.sample_id, noise=noise)
        thinned = thin(batch, given, missing, vocab=model.vocab, noise=noise, step=draw)
        out = inserting.insertion(thinned.canvas, thinned.canvas.window)
        where = insertion_nll(out, thinned, eos_id=end_of(model.vocab)).double()
        bound = draw_of_bound(where, stop_nll(out, thinned).double(), thinned)
        value = value.index_add(0, pair[thinned.row], bound)
    means = value.view(len(tokens), replicates, -1).mean(-1)
    return summary(means, num_tokens=num_tokens, nfe=draws * inserting.nfe, estimator="insertion_bound")


def insertion_exact(
    model: Denoiser,
    tokens: Int[Tensor, "B L"],
    *,
    target: Bool[Tensor, "B L"] | None = None,
    row_id: Int[Tensor, " B"],
) -> Float[Tensor, " B"]:
    """-log p of each row, one document, summed over all orders of insertion: 2^L canvases a row; nats, float64.

    Raises:
        ValueError: a row has more than MAX_TARGETS targets, or as `insertion_bound`.
    """
    inserting = inserting_of(model)
    wanted = torch.ones_like(tokens, dtype=torch.bool) if target is None else target
    out = []
    for row in range(len(tokens)):
        batch = Batch(tokens[row : row + 1], wanted[row : row + 1], None, row_id[row : row + 1])
        body = documents(batch, vocab=model.vocab).body[0]
        if int(body.sum()) > MAX_TARGETS:
            raise ValueError(
                f"row {row}: has {int(body.sum())} targets, enumeration ends at {MAX_TARGETS}; use insertion_bound"
            )
        out.append(_sum_over_orders(inserting, batch, body))
    return torch.stack(out)


def inserting_of(model: Denoiser) -> Inserting:
    """The model as one that inserts.

    Raises:
        ValueError: it does not.
    """
    if not isinstance(model, Inserting):
        raise ValueError("the model does not insert: its texts have no insertion likelihood; use one of kind ilm")
    if isinstance(model, Inserter) and model.stop is None:
        raise ValueError("an Insertion Transformer has no known likelihood; use a model of kind ilm")
    return model


@dataclass(frozen=True)
class _Events:
    """What may happen to every subset of a text's tokens, as log-probabilities: of each insertion, and to stop."""

    insert: Float[Tensor, "M T"]
    stop: Float[Tensor, " M"]
    go: Float[Tensor, " M"]


def _sum_over_orders(model: Inserting, batch: Batch, body: Bool[Tensor, " L"]) -> Float[Tensor, ""]:
    size = int(body.sum())
    events = _events(model, batch, body)
    reached = torch.full((2**size,), -torch.inf, dtype=torch.float64, device=body.device)
    reached[0] = 0.0
    for code in range(1, 2**size):
        bits = [b for b in range(size) if code >> b & 1]
        before = torch.tensor([code ^ 1 << b for b in bits], device=body.device)
        step = reached[before] + events.go[before] + events.insert[before, torch.tensor(bits, device=body.device)]
        reached[code] = torch.logsumexp(step, 0)
    return -(reached[-1] + events.stop[-1])


def _events(model: Inserting, batch: Batch, body: Bool[Tensor, " L"]) -> _Events:
    """Code of a subset: bit b is the b-th token of the body. All subsets of a text are rows of one batch."""
    size = int(body.sum())
    code = torch.arange(2**size, device=body.device)
    held = (code[:, None] >> torch.arange(size, device=body.device) & 1) > 0  # (M, T)
    left = torch.ones_like(body).expand(len(code), -1).clone()
    left[:, body] = held
    many = dataclasses.replace(
        batch,
        tokens=batch.tokens.expand(len(code), -1),
        target=batch.target.expand(len(code), -1),
        sample_id=code,
    )
    given = documents(many, vocab=model.vocab)
    thinned = without(many, given, given.body & ~left, vocab=model.vocab, pack=False)
    out = model.insertion(thinned.canvas, thinned.canvas.window)
    total = mass_of_documents(row_mass(out.states, out.head, without=end_of(model.vocab)).double(), thinned)
    hit = (out.states[thinned.gap] * out.head[thinned.token].to(out.states.dtype)).sum(-1).double()
    insert = torch.full(held.shape, -torch.inf, dtype=torch.float64, device=body.device)
    insert = insert.masked_scatter(~held, hit - total[thinned.owner])
    stop = out.stop.double()
    return _Events(insert, F.logsigmoid(stop), F.logsigmoid(-stop))
