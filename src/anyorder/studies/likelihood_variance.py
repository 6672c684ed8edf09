"""How many passes a likelihood takes: estimators of public code beside ours, at equal standard error."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from anyorder.core.config import load_config
from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.schedule import Linear
from anyorder.data.loader import in_order
from anyorder.hub.find import model_folder
from anyorder.hub.load import load_model
from anyorder.likelihood.bound import Estimate, Rows, count_form, time_form
from anyorder.likelihood.references import BATCH, llada_form, smdm_form
from anyorder.studies import Check, Findings
from anyorder.studies.plot_svg import Line, Plot, line_plots
from anyorder.studies.text import columns
from anyorder.testing.oracle import MarkovOracle
from anyorder.train.config import RunConfig
from anyorder.train.data import run_data
from anyorder.train.loop import CONFIG

AIM = 8.0  # times fewer passes than SMDM's estimator
ANSWER = 8  # tokens of the chain
Form = Callable[[Denoiser, Rows, int, Noise], Estimate]


def _count(model: Denoiser, rows: Rows, draws: int, noise: Noise) -> Estimate:
    return count_form(
        model, rows.tokens, target=rows.target, row_id=rows.row_id, draws=draws, noise=noise, replicates=2
    )


def _time(model: Denoiser, rows: Rows, draws: int, noise: Noise) -> Estimate:
    return time_form(
        model,
        rows.tokens,
        target=rows.target,
        row_id=rows.row_id,
        draws=draws,
        noise=noise,
        schedule=Linear(),
        replicates=2,
    )


FORMS: dict[str, Form] = {
    "SMDM": lambda model, rows, draws, noise: smdm_form(model, rows, draws=draws, noise=noise),
    "LLaDA": lambda model, rows, draws, noise: llada_form(model, rows, draws=draws, noise=noise),
    "time": _time,
    "count": _count,
}


@dataclass(frozen=True)
class Case:
    """What is scored: one row, of which all but the prompt is target, and its true value if it is known."""

    name: str
    model: Denoiser
    tokens: Int[Tensor, " L"]
    prompt: int
    true: float | None


@dataclass(frozen=True)
class Spread:
    """Many independent estimates of one value.

    Args:
        deviation: their standard deviation, nats; `stderr` the mean of the errors they state.
        bias: their mean less the true value, None where that is unknown; `bias_stderr` its error.
    """

    case: str
    form: str
    draws: int
    deviation: float
    stderr: float
    bias: float | None
    bias_stderr: float


@torch.no_grad()
def study(*, quick: bool, run: Path | None, seed: int) -> Findings:
    """Spread of each estimator against its passes, on a Markov chain and, if given, on a trained model's text.

    Raises:
        ValueError: a run that is no masked diffusion model of text.
    """
    noise = Noise.of(seed).at("likelihood-variance")
    cases = chain_cases(noise, quick=quick) + ([] if run is None else text_cases(run, quick=quick))
    counts = [2 * BATCH, 8 * BATCH] if quick else [2 * BATCH, 4 * BATCH, 8 * BATCH, 16 * BATCH]
    spreads = []
    for case in cases:
        known = case.true is not None
        times = (100 if quick else 400) if known else (12 if quick else 48)
        for name, form in FORMS.items():
            spreads += [spread(case, name, form, draws, times=times, noise=noise) for draws in counts]
    return findings(spreads)


def spread(case: Case, name: str, form: Form, draws: int, *, times: int, noise: Noise) -> Spread:
    """Estimates under `times` names of the row."""
    tokens = case.tokens.repeat(times, 1)
    target = (torch.arange(tokens.shape[1]) >= case.prompt).expand(tokens.shape)
    made = form(case.model, Rows(tokens, target, None, torch.arange(times)), draws, noise)
    deviation = float(made.nats.std())
    return Spread(
        case=case.name,
        form=name,
        draws=draws,
        deviation=deviation,
        stderr=float(made.stderr.square().mean().sqrt()),
        bias=None if case.true is None else float(made.nats.mean()) - case.true,
        bias_stderr=deviation / math.sqrt(times),
    )


def chain_cases(noise: Noise, *, quick: bool, size: int = 8, length: int = 32) -> list[Case]:
    """Rows of a Markov chain over `size` tokens: an answer of 8 tokens to a prompt, and a whole row."""
    chain = MarkovOracle.random(size, noise=noise.at("chain"))
    x = chain.sample(1, length, noise=noise.at("row"))
    whole = -float(chain.log_prob(x))
    prompt = -float(chain.log_prob(x[:, : length - ANSWER]))
    cases = [Case(f"chain, {ANSWER} of {length}", chain, x[0], length - ANSWER, whole - prompt)]
    return cases if quick else [*cases, Case(f"chain, {length} of {length}", chain, x[0], 0, whole)]


def text_cases(run: Path, *, quick: bool) -> list[Case]:
    """A held-out row of a run: as a whole, and an answer of 12 tokens in it."""
    folder = model_folder(run)
    loaded = load_model(folder)
    config = load_config(RunConfig, folder.parent / CONFIG)
    if loaded.kind != "mdm" or config.task is not None:
        raise ValueError(f"{run}: the estimators are of masked diffusion models of text; name such a run")
    tokens = next(in_order(run_data(config).valid, rows=1, limit=1)).tokens[0]
    answer = Case("text, 12 of 48", loaded.model, tokens[:48], 36, None)
    return [answer] if quick else [answer, Case("text, 64 of 64", loaded.model, tokens[:64], 0, None)]


def passes_ratio(spreads: list[Spread], case: str, form: str) -> float:
    """How many times fewer passes the count form takes for the same error: a ratio of variances at equal draws."""
    at = {(s.form, s.draws): s.deviation**2 for s in spreads if s.case == case}
    ratios = [at[form, draws] / at["count", draws] for f, draws in at if f == "count"]
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def findings(spreads: list[Spread]) -> Findings:
    """Tables, checks and the plot."""
    names = list(dict.fromkeys(s.case for s in spreads))
    rows, checks = [], []
    for s in spreads:
        bias = "-" if s.bias is None else f"{s.bias:+.3f} ± {s.bias_stderr:.3f}"
        rows.append([s.case, s.form, str(s.draws), f"{s.deviation:.3f}", f"{s.stderr:.3f}", bias])
    ratios = {name: {form: passes_ratio(spreads, name, form) for form in FORMS} for name in names}
    for name in names:
        ours = ratios[name]["SMDM"]
        checks.append(Check(f"{name}: passes of SMDM's estimator over ours", ours, f">= {AIM:g}", ours >= AIM))
    worst = max(abs(s.bias) / s.bias_stderr for s in spreads if s.bias is not None and s.form == "count")
    checks.append(Check("count form: largest bias in standard errors", worst, "<= 4", worst <= 4))
    stated = [s.stderr / s.deviation for s in spreads if s.form == "count"]
    honest = max(max(stated), 1 / min(stated))
    checks.append(Check("count form: stated error over observed, at worst", honest, "<= 1.35", honest <= 1.35))
    table = columns("case|estimator|draws|deviation, nats|stated error|bias, nats", rows, left=2)
    fewer = columns(
        "case|" + "|".join(f"over {form}" for form in FORMS if form != "count"),
        [[name, *(f"{ratios[name][form]:.1f}x" for form in FORMS if form != "count")] for name in names],
    )
    text = f"{table}\n\npasses for the same error, over those of the count form\n\n{fewer}"
    payload: dict[str, Any] = {"spreads": [s.__dict__ for s in spreads], "passes": ratios}
    return Findings(text=text, payload=payload, checks=checks, svg=picture(spreads, names))


def picture(spreads: list[Spread], names: list[str]) -> str:
    """Deviation against draws, a plot for each case."""
    plots = []
    for name in names:
        lines = []
        for form in FORMS:
            points = [(float(s.draws), s.deviation) for s in spreads if s.case == name and s.form == form]
            lines.append(Line(form, points))
        plots.append(Plot(lines, f"Error of one estimate: {name}", "network passes", "standard deviation, nats", True))
    return line_plots(plots)
