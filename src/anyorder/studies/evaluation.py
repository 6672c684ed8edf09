"""Evaluate a run on tasks: of one's own in files, of its own held-out text, or of lm-eval."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from anyorder.api import LanguageModel, load
from anyorder.api.answering import subject_of
from anyorder.core.files import check_output
from anyorder.core.text import LINES, plain_suffix
from anyorder.data.hub_tokenizer import special_id, special_tokens
from anyorder.evaluation.accuracy import TaskResult, evaluate
from anyorder.evaluation.answers import Scoring
from anyorder.evaluation.chat import read_template
from anyorder.evaluation.greedy import check_when
from anyorder.evaluation.judges import run_of
from anyorder.evaluation.ledger import Ledger
from anyorder.evaluation.lm_eval_tasks import is_installed, run_task, task_manager
from anyorder.evaluation.local_tasks import LocalTask, read_tasks
from anyorder.evaluation.remembered import OnDone, nobody
from anyorder.evaluation.subject import Subject
from anyorder.evaluation.suites import SUITES, Recipe
from anyorder.evaluation.writing import Writing
from anyorder.hub.find import STARTER_PLACE, model_folder
from anyorder.hub.load import read_about
from anyorder.studies.continuation import continuation
from anyorder.trace.replay import model_id

CONTINUATION = "continuation"
WRITING, NO_RECIPE = Writing(), Recipe()
FOLDER = "eval"  # of a run, where results are kept
STARTER_RESULTS = Path("~/.cache/anyorder/starter")  # of the starter, which lies in the installed package


@dataclass(frozen=True)
class Wishes:
    """What is to be evaluated, and how.

    Args:
        tasks: "continuation", files and folders of tasks, names of `SUITES`, or of lm-eval tasks.
        estimators, guidance: of several, each task's best pair on a quarter of its questions is judged on the others;
            None leaves it to the model's kind or the task's recipe.
        draws, seed: as in `Scoring`.
        bos: a special token of the tokenizer to read before every prompt and document; None: nothing (MDM), or its own
            (ARM).
        limit: questions of each task.
        writing: for tasks that write.
        num_fewshot, chat, include, context, greedy: for lm-eval tasks: examples in a prompt, whether prompts go through
            the model's chat template, a folder of YAML files, and as in `BridgeLM`.
        cache: folder of the results' files; None: "eval" in the run's folder, or for the starter in ~/.cache/anyorder.
        keep: whether results are kept at all.
    Raises:
        ValueError: an unknown `greedy`.
    """

    tasks: tuple[str, ...]
    estimators: tuple[str, ...] | None = None
    guidance: tuple[float, ...] | None = None
    draws: int | None = None
    seed: int = 0
    bos: str | None = None
    limit: int | None = None
    writing: Writing = WRITING
    num_fewshot: int | None = None
    chat: bool = False
    include: Path | None = None
    context: int = 0
    greedy: str = "auto"
    cache: Path | None = None
    keep: bool = True

    def __post_init__(self) -> None:
        check_when(self.greedy)

    def settings(self, kind: str, recipe: Recipe = NO_RECIPE) -> list[Scoring]:
        """The settings to try on a task, the recipe's where nothing was asked for; a recipe is for masked models.

        Raises:
            ValueError: an estimator or guidance that the kind of model cannot take.
        """
        mine = Recipe() if kind == "arm" else recipe
        estimators: tuple[str | None, ...] = self.estimators or (mine.estimator,)
        scales = self.guidance if self.guidance is not None else (mine.guidance or 0.0,)
        base = Scoring(draws=self.draws, seed=self.seed)
        made = [replace(base, estimator=e, guidance=w) for e, w in itertools.product(estimators, scales)]
        return [replace(s, estimator=s.estimator_of(kind)) for s in made]


@dataclass(frozen=True)
class Named:
    """An lm-eval task by its name."""

    name: str
    recipe: Recipe


def evaluation(
    run: str,
    wishes: Wishes,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    on_task: Callable[[str], OnDone] = lambda _: nobody,
) -> list[TaskResult]:
    """The results of a run on every task, in the order they were named.

    Args:
        on_task: called with a task's name before it begins; what it returns is told of its progress.
    Raises:
        ValueError: a task that does not exist or cannot be read, or settings that the model cannot take.
    """
    folder = model_folder(Path(run).expanduser())
    causal = read_about(folder)["kind"] == "arm"
    model = load(folder, dtype=dtype, device=device, bos=wishes.bos if causal else None)
    weights = model_id(model.folder, dtype=model.model.dtype).sha256
    subject = subject_of(model.kind, model.model, model.tokenizer, weights=weights)
    if wishes.bos is not None and not causal:
        subject = replace(subject, bos_id=special_id(model.tokenizer, wishes.bos))
    wishes.settings(model.kind)
    for scale in wishes.guidance or ():
        subject.guided(scale)
    tasks = [task for name in wishes.tasks for task in find(name, model, wishes)]
    manager = task_manager(wishes.include) if any(isinstance(t, Named) for t in tasks) else None
    home = STARTER_RESULTS.expanduser() if model.folder == STARTER_PLACE else run_of(model.folder)
    folder = wishes.cache or home / FOLDER
    if wishes.keep:
        check_output(folder, option="--cache", folder=True)
    made = []
    for task in tasks:
        with Ledger(folder / f"{task.name}.jsonl" if wishes.keep else None) as ledger:
            made.append(_one(subject, task, wishes, model, manager, ledger, on_task(task.name)))
    return made


def find(name: str, model: LanguageModel, wishes: Wishes) -> list[LocalTask | Named]:
    """The tasks that a word names.

    Raises:
        ValueError: a file that does not exist or cannot be read, or a name that only lm-eval could know and it is not
            installed.
    """
    path = Path(name).expanduser()
    if name == CONTINUATION:
        return [_limited(continuation(model.folder, model.tokenizer), wishes.limit)]
    if path.is_dir() or "/" in name or path.is_file() or plain_suffix(path) in LINES:
        return [_limited(task, wishes.limit) for task in read_tasks(path)]
    known = SUITES[name].tasks if name in SUITES else {name: Recipe()}
    if not is_installed():
        raise ValueError(
            f"task {name!r}: is no file, nor {CONTINUATION}, and lm-eval, which knows more tasks, is not installed; "
            "pip install 'anyorder[eval]', or name a .jsonl file"
        )
    return [Named(task, recipe) for task, recipe in known.items()]


def _limited(task: LocalTask, limit: int | None) -> LocalTask:
    return task if limit is None else replace(task, items=task.items[:limit])


def _one(
    subject: Subject,
    task: LocalTask | Named,
    wishes: Wishes,
    model: LanguageModel,
    manager: Any,
    ledger: Ledger,
    on_done: OnDone,
) -> TaskResult:
    if isinstance(task, LocalTask):
        settings = wishes.settings(subject.kind)
        return evaluate(
            subject,
            task,
            scoring=settings[0],
            writing=wishes.writing,
            settings=[(s.estimator, s.guidance) for s in settings],
            ledger=ledger,
            on_done=on_done,
        )
    from anyorder.evaluation.lm_eval_bridge import BridgeLM

    chat = read_template(model.folder, specials=special_tokens(model.tokenizer))

    def bridge_of(scoring: Scoring) -> BridgeLM:
        return BridgeLM(
            subject,
            scoring=scoring,
            writing=replace(wishes.writing, guidance=scoring.guidance),
            context=wishes.context,
            greedy=wishes.greedy,
            chat=chat,
            ledger=ledger,
            on_done=on_done,
        )

    return run_task(
        bridge_of,
        task.name,
        settings=wishes.settings(subject.kind, task.recipe),
        manager=manager,
        limit=wishes.limit,
        num_fewshot=wishes.num_fewshot,
        chat=wishes.chat,
    )
