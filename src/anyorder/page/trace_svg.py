"""A still picture of denoising: a few stages of a trace, from masks to text, as one SVG for a README.

It brings its own background and both colour schemes, so it reads on light and dark pages; it uses system monospace only
and states the width of every token, so it looks the same whichever font answers.
"""

import html
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from anyorder.page.report import Trace

CELL, LINE = 8.0, 22.0  # width of a character, height of a line, in pixels
MARGIN, LABEL = 24.0, 92.0  # around the picture; the column with the step numbers
KEY = 240.0  # room for the colour scale beside a heading
BOX, GAP = 34.0, 26.0  # side of a board's cell; space between boards
LIGHT = ("#b9cdf6", "#ccd0ef", "#e3d3e6", "#eccdc0", "#f5c794", "#fcc167")  # written first ... last
DARK = ("#2a4386", "#43437c", "#5d4370", "#764d50", "#8f5830", "#a8640f")
STYLE = """
text { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; font-size: 13.3px; }
text { fill: #1f1e1b; white-space: pre; } .soft { fill: #5f5c55; } .strong, .given-text { font-weight: bold; }
.small { font-size: 12px; } .paper { fill: #fbfaf7; stroke: #e4e0d8; } .mask { fill: #e6e2da; }
.given { fill: #ece9e2; }
.rule { stroke: #d8d3c8; fill: none; } .box { stroke: #5f5c55; stroke-width: 2; fill: none; }"""
STYLE_DARK = """
text { fill: #e9e7e2; } .soft { fill: #aaa79f; } .paper { fill: #1b1d21; stroke: #2e3036; } .mask { fill: #383b42; }
.given { fill: #2a2c32; } .rule { stroke: #41454d; } .box { stroke: #aaa79f; }"""


@dataclass(frozen=True)
class Piece:
    """A run of characters of one token on one line: where it stands, in cells, and how wide it is."""

    token: int
    text: str
    line: int
    column: int
    width: int


def trace_svg(traces: Sequence[Trace], *, stages: int = 5, columns: int = 72, title: str = "") -> str:
    """The stages of each trace, one trace below the other: texts stage under stage, boards side by side.

    Args:
        stages: pictures per trace, from the first (nothing written) to the last (all written).
        columns: characters per line before a text is wrapped.
        title: what the picture shows, for readers who cannot see it.
    Raises:
        ValueError: no trace, fewer than 2 stages, or fewer than 8 columns.
    """
    if not traces:
        raise ValueError("trace_svg: traces is empty: must hold at least one trace")
    if stages < 2:
        raise ValueError(f"trace_svg: stages={stages}: must be >= 2, for the first and the last state")
    if columns < 8:
        raise ValueError(f"trace_svg: columns={columns}: must be >= 8")
    width, y, body = 2 * MARGIN, MARGIN, []
    for trace in traces:
        draw = _draw_board if trace.grid else _draw_text
        drawn, right, y = draw(trace, _stage_steps(trace.steps, stages), y, columns)
        body += drawn
        width = max(width, right + MARGIN, 2 * MARGIN + KEY + CELL * cells("".join(_heading_words(trace))))
    name = html.escape(visible(title or "Tokens written in any order: " + ", ".join(t.sampler for t in traces)))
    wide, high = math.ceil(width), math.ceil(y)
    return "\n".join([*_head(wide, high, name), *_key(wide), *body, "</svg>", ""])


def _head(width: int, height: int, name: str) -> list[str]:
    bins = " ".join(f".t{i} {{ fill: {c}; }}" for i, c in enumerate(LIGHT))
    dark = " ".join(f".t{i} {{ fill: {c}; }}" for i, c in enumerate(DARK))
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{name}">',
        f"<title>{name}</title>",
        f"<style>{STYLE}\n{bins}\n@media (prefers-color-scheme: dark) {{{STYLE_DARK}\n{dark} }}</style>",
        f'<rect class="paper" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="10"/>',
    ]


def _key(width: int) -> list[str]:
    """The colour scale, at the top right: written first ... last."""
    left, y = width - MARGIN - 208, MARGIN
    swatches = [f'<rect class="t{i}" x="{left + 52 + 20 * i}" y="{y + 2}" width="20" height="13"/>' for i in range(6)]
    words = ((left + 44, "end", "first"), (left + 180, "start", "last"))
    return swatches + [
        f'<text class="soft small" x="{x}" y="{y + 13}" text-anchor="{a}">{w}</text>' for x, a, w in words
    ]


def _stage_steps(steps: int, stages: int) -> list[int]:
    """Numbers of steps taken at each stage: 0 first, all last, evenly between, without repeats."""
    return sorted({round(steps * i / (stages - 1)) for i in range(stages)})


def _shade(trace: Trace, i: int) -> str:
    """The CSS class of a written token: given, or one of six shades from first to last."""
    if trace.order[i] < 0:
        return "given"
    return f"t{min(5, 6 * trace.order[i] // max(1, trace.steps))}"


def _heading_words(trace: Trace) -> tuple[str, str]:
    written = sum(o >= 0 for o in trace.order)
    facts = f"   {written} tokens, {trace.nfe} network pass{'' if trace.nfe == 1 else 'es'}"
    return visible(f"{trace.kind}, {trace.sampler}"), facts


def _heading(trace: Trace, y: float) -> str:
    name, facts = (html.escape(words) for words in _heading_words(trace))
    return f'<text x="{MARGIN}" y="{y}"><tspan class="strong">{name}</tspan><tspan class="soft">{facts}</tspan></text>'


