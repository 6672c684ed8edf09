"""Position rules: which open positions a row writes in a step."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.samplers.adaptive import EntropyBound, Factor, Threshold
from anyorder.samplers.certainty import SCORES, certainty, log_moment, of_law, spread
from anyorder.samplers.look import CountRule, Look, PositionRule

COLD = 1e-9  # stands for noise 0 at the end of annealing: the race then goes to the highest score


@dataclass(frozen=True)
class Uniform:
    """k open positions, every subset with the same chance: those with the smallest of independent uniforms."""

    def weights(self, look: Look) -> Float[Tensor, "B L"]:
        return torch.zeros_like(look.open, dtype=torch.float64).masked_fill(~look.open, -torch.inf)

    def __call__(self, look: Look, k: Int[Tensor, " B"]) -> Bool[Tensor, "B L"]:
        return best(-look.u, k, allowed=look.open)


@dataclass(frozen=True)
class LeftToRight:
    """The first k open positions."""

    def weights(self, look: Look) -> None:
        return None

    def __call__(self, look: Look, k: Int[Tensor, " B"]) -> Bool[Tensor, "B L"]:
        return look.open & (look.open.cumsum(-1) <= k[:, None])


@dataclass(frozen=True)
class Confidence:
    """The k open positions of which the network is surest, the leftmost among equals.

    Equal means equal in float64: a tolerance would order a confident model, whose probabilities differ in the ninth
    digit, from left to right. Where a network cannot tell positions apart (a row of nothing but masks, with rotary
    positions), its rounding chooses, as in the public code of these samplers. Rows that read the same share one
    forward pass (`passes.py`), so a row still comes out the same alone and among rows that begin alike; kernels that
    round otherwise, such as another device's, may begin elsewhere.

    Args:
        score: a name of `certainty.SCORES`; or "drawn", the log-probability of the drawn token, for samplers that draw
            first.
        shaped: score the distribution that tokens are drawn from, after temperature and truncation (at temperature 0:
            after truncation), instead of the model's own.
        eos_last: score "drawn" by the distribution without the end of document: where that was drawn, the position
            comes last.
        without: other token ids to treat so; one beyond the vocabulary names no token.
        noise: times a Gumbel variable added to the score (to its exponential where `linear`); 0 for none.
        anneal: let the noise fall linearly to 0 over so many steps; 0 keeps it.
        linear: score "prob" and "drawn" by the probability itself, not its logarithm; it matters only with noise.
    Raises:
        ValueError: a score that does not exist, noise < 0 or not finite, or `eos_last` for another score.
    Source:
        arXiv:2502.06768, section 4 (max-probability, margin); arXiv:2202.04200 (MaskGIT: drawn, annealed noise);
        arXiv:2502.09992 (LLaDA: drawn; `eos_last`: its appendix B.4); Dream scores `shaped`, and its `alg_temp` is
        `linear` noise: Gumbel top-k draws without replacement.
    """

    score: str = "prob"
    noise: float = 0.0
    anneal: int = 0
    linear: bool = False
    shaped: bool = False
    eos_last: bool = False
    without: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.score not in (*SCORES, "drawn"):
            raise ValueError(f"sampler.score={self.score!r}: must be one of {', '.join([*SCORES, 'drawn'])}")
        if not 0.0 <= self.noise < math.inf:
            raise ValueError(f"sampler.noise={self.noise}: must be >= 0 and finite; 0 takes the surest")
        if (self.eos_last or self.without) and self.score != "drawn":
            raise ValueError(f"sampler.eos_last={self.eos_last}: judges drawn tokens; use score='drawn'")

    def weights(self, look: Look) -> Float[Tensor, "B L"] | None:
        if not self.noise:
            return None
        score = self._score(look)
        if self.linear and self.score in ("prob", "drawn"):
            score = score.exp().masked_fill(~look.open, -torch.inf)
        left = torch.ones_like(look.left, dtype=torch.float64)
        if self.anneal:
            left = (1 - (look.carry.step + 1) / self.anneal).double().clamp(min=0.0)
        return score / (self.noise * left[:, None]).clamp(min=COLD)

    def __call__(self, look: Look, k: Int[Tensor, " B"]) -> Bool[Tensor, "B L"]:
        weights = self.weights(look)
        if weights is not None:
            return best(weights + look.gumbel, k, allowed=look.open)
        if self.score == "margin":  # its logarithm tells leads near 1 apart
            return best(certainty(look, "log_margin", shaped=self.shaped), k, allowed=look.open)
        return best(self._score(look), k, allowed=look.open)

    def _score(self, look: Look) -> Float[Tensor, "B L"]:
        eos_id = look.model.vocab.eos_id if self.eos_last else None
        without = self.without if eos_id is None else (eos_id, *self.without)
        return certainty(look, self.score, shaped=self.shaped, without=without)


@dataclass(frozen=True)
class HighestEntropy:
    """The k open positions of which the network is least sure, the leftmost among equals.

    Source:
        arXiv:2411.06438 (EAGS): hard positions first, the opposite of `Confidence("entropy")`.
    """

    def weights(self, look: Look) -> None:
        return None

    def __call__(self, look: Look, k: Int[Tensor, " B"]) -> Bool[Tensor, "B L"]:
        return best(-certainty(look, "entropy"), k, allowed=look.open)


@dataclass(frozen=True)
class Moment:
    """k open positions drawn without replacement, each with weight sum_x p(x)^beta; then tokens from p^beta.

    What MaskGIT does with k much smaller than the number of masks, with the positions chosen first: the token rule
    must have temperature 1/beta (the preset "moment" sets it).

    Raises:
        ValueError: beta <= 0 or not finite.
    Source:
        arXiv:2510.04525 (moment sampler); MaskGIT's noise alpha is beta = 1 + 1/alpha.
    """

    beta: float = 2.0

    def __post_init__(self) -> None:
        if not 0.0 < self.beta < math.inf:
            raise ValueError(f"sampler.beta={self.beta}: must be > 0 and finite; 1 chooses positions uniformly")

    def weights(self, look: Look) -> Float[Tensor, "B L"]:
        return spread(look, of_law(look, lambda logits: log_moment(logits, self.beta)))

    def __call__(self, look: Look, k: Int[Tensor, " B"]) -> Bool[Tensor, "B L"]:
        return best(self.weights(look) + look.gumbel, k, allowed=look.open)


def best(score: Float[Tensor, "B L"], k: Int[Tensor, " B"], *, allowed: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
    """The k allowed positions of highest score in each row (all of them if there are fewer), the leftmost among equals.

    There are always k, whatever the scores: a nan ranks first, so that it is refused when its token is drawn.
    """
    possible = score.clamp(min=torch.finfo(score.dtype).min)  # -inf among the allowed stays above what is not
    order = possible.masked_fill(~allowed, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    return allowed & (order.argsort(-1) < k[:, None])


def check_together(count: CountRule, position: PositionRule, order: str) -> None:
    """Raises ValueError for rules that contradict each other, naming what would go together."""
    if order not in ("choose_first", "draw_first"):
        raise ValueError(f"sampler.order={order!r}: must be 'choose_first' or 'draw_first'")
    drawn = isinstance(position, Confidence) and position.score == "drawn"
    if drawn and order == "choose_first":
        raise ValueError("sampler.position=Confidence('drawn'): needs order='draw_first'; or choose by 'prob'")
    if order == "draw_first" and not drawn:
        raise ValueError(
            f"sampler.order='draw_first': {type(position).__name__} does not look at drawn tokens; "
            "use position=Confidence('drawn'), or order='choose_first'"
        )
    if isinstance(count, Threshold | Factor | EntropyBound):
        scores = (count.score, "drawn") if count.score == "prob" else (count.score,)
        if not (isinstance(position, Confidence) and position.score in scores):
            raise ValueError(
                f"sampler.count={type(count).__name__}: counts positions by {count.score!r}; "
                f"use position=Confidence({count.score!r})"
            )
