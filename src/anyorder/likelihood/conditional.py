"""Which answer a model prefers: the answers of many questions scored together, with no more passes than it takes.

Answers of one question share their masks (common random numbers), so that their differences are sharper than each
value. Noise is named by the content of the prompt: a score does not depend on what else is asked, or in what order.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.likelihood.bound import Estimate, Rows, count_means
from anyorder.likelihood.chain import chain_rule, exact_causal
from anyorder.likelihood.rows import bucket_of, rows_of
from anyorder.likelihood.settle import Lead, lead_of
from anyorder.likelihood.subsets import subset_form

COMB = 4  # stratified draws behind one independent estimate
ROUNDS = (8, 8, 16, 32, 64, 128)  # draws of each look when stopping early
SHORT = 4  # targets up to which every set of masks (15) is cheaper than draws
ESTIMATORS = ("count", "chain", "causal")


@dataclass(frozen=True)
class Question:
    """A prompt and its possible answers, as tokens.

    Raises:
        ValueError: no answer, or one without tokens.
    """

    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not self.answers:
            raise ValueError("answers: there are none; a question has at least one")
        for index, answer in enumerate(self.answers):
            if not answer:
                raise ValueError(f"answers[{index}]: has no tokens, so there is nothing to score; leave it out")

    @property
    def row_id(self) -> int:
        """A number made of the prompt alone."""
        digest = hashlib.blake2b(",".join(map(str, self.prompt)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little", signed=True)


@dataclass(frozen=True)
class Answered:
    """What a model makes of the answers to a question.

    Args:
        nats: negative log-likelihood of each answer given the prompt, or the bound on it; a guided model's is a score.
        stderr: its Monte-Carlo standard error, 0 for exact values.
        lead: how far the best answer is ahead of the next one, with the masks in common.
        settled: whether the best is the best at the asked level; always so for exact values.
        nfe: passes of all its answers together; one that several answers share counts for each.
    """

    nats: tuple[float, ...]
    stderr: tuple[float, ...]
    lead: Lead
    settled: bool
    nfe: int
    estimator: str

    @property
    def best(self) -> int:
        """The answer of the lowest value, the first among equals."""
        return min(range(len(self.nats)), key=self.nats.__getitem__)


@dataclass
class Line:
    """One answer in the making: its independent estimates so far (one, if exact) and the passes they took."""

    question: int
    row_id: int
    tokens: tuple[int, ...]
    size: int
    exact: bool
    means: Tensor
    nfe: int = 0


def score_answers(
    model: Denoiser,
    questions: Sequence[Question],
    *,
    estimator: str = "count",
    draws: int | None = None,
    noise: Noise,
    level: float = 0.01,
    rows_per_pass: int = 64,
    device: torch.device | None = None,
) -> list[Answered]:
    """Scores the answers of every question.

    Args:
        estimator: "count", the masked-diffusion bound; "chain", left to right by a masked model, exact for that order,
            a pass per token; "causal", an autoregressive model in one pass.
        draws: for "count", masked copies of each answer, a multiple of 4 and at least 8; None stops each question when
            its winner is settled, at 256 at the latest. Answers of up to 4 tokens are enumerated, not drawn.
        level: chance that a question is called settled with another winner than endless draws would give.
        rows_per_pass: rows of one network pass.
    Raises:
        ValueError: an unknown estimator, other draws, a level outside (0, 1).
    Source:
        arXiv:2410.18514, appendix C.2; arXiv:2502.09992, equation 14.
    """
    _check(estimator, draws, level)
    asked = [_lines(index, question, exact=estimator != "count") for index, question in enumerate(questions)]
    lines = [line for mine in asked for line in mine]
    where = device or torch.device("cpu")
    exact = [line for line in lines if line.exact]
    for part, rows in _batches(exact, where, by_size=estimator == "count"):
        made = _exactly(model, rows, estimator, rows_per_pass)
        for line, nats in zip(part, made.nats.cpu()):
            line.means, line.nfe = nats[None], line.size * model.nfe if estimator == "chain" else made.nfe
    rounds = ROUNDS if draws is None else (draws,)
    live = set(range(len(questions)))
    for look, count in enumerate(rounds):
        ask = [line for line in lines if not line.exact and line.question in live]
        for part, rows in _batches(ask, where, by_size=False):
            means = count_means(
                model,
                rows,
                draws=count,
                noise=noise.at(look),
                replicates=count // COMB,
                rows_per_pass=rows_per_pass,
            )
            for line, more in zip(part, means.cpu()):
                line.means, line.nfe = torch.cat([line.means, more]), line.nfe + count * model.nfe
        live = {q for q in live if not _lead(asked[q], level / len(rounds))[1]}
    return [_answered(mine, estimator, level / len(rounds)) for mine in asked]


def _exactly(model: Denoiser, rows: Rows, estimator: str, rows_per_pass: int) -> Estimate:
    """The value of answers that need no draw."""
    target, segment, row_id = rows.target, rows.segment, rows.row_id
    if estimator == "causal":
        return exact_causal(model, rows.tokens, target=target, segment=segment, row_id=row_id)
    if estimator == "chain":
        return chain_rule(
            model, rows.tokens, target=target, segment=segment, row_id=row_id, rows_per_pass=rows_per_pass
        )
    return subset_form(model, rows, rows_per_pass=rows_per_pass)


def _check(estimator: str, draws: int | None, level: float) -> None:
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator={estimator!r}: must be one of {', '.join(ESTIMATORS)}")
    if draws is not None and (draws < 2 * COMB or draws % COMB):
        raise ValueError(f"draws={draws}: must be a multiple of {COMB} from {2 * COMB} on; leave it out to stop early")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level={level}: must be in (0, 1), the chance of a wrong winner")


def _lines(index: int, question: Question, *, exact: bool) -> list[Line]:
    name, none = question.row_id, torch.zeros(0, dtype=torch.float64)
    return [
        Line(index, name, question.prompt + answer, len(answer), exact or len(answer) <= SHORT, none)
        for answer in question.answers
    ]


def _batches(lines: list[Line], device: torch.device, *, by_size: bool) -> Iterator[tuple[list[Line], Rows]]:
    """Lines of about one length together (of one number of targets, if asked), as rows with padding on the right."""
    groups: dict[tuple[int, int], list[Line]] = {}
    for line in lines:
        groups.setdefault((bucket_of(len(line.tokens)), line.size if by_size else 0), []).append(line)
    for _, part in sorted(groups.items()):
        begins = [len(line.tokens) - line.size for line in part]
        names = [line.row_id for line in part]
        yield part, rows_of([line.tokens for line in part], begins=begins, row_id=names, device=device)


def _lead(mine: list[Line], level: float) -> tuple[Lead, bool]:
    """How far ahead the best of a question's answers is, and whether that settles it."""
    count = max(len(line.means) for line in mine)
    lead = lead_of(torch.stack([line.means.expand(count) if len(line.means) == 1 else line.means for line in mine]))
    return lead, lead.settled(level)


def _answered(mine: list[Line], estimator: str, level: float) -> Answered:
    lead, settled = _lead(mine, level)
    return Answered(
        nats=tuple(float(line.means.mean()) for line in mine),
        stderr=tuple(0.0 if line.exact else float(line.means.std() / len(line.means) ** 0.5) for line in mine),
        lead=lead,
        settled=settled,
        nfe=sum(line.nfe for line in mine),
        estimator=estimator,
    )
