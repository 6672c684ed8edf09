"""Questions in text: prompt and possible answers become tokens, and a model says which answer it prefers."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from anyorder.evaluation.subject import Subject, stream
from anyorder.likelihood.conditional import Answered, Question, score_answers

DEFAULT_ESTIMATOR = {"mdm": "count", "arm": "causal"}
MEASURES = {"count": "bound", "chain": "likelihood", "causal": "likelihood"}


@dataclass(frozen=True)
class Scoring:
    """How answers are scored.

    Args:
        estimator: "count" or "chain" (MDM), "causal" (ARM); None: the first of the model's kind.
        draws: masked copies of each answer for "count", a multiple of 4 from 8 on; None draws until the winner is
            settled.
        guidance: scale of unsupervised classifier-free guidance; 0 for none.
        level: chance that a winner is called settled which endless draws would not give.
        seed: of the masks.
    """

    estimator: str | None = None
    draws: int | None = None
    guidance: float = 0.0
    level: float = 0.01
    seed: int = 0

    def estimator_of(self, kind: str) -> str:
        """The estimator for a model of this kind; ValueError if it cannot take the one asked for."""
        name = self.estimator or DEFAULT_ESTIMATOR[kind]
        fitting = ("causal",) if kind == "arm" else ("count", "chain")
        if name not in fitting:
            what = "an autoregressive model" if kind == "arm" else "a masked diffusion model"
            raise ValueError(f"estimator={name!r}: {what} takes {' or '.join(map(repr, fitting))}")
        return name


@dataclass(frozen=True)
class Answers:
    """What a model makes of the answers to a prompt. Lists have one entry per answer.

    Args:
        nats: negative log-likelihood given the prompt, or what `measure` says instead.
        stderr: its Monte-Carlo standard error; 0 for exact values.
        num_tokens: of the answer, with the space that was moved to it from the end of the prompt.
        measure: "likelihood"; "bound", an upper bound on it; "score", of a guided model, which is the law of nothing.
        lead, lead_stderr: how many nats the best is ahead of the next, with masks in common, and the error of that.
        settled: whether the best is the best at the level asked for.
        nfe: network passes of all answers together.
        cut: tokens of the prompt that were left out on the left because the model reads no more.
    """

    answers: tuple[str, ...]
    nats: tuple[float, ...]
    stderr: tuple[float, ...]
    num_tokens: tuple[int, ...]
    measure: str
    estimator: str
    lead: float
    lead_stderr: float
    settled: bool
    nfe: int
    cut: int

    @property
    def best(self) -> int:
        """The answer of the lowest value, the first among equals."""
        return min(range(len(self.nats)), key=self.nats.__getitem__)

    @property
    def best_per_byte(self) -> int:
        """The answer of the lowest value per byte of its text."""
        return min(range(len(self.nats)), key=lambda i: self.nats[i] / len(self.answers[i].encode()))

    @property
    def note(self) -> str:
        """What was left out of the prompt; "" if nothing was."""
        return f"cut {self.cut} tokens from the left of the prompt" if self.cut else ""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Answers":
        """The inverse of `dataclasses.asdict` through JSON."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
        return cls(**fields)


@dataclass(frozen=True)
class Encoded:
    """A question in tokens, and how many of its prompt were cut."""

    question: Question
    cut: int


