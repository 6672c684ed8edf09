"""The command `eval`: how often a model is right, on tasks of one's own or of lm-eval."""

import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from anyorder.cli.parser import Parser, add_model
from anyorder.cli.show import finish, plus_minus, table

if TYPE_CHECKING:
    from anyorder.evaluation.accuracy import TaskResult

LINE_EVERY = 15.0  # seconds between lines where there is no terminal


def parser_of() -> Parser:
    parser = Parser(
        "eval",
        usage="RUN --tasks NAME|FILE.jsonl|FOLDER[,...] [--estimator E[,E]] [--guidance W[,W]] [--draws K] ...",
        about="Measure how often a model is right: on questions in files, on its own held-out text (continuation),\n"
        "or on tasks of lm-eval. Of several estimators or scales the best on a quarter of the questions is judged on\n"
        "the others. Results are kept question by question; the same command goes on where it was stopped.",
        example="  anyorder eval runs/quickstart --tasks continuation\n"
        "  anyorder eval runs/quickstart --tasks questions.jsonl --guidance 0,0.5,1 --out results.json\n"
        "  anyorder eval runs/big --tasks smdm",
    )
    add_model(parser)
    add = parser.add_argument
    add(
        "--tasks", required=True, metavar="T,T,...", help="continuation, .jsonl files, folders, smdm, lm-eval names ..."
    )
    add("--estimator", metavar="E,E", help="count or chain (MDM), causal (ARM); several: choose the best")
    add("--guidance", metavar="W,W", help="scale of classifier-free guidance (MDM); several: choose the best")
    add("--draws", type=int, metavar="K", help="masked copies of each answer (default: until the winner is settled)")
    add("--limit", type=int, metavar="N", help="only the first N questions of each task")
    add("--max-gen-toks", type=int, default=64, metavar="N", help="tokens written where a task does not say (64)")
    add("--sampler", metavar="NAME", help="for tasks that write (default top-prob, ARM causal)")
    add("--steps", type=int, metavar="K", help="steps of a sampler that takes a number of them")
    add("--block", type=int, metavar="N", help="write block by block, N tokens each; a stop string then ends it early")
    add("--temperature", type=float, default=0.0, metavar="T", help="of tasks that write (default 0, greedy)")
    add("--context", type=int, default=0, metavar="N", help="tokens that windows of long documents share (default 0)")
    add(
        "--greedy",
        default="auto",
        metavar="WHEN",
        help="check if answers of lm-eval tasks are what is written greedily",
    )
    add("--fewshot", type=int, metavar="N", help="examples in each prompt of lm-eval tasks (default the task's)")
    add("--chat", action="store_true", help="lm-eval prompts through the model's chat template")
    add("--include", type=Path, metavar="DIR", help="folder of lm-eval task files (YAML) of one's own")
    add("--seed", type=int, default=0, metavar="S", help="of masks and samples (default 0)")
    add("--cache", type=Path, metavar="DIR", help="where results are kept (default eval in the run's folder)")
    add("--no-cache", action="store_true", help="keep no results, and use none")
    add("--out", type=Path, metavar="FILE", help="write the results as JSON too")
    add("--quiet", action="store_true", help="no progress")
    return parser


