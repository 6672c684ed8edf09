"""Commands that make things: `quickstart`, `data`, `train`."""

import argparse
from pathlib import Path
from typing import Any

from anyorder.cli.overrides import add_keys, given_keys, merged, with_underscores
from anyorder.cli.parser import Parser, add_device
from anyorder.cli.show import count, finish, pairs, plus_minus


def quickstart(args: list[str]) -> None:
    parser = Parser(
        "quickstart",
        usage="[--quick] [--out DIR] [--seed S]",
        about="A small trained model fills gaps and writes; another is trained before your eyes until it solves a\n"
        "puzzle; a masked diffusion model and its autoregressive twin read the same text. A page shows it all.\n"
        "About 6 minutes on 2 CPU cores; a slower machine does the same work in more time. Stopped, the same\n"
        "command goes on where it was.",
        example="  anyorder quickstart\n  anyorder quickstart --quick",
    )
    parser.add_argument("--quick", action="store_true", help="the same in about two minutes; figures are rough")
    parser.add_argument("--minutes", help=argparse.SUPPRESS)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default runs/quickstart, of --quick runs/quickstart-quick"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default 0")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    add_device(parser)
    options = parser.parse(args)
    if options.minutes is not None:
        raise ValueError(
            f"--minutes {options.minutes}: the quickstart trains a fixed number of steps, the same on every machine; "
            "leave it out, or use --quick for a minute's work"
        )
    from anyorder.core import dist
    from anyorder.core.files import check_output
    from anyorder.core.text import command
    from anyorder.studies import quickstart as study

    out = options.out or Path("runs/quickstart-quick" if options.quick else "runs/quickstart")
    check_output(out, option="--out", folder=True)
    dist.use(options.device)

    scale = study.QUICK if options.quick else study.FULL
    index = study.quickstart(out, scale=scale, seed=options.seed, quiet=options.quiet)
    text = (
        f"\nthe page: {out / study.PAGE}\n\ntry next:\n"
        '  anyorder infill starter "def add(a, b):\\n    return [[4]]"\n'
        f"  {command('anyorder', 'sample', out / 'puzzle-mdm')} --sampler top-prob\n"
        f'  {command("anyorder", "sample", out)} --prompt "import os"'
    )
    finish(index, as_json=options.json, text=text)


def data(args: list[str]) -> None:
    from anyorder.core.config import parse_config
    from anyorder.data.config import DataConfig, prepare, say_on_stderr

    parser = Parser(
        "data",
        usage="[CORPUS] [--KEY VALUE ...]",
        about="Turn a text into a tokenizer and checked shards of tokens. Runs do this by themselves; what is found\n"
        "prepared is not made again.",
        example="  anyorder data stdlib --vocab_size 512\n  anyorder data 'notes/*.txt' --tokenizer bytes --length 128",
    )
    parser.add_argument("corpus", nargs="?", metavar="CORPUS", help="stdlib, file, folder, glob, FILE.jsonl, hub:NAME")
    add_keys(parser, DataConfig, skip=["corpus"])
    found = parser.parse(with_underscores(args))
    values = given_keys(DataConfig, vars(found)) | ({"corpus": found.corpus} if found.corpus is not None else {})
    config = parse_config(DataConfig, values, source="data")
    prepared = prepare(config, say=say_on_stderr)
    summary = prepared.summary | {"rows": {part: prepared.rows(part).num_rows for part in ("train", "valid")}}
    lines = [(name, str(summary[name])) for name in ("corpus", "tokenizer", "vocab_size", "bytes_per_token", "folder")]
    for part in ("train", "valid"):
        n = summary[part]
        lines.append(
            (
                part,
                f"{n['documents']:,} documents, {n['bytes']:,} bytes, {n['tokens']:,} tokens, "
                f"{summary['rows'][part]:,} rows of {config.length}",
            )
        )
    finish(summary, as_json=found.json, text=pairs(lines))