def encode_pair(subject: Subject, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Tokens of a context and of what continues it, split as lm-eval does.

    White space at the end of the context moves to the continuation; its tokens are the tail of both encoded together.
    Where no token ends between the two, each is encoded by itself. The context stands behind the subject's `bos_id`.

    Source:
        arXiv:2405.14782 (lm-eval), its `TemplateLM`.
    """
    kept = context.rstrip()
    continuation, context = context[len(kept) :] + continuation, kept
    whole, head = subject.encode(context + continuation), subject.encode(context) if context else []
    if whole[: len(head)] != head or len(whole) == len(head):
        return subject.after_bos(head), subject.encode(continuation)
    return subject.after_bos(head), whole[len(head) :]


def encode_question(subject: Subject, prompt: str, answers: Sequence[str]) -> Encoded:
    """The question in tokens; a prompt too long for the model loses its beginning.

    Raises:
        ValueError: no answers, one without tokens, or one longer than the model.
    """
    if isinstance(answers, str) or not answers:
        raise ValueError("answers: must be a list of at least one text")
    pairs = [encode_pair(subject, prompt, answer) for answer in answers]
    for index, (answer, (_, ids)) in enumerate(zip(answers, pairs)):
        where = f"answers[{index}] after the prompt {shortened(prompt)!r}"
        if not answer or not ids:
            raise ValueError(f"{where}: has no tokens, so there is nothing to score; leave it out")
        if len(ids) > subject.max_length:
            raise ValueError(f"{where}: has {len(ids)} tokens, the model reads {subject.max_length}; shorten it")
    head, cut = subject.fitted(pairs[0][0], room=subject.max_length - max(len(ids) for _, ids in pairs))
    return Encoded(Question(tuple(head), tuple(tuple(ids) for _, ids in pairs)), cut)


def shortened(text: str, *, length: int = 40) -> str:
    """The end of a text, by which a reader finds it."""
    return text if len(text) <= length else f"...{text[-length:]}"


@torch.no_grad()
def answer_questions(
    subject: Subject, asked: Sequence[tuple[str, Sequence[str]]], scoring: Scoring = Scoring()
) -> list[Answers]:
    """The answers of many questions, scored together. A question's values do not depend on the others.

    Raises:
        ValueError: as `encode_question` and `score_answers`, or guidance for an autoregressive model.
    """
    estimator, model = scoring.estimator_of(subject.kind), subject.guided(scoring.guidance)
    found = [encode_question(subject, prompt, answers) for prompt, answers in asked]
    made = score_answers(
        model,
        [f.question for f in found],
        estimator=estimator,
        draws=scoring.draws,
        noise=stream(scoring.seed, "answer"),
        level=scoring.level,
        rows_per_pass=subject.rows_per_pass,
        device=subject.device,
    )
    measure = "score" if scoring.guidance else MEASURES[estimator]
    return [_answers(list(a), f, m, measure) for (_, a), f, m in zip(asked, found, made)]


def _answers(answers: list[str], encoded: Encoded, made: Answered, measure: str) -> Answers:
    return Answers(
        answers=tuple(answers),
        nats=made.nats,
        stderr=made.stderr,
        num_tokens=tuple(len(ids) for ids in encoded.question.answers),
        measure=measure,
        estimator=made.estimator,
        lead=made.lead.nats,
        lead_stderr=made.lead.stderr,
        settled=made.settled,
        nfe=made.nfe,
        cut=encoded.cut,
    )


def key_of(subject: Subject, *parts: Any) -> str:
    """A name for a result: of the weights, and of all that it depends on, as JSON values."""
    about = [subject.identity, subject.kind, subject.max_length, sorted(subject.specials.items()), subject.bos_id]
    spelt = json.dumps(["v2", *about, *parts])
    return hashlib.sha256(spelt.encode()).hexdigest()[:32]


def answers_key(subject: Subject, prompt: str, answers: Sequence[str], scoring: Scoring) -> str:
    """The name of a question's result."""
    how = asdict(scoring) | {"estimator": scoring.estimator_of(subject.kind), "guidance": float(scoring.guidance)}
    return key_of(subject, "answer", prompt, list(answers), sorted(how.items()))


def log_likelihoods(nats: Sequence[float]) -> list[float]:
    """Log-likelihoods as lm-eval wants them; a value that is no number stops the run."""
    if any(math.isnan(n) for n in nats):
        raise RuntimeError("the model's log-likelihoods are no numbers; its weights may be damaged")
    return [-n for n in nats]
