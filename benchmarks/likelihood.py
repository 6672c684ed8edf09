"""Likelihoods: the error of each estimator against its passes, and questions answered a second.

    python benchmarks/likelihood.py [--quick] [--threads N] [--run QUICKSTART]

The first part draws many independent estimates of one value with each estimator: on a Markov chain, whose conditionals
are exact and whose true value is known, and with --run on held-out text under a trained model. The ratio of variances
at equal passes says how many times more passes an estimator takes for the same error; the estimators and the ratio are
those of `anyorder study likelihood-variance`. Beside them stand those whose number of passes is not free: the count
form with each n twice, all sets of masks (exact), the chain rule from left to right and mixtures of orders.

The second part asks which of four answers follows a prompt of 32 tokens, four ways in turn: by the loop of SMDM's
public script, which stands below (one answer at a time, 16 copies of it a pass, logits everywhere, `torch.rand`), and
by `score_answers` one answer at a time, one question at a time, and all questions at once. All draw 16 masked copies;
answers of one and three tokens `score_answers` enumerates instead. Every round draws other masks, so the rounds show
the error of each way. Time goes with the number of draws, so at equal error the ratio of speeds is that at equal draws
times the ratio of variances. Without --run the network has random weights, so that only time means anything.
"""

import argparse
import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from anyorder.core.config import load_config
from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas, Vocab
from anyorder.hub.find import model_folder
from anyorder.hub.load import load_model
from anyorder.likelihood.bound import Estimate, Rows
from anyorder.likelihood.chain import chain_rule, order_mixture
from anyorder.likelihood.conditional import Question, score_answers
from anyorder.likelihood.references import BATCH
from anyorder.likelihood.subsets import subset_form
from anyorder.models import SIZES, Transformer
from anyorder.studies.guidance import PROMPT, WRITTEN, questions_of, whole_rows
from anyorder.studies.likelihood_variance import (
    AIM,
    FORMS,
    Case,
    Form,
    Spread,
    chain_cases,
    passes_ratio,
    spread,
    text_cases,
)
from anyorder.train.config import RunConfig
from anyorder.train.data import run_data
from anyorder.train.loop import CONFIG
from common import Row, at_least, at_most, median, report, synchronise

Checks = dict[str, dict[str, float | bool]]
VOCAB = Vocab(4096, 4096, 4097, 0)
SIZE = "1M"  # of the network with random weights
CHAIN = {"size": 32, "length": 64}
ENUMERATED = 12  # targets up to which all sets of masks are visited: 4095 passes
ANSWERS = (12, 3, 1)  # tokens
DRAWS = 16  # of an answer
SPEED_AIM = 4.0
EXACT = 1e-6  # nats squared: below it is rounding
NOISE = Noise.of(0)


# Error against passes


def exactly(case: Case, name: str, made: Estimate) -> Spread:
    """An estimate without error as a spread."""
    bias = None if case.true is None else float(made.nats) - case.true
    return Spread(case.name, name, made.nfe, float(made.stderr), float(made.stderr), bias, float(made.stderr))


def mixture(model: Denoiser, rows: Rows, draws: int, noise: Noise) -> Estimate:
    orders = draws // int(rows.target[0].sum())
    return order_mixture(model, rows.tokens, target=rows.target, row_id=rows.row_id, orders=orders, noise=noise)


