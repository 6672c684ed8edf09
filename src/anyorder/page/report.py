"""Pages that play what was written: one self-contained file that shows what a run learned, wrote and cost, or a trace.

The caller fills a `ReportData`; the parts in `parts/` (HTML, CSS, JavaScript) are inlined with it into one file that
asks nothing of the network. Text of the run enters as JSON and reaches the page as text nodes only: any text is safe.
"""

import html
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field, FiniteFloat, NonNegativeInt, PositiveInt, model_validator

from anyorder.core.files import write_atomic

PARTS = files("anyorder.page") / "parts"
SCRIPTS = ("dom.js", "plot.js", "trace.js", "player.js", "page.js")


def readable(piece: str | bytes) -> str:
    r"""A token's text as valid Unicode: bytes that are not UTF-8 (or surrogate escapes of them) read `\xe2`."""
    if isinstance(piece, bytes):
        return piece.decode("utf-8", "backslashreplace")
    if any("\ud800" <= c <= "\udfff" for c in piece):
        return re.sub("[\ud800-\udfff]", _escape_surrogate, piece)
    return piece


def _escape_surrogate(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else "\ufffd"


def _readable_if_text(value: object) -> object:
    return readable(value) if isinstance(value, str | bytes) else value


Text = Annotated[str, BeforeValidator(_readable_if_text)]
Error = Annotated[FiniteFloat, Field(ge=0)]


class Curve(BaseModel, frozen=True, extra="forbid"):
    """A learning curve on held-out data; curves of one unit share a plot. Less is better of all units but "% solved".

    Args:
        label: for instance "MDM (bound)" or "ARM (exact)"; a label that begins so takes that model's colour.
        points: (tokens seen, value, standard error).
        final, final_stderr: the closing figure, if it was measured apart from the last point.
    """

    label: Text
    unit: Literal["bits per byte", "nats per token", "% solved"]
    points: Annotated[Sequence[tuple[FiniteFloat, FiniteFloat, Error]], Field(min_length=1)]
    final: FiniteFloat | None = None
    final_stderr: Error | None = None


Event = tuple[NonNegativeInt, NonNegativeInt, Text | None, FiniteFloat]


class Trace(BaseModel, frozen=True, extra="forbid"):
    """One text or board, and the order in which its tokens were written.

    Args:
        kind: which model or task wrote it.
        sampler: the sampler's name.
        tokens: the text of each position; `readable` turns raw bytes into such text.
        order: the step (from 0) at which each position was last written; -1 for what was given.
        events: (step, position, token or None, logp) in the order of steps, for a sampler that changes its mind: None
            is a token taken back. Empty: each position was written once.
        clock: what the numbers of steps count.
        logp: natural log-probability of each written token under the law it was drawn from; ignored where given.
        prompt: a sentence about what was given.
        grows: tokens were inserted one between others: those that came later are not there before.
        nfe: network passes.
        seconds: wall time.
        grid: cells per row if this is a board; boxes are drawn where it is a square number.
        ok: whether the answer is right, where that can be checked.
        wrong: positions to mark as mistakes.
        note: a sentence shown under the text.
        group: traces of one name are shown side by side on one clock.
    """

    kind: Literal["MDM", "ARM", "ILM", "infill", "puzzle"]
    sampler: Text
    tokens: Sequence[Text]
    order: Sequence[Annotated[int, Field(ge=-1)]]
    logp: Sequence[FiniteFloat]
    prompt: Text = ""
    nfe: NonNegativeInt
    seconds: Error | None = None
    grid: PositiveInt | None = None
    ok: bool | None = None
    wrong: Sequence[NonNegativeInt] = ()
    note: Text = ""
    group: Text = ""
    events: Sequence[Event] = ()
    clock: Literal["step", "pass"] = "step"
    grows: bool = False

    @model_validator(mode="after")
    def _one_entry_per_token(self) -> "Trace":
        n = len(self.tokens)
        if not n and not self.grows:
            raise ValueError("trace.tokens: is empty; only a text that grows may be")
        for name, given in (("order", self.order), ("logp", self.logp)):
            if len(given) != n:
                raise ValueError(f"trace.{name} has {len(given)} entries: must have one per token, {n}")
        if any(p > 1e-6 for p in self.logp):
            raise ValueError(f"trace.logp={max(self.logp)}: must be <= 0; give natural log-probabilities")
        if self.grid is not None and n % self.grid:
            raise ValueError(f"trace.grid={self.grid}: must divide the number of tokens, {n}; leave it out for text")
        if any(i >= n for i in self.wrong):
            raise ValueError(f"trace.wrong={max(self.wrong)}: must be a position below {n}")
        return self

    @model_validator(mode="after")
    def _events_lead_to_the_tokens(self) -> "Trace":
        last = {position: (token, step) for step, position, token, _ in self.events}
        if self.events and last != {i: (self.tokens[i], at) for i, at in enumerate(self.order) if at >= 0}:
            raise ValueError("trace.events: must end with what tokens and order say of every position that was written")
        if any(a[0] > b[0] for a, b in pairwise(self.events)):
            raise ValueError("trace.events: must be in the order of steps")
        if any(logp > 1e-6 for _, _, _, logp in self.events):
            raise ValueError("trace.events: log-probabilities must be <= 0; give natural ones")
        return self

    @property
    def steps(self) -> int:
        """Steps it took to write: one more than the largest entry of `order`."""
        return max(self.order, default=-1) + 1


class Share(BaseModel, frozen=True, extra="forbid"):
    """A table cell drawn as a bar: a fraction in [0, 1] and its standard error."""

    share: Annotated[FiniteFloat, Field(ge=0, le=1)]
    stderr: Error | None = None


class Table(BaseModel, frozen=True, extra="forbid"):
    """Columns, and rows of as many cells: text, numbers, or shares; None is an empty cell."""

    columns: Annotated[Sequence[Text], Field(min_length=1)]
    rows: Sequence[Sequence[Share | FiniteFloat | Text | None]]
    caption: Text = ""

    @model_validator(mode="after")
    def _rows_fit(self) -> "Table":
        for i, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"table row {i} has {len(row)} cells: must have one per column, {len(self.columns)}")
        return self


