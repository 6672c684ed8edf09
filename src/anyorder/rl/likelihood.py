"""The log-probability of a recorded generation under a model that has moved on: four answers behind one switch.

A step draws tokens, ranks positions by how likely the drawn tokens were, and keeps the first few. What is its
likelihood? Of the written tokens alone ("fill"), of all drawn tokens ("all"), or of all that was decided ("augmented",
"position_first"): the first two forget that the order depends on the model, and their gradients are biased wherever it
does. Where it does not, as in a random order, "fill" is exact.

| name | a step's log-probability | sampler | exact |
|---|---|---|---|
| `fill` | of the written tokens (Co-GRPO, TraceRL, Mask-GRPO) | any | if the order ignores the model |
| `all` | of every drawn token | draw_first | if the order ignores the model |
| `augmented` | of every drawn token, and of the order of the kept ones | draw_first | yes |
| `position_first` | of the chosen positions in order, and of their tokens | choose_first | yes |
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.categorical import log_prob_of
from anyorder.core.config import nearest
from anyorder.core.protocols import Denoiser
from anyorder.rl.plackett_luce import ordered_log_probs
from anyorder.rl.trajectory import Trajectory
from anyorder.samplers.steered import Steered

LIKELIHOODS = {"fill": None, "all": "draw_first", "augmented": "draw_first", "position_first": "choose_first"}
ORDERED = ("augmented", "position_first")


def check_likelihood(kind: str, sampler: Steered) -> None:
    """Raises ValueError unless the sampler's steps have this likelihood."""
    if kind not in LIKELIHOODS:
        raise ValueError(f"likelihood={kind!r}: unknown; {nearest(kind, LIKELIHOODS)}")
    needs = LIKELIHOODS[kind]
    if needs is not None and sampler.order != needs:
        fits = [name for name, order in LIKELIHOODS.items() if order in (None, sampler.order)]
        raise ValueError(
            f"likelihood={kind!r}: needs sampler.order={needs!r}, and this one has {sampler.order!r}; "
            f"with it go {', '.join(fits)}"
        )


def counted(kind: str, taken: Trajectory, step: int) -> Bool[Tensor, "B L"]:
    """The positions whose terms a step's log-probability is the sum of."""
    return taken.open(step) if kind in ("all", "augmented") else taken.fill(step)


def recorded(kind: str, taken: Trajectory, step: int) -> Float[Tensor, "B L"]:
    """The terms as the sampler had them; 0 where nothing is counted."""
    terms = taken.logp[step] + (taken.order_logp[step] if kind in ORDERED else 0.0)
    return torch.where(counted(kind, taken, step), terms, 0.0)


def rescored(
    kind: str, sampler: Steered, model: Denoiser, taken: Trajectory, step: int, *, ask_all: bool = False
) -> Float[Tensor, "B L"]:
    """The terms under this model, differentiable; 0 where nothing is counted; nats, float64.

    Every row must have taken part in the step (`Trajectory.rows` leaves others out).

    Args:
        ask_all: ask the model about every open position, as the sampler did, also where no term needs it.
    Raises:
        ValueError: a likelihood that the sampler's steps do not have.
    """
    check_likelihood(kind, sampler)
    canvas, setting = taken.before(step, vocab=model.vocab), taken.setting[step]
    counts = counted(kind, taken, step)
    at = taken.open(step) if ask_all or kind in ORDERED else counts
    logits, law = sampler.laws(model, canvas, at, setting)
    terms = torch.zeros(at.shape, dtype=torch.float64, device=at.device)
    terms = terms.masked_scatter(counts, log_prob_of(law[counts[at]], taken.token[step][counts]))
    if kind not in ORDERED:
        return terms
    drawn = taken.token[step][at] if kind == "augmented" else None
    weights = sampler.weights(at, setting, logits, law, drawn)
    return terms + order_terms(weights, taken.rank[step], allowed=at)


def order_terms(
    weights: Float[Tensor, "B L"], rank: Int[Tensor, "B L"], *, allowed: Bool[Tensor, "B L"]
) -> Float[Tensor, "B L"]:
    """At each kept position the log-probability of its being next in the race; 0 where all that ran were kept.

    Then the order decides nothing, and its term would be noise alone.
    """
    decides = ((rank >= 0).sum(-1) < allowed.sum(-1))[:, None]
    return torch.where(decides, ordered_log_probs(weights, rank, allowed=allowed), 0.0)