def train(args: list[str]) -> None:
    from anyorder.core import dist
    from anyorder.core.files import check_output
    from anyorder.data.config import say_nothing, say_on_stderr
    from anyorder.train.config import RunConfig
    from anyorder.train.data import run_data
    from anyorder.train.loop import METRICS
    from anyorder.train.loop import train as run

    parser = Parser(
        "train",
        usage="[FILE.yaml] [--out DIR] [--KEY VALUE ...]",
        about="Train a model. FILE.yaml gives the values, options replace them; what neither gives is as below.\n"
        "Killed at any moment, the same command goes on from the last checkpoint to the same weights.",
        example="  anyorder train configs/stdlib-mdm-1M.yaml --out runs/mdm --num_steps 2000\n"
        "  anyorder train --data.corpus notes.txt --process.kind arm --size 0.3M",
    )
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="FILE.yaml", help="a configuration, such as configs/*.yaml"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the run (default runs/NAME of the file)")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    add_device(parser)
    add_keys(parser, RunConfig, skip=["model.causal"])
    found = parser.parse(with_underscores(args))
    dist.use(found.device)
    config = run_config(found)
    config.process.build(group=config.batch.rows)  # refuses a wrong value before the folder is claimed
    folder = found.out or Path("runs") / run_name(found.file, config)
    check_output(folder, option="--out", folder=True)
    rows = run_data(config, say=say_nothing if found.quiet else say_on_stderr)
    model = run(config, rows, folder, quiet=found.quiet)
    if dist.rank() != 0:
        return
    from anyorder.core.log import read_records

    records = read_records(folder / METRICS)
    last: dict[str, Any] = {r["kind"]: r for r in records}
    payload = {"run": str(folder), "model": str(model), "steps": config.num_steps, **last}
    finish(payload, as_json=found.json, text=_trained(folder, config.num_steps, last, task=config.task is not None))


def run_config(found: argparse.Namespace) -> Any:
    """The run that a file and options describe.

    `--model.*` without a model in the file begins with the named size, at the length of the rows.
    """
    from anyorder.core.config import load_config, parse_config
    from anyorder.data.tasks import make_task
    from anyorder.models.config import SIZES
    from anyorder.train.config import RunConfig

    below = RunConfig() if found.file is None else load_config(RunConfig, found.file)
    given = given_keys(RunConfig, vars(found))
    if "model" not in given:
        return parse_config(RunConfig, merged(below.model_dump(), given), source="train")
    named = parse_config(RunConfig, merged(below.model_dump(), given | {"model": None}), source="train")
    length = named.data.length if named.task is None else make_task(named.task).length
    model = below.model or SIZES[named.size].model_copy(update={"max_length": length})
    return parse_config(RunConfig, merged(below.model_dump() | {"model": model.model_dump()}, given), source="train")


def run_name(file: Path | None, config: Any) -> str:
    """The name of a run's folder: that of its file, or what it is."""
    if file is not None:
        return file.stem if file.name != "config.yaml" else file.resolve().parent.name
    what = config.task or Path(config.data.corpus).stem
    return "-".join(
        "".join(c if c.isalnum() or c in "._" else "_" for c in p) for p in (what, config.process.kind, config.size)
    )


def _trained(folder: Path, num_steps: int, last: dict[str, Any], *, task: bool) -> str:
    from anyorder.core.text import command

    valid, trained = last.get("valid"), last.get("train")
    tokens = "" if trained is None else f", {count(trained['tokens'])} tokens in {trained['seconds']:.0f} s"
    lines = [("trained", f"{num_steps:,} steps{tokens}")]
    if valid is None:
        lines.append(("held out", f"no figures in {folder / 'metrics.jsonl'}"))
    else:
        lines.append(("held out", f"{plus_minus(valid['nats_per_token'], valid['stderr'])} nats/token"))
        if not task:
            lines.append(("", f"{plus_minus(valid['bits_per_byte'], valid['bits_per_byte_stderr'])} bits/byte"))
    hints = [command("anyorder", verb, folder) for verb in ("sample", "inspect")]
    return pairs(lines) + "\n\ntry next:\n  " + "\n  ".join(hints)
