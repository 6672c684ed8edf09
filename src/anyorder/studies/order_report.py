"""Tables and picture of the study of orders."""

from collections.abc import Sequence
from typing import Final

from anyorder.studies.order_runs import ORDERS, Excess, Score
from anyorder.studies.plot_svg import Line, Plot, line_plots
from anyorder.studies.text import columns

PICTURED: Final = ("6 clues", "nothing given", "all")  # groups that are measured with few passes too


def show(exact: Sequence[Score], found: Sequence[Score], excess: Sequence[Excess]) -> str:
    """The tables for people."""
    parts = [
        "Exact oracles: problems solved (%), by network passes; one token per pass is right in any order.",
        _by_passes(exact),
        "Trained models, one token per pass: problems solved (%), mean and standard error over problems.",
        _by_order([s for s in found if s.passes is None]),
        "Trained models with few passes: problems solved (%).",
        _by_passes([s for s in found if s.group in PICTURED]),
        "NAE-SAT, nothing given: observations that are what the row's own latents say (%); by chance 62.5.",
        _agreement([s for s in (*exact, *found) if s.agree is not None and s.group == "nothing given"]),
        "NAE-SAT: nats per masked bit: entropy of the exact prediction, the excess of the model over it, its error.",
        columns("masked|of|exact|excess|error", [_excess_row(e) for e in excess], left=2),
    ]
    return "\n\n".join(parts)


def _excess_row(e: Excess) -> list[str]:
    return [str(e.masked), e.kind, f"{e.exact:.4f}", f"{e.excess:.4f}", f"{e.stderr:.4f}"]


def _by_passes(scores: Sequence[Score]) -> str:
    """A row for each order, a column for each number of passes."""
    passes = sorted({s.passes for s in scores if s.passes is not None})
    rows = []
    for task, group in dict.fromkeys((s.task, s.group) for s in scores):
        for order in ORDERS:
            own = {s.passes: s for s in scores if (s.task, s.group, s.order) == (task, group, order)}
            cells = [_share(own[n]) if n in own else "-" for n in (*passes, None)]
            rows.append([task, group, order, *cells])
    return columns(f"task|problems|order|{'|'.join(f'{n} passes' for n in passes)}|one by one", rows, left=3)


def _by_order(scores: Sequence[Score]) -> str:
    """A row for each group, a column for each order."""
    rows = []
    for task, group in dict.fromkeys((s.task, s.group) for s in scores):
        own = {s.order: s for s in scores if (s.task, s.group) == (task, group)}
        first = next(iter(own.values()))
        rows.append([task, group, str(first.problems), *(_share(own[order]) for order in ORDERS)])
    return columns(f"task|problems|of them|{'|'.join(ORDERS)}", rows, left=2)


def _agreement(scores: Sequence[Score]) -> str:
    """A row for each order and model, a column for each number of passes."""
    passes = sorted({s.passes for s in scores if s.passes is not None})
    rows = []
    for model in dict.fromkeys(s.model for s in scores):
        for order in ORDERS:
            own = {s.passes: s for s in scores if (s.model, s.order) == (model, order)}
            rows.append([model, order, *(_agree(own[n]) if n in own else "-" for n in (*passes, None))])
    return columns(f"model|order|{'|'.join(f'{n} passes' for n in passes)}|one by one", rows, left=2)


def _share(s: Score) -> str:
    return f"{100 * s.share:.1f} ± {100 * s.stderr:.1f}"


def _agree(s: Score) -> str:
    return f"{100 * (s.agree or 0.0):.1f} ± {100 * (s.agree_stderr or 0.0):.1f}"


def picture(exact: Sequence[Score], found: Sequence[Score]) -> str:
    """Share solved against network passes, for the NAE-SAT oracle and each trained model."""
    frames = [("NaeSat, nothing given, exact oracle", [s for s in exact if s.task == "NaeSat"])]
    for task, group in dict.fromkeys((s.task, s.group) for s in found if s.group in PICTURED):
        frames.append((f"{task}, {group}, trained", [s for s in found if (s.task, s.group) == (task, group)]))
    return line_plots([Plot(_lines(scores), title, "network passes", "solved, %") for title, scores in frames])


def _lines(scores: Sequence[Score]) -> list[Line]:
    """A line for each order."""
    return [
        Line(order, sorted((max(s.nfe, 1.0), 100 * s.share) for s in scores if s.order == order)) for order in ORDERS
    ]
