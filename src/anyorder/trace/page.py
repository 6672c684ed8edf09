"""The page of a trace: every row played pass by pass, the rows of several samplers side by side."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Final, Literal

import yaml

from anyorder.page.report import Act, Event, MadeWith, ReportData, Trace, write_report
from anyorder.trace.file import dump_records
from anyorder.trace.record import Record, RowStep

KINDS: Final[dict[str, Literal["MDM", "ARM", "ILM"]]] = {"mdm": "MDM", "arm": "ARM", "ilm": "ILM"}


def write_page(path: Path, records: Sequence[Record], *, command: str = "") -> None:
    """Write the page, whole or not at all. It carries the records, and `read_records` reads them back from it.

    Rows of the same place in each record are shown side by side on one clock, which counts network passes.

    Args:
        command: the command line to show, if one made the records.
    Raises:
        ValueError: no record.
        OSError: as `write_report`.
    """
    write_report(path, page_data(records, command=command))


def page_data(records: Sequence[Record], *, command: str = "") -> ReportData:
    """What the page shows; ValueError if there is no record."""
    if not records:
        raise ValueError("the page has no record to show; give at least one")
    names = [record.header.sampler.name for record in records]
    first = records[0].header
    together = len({len(record.header.rows) for record in records}) == 1
    samples = [
        row_trace(record, i, group=f"Row {i + 1}" if together else f"{record.header.sampler.name}, row {i + 1}")
        for i in range(max(len(record.header.rows) for record in records))
        for record in records
        if i < len(record.header.rows)
    ]
    act = Act(name="samples", title="What was written, and when", summary=_summary(records), samples=samples)
    return ReportData(
        kind="trace",
        title=" and ".join(dict.fromkeys(names)),
        subtitle="A text as it was written: token by token, pass by pass.",
        made_with=MadeWith(
            version=first.package,
            command=command,
            facts=[("Model", f"{first.model.kind.upper()}, {first.model.path}"), ("Seed", str(first.seed))],
        ),
        config=yaml.safe_dump_all([_settings(r) for r in records], sort_keys=False, allow_unicode=True),
        records=dump_records(records),
        acts=[act],
    )


def row_trace(record: Record, index: int, *, group: str = "") -> Trace:
    """A row of the record for the player; its clock counts the network passes of the row."""
    header, end = record.header, record.end.rows[index]
    changes = [(s.step, r) for s in record.steps for r in s.rows if r.row == end.row]
    passes = list(accumulate(r.nfe for _, r in changes))
    at = {step: max(0, paid - 1) for (step, _), paid in zip(changes, passes, strict=True)}
    pieces = record.end.pieces
    return Trace(
        kind=KINDS[header.model.kind],
        sampler=header.sampler.name,
        tokens=[pieces[token] for token in end.tokens],
        order=[at[step] if step >= 0 else -1 for step in end.order],
        logp=[min(0.0, p) for p in end.token_logp],
        nfe=end.nfe,
        grid=header.board,
        group=group,
        events=[event for step, r in changes for event in _events(r, at[step], pieces)],
        clock="pass",
        grows=header.rows[index].open is not None,
    )


def _events(change: RowStep, at: int, pieces: dict[int, str]) -> list[Event]:
    """What a step did to a row of masks; a token that was written and taken back at once was never there.

    What was inserted stays, so that its final place and its order say all.
    """
    wrote: list[Event] = [(at, p, pieces[t], min(0.0, logp)) for p, t, logp in change.writes if t is not None]
    return wrote + [(at, p, None, 0.0) for p in change.masked]


def _summary(records: Sequence[Record]) -> str:
    told = [f"{r.header.sampler.name}: {_cost(r)}" for r in records]
    return "; ".join(told) + "."


def _cost(record: Record) -> str:
    rows = len(record.end.rows)
    tokens = sum(when >= 0 for row in record.end.rows for when in row.order)
    passes = sum(row.nfe for row in record.end.rows)
    changes = [r for s in record.steps for r in s.rows]
    back = sum(len(r.masked) + len(r.edited) for r in changes)
    return (
        f"{tokens / rows:g} tokens in {passes / rows:.4g} network passes a row ({tokens / passes:.2f} tokens a pass), "
        f"{back / rows:.3g} of them taken back or replaced on the way"
        if back
        else f"{tokens / rows:g} tokens in {passes / rows:.4g} network passes a row ({tokens / passes:.2f} a pass)"
    )


def _settings(record: Record) -> dict[str, object]:
    header = record.header
    return {
        "sampler": header.sampler.model_dump(mode="json"),
        "seed": header.seed,
        "rows": len(header.rows),
        "model": header.model.model_dump(mode="json"),
    }