def spreads_of(case: Case, counts: list[int], times: int) -> list[Spread]:
    """Every estimator at every number of passes, then those that take a number of their own."""
    target = torch.arange(len(case.tokens))[None] >= case.prompt
    size, row = int(target.sum()), Rows(case.tokens[None], target, None, torch.arange(1))
    sets = subset_form(case.model, row) if size <= ENUMERATED else None
    if sets is not None and case.true is None:
        case = dataclasses.replace(case, true=float(sets.nats))

    def drawn(name: str, form: Form, draws: int, times: int = times) -> Spread:
        return spread(case, name, form, draws, times=times, noise=NOISE.at(draws))

    found = [drawn(name, form, draws) for name, form in FORMS.items() for draws in counts]
    found.append(drawn("count, each n twice", FORMS["count"], 2 * size))
    if sets is not None:
        found.append(exactly(case, "all sets", sets))
    found.append(exactly(case, "chain rule", chain_rule(case.model, row.tokens, target=target)))
    return found + [drawn(f"mixture of {k}", mixture, k * size, max(4, times // 4)) for k in (1, 4)]


def error_rows(spreads: list[Spread]) -> list[Row]:
    """A row per estimator and number of passes; what is not known is a dash."""
    return [
        {
            "case": s.case,
            "estimator": s.form,
            "passes": s.draws,
            "deviation": round(s.deviation, 6),
            "stated": "-" if math.isnan(s.stderr) else round(s.stderr, 6),
            "less the bound": "-" if s.bias is None else round(s.bias, 6),
            "+-": "-" if s.bias is None else round(s.bias_stderr, 6),
        }
        for s in spreads
    ]


def part_errors(run: Path | None, *, quick: bool) -> tuple[list[Row], Checks]:
    """Both tables of the first part, and its aims."""
    known = chain_cases(NOISE.at("likelihood"), quick=quick, **CHAIN)
    text = [] if run is None else text_cases(run, quick=quick)
    counts = [2 * BATCH, 4 * BATCH] if quick else [2 * BATCH, 8 * BATCH]
    spreads = [s for case in known for s in spreads_of(case, counts, 40 if quick else 150)]
    spreads += [s for case in text for s in spreads_of(case, counts, 8 if quick else 24)]
    names, others = list(dict.fromkeys(s.case for s in spreads)), [form for form in FORMS if form != "count"]
    rows = error_rows(spreads)
    rows += [{"passes of": name, **{f: passes_ratio(spreads, name, f) for f in others}, "count": 1} for name in names]
    fewer = {f"{name}: passes of SMDM's estimator over ours": passes_ratio(spreads, name, "SMDM") for name in names}
    worst = max(abs(s.bias) / s.bias_stderr for s in spreads if s.bias is not None and s.form == "count")
    checks = {name: at_least(value, AIM) for name, value in fewer.items()}
    return rows, checks | {"count form: largest bias in standard errors": at_most(worst, 4.0)}


# Questions a second


@dataclass
class Counted:
    """A denoiser that counts the rows it reads."""

    inner: Denoiser
    rows: int = 0

    @property
    def nfe(self) -> int:
        return self.inner.nfe

    @property
    def vocab(self) -> Vocab:
        return self.inner.vocab

    def __call__(self, canvas: Canvas, at: Tensor) -> Tensor:
        self.rows += len(canvas.x)
        return self.inner(canvas, at)


Ask = Callable[[Denoiser, list[Question], Noise], list[tuple[float, ...]]]


def smdm_loop(model: Denoiser, questions: list[Question], noise: Noise) -> list[tuple[float, ...]]:
    """Every answer by itself, as SMDM's public script has it."""
    torch.manual_seed(noise.key[0])
    return [tuple(smdm_bound(model, q.prompt, answer) for answer in q.answers) for q in questions]


def smdm_bound(model: Denoiser, prompt: tuple[int, ...], answer: tuple[int, ...]) -> float:
    row = torch.tensor(prompt + answer).repeat(BATCH, 1)
    target, everywhere = torch.arange(row.shape[1]) >= len(prompt), torch.ones_like(row) > 0
    losses = []
    for _ in range(DRAWS // BATCH):
        t = torch.remainder(torch.rand(1) + torch.arange(BATCH) / BATCH, 1.0)[:, None].expand(row.shape)
        masked = (torch.rand(row.shape) < t) & target
        canvas = Canvas.of(torch.where(masked, model.vocab.mask_id, row), vocab=model.vocab)
        logits = model(canvas, everywhere).view(*row.shape, -1)
        loss = F.cross_entropy(logits[masked], row[masked], reduction="none") / t[masked]
        losses.append(loss.sum() / BATCH)
    return float(torch.stack(losses).mean())


def by_answer(model: Denoiser, questions: list[Question], noise: Noise) -> list[tuple[float, ...]]:
    alone = [[Question(q.prompt, (answer,)) for answer in q.answers] for q in questions]
    return [tuple(score_answers(model, [a], draws=DRAWS, noise=noise)[0].nats[0] for a in each) for each in alone]


def by_question(model: Denoiser, questions: list[Question], noise: Noise) -> list[tuple[float, ...]]:
    return [score_answers(model, [q], draws=DRAWS, noise=noise)[0].nats for q in questions]


def at_once(model: Denoiser, questions: list[Question], noise: Noise) -> list[tuple[float, ...]]:
    return [made.nats for made in score_answers(model, questions, draws=DRAWS, noise=noise)]


WAYS: dict[str, Ask] = {
    "SMDM's loop": smdm_loop,
    "an answer at a time": by_answer,
    "a question at a time": by_question,
    "all at once": at_once,
}
BASE, ALONE, OURS = "SMDM's loop", "an answer at a time", "all at once"


@dataclass(frozen=True)
class Asked:
    """One way of asking: seconds and rows of the network in each round; nats, rounds x questions x answers."""

    seconds: list[float]
    rows: list[int]
    nats: Tensor

    @property
    def rate(self) -> float:
        """Questions a second."""
        return self.nats.shape[1] / median(self.seconds)

    def times(self, other: "Asked") -> float:
        """How many times faster than another way, round by round."""
        return median([theirs / ours for theirs, ours in zip(other.seconds, self.seconds)])

    @property
    def variance(self) -> float:
        """Of one estimate over the rounds, nats squared; mean over answers."""
        return float(self.nats.var(0).mean())

    @property
    def right(self) -> float:
        """The share of questions whose first answer, the right one, is the lowest."""
        return float((self.nats.argmin(-1) == 0).double().mean())


@torch.no_grad()
def ask(model: Denoiser, questions: list[Question], rounds: int) -> dict[str, Asked]:
    """All ways in turn, some rounds of them, each with masks of its own; one question of each is not counted."""
    found = {name: Asked([], [], torch.zeros(0, len(questions), len(questions[0].answers))) for name in WAYS}
    for way in WAYS.values():
        way(model, questions[:1], NOISE)
    for index in range(rounds):
        for name, way in WAYS.items():
            counted = Counted(model)
            synchronise()
            start = time.perf_counter()
            nats = torch.tensor(way(counted, questions, NOISE.at(index)), dtype=torch.float64)
            synchronise()
            was = found[name]
            taken = [*was.seconds, time.perf_counter() - start]
            found[name] = Asked(taken, [*was.rows, counted.rows], torch.cat([was.nats, nats[None]]))
    return found


def speed_rows(size: int, found: dict[str, Asked], *, made_up: bool) -> list[Row]:
    """A row per way; error and accuracy only of a trained model, and where masks are drawn."""
    base, table = found[BASE], []
    for name, asked in found.items():
        row: Row = {"answer": f"{size} tokens", "asked": name, "questions": asked.nats.shape[1]}
        row |= {"rows/question": median(asked.rows) / asked.nats.shape[1], "seconds": median(asked.seconds)}
        row |= {"questions/s": asked.rate, "x loop": asked.times(base)}
        if not made_up:
            equal = asked.times(base) * base.variance / asked.variance if asked.variance > EXACT else "-"
            row |= {"error": math.sqrt(asked.variance), "x loop, equal error": equal, "right %": 100 * asked.right}
        table.append(row)
    return table


def speed_checks(size: int, found: dict[str, Asked], *, made_up: bool) -> Checks:
    """Our batch against SMDM's loop: at equal draws, at equal error, and whether both estimate the same."""
    base, ours = found[BASE], found[OURS]
    ratio, drawn = ours.times(base), ours.variance > EXACT
    how = f"at {DRAWS} draws each" if drawn else f"exact, against {DRAWS} draws"
    checks = {f"answers of {size}, {how}: questions/s, times the loop": at_least(ratio, SPEED_AIM)}
    if drawn and not made_up:
        equal = ratio * base.variance / ours.variance
        checks[f"answers of {size}, at equal error: questions/s, times the loop"] = at_least(equal, SPEED_AIM)
    difference = float((base.nats.mean() - ours.nats.mean()).abs())
    error = math.sqrt((base.variance + ours.variance) / base.nats.numel())
    checks[f"answers of {size}: difference of the two in standard errors"] = at_most(difference / error, 4.0)
    apart = float((found[ALONE].nats - ours.nats).abs().max())
    return checks | {f"answers of {size}: one alone or all at once, largest difference in nats": at_most(apart, 1e-3)}


def random_rows(count: int) -> tuple[Denoiser, Tensor]:
    """A network of random weights and rows of random tokens."""
    model = Transformer(SIZES[SIZE], VOCAB).eval().requires_grad_(False)
    model.init_weights(NOISE.at("weights"))
    u = NOISE.at("rows").uniform(torch.arange(count)[:, None], 0, torch.arange(PROMPT + WRITTEN))
    return model, (u * VOCAB.size).long()


def trained_rows(run: Path, count: int) -> tuple[Denoiser, Tensor]:
    """A trained model and rows of its held-out text."""
    folder = model_folder(run)
    return load_model(folder).model, whole_rows(run_data(load_config(RunConfig, folder.parent / CONFIG)).valid, count)


def part_speed(run: Path | None, *, quick: bool) -> tuple[list[Row], Checks]:
    """The table of the second part, and its aims."""
    count, rounds, made_up = (4, 3, run is None) if quick else (16, 3, run is None)
    model, texts = random_rows(count) if run is None else trained_rows(run, count)
    rows, checks = [], Checks()
    for size in ANSWERS:
        found = ask(model, questions_of(texts, size), rounds)
        rows += speed_rows(size, found, made_up=made_up)
        checks |= speed_checks(size, found, made_up=made_up)
    return rows, checks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer cases, estimates, questions and rounds")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's default")
    parser.add_argument("--run", type=Path, help="a quickstart folder: its masked model of text")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    rows, checks = part_errors(args.run, quick=args.quick)
    speed, aims = part_speed(args.run, quick=args.quick)
    model = f"{SIZE}, random weights" if args.run is None else str(args.run)
    setup: dict[str, str | int | float] = {"model": model, "draws": DRAWS, "prompt": PROMPT, "dtype": "float32"}
    report("likelihood", rows + speed, checks=checks | aims, setup=setup)


if __name__ == "__main__":
    main()
