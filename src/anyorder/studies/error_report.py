"""Tables and picture of the study of error rates."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from anyorder.studies.error_runs import ANCESTRAL, Need, Rate, fall, growth
from anyorder.studies.plot_svg import Line, Plot, line_plots
from anyorder.studies.text import columns

T = TypeVar("T")


def by(values: Iterable[T], *names: str) -> dict[tuple[Any, ...], list[T]]:
    """Values with equal attributes together, in order of first appearance."""
    found: dict[tuple[Any, ...], list[T]] = {}
    for value in values:
        found.setdefault(tuple(getattr(value, name) for name in names), []).append(value)
    return found


def show(
    tokens: Sequence[Rate], sequences: Sequence[Rate], paths: dict[tuple[str, int], float], needs: Sequence[Need]
) -> str:
    """The tables for people."""
    longest, far = max(r.length for r in tokens), max(r.length for r in sequences)
    lengths = sorted({r.length for r in tokens})
    fixed = by([r for r in tokens if r.sampler == ANCESTRAL], "language", "num_steps")
    falls = by([r for r in tokens if r.sampler == ANCESTRAL and r.length == longest], "language")
    parts = [
        f"Token error rate, L = {longest}: TER = exp(mean of -log q(x) / L), gap = log TER - H/L in nats per token.\n"
        "Pairs: the gap as a sum over pairs of tokens drawn together. Path: path-KL per token, the forward cost.",
        columns(
            "language|sampler|N|passes|TER|exp(H/L)|gap|pairs|path",
            [_token_row(r, paths) for r in tokens if r.length == longest],
            left=2,
        ),
        "The gap falls as N^-p: " + ", ".join(f"{k[0]} p = {_plus_minus(*fall(v))}" for k, v in falls.items()) + ".",
        "TER of ancestral sampling does not depend on the length:",
        columns(
            f"language|N|{'|'.join(f'L = {n}' for n in lengths)}",
            [
                [name, str(n), *(_ter(r) for r in cell)]
                for (name, n), cell in fixed.items()
                if len(cell) == len(lengths)
            ],
        ),
        f"Sequence error rate, L = {far}: SER = share of rows that the language cannot produce.\n"
        "Theory: exact for the clock, from the expected number of broken pairs for the 2-gram.",
        columns(
            "language|sampler|N|N/L|passes|SER|theory",
            [_sequence_row(r) for r in sequences if r.length == far],
            left=2,
        ),
        "Steps for SER = 1/2, interpolated:",
        columns("language|sampler|L|N|N/L|passes|theory", [_need_row(n) for n in needs], left=2),
        "They grow as L^p: "
        + ", ".join(
            f"{k[0]}, {k[1]} p = {_plus_minus(*growth(v))}" for k, v in by(needs, "language", "sampler").items()
        )
        + ".",
    ]
    return "\n\n".join(parts)


def _plus_minus(value: float, error: float) -> str:
    return f"{value:.2f} ± {error:.2f}"


def _ter(r: Rate) -> str:
    ter = math.exp(r.nats)
    return f"{ter:.3f} ± {ter * r.nats_error:.3f}"


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _token_row(r: Rate, paths: dict[tuple[str, int], float]) -> list[str]:
    path = 0.0 if r.one_at_a_time else paths[r.language, r.num_steps] if r.sampler == ANCESTRAL else None
    gap = f"{r.gap:.4f} ± {r.nats_error:.4f}"
    known = "-" if r.floor is None else f"{math.exp(r.floor):.3f}"
    return [
        r.language,
        r.sampler,
        str(r.num_steps),
        f"{r.nfe:.1f}",
        _ter(r),
        known,
        gap,
        _number(r.theory),
        _number(path),
    ]


def _sequence_row(r: Rate) -> list[str]:
    ser = f"{r.broken:.3f} ± {r.broken_error:.3f}"
    share = f"{r.num_steps / r.length:.3g}"
    return [r.language, r.sampler, str(r.num_steps), share, f"{r.nfe:.1f}", ser, _number(r.theory, 3)]


def _need_row(n: Need) -> list[str]:
    steps = f"{n.num_steps:.1f} ± {n.num_steps * n.log_error:.1f}"
    return [
        n.language,
        n.sampler,
        str(n.length),
        steps,
        f"{n.num_steps / n.length:.3f}",
        f"{n.nfe:.1f}",
        _number(n.theory, 1),
    ]


def picture(tokens: Sequence[Rate], sequences: Sequence[Rate], needs: Sequence[Need]) -> str:
    """TER against N, SER against N / L with its theory, and the steps needed against the length."""
    longest = max(r.length for r in tokens)
    ter, ser, steps = [], [], []
    for (name,), cell in by([r for r in tokens if r.sampler == ANCESTRAL and r.length == longest], "language").items():
        ter.append(Line(name, [(float(r.num_steps), math.exp(r.nats)) for r in cell]))
        ter.append(Line("", [(float(r.num_steps), math.exp(r.floor or 0.0)) for r in cell], dashed=True))
    lengths = sorted({r.length for r in sequences})
    chosen = [r for r in sequences if r.sampler == ANCESTRAL and r.length in (lengths[0], lengths[-1])]
    for (name, length), cell in by(chosen, "language", "length").items():
        if cell[0].theory is not None:
            ser.append(Line(f"{name}, L = {length}", [(r.num_steps / length, r.broken) for r in cell]))
            ser.append(Line("", [(r.num_steps / length, r.theory or 0.0) for r in cell], dashed=True))
    for (name,), found in by([n for n in needs if n.sampler == ANCESTRAL], "language").items():
        steps.append(Line(name, [(float(n.length), n.num_steps) for n in found]))
    steps.append(Line("one by one", [(float(n), float(n)) for n in lengths]))
    return line_plots(
        [
            Plot(ter, f"Token error rate, L = {longest}; dashed: exact samples", "steps N", "TER"),
            Plot(ser, "Sequence error rate; dashed: theory", "steps per token, N / L", "SER"),
            Plot(steps, "Steps for a sequence error rate of 1/2", "length L", "steps N", log_y=True),
        ]
    )
