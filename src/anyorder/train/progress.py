"""A progress bar with loss, tokens a second and time left; on something that is no terminal, a line now and then."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

LINE_EVERY = 15.0  # seconds between lines where there is no terminal
FIRST_LINE = 3.0  # seconds until the first: how long it will take is said at once


class Progress:
    """Use as a context; call `update` after every step."""

    def __init__(
        self, num_steps: int, first: int, *, quiet: bool, what: str = "loss {:.3f} nats/token", counts: str = "tokens"
    ) -> None:
        self.num_steps, self.first, self.quiet, self.what, self.counts = num_steps, first, quiet, what, counts
        self.started = time.monotonic()
        self.line_at = self.started + FIRST_LINE - LINE_EVERY
        self.tokens_before: int | None = None
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        hidden = quiet or not sys.stderr.isatty()
        self.bar = Bar(*columns, console=Console(stderr=True), disable=hidden, transient=True)
        self.task = self.bar.add_task("train", total=num_steps, completed=first, note="")

    def __enter__(self) -> "Progress":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def update(self, done: int, value: float, *, tokens: int) -> None:
        """`done` steps are done, with this loss or reward in the last, and so many tokens or answers in all."""
        now = time.monotonic()
        if self.tokens_before is None:
            self.tokens_before, self.started = tokens, now
        rate = (tokens - self.tokens_before) / max(now - self.started, 1e-9)
        note = f"{self.what.format(value)}  {rate:,.0f} {self.counts}/s"
        self.bar.update(self.task, completed=done, note=note)
        timed = done > self.first + 1  # the first step sets up what later ones have, and may compile
        due = (timed and now - self.line_at > LINE_EVERY) or done == self.num_steps
        if self.bar.disable and not self.quiet and due:
            self.line_at = now
            left = (
                (self.num_steps - done) * (now - self.started) / max(1, done - self.first - 1)
            )  # timed since the first
            print(f"  step {done}/{self.num_steps}  {note}  {left:.0f} s left", file=sys.stderr, flush=True)
