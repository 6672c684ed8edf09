"""One cell of the study of error rates: rows written by a sampler in N steps, and judged by the language itself."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from anyorder.core.noise import Noise
from anyorder.core.schedule import Linear
from anyorder.core.types import Canvas
from anyorder.samplers.base import generate
from anyorder.samplers.count import expected_passes
from anyorder.samplers.presets import make_sampler
from anyorder.studies.error_languages import Language

ANCESTRAL, GROUPS, CAUSAL = "ancestral", "first-hitting", "causal"
ROUNDING = 1e-12  # nats per token
LEVEL = 0.5  # of the sequence error rate


@dataclass(frozen=True)
class Rate:
    """A language written by a sampler.

    Args:
        soft: whether the language can produce every sequence.
        num_steps: N; the length for samplers that write one token per step.
        nfe: network passes per row, mean.
        nats, nats_error: -log q(x) / L, mean over rows and standard error; TER = exp(nats). Infinite once a row is
            impossible under q.
        broken: share of rows that are impossible under q: SER.
        floor: nats of exact samples, H / L; None where not known.
        theory: what is predicted for nats - floor of soft languages, for SER of hard ones; None where nothing is.
    """

    language: str
    soft: bool
    sampler: str
    length: int
    num_steps: int
    rows: int
    nfe: float
    nats: float
    nats_error: float
    broken: float
    floor: float | None
    theory: float | None = None

    @property
    def gap(self) -> float:
        """log TER above that of exact samples, nats per token."""
        return self.nats - (math.nan if self.floor is None else self.floor)

    @property
    def off(self) -> float:
        """|gap| in standard errors and rounding; 0 where there is no floor or TER is infinite."""
        return abs(self.gap) / (self.nats_error + ROUNDING) if self.floor is not None and self.broken == 0 else 0.0

    @property
    def deviation(self) -> float:
        """|measured - theory| in units of the standard error and 3 % of the theory."""
        assert self.theory is not None
        got, error = (self.gap, self.nats_error) if self.soft else (self.broken, self.broken_error)
        return abs(got - self.theory) / (error + 0.03 * self.theory)

    @property
    def one_at_a_time(self) -> bool:
        return self.sampler == CAUSAL or (self.sampler == GROUPS and self.num_steps == self.length)

    @property
    def share(self) -> float:
        """`broken` kept away from 0 and 1 by half a row."""
        return (self.broken * self.rows + 0.5) / (self.rows + 1)

    @property
    def broken_error(self) -> float:
        """Standard error of `broken`; never 0."""
        return math.sqrt(self.share * (1 - self.share) / self.rows)


@dataclass(frozen=True)
class Need:
    """Steps at which SER is `LEVEL`.

    Args:
        num_steps, log_error: interpolated, and the standard error of their logarithm.
        nfe: passes that they cost.
        theory: the same interpolation between predictions; None where there are none.
    """

    language: str
    sampler: str
    length: int
    num_steps: float
    log_error: float
    nfe: float
    theory: float | None = None


def rate(language: Language, sampler: str, *, length: int, num_steps: int, rows: int, noise: Noise) -> Rate:
    """Write rows from nothing and look at them. N is ignored by `causal`, which takes one step per token."""
    oracle = language.oracle
    blank = Canvas.of(torch.full((rows, length), oracle.vocab.mask_id), vocab=oracle.vocab)
    made = make_sampler(sampler, num_steps=None if sampler == CAUSAL else num_steps)
    stream = noise.at(language.name).at(sampler).at(length).at(num_steps)
    done = generate(made, oracle, blank, noise=stream)
    nats = -oracle.log_prob(done.canvas.x) / length
    return Rate(
        language=language.name,
        soft=language.soft,
        sampler=sampler,
        length=length,
        num_steps=num_steps,
        rows=rows,
        nfe=float(done.nfe.double().mean()),
        nats=float(nats.mean()),
        nats_error=float(nats.std() / math.sqrt(rows)),
        broken=float(nats.isinf().double().mean()),
        floor=None if language.entropy is None else language.entropy(length) / length,
    )


def need(rates: Sequence[Rate]) -> Need | None:
    """Steps needed for SER = `LEVEL` from rates of one language, sampler and length; None if it is not bracketed.

    log(-log(1 - SER)) is taken as linear in log N between neighbours; it would be, with slope -1, if errors were
    independent and as frequent as 1/N.
    """
    rates = sorted(rates, key=lambda r: r.num_steps)
    wanted = math.log(-math.log(1 - LEVEL))
    heights = [math.log(-math.log(1 - r.share)) for r in rates]
    for a, b, high, low in zip(rates, rates[1:], heights, heights[1:]):
        if high > wanted >= low:
            way, run = (high - wanted) / (high - low), math.log(b.num_steps / a.num_steps)
            errors = [r.broken_error / ((1 - r.share) * -math.log(1 - r.share)) for r in (a, b)]
            num_steps = a.num_steps * math.exp(way * run)
            error = math.hypot((1 - way) * errors[0], way * errors[1]) * run / (high - low)
            ancestral = expected_passes(Linear(), round(num_steps), a.length)
            nfe = ancestral if a.sampler == ANCESTRAL else num_steps
            return Need(a.language, a.sampler, a.length, num_steps, error, nfe, _predicted(rates))
    return None


def _predicted(rates: Sequence[Rate]) -> float | None:
    """Steps needed if every rate were as predicted."""
    ideal = [replace(r, broken=r.theory, theory=None) for r in rates if r.theory is not None]
    found = need(ideal) if len(ideal) == len(rates) else None
    return None if found is None else found.num_steps


def fall(rates: Sequence[Rate]) -> tuple[float, float]:
    """p of gap ~ N^-p, by weighted least squares over the N that write few tokens at once, and its standard error."""
    some = [r for r in rates if r.num_steps >= 4 and r.gap > r.nats_error]
    p, error = power([float(r.num_steps) for r in some], [r.gap for r in some], [r.nats_error / r.gap for r in some])
    return -p, error


def growth(needs: Sequence[Need]) -> tuple[float, float]:
    """p of N ~ L^p for a level of SER, by weighted least squares, and its standard error."""
    return power([float(n.length) for n in needs], [n.num_steps for n in needs], [n.log_error for n in needs])


def power(x: Sequence[float], y: Sequence[float], log_errors: Sequence[float]) -> tuple[float, float]:
    """p of y ~ x^p by weighted least squares in logarithms, and its standard error."""
    weights = [1 / e**2 for e in log_errors]
    u, v = [math.log(a) for a in x], [math.log(b) for b in y]
    mean = sum(w * a for w, a in zip(weights, u)) / sum(weights)
    spread = sum(w * (a - mean) ** 2 for w, a in zip(weights, u))
    return sum(w * (a - mean) * b for w, a, b in zip(weights, u, v)) / spread, 1 / math.sqrt(spread)
