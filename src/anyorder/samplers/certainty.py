"""How sure the network is of each open position: the scores that counts and positions are chosen by."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from anyorder.core.categorical import log_prob_of, log_probs
from anyorder.samplers.look import Look

CHUNK = 256  # positions whose law is held in float64 at a time
Score = Callable[[Float[Tensor, "N V"]], Float[Tensor, " N"]]


def top_log_prob(logp: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
    """log max p, nats."""
    return logp.amax(-1)


def margin(logp: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
    """The largest probability minus the second largest; 1 if there is only one token."""
    two = logp.topk(min(2, logp.shape[-1]), -1).values.exp()
    return two[:, 0] - two[:, 1:].sum(-1)


def negentropy(logp: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
    """-H, nats: 0 where one token is certain."""
    h: Tensor = torch.special.xlogy(logp.exp(), logp.exp()).sum(-1)
    return h


SCORES: dict[str, Score] = {"prob": top_log_prob, "margin": margin, "entropy": negentropy}


def certainty(look: Look, score: str) -> Float[Tensor, "B L"]:
    """A score of `SCORES` at every open position, -inf elsewhere; float64, one network pass shared by all rules.

    "drawn" is the model's own log-probability of the token drawn there, for samplers that draw first.
    """
    if score not in look.memo:
        values: Tensor = log_prob_of(look.logits, look.drawn[0]) if score == "drawn" else of_law(look, SCORES[score])
        look.memo[score] = spread(look, values)
    return look.memo[score]


def of_law(look: Look, score: Score) -> Float[Tensor, " N"]:
    """A function of the model's law at each open position."""
    return torch.cat([score(log_probs(rows)) for rows in torch.split(look.logits, CHUNK)])


def spread(look: Look, values: Float[Tensor, " N"]) -> Float[Tensor, "B L"]:
    """Values of the open positions at their places, -inf elsewhere."""
    empty = torch.full_like(look.open, -torch.inf, dtype=torch.float64)
    return empty.index_put(look.open.nonzero(as_tuple=True), values)
