"""How sure the network is of each open position: the scores that counts and positions are chosen by.

On a confident model nearly all probabilities are 1 in single precision, and what a sampler orders by is how much is
missing. Scores are therefore logarithms in float64, made of that missing mass (`core.categorical.rest`).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from anyorder.core.categorical import below_top, log_prob_of, rest, row_chunks, total
from anyorder.samplers.look import Look

LEAST = -1e4  # its exponential is 0 in float32 and float64, and 0 times it is 0
Score = Callable[[Float[Tensor, "N V"]], Float[Tensor, " N"]]


def top_log_prob(logits: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
    """log max p, nats."""
    return -rest(below_top(logits)).log1p()


def log_margin(logits: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
    """Logarithm of the largest probability minus the second largest; -inf where they are equal."""
    x = below_top(logits)
    second = x.topk(min(2, x.shape[-1]), -1).values[:, 1:].double().exp().sum(-1)
    return torch.log1p(-second) - rest(x).log1p()


def margin(logits: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
    """The largest probability minus the second largest; 1 if there is only one token."""
    return log_margin(logits).exp()


def negentropy(logits: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
    """-H, nats: 0 where one token is certain."""
    x = below_top(logits).clamp(min=LEAST)
    others = rest(x)
    return total(x.exp() * x) / (1 + others) - others.log1p()  # two terms <= 0: nothing cancels


def log_moment(logits: Float[Tensor, "N V"], beta: float) -> Float[Tensor, " N"]:
    """log sum p^beta."""
    x = below_top(logits)
    return rest(beta * x).log1p() - beta * rest(x).log1p()


SCORES: dict[str, Score] = {"prob": top_log_prob, "margin": margin, "entropy": negentropy}
FINER: dict[str, Score] = {"log_margin": log_margin}  # the order of a score, finer than its float64


def certainty(look: Look, score: str, *, shaped: bool = False, without: tuple[int, ...] = ()) -> Float[Tensor, "B L"]:
    """A score of `SCORES` at every open position, -inf elsewhere; float64, one network pass shared by all rules.

    "drawn" is the log-probability of the token drawn there, for samplers that draw first.

    Args:
        shaped: of the distribution tokens are drawn from; otherwise of the model's own.
        without: tokens the distribution of "drawn" is taken without.
    """
    name = f"{score} {shaped} {without}"
    if name not in look.memo:
        drawn = score == "drawn"
        values = _drawn(look, shaped, without) if drawn else of_law(look, (SCORES | FINER)[score], shaped=shaped)
        look.memo[name] = spread(look, values)
    return look.memo[name]


def of_law(look: Look, score: Score, *, shaped: bool = False) -> Float[Tensor, " N"]:
    """A function of the logits at each open position; exact to 1e-7 nats, to float64 for float64 logits."""
    shape = look.token.shape if shaped else (lambda logits: logits)
    return torch.cat([score(shape(look.logits[rows])) for rows in row_chunks(look.logits)])


def _drawn(look: Look, shaped: bool, without: tuple[int, ...]) -> Float[Tensor, " N"]:
    """Log-probability of the drawn tokens."""
    logits = look.token.shape(look.logits) if shaped else look.logits
    ids = [i for i in without if i < logits.shape[-1]]
    if ids:
        logits = logits.index_fill(-1, torch.tensor(ids, device=logits.device), -torch.inf)
    return log_prob_of(logits, look.drawn[0])


def spread(look: Look, values: Float[Tensor, " N"]) -> Float[Tensor, "B L"]:
    """Values of the open positions at their places, -inf elsewhere."""
    empty = torch.full_like(look.open, -torch.inf, dtype=torch.float64)
    return empty.index_put(look.open.nonzero(as_tuple=True), values)
