"""Two ways to count the errors of parallel writing with a perfect denoiser: token error rate and sequence error rate.

Languages with known laws stand in for the model, so that every error comes from writing several tokens at once.
Source: arXiv:2502.09622.
"""

import contextlib
import dataclasses
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from anyorder.core.noise import Noise
from anyorder.studies import Check, Findings
from anyorder.studies.error_languages import PHASES, Language, hard_languages, soft_languages
from anyorder.studies.error_report import by, picture, show
from anyorder.studies.error_runs import ANCESTRAL, CAUSAL, GROUPS, Need, Rate, fall, growth, need, rate
from anyorder.studies.error_theory import Pairs, clock_error, clock_error_of_groups, path_cost, visible_curve

STEADY = 8  # N at which token error rates of different lengths are compared
CURVE_ROWS = 64


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Args:
        tokens: written in each cell.
        token_lengths, token_steps: of token error rates: lengths and N.
        sequence_lengths, shares: of sequence error rates: lengths, and N as shares of the length.
        causal: the longest rows that are written from left to right too.
        points: intervals of the curves that predict path costs, a multiple of every N that gets a prediction.
    """

    tokens: int = 1 << 16
    token_lengths: tuple[int, ...] = (64, 128, 512)
    token_steps: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    sequence_lengths: tuple[int, ...] = (32, 64, 128, 256, 512)
    shares: tuple[float, ...] = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
    causal: int = 128
    points: int = 128


QUICK = Sizes(
    tokens=1 << 13,
    token_lengths=(32, 64),
    token_steps=(1, 2, 4, 8, 16),
    sequence_lengths=(16, 64),
    shares=(1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0),
    causal=32,
    points=16,
)


def study(*, quick: bool = False, run: Path | None = None, seed: int = 0) -> Findings:
    """All languages, samplers, lengths and numbers of steps.

    Args:
        quick: shorter rows, and fewer of them.
    Raises:
        ValueError: `run` is given.
    """
    if run is not None:
        raise ValueError(f"--run {run}: error-rates studies languages with known laws and no model; leave --run out")
    sizes, noise = QUICK if quick else Sizes(), Noise.of(seed).at("error-rates")
    with one_thread():
        tokens = measure(token_jobs(sizes), "token error rates", noise=noise)
        sequences = measure(sequence_jobs(sizes), "sequence error rates", noise=noise)
        paths = path_costs(sizes, noise=noise.at("paths"))
    needs = all_needs(sequences)
    payload: dict[str, Any] = {
        "quick": quick,
        "seed": seed,
        "sizes": asdict(sizes),
        "token_rates": [asdict(r) | {"ter": math.exp(r.nats), "gap": r.gap} for r in tokens],
        "sequence_rates": [asdict(r) | {"broken_error": r.broken_error} for r in sequences],
        "path_costs": [{"language": name, "num_steps": n, "nats": nats} for (name, n), nats in paths.items()],
        "needs": [asdict(n) for n in needs],
    }
    text = show(tokens, sequences, paths, needs)
    return Findings(text, payload, checks(tokens, sequences, needs), picture(tokens, sequences, needs))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: the tensors are small, and more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Job:
    """What one `Rate` is measured of."""

    language: Language
    sampler: str
    length: int
    num_steps: int
    rows: int


def token_jobs(sizes: Sizes) -> list[Job]:
    """Soft languages at every length and N."""
    jobs = []
    for language in soft_languages():
        for length in sizes.token_lengths:
            jobs += cell(language, length, [n for n in sizes.token_steps if n <= length // 2], sizes=sizes)
    return jobs


def sequence_jobs(sizes: Sizes) -> list[Job]:
    """Hard languages at every length, with N in proportion to it."""
    jobs = []
    for language in hard_languages():
        for length in sizes.sequence_lengths:
            jobs += cell(language, length, [round(share * length) for share in sizes.shares], sizes=sizes)
    return jobs


def cell(language: Language, length: int, steps: Sequence[int], *, sizes: Sizes) -> list[Job]:
    """Ancestral and equal groups at each N, and one token at a time."""
    settings = [(ANCESTRAL, n) for n in steps] + [(GROUPS, n) for n in (*(n for n in steps if n < length), length)]
    if length <= sizes.causal:
        settings.append((CAUSAL, length))
    return [Job(language, sampler, length, n, sizes.tokens // length) for sampler, n in settings]


def measure(jobs: Sequence[Job], about: str, *, noise: Noise) -> list[Rate]:
    """Every job's rate beside its theory, with a progress bar on a terminal."""
    pairs = {job.language.name: Pairs.of(job.language.law) for job in jobs if job.language.law is not None}
    console, hidden = Console(stderr=True), not sys.stderr.isatty()
    found = []
    for job in track(jobs, about, console=console, disable=hidden, transient=True):
        got = rate(job.language, job.sampler, length=job.length, num_steps=job.num_steps, rows=job.rows, noise=noise)
        found.append(dataclasses.replace(got, theory=theory_of(job, pairs.get(job.language.name))))
    return found


