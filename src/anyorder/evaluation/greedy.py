"""Whether a model would write just this: the check behind tasks such as LAMBADA."""

from collections.abc import Sequence

import torch

from anyorder.core import categorical
from anyorder.evaluation.subject import Subject, canvas_of, stream
from anyorder.likelihood.conditional import Question
from anyorder.samplers.base import steps
from anyorder.samplers.presets import make_sampler

WHEN = ("auto", "always", "never")


def check_when(greedy: str) -> None:
    """That this says when `is_greedy` is worth its passes; ValueError otherwise."""
    if greedy not in WHEN:
        raise ValueError(f"greedy={greedy!r}: must be one of {', '.join(WHEN)}")


@torch.no_grad()
def is_greedy(subject: Subject, questions: Sequence[Question], *, guidance: float = 0.0) -> list[tuple[bool, ...]]:
    """For every answer of every question: are its tokens what the model writes greedily after the prompt?

    An autoregressive model: the most likely token at each place. A masked model writes as many masks as the answer has
    tokens, the most confident one first (so the length is told); this ends early where all rows of a pass are wrong.

    Source:
        arXiv:2410.18514, appendix C.2 (LAMBADA).
    """
    rows = [(list(q.prompt), list(a)) for q in questions for a in q.answers]
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i][1]), len(rows[i][0])))
    found = [False] * len(rows)
    for start in range(0, len(order), subject.rows_per_pass):
        part = order[start : start + subject.rows_per_pass]
        same = (_of_arm if subject.kind == "arm" else _of_mdm)(subject, [rows[i] for i in part], guidance)
        for i, yes in zip(part, same):
            found[i] = yes
    answers = iter(found)
    return [tuple(next(answers) for _ in q.answers) for q in questions]


def _of_arm(subject: Subject, rows: list[tuple[list[int], list[int]]], guidance: float) -> list[bool]:
    canvas, target = canvas_of(subject, rows)
    wrong = categorical.greedy(subject.guided(guidance)(canvas, target)) != canvas.x[target]
    missed = torch.zeros(len(rows), dtype=torch.long, device=wrong.device)
    missed = missed.index_add(0, target.nonzero()[:, 0], wrong.long())
    return [not m for m in missed.tolist()]


def _of_mdm(subject: Subject, rows: list[tuple[list[int], list[int]]], guidance: float) -> list[bool]:
    true, _ = canvas_of(subject, rows)
    mask = subject.model.vocab.mask_id
    canvas, _ = canvas_of(subject, [(a, [mask] * len(b)) for a, b in rows])
    sampler = make_sampler("top-prob", temperature=0.0)
    right = torch.ones(len(rows), dtype=torch.bool, device=canvas.x.device)
    for step in steps(sampler, subject.guided(guidance), canvas, noise=stream(0, "greedy")):
        right = ~(step.wrote & (step.canvas.x != true.x)).any(-1) & right
        if not bool(right.any()):
            break
    return [bool(r) for r in right.tolist()]
