"""How sure the network is of each open position: the scores that counts and positions are chosen by."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from anyorder.core.categorical import below_top, log_prob_of, total
from anyorder.samplers.look import Look

CHUNK = 64  # positions whose law is held at a time beside the logits
LEAST = -1e4  # its exponential is 0 in float32 and float64, and 0 times it is 0
Score = Callable[[Float[Tensor, "N V"]], Float[Tensor, " N"]]


def top_log_prob(logits: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
    """log max p, nats."""
    return -total(below_top(logits).exp()).log()


def margin(logits: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
    """The largest probability minus the second largest; 1 if there is only one token."""
    x = below_top(logits)
    two = x.topk(min(2, x.shape[-1]), -1).values.double().exp() / total(x.exp())[:, None]
    return two[:, 0] - two[:, 1:].sum(-1)


def negentropy(logits: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
    """-H, nats: 0 where one token is certain."""
    x = below_top(logits).clamp(min=LEAST)
    p = x.exp()
    mass = total(p)
    return total(p * x) / mass - mass.log()


def log_moment(logits: Float[Tensor, "N V"], beta: float) -> Float[Tensor, " N"]:
    """log sum p^beta."""
    x = below_top(logits)
    return total((beta * x).exp()).log() - beta * total(x.exp()).log()


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
    """A function of the model's logits at each open position; exact to 1e-7 nats, to float64 for float64 logits."""
    return torch.cat([score(rows) for rows in torch.split(look.logits, CHUNK)])


def spread(look: Look, values: Float[Tensor, " N"]) -> Float[Tensor, "B L"]:
    """Values of the open positions at their places, -inf elsewhere."""
    empty = torch.full_like(look.open, -torch.inf, dtype=torch.float64)
    return empty.index_put(look.open.nonzero(as_tuple=True), values)