def theory_of(job: Job, pairs: Pairs | None) -> float | None:
    """The gap of log TER of soft 2-grams, SER of hard ones and of the clock; None where nothing is predicted."""
    length, n, groups = job.length, job.num_steps, job.sampler == GROUPS
    if job.sampler == CAUSAL or (groups and n == length):
        return 0.0
    if job.language.name == "clock":
        return (clock_error_of_groups if groups else clock_error)(PHASES, length, n)
    if pairs is None:
        return None
    if job.language.soft:
        return pairs.total(pairs.excess, length=length, num_steps=n, groups=groups) / length
    return -math.expm1(-pairs.total(pairs.broken, length=length, num_steps=n, groups=groups))


def path_costs(sizes: Sizes, *, noise: Noise) -> dict[tuple[str, int], float]:
    """Path-KL per token of N equal steps in the longest rows, by soft language and N, from a sampled curve."""
    length, found = sizes.token_lengths[-1], {}
    for language in soft_languages():
        stream = noise.at(language.name)
        tokens = language.oracle.sample(CURVE_ROWS, length, noise=stream.at("rows"))
        curve = visible_curve(language.oracle, tokens, points=sizes.points, noise=stream.at("order"))
        found.update({(language.name, n): path_cost(curve, n) for n in sizes.token_steps})
    return found


def all_needs(rates: Sequence[Rate]) -> list[Need]:
    """Steps needed by every language, sampler and length whose rates cross the level."""
    cells = by(rates, "language", "sampler", "length")
    found = [need(cell) for (_, sampler, _), cell in cells.items() if sampler != CAUSAL]
    return [n for n in found if n is not None]


def checks(tokens: Sequence[Rate], sequences: Sequence[Rate], needs: Sequence[Need]) -> list[Check]:
    """The study's aims."""
    every = [*tokens, *sequences]
    single = [r for r in every if r.one_at_a_time]
    ancestral = [r for r in tokens if r.sampler == ANCESTRAL]
    steady = by([r for r in ancestral if r.num_steps == STEADY], "language").values()
    longest = max(r.length for r in tokens)
    falls = [off_one(*fall(cell)) for cell in by([r for r in ancestral if r.length == longest], "language").values()]
    rises = [off_one(*growth(cell)) for cell in by(needs, "language", "sampler").values() if len(cell) > 1]
    parallel = [r for r in every if r.theory is not None and not r.one_at_a_time]
    clock = [abs(r.broken - (r.theory or 0.0)) / r.broken_error for r in parallel if r.language == "clock"]
    pairs = [r.deviation for r in parallel if r.language != "clock"]
    values = [
        ("one token at a time: SER", v := max(r.broken for r in single), "== 0", v == 0),
        ("one token at a time: log TER off H/L, standard errors", v := max(r.off for r in single), "<= 4", v <= 4),
        (f"TER at N = {STEADY}: greatest over least of all L", v := max(map(spread, steady)), "<= 1.05", v <= 1.05),
        ("TER gap ~ N^-p: p off 1, beyond two standard errors", v := max(falls), "<= 0.2", v <= 0.2),
        ("N for SER 1/2 ~ L^p: p off 1, beyond two standard errors", v := max(rises), "<= 0.2", v <= 0.2),
        ("SER of the clock off its closed form, standard errors", v := max(clock), "<= 4", v <= 4),
        ("2-grams off the sum over pairs, errors and 3 %", v := max(pairs), "<= 4", v <= 4),
    ]
    return [Check(name, float(value), aim, bool(met)) for name, value, aim, met in values]


def off_one(p: float, stderr: float) -> float:
    """By how much a power differs from 1 beyond two of its standard errors."""
    return max(0.0, abs(p - 1) - 2 * stderr)


def spread(rates: Sequence[Rate]) -> float:
    """Greatest over least TER."""
    nats = [r.nats for r in rates]
    return math.exp(max(nats) - min(nats))