def _draw_text(trace: Trace, steps: Sequence[int], y: float, columns: int) -> tuple[list[str], float, float]:
    """SVG lines of a text's stages, their right edge, and the y where they end."""
    out, widest = [_heading(trace, y + 13)], 0
    y += 32
    for step in steps:
        pieces = _standing(trace, step, columns)
        out.append(f'<text class="soft small" x="{MARGIN}" y="{y + 15}">step {step}</text>')
        for p in pieces:
            out += _draw_piece(trace, p, y, step)
        y += (max((p.line for p in pieces), default=0) + 1) * LINE + 16
        widest = max([widest, *(p.column + p.width for p in pieces)])
    return out, MARGIN + LABEL + CELL * widest, y + 8


def _standing(trace: Trace, step: int, columns: int) -> list[Piece]:
    """Where the tokens stand after so many steps: of a text that grows, only those that are there."""
    if not trace.grows:
        return wrap_tokens(trace.tokens, columns)
    here = [i for i, at in enumerate(trace.order) if at < step]
    return [replace(p, token=here[p.token]) for p in wrap_tokens([trace.tokens[i] for i in here], columns)]


def _draw_piece(trace: Trace, p: Piece, y: float, step: int) -> list[str]:
    x, top = MARGIN + LABEL + p.column * CELL, y + p.line * LINE
    hidden = trace.order[p.token] >= step
    kind = "mask" if hidden else _shade(trace, p.token)
    out = [f'<rect class="{kind}" x="{x + 0.5}" y="{top}" width="{p.width * CELL - 1}" height="{LINE - 3}" rx="3"/>']
    text = p.text.strip(" ")
    if text and not hidden:
        x += CELL * (len(p.text) - len(p.text.lstrip(" ")))
        size = f'textLength="{cells(text) * CELL:g}" lengthAdjust="spacingAndGlyphs"'
        style = ' class="given-text"' if kind == "given" else ""
        out.append(f'<text{style} x="{x:g}" y="{top + 14:g}" {size} xml:space="preserve">{html.escape(text)}</text>')
    return out


def _draw_board(trace: Trace, steps: Sequence[int], y: float, columns: int) -> tuple[list[str], float, float]:
    """SVG lines of a board's stages side by side, their right edge, and the y where they end."""
    side = trace.grid or 1
    rows = len(trace.tokens) // side
    out = [_heading(trace, y + 13)]
    y += 32
    for k, step in enumerate(steps):
        left = MARGIN + k * (side * BOX + GAP)
        out += [line for i in range(len(trace.tokens)) for line in _draw_cell(trace, i, left, y, step)]
        out += _draw_rules(side, rows, left, y)
        out.append(f'<text class="soft small" x="{left}" y="{y + rows * BOX + 20}">step {step}</text>')
    right = MARGIN + len(steps) * (side * BOX + GAP) - GAP
    return out, right, y + rows * BOX + 44


def _draw_cell(trace: Trace, i: int, left: float, top: float, step: int) -> list[str]:
    x, y = left + i % (trace.grid or 1) * BOX, top + i // (trace.grid or 1) * BOX
    if trace.order[i] >= step:
        return [f'<rect class="mask" x="{x + 9}" y="{y + 9}" width="{BOX - 18}" height="{BOX - 18}" rx="4"/>']
    shade, style = _shade(trace, i), ' class="given-text"' if trace.order[i] < 0 else ""
    text = html.escape(visible(trace.tokens[i]).strip())
    return [
        f'<rect class="{shade}" x="{x}" y="{y}" width="{BOX}" height="{BOX}"/>',
        f'<text{style} x="{x + BOX / 2}" y="{y + BOX / 2 + 5}" text-anchor="middle">{text}</text>',
    ]


def _draw_rules(side: int, rows: int, left: float, top: float) -> list[str]:
    """Thin lines between cells, thick ones around boxes (where the width is a square number) and the board."""
    box = math.isqrt(side) if math.isqrt(side) ** 2 == side and side > 1 else max(side, rows)
    width, height = side * BOX, rows * BOX
    across = [(j % box == 0, f"M{left} {top + j * BOX}h{width}") for j in range(1, rows)]
    down = [(j % box == 0, f"M{left + j * BOX} {top}v{height}") for j in range(1, side)]
    thin, thick = ("".join(d for wide, d in across + down if wide == which) for which in (False, True))
    frame = f'<rect class="box" x="{left}" y="{top}" width="{width}" height="{height}" rx="3"/>'
    paths = [f'<path class="{name}" d="{d}"/>' for name, d in (("rule", thin), ("box", thick)) if d]
    return [*paths, frame]


def visible(text: str) -> str:
    """The text with control and format characters, which XML forbids or readers cannot see, as a middle dot."""
    kept = ("·" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp", "Cn") else c for c in text)
    return "".join(kept)


def cells(text: str) -> int:
    """Width in character cells: East Asian wide characters take two, combining marks none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def wrap_tokens(tokens: Sequence[str], columns: int) -> list[Piece]:
    """Where each token's characters stand on lines of `columns` cells; a line break is a sign (↵) ending its line."""
    pieces, line, column = [], 0, 0
    for i, token in enumerate(tokens):
        for part in re.split("(\n)", (token or "∅").replace("\r\n", "\n").expandtabs(4)):
            text = "↵" if part == "\n" else visible(part)
            for run in re.findall(f".{{1,{columns // 2}}}", text):
                width = max(1, cells(run))
                if column + width > columns:
                    line, column = line + 1, 0
                pieces.append(Piece(i, run, line, column, width))
                column += width
            if part == "\n":
                line, column = line + 1, 0
    return pieces
