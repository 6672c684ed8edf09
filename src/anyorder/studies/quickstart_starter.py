"""The quickstart's first act: the model that comes with anyorder fills gaps and writes, shown as it is written."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from anyorder.api import GAP, Generation, LanguageModel, load
from anyorder.core import dist
from anyorder.core.types import Step
from anyorder.data.hub_tokenizer import piece_of
from anyorder.page.report import Act, Trace

STARTER: str | Path = "starter"
MASK: Final = "░"
PAUSE = 0.06  # seconds that each step stays on a terminal; anywhere else nobody waits
GAPS: Final[tuple[tuple[str | int, ...], ...]] = (
    ("def add(a, b):\n    return ", 4, "\n"),
    ("        if value is None:\n            raise ", 3, '("value is required")\n'),
    ("with open(path, ", 4, ") as file:\n    text = file.", 2, "()\n"),
)
BEGINNING: Final = "import os\n\n\ndef "
LENGTH: Final = 64  # tokens of the text it writes
TEMPERATURE: Final = 0.5


@dataclass(frozen=True)
class Written:
    """What the starter wrote: the texts whose gaps it filled, and one it went on with; and its number of parameters."""

    filled: list[Generation]
    continued: Generation
    num_params: int


def write_with_starter(*, seed: int, quiet: bool) -> Written:
    """Fill the gaps of `GAPS` and go on from `BEGINNING`, most certain token first; on the terminal unless `quiet`."""
    model = load(STARTER, device=str(dist.device()))
    filled = []
    for parts in GAPS:
        with Screen(model, quiet=quiet) as screen:
            pieces = [GAP(part) if isinstance(part, int) else part for part in parts]
            (one,) = model.infill(pieces, sampler="top-prob", temperature=TEMPERATURE, seed=seed, on_step=screen.show)
            filled.append(one)
    with Screen(model, quiet=quiet) as screen:
        (continued,) = model.sample(
            BEGINNING, length=LENGTH, sampler="top-prob", temperature=TEMPERATURE, seed=seed, on_step=screen.show
        )
    return Written(filled, continued, sum(p.numel() for p in model.model.parameters()))


def starter_act(written: Written) -> Act:
    """The starter's texts as traces."""
    filled = [
        trace_of("infill", "top-prob", made, prompt="the text around the gaps was given", group=f"Gaps {i}")
        for i, made in enumerate(written.filled, 1)
    ]
    continued = trace_of(
        "MDM", "top-prob", written.continued, prompt="the beginning was given", group="Going on from a beginning"
    )
    return Act(
        name="starter",
        title="A model that fills gaps",
        summary=(
            f"A masked diffusion model of {written.num_params / 1e6:.1f} million parameters comes with anyorder; it "
            "learned Python source. It writes the token it is surest of first, and reads what stands on both sides of "
            "a gap. Nothing here is selected: these are the texts of one seed."
        ),
        samples=[*filled, continued],
    )


def trace_of(kind: Any, sampler: str, made: Generation, *, prompt: str = "", note: str = "", group: str = "") -> Trace:
    """A written row as the page plays it."""
    return Trace(
        kind=kind,
        sampler=sampler,
        tokens=made.pieces,
        order=made.order,
        logp=made.token_logp,
        prompt=prompt,
        nfe=made.nfe,
        seconds=made.seconds,
        note=note,
        group=group,
    )


class Screen:
    """A text on the terminal while it is written: given tokens plain, written ones bold, masks as blocks.

    Where standard output is no terminal, only the finished text appears.
    """

    def __init__(self, model: LanguageModel, *, quiet: bool) -> None:
        self.model, self.quiet = model, quiet
        self.console = Console(quiet=quiet, highlight=False, soft_wrap=True)
        self.live = Live(console=self.console, auto_refresh=False)

    def __enter__(self) -> "Screen":
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()
        self.console.print()

    def show(self, step: Step) -> None:
        """Draw the first row as it stands after a step."""
        if self.quiet:
            return
        self.live.update(self._text(step), refresh=True)
        if self.console.is_terminal:
            time.sleep(PAUSE)

    def _text(self, step: Step) -> Text:
        text = Text()
        for token, fixed in zip(step.canvas.x[0].tolist(), step.canvas.fixed[0].tolist(), strict=True):
            masked = token == self.model.model.vocab.mask_id
            piece = MASK if masked else _safe(piece_of(self.model.tokenizer, token))
            text.append(piece, style="dim" if masked else "" if fixed else "bold green")
        return text


def _safe(piece: str) -> str:
    """Without control characters, so that no text takes effect on a terminal."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in piece)