class Cost(BaseModel, frozen=True, extra="forbid"):
    """A figure on a card: 12300.0 with unit "tokens/s" is shown as 12.3k tokens/s; a string is shown as it is."""

    label: Text
    value: FiniteFloat | Text
    unit: Text = ""
    help: Text = ""


class Act(BaseModel, frozen=True, extra="forbid"):
    """A part of the run, such as "text" or "puzzle"; whatever is left empty is not shown.

    Args:
        title: the heading; `name` if empty.
        summary: what happened, for a reader who knows none of the terms.
        z_curve: (n, mean nats per masked token when n are masked, standard error).
    """

    name: Text
    title: Text = ""
    summary: Text
    curves: Sequence[Curve] = ()
    z_curve: Sequence[tuple[PositiveInt, FiniteFloat, Error]] = ()
    samples: Sequence[Trace] = ()
    table: Table | None = None
    cost: Sequence[Cost] = ()


class MadeWith(BaseModel, frozen=True, extra="forbid"):
    """What made the page; `seconds` is the wall time of the run, `facts` are more names and values to show."""

    version: Text
    commit: Text = ""
    command: Text = ""
    machine: Text = ""
    seconds: Error | None = None
    facts: Sequence[tuple[Text, Text]] = ()


class ReportData(BaseModel, frozen=True, extra="forbid"):
    """Everything the page shows.

    Args:
        kind: a page of a trace begins with its samples.
        caveat: what not to conclude from it.
        config: YAML text.
        records: a trace file (`trace.file`) that the page carries.
    """

    kind: Literal["run report", "trace"] = "run report"
    title: Text
    subtitle: Text = ""
    caveat: Text = ""
    made_with: MadeWith
    config: Text = ""
    records: Text = ""
    acts: Annotated[Sequence[Act], Field(min_length=1)]


def embed_json(data: ReportData) -> str:
    """The data as ASCII JSON that may stand inside an HTML script element: no `<`, `>` or `&` is left in it."""
    text = json.dumps(data.model_dump(mode="json"), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def render_report(data: ReportData) -> str:
    """The page as HTML text; a pure function of the data."""
    parts = {
        "title": html.escape(data.title),
        "style": (PARTS / "page.css").read_text(encoding="utf-8"),
        "data": embed_json(data),
        "script": "\n".join((PARTS / name).read_text(encoding="utf-8") for name in SCRIPTS),
    }
    page = (PARTS / "page.html").read_text(encoding="utf-8")
    marks = re.compile(r"\{\{(title|style|data|script)\}\}")
    return marks.sub(lambda m: parts[m[1]], page)  # one pass: what is put in is never read as a template


def write_report(path: str | Path, data: ReportData) -> None:
    """Write the page, whole or not at all: to a temporary name in the same folder (made if missing), then renamed.

    Raises:
        OSError: the folder cannot be written, or the disk is full; an older page at `path` is then left as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, render_report(data))
