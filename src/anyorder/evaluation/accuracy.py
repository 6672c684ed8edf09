"""Accuracies of tasks with their standard errors; a setting is chosen on one split and judged on the rest."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from anyorder.evaluation.answers import Answers, Scoring
from anyorder.evaluation.ledger import Ledger
from anyorder.evaluation.local_tasks import Choice, Completion, LocalTask, is_dev
from anyorder.evaluation.remembered import OnDone, answered, nobody, written
from anyorder.evaluation.subject import Subject
from anyorder.evaluation.writing import Writing


@dataclass(frozen=True)
class Metric:
    """A mean over questions and its standard error (which questions were asked; nan for one question)."""

    value: float
    stderr: float
    count: int


@dataclass(frozen=True)
class Trial:
    """What a setting reached on the development split."""

    estimator: str
    guidance: float
    accuracy: Metric


@dataclass(frozen=True)
class TaskResult:
    """What a model reached on a task.

    Args:
        metrics: by name: "acc", the answer of the highest likelihood is right; "acc_norm", of the highest per byte;
            "exact_match", the text written is the target; or what lm-eval calls them.
        split: "all" questions, or "test": those that no setting was chosen on.
        chance: accuracy of guessing, None where there is no such thing.
        trials: settings tried on the development split; empty where nothing was chosen.
        measure: what answers were ranked by: "bound", "likelihood", "score", or "text" that was written.
        unsettled: questions whose winner the draws did not settle.
        cut: questions whose prompt was cut on the left.
        short: questions with less room to write than was asked for.
        nfe: network passes.
    """

    task: str
    metrics: dict[str, Metric]
    split: str
    chance: float | None
    estimator: str
    guidance: float
    measure: str
    trials: tuple[Trial, ...] = ()
    unsettled: int = 0
    cut: int = 0
    short: int = 0
    nfe: int = 0


def mean_of(values: Sequence[float]) -> Metric:
    """Mean and standard error of independent values."""
    n = len(values)
    mean = math.fsum(values) / n
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)) if n > 1 else math.nan
    return Metric(mean, spread / math.sqrt(n), n)


def evaluate(
    subject: Subject,
    task: LocalTask,
    *,
    scoring: Scoring,
    writing: Writing,
    settings: Sequence[tuple[str | None, float]] = (),
    ledger: Ledger,
    on_done: OnDone = nobody,
) -> TaskResult:
    """The result of a task.

    Args:
        scoring: for answers.
        writing: for texts; `until`, and where an item says so its length, are the item's.
        settings: estimators with guidance scales to choose from, on a quarter of the items by their content (`is_dev`);
            the result is then of the others alone. Empty: those of `scoring` and `writing`, on all items.
    Raises:
        ValueError: a split without items, or as `answered` and `written`.
    """
    run = _choices if isinstance(task.items[0], Choice) else _completions
    if len(settings) < 2:
        estimator, guidance = settings[0] if settings else (scoring.estimator, scoring.guidance)
        scoring, writing = _with(scoring, writing, estimator, guidance)
        return run(subject, task, scoring, writing, ledger, on_done)
    dev, test = (tuple(i for i in task.items if is_dev(i) == wanted) for wanted in (True, False))
    if not dev or not test:
        raise ValueError(f"{task.name}: too few items to choose a setting on some and judge it on others; name one")
    trials = []
    for estimator, guidance in settings:
        mine = _with(scoring, writing, estimator, guidance)
        got = run(subject, replace(task, items=dev), *mine, ledger, on_done)
        trials.append(Trial(got.estimator, got.guidance, next(iter(got.metrics.values()))))
    best = max(range(len(trials)), key=lambda i: trials[i].accuracy.value)  # the first among equals
    final = run(subject, replace(task, items=test), *_with(scoring, writing, *settings[best]), ledger, on_done)
    return replace(final, split="test", trials=tuple(trials))


def _with(scoring: Scoring, writing: Writing, estimator: str | None, guidance: float) -> tuple[Scoring, Writing]:
    return replace(scoring, estimator=estimator, guidance=guidance), replace(writing, guidance=guidance)


def _choices(
    subject: Subject, task: LocalTask, scoring: Scoring, _: Writing, ledger: Ledger, on_done: OnDone
) -> TaskResult:
    items = [item for item in task.items if isinstance(item, Choice)]
    made = answered(subject, [(i.prompt, i.answers) for i in items], scoring, ledger=ledger, on_done=on_done)

    def share(pick: Callable[[Answers], int]) -> Metric:
        return mean_of([float(pick(a) == i.gold) for a, i in zip(made, items)])

    return TaskResult(
        task=task.name,
        metrics={"acc": share(lambda a: a.best), "acc_norm": share(lambda a: a.best_per_byte)},
        split="all",
        chance=task.chance,
        estimator=made[0].estimator,
        guidance=scoring.guidance,
        measure=made[0].measure,
        unsettled=sum(not a.settled for a in made),
        cut=sum(a.cut > 0 for a in made),
        nfe=sum(a.nfe for a in made),
    )


def _completions(
    subject: Subject, task: LocalTask, _: Scoring, writing: Writing, ledger: Ledger, on_done: OnDone
) -> TaskResult:
    items = [item for item in task.items if isinstance(item, Completion)]
    how = [replace(writing, until=i.until, max_gen_toks=i.max_gen_toks or writing.max_gen_toks) for i in items]
    made = written(subject, [i.prompt for i in items], how, ledger=ledger, on_done=on_done)
    return TaskResult(
        task=task.name,
        metrics={"exact_match": mean_of([float(w.text.strip() == i.target.strip()) for w, i in zip(made, items)])},
        split="all",
        chance=None,
        estimator="",
        guidance=writing.guidance,
        measure="text",
        cut=sum(w.cut > 0 for w in made),
        short=sum(w.short > 0 for w in made),
        nfe=sum(w.nfe for w in made),
    )
