"""Traces on the command line: the options --trace and --compare, and the command `replay`."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from anyorder.cli.parser import Parser, add_device
from anyorder.cli.show import finish, safe, table

if TYPE_CHECKING:
    from anyorder.api import Generation
    from anyorder.trace.record import Record
    from anyorder.trace.replay import Replay

    Keep = Callable[[Record], None] | None
    Write = Callable[[str | None, int | None, Keep], list[Generation]]

SUFFIXES = {".jsonl": "the record", ".html": "the page"}


def add_trace(parser: Parser) -> None:
    """The options about traces that `sample` and `infill` share."""
    parser.add_argument(
        "--trace", type=Path, metavar="FILE", help="keep every step: a record (.jsonl) or a page that plays it (.html)"
    )
    parser.add_argument("--compare", metavar="NAME", help="let a second sampler write the same rows too")


def write_traced(write: "Write", found: argparse.Namespace, *, command: str) -> "list[Generation]":
    """What the asked samplers write; its trace is written too if one is asked for.

    Args:
        write: from a sampler's name, its steps and a keeper of records to the written rows.
        command: the command line, for the page.
    Raises:
        ValueError: a trace that is neither .jsonl nor .html, or a value that `write` refuses.
    """
    from anyorder.samplers.presets import make_sampler, preset_of

    if found.trace is not None:
        _check_name(found.trace)
    if found.compare is not None:
        make_sampler(found.compare)  # a wrong name stops it before anything is written
    records: list[Record] = []
    keep = None if found.trace is None else records.append
    made = write(found.sampler, found.steps, keep)
    if found.compare is not None:
        made = made + write(found.compare, found.steps if preset_of(found.compare).paced else None, keep)
    if found.trace is not None:
        _save(found.trace, records, command.encode(errors="backslashreplace").decode())  # paths may be no text
    return made


def _check_name(path: Path) -> None:
    from anyorder.core.files import check_output

    if path.suffix not in SUFFIXES:
        raise ValueError(f"--trace {path}: must end in .jsonl, for the record, or .html, for a page that plays it")
    check_output(path, option="--trace")


def _save(path: Path, records: "list[Record]", command: str) -> None:
    if path.suffix == ".html":
        from anyorder.trace.page import write_page

        write_page(path, records, command=command)
    else:
        from anyorder.trace.file import write_records

        write_records(path, records)


def replay(args: list[str]) -> None:
    parser = Parser(
        "replay",
        usage="TRACE [RUN] [--device NAME]",
        about="Do a recorded generation again and check that every write, revision and network pass is the same, and\n"
        "every log-probability but for rounding. Exit code 1 and one sentence if something differs.",
        example="  anyorder replay a.jsonl  # made by: anyorder sample runs/quickstart --seed 3 --trace a.jsonl",
    )
    parser.add_argument("trace", type=Path, metavar="TRACE", help="a trace, or the page of one")
    parser.add_argument("run", type=Path, nargs="?", metavar="RUN", help="its model (default where it lay)")
    add_device(parser)
    found = parser.parse(args)
    from anyorder.trace.file import read_records

    records = read_records(found.trace)
    done = []
    for record in records:
        made = _replay(record, found)
        done.append({"sampler": record.header.sampler.name, **dataclasses.asdict(made)})
        if made.difference is not None:
            name = record.header.sampler.name
            raise RuntimeError(safe(f"{found.trace}: {name}: the replay differs first in {made.difference}"))
    columns = ["sampler", "rows", "steps", "writes", "revisions", "nfe", "largest"]
    rows = [[f"{d[c]:.2g}" if c == "largest" else str(d[c]) for c in columns] for d in done]
    shown = ["sampler", "rows", "steps", "tokens written", "taken back", "passes", "log p differs by"]
    text = f"{table(shown, rows)}\n\nthe same: every write, revision and pass"
    finish({"trace": str(found.trace), "same": True, "records": done}, as_json=found.json, text=text)


def _replay(record: "Record", found: argparse.Namespace) -> "Replay":
    """One record against the model it names, or another place of it."""
    from anyorder.api import load
    from anyorder.core.device import canvas_device
    from anyorder.core.text import command
    from anyorder.hub.find import model_folder
    from anyorder.trace.replay import check_model
    from anyorder.trace.replay import replay as again

    asked = record.header.model
    if found.run is None and not Path(asked.path).is_dir():
        hint = command("anyorder", "replay", found.trace, "RUN")
        raise ValueError(f"{found.trace}: its model is not at {asked.path}; name it: {hint}")
    folder = model_folder((found.run or Path(asked.path)).expanduser())
    check_model(record, folder)
    model = load(folder, dtype=asked.dtype, device=found.device, bos=asked.bos).model
    return again(record, model, device=canvas_device(model.rope_cos.device))