def eval(args: list[str]) -> None:
    found = parser_of().parse(args)
    from anyorder.core.files import check_output, write_atomic
    from anyorder.core.log import json_line
    from anyorder.evaluation.writing import Writing
    from anyorder.studies.evaluation import Wishes, evaluation

    if found.limit is not None and found.limit < 1:
        raise ValueError(f"--limit {found.limit}: must be >= 1 question")
    if found.out is not None:
        if not found.out.parent.exists():
            raise ValueError(f"{found.out.parent}: no such folder; --out writes a file in one")
        check_output(found.out, option="--out")
    wishes = Wishes(
        tasks=tuple(words(found.tasks)),
        estimators=None if found.estimator is None else tuple(words(found.estimator)),
        guidance=None if found.guidance is None else tuple(scales(found.guidance)),
        draws=found.draws,
        seed=found.seed,
        bos=found.bos,
        limit=found.limit,
        writing=Writing(
            max_gen_toks=found.max_gen_toks,
            temperature=found.temperature,
            sampler=found.sampler,
            num_steps=found.steps,
            block=found.block,
            seed=found.seed,
        ),
        num_fewshot=found.fewshot,
        chat=found.chat,
        include=found.include,
        context=found.context,
        greedy=found.greedy,
        cache=found.cache,
        keep=not found.no_cache,
    )
    quiet = found.quiet
    made = evaluation(
        found.run, wishes, dtype=found.dtype, device=found.device, on_task=lambda name: Progress(name, quiet=quiet)
    )
    payload = {"run": found.run, "settings": dataclasses.asdict(wishes), "results": [figures(r) for r in made]}
    payload["settings"] = {k: str(v) if isinstance(v, Path) else v for k, v in payload["settings"].items()}
    if found.out is not None:
        write_atomic(found.out, json_line(payload) + "\n")
    finish(payload, as_json=found.json, text=shown(made))


def words(text: str) -> list[str]:
    """Names divided by commas; ValueError for none."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise ValueError(f"{text!r}: names nothing; write names divided by commas")
    return found


def scales(text: str) -> list[float]:
    """Numbers divided by commas; ValueError for anything else."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--guidance {text}: must be numbers divided by commas, as in 0,0.5,1") from None


class Progress:
    """A line that grows on a terminal, a line now and then elsewhere, on standard error; call it with what is done."""

    def __init__(self, name: str, *, quiet: bool) -> None:
        self.name, self.quiet, self.at = name, quiet, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if self.quiet or not total:
            return
        if sys.stderr.isatty():
            filled = 30 * done // total
            end = "\n" if done == total else ""
            bar = "#" * filled + "-" * (30 - filled)
            print(f"\r  {self.name}  {bar}  {done}/{total} questions", end=end, file=sys.stderr, flush=True)
        elif time.monotonic() - self.at > LINE_EVERY:
            self.at = time.monotonic()
            print(f"  {self.name}  {done}/{total} questions", file=sys.stderr, flush=True)


def figures(result: "TaskResult") -> dict[str, object]:
    """A result as JSON values."""
    return dataclasses.asdict(result)


def several(number: int, word: str) -> str:
    """A number of things, in words."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def shown(made: "list[TaskResult]") -> str:
    """The table, the trials behind what was chosen, and what the figures rest on."""
    rows, trials, notes = [], [], []
    for r in made:
        how = r.measure if not r.estimator else f"{r.estimator} ({r.measure})"
        for metric, m in r.metrics.items():
            chance = f"{r.chance:.3f}" if r.chance is not None and metric.startswith("acc") else "-"
            figure = plus_minus(m.value, m.stderr) if m.stderr else f"{m.value:.3f} ± 0"
            rows.append([r.task, metric, figure, chance, f"{m.count} {r.split}", how, f"{r.guidance:g}", str(r.nfe)])
        for t in r.trials:
            figure = f"{t.accuracy.value:.3f} ± {t.accuracy.stderr:.3f}"
            trials.append([r.task, t.estimator, f"{t.guidance:g}", figure, str(t.accuracy.count)])
        if r.unsettled:
            notes.append(f"{r.task}: the winner of {several(r.unsettled, 'question')} is not settled by the draws")
        if r.cut:
            notes.append(f"{r.task}: {several(r.cut, 'prompt')} cut on the left, as the model reads no more")
        if r.short:
            notes.append(
                f"{r.task}: {several(r.short, 'text')} with less room than asked for, as the model reads no more"
            )
    columns = ["task", "metric", "value", "chance", "questions", "estimator", "guidance", "passes"]
    parts = [table(columns, rows)]
    if trials:
        heads = ["chosen for", "estimator", "guidance", "on the dev split", "questions"]
        parts += ["", table(heads, trials), "", "chosen on the dev split, reported on the test split alone"]
    return "\n".join([*parts, *(["", *notes] if notes else [])])
