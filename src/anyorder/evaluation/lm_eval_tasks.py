"""Tasks of lm-eval, run by its own evaluator on the bridge. Extra `eval`; lm-eval is imported when needed."""

import importlib
import importlib.util
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyorder.evaluation.accuracy import Metric, TaskResult, Trial, mean_of
from anyorder.evaluation.answers import MEASURES, Scoring
from anyorder.evaluation.local_tasks import of_share

if TYPE_CHECKING:
    from anyorder.evaluation.lm_eval_bridge import BridgeLM

CHOSEN_BY = ("acc", "exact_match")  # metrics that are means over documents, so that a split has one too


def task_manager(include: Path | None) -> Any:
    """What knows lm-eval's tasks, and those of the YAML files of a folder.

    Raises:
        ValueError: lm-eval is not installed, or no such folder.
    """
    if include is not None and not include.is_dir():
        raise ValueError(f"{include}: no such folder; --include names one with lm-eval YAML files")
    try:
        tasks = importlib.import_module("lm_eval.tasks")
    except ImportError:
        raise ValueError("lm-eval is not installed; install it with pip install 'anyorder[eval]'") from None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return tasks.TaskManager(include_path=None if include is None else str(include))


def is_installed() -> bool:
    """Whether lm-eval can be imported; it is not."""
    return importlib.util.find_spec("lm_eval") is not None


def check_task(name: str, manager: Any) -> None:
    """That lm-eval knows a task and can read its data.

    Raises:
        ValueError: it does not or cannot; in one sentence.
    """
    if name not in manager.all_tasks:
        raise ValueError(f"task {name!r}: lm-eval knows none of this name; lm-eval ls tasks lists them")
    try:
        manager.load([name])
    except Exception as error:  # data sets fail in many ways: no network, no such file, another format
        why = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"task {name!r}: its data cannot be read ({why[:200]}); lm-eval fetches it from the Hugging Face hub, so "
            "run this where there is a network, or name a local task file"
        ) from None


def run_task(
    bridge_of: Callable[[Scoring], "BridgeLM"],
    name: str,
    *,
    settings: Sequence[Scoring],
    manager: Any,
    limit: int | None = None,
    num_fewshot: int | None = None,
    chat: bool = False,
) -> TaskResult:
    """The result of an lm-eval task (or group) under its own metrics.

    Args:
        bridge_of: makes the model that answers under a setting.
        settings: of several, the best on a quarter of the documents (by content) is reported on the others.
    Raises:
        ValueError: as `check_task`, or several settings and no accuracy to choose by.
    """
    check_task(name, manager)
    runs = []
    for scoring in settings:
        bridge = bridge_of(scoring)
        runs.append((bridge, _evaluate(bridge, name, manager, limit, num_fewshot, chat)))
    if len(runs) == 1:
        return _result(name, *runs[0])
    halves = [_halves(found, name) for _, found in runs]
    trials = [Trial(_estimator(b), b.scoring.guidance, dev) for (b, _), (dev, _, _) in zip(runs, halves)]
    best = max(range(len(runs)), key=lambda i: trials[i].accuracy.value)
    bridge, _ = runs[best]
    _, test, metric = halves[best]
    return _about(name, bridge, {metric: test}, split="test", trials=tuple(trials))


def _evaluate(
    bridge: "BridgeLM", name: str, manager: Any, limit: int | None, num_fewshot: int | None, chat: bool
) -> Mapping[str, Any]:
    evaluator = importlib.import_module("lm_eval.evaluator")
    found: Mapping[str, Any] = evaluator.simple_evaluate(
        model=bridge,
        tasks=[name],
        task_manager=manager,
        limit=limit,
        num_fewshot=num_fewshot,
        apply_chat_template=chat,
        log_samples=True,
        bootstrap_iters=1000,
    )
    return found


def _result(name: str, bridge: "BridgeLM", found: Mapping[str, Any]) -> TaskResult:
    row = found["results"][name]
    counts = found.get("n-samples", {}).values()
    count = sum(int(c["effective"]) for c in counts)
    metrics = {}
    for key, value in row.items():
        metric, _, filtered = key.partition(",")
        if isinstance(value, int | float) and filtered and not metric.endswith("_stderr"):
            error = row.get(f"{metric}_stderr,{filtered}")
            label = metric if filtered == "none" else f"{metric} ({filtered})"
            metrics[label] = Metric(float(value), float(error) if isinstance(error, float) else math.nan, count)
    return _about(name, bridge, metrics, split="all")


def _halves(found: Mapping[str, Any], name: str) -> tuple[Metric, Metric, str]:
    """Accuracy on the development split, on the rest, and which metric that is."""
    samples = [s for rows in found["samples"].values() for s in rows]
    metric = next((m for m in CHOSEN_BY if samples and m in samples[0]), None)
    if metric is None:
        raise ValueError(f"task {name!r}: has no accuracy to choose a setting by; name one estimator and one scale")
    dev: list[float] = []
    test: list[float] = []
    for s in samples:
        part = dev if of_share(json.dumps(s["doc"], sort_keys=True, default=str), share=0.25) else test
        part.append(float(s[metric]))
    if not dev or not test:
        raise ValueError(f"task {name!r}: too few documents to choose a setting on some and judge it on others")
    return mean_of(dev), mean_of(test), metric


def _estimator(bridge: "BridgeLM") -> str:
    return bridge.scoring.estimator_of(bridge.subject.kind)


def _about(
    name: str, bridge: "BridgeLM", metrics: dict[str, Metric], *, split: str, trials: tuple[Trial, ...] = ()
) -> TaskResult:
    estimator, guidance = _estimator(bridge), bridge.scoring.guidance
    measure = "score" if guidance else MEASURES[estimator]
    return TaskResult(
        task=name,
        metrics=metrics,
        split=split,
        chance=None,
        estimator=estimator if bridge.tally.scored else "",
        guidance=guidance,
        measure=measure if bridge.tally.scored else "text",
        trials=trials,
        unsettled=bridge.tally.unsettled,
        cut=bridge.tally.cut,
        short=bridge.tally.short,
        nfe=bridge.tally.nfe,
    )
