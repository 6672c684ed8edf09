"""A line plot as one small SVG: a logarithmic x axis, straight lines, labels at their ends, light and dark."""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 760.0, 420.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 170.0, 48.0, 56.0
SPACE = 16.0  # between labels
COLOURS = ("#0f766e", "#c2410c", "#4f46e5", "#a16207", "#be185d")
STYLE = """
text { font-family: system-ui, sans-serif; font-size: 13px; fill: #1f1e1b; }
.title { font-weight: bold; font-size: 15px; }
.paper { fill: #fbfaf7; stroke: #e4e0d8; } .grid { stroke: #d8d3c8; stroke-width: 1; }
path { fill: none; stroke-width: 2; }
@media (prefers-color-scheme: dark) { text { fill: #e9e7e2; } .paper { fill: #1b1d21; stroke: #2e3036; }
.grid { stroke: #41454d; } }"""


@dataclass(frozen=True)
class Line:
    """A named line through points (x, y), x > 0; a dashed one has the colour of the line before it."""

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


def line_plot(lines: Sequence[Line], *, title: str, x: str, y: str) -> str:
    """The picture, with grid lines at powers of ten of x and at whole values of y.

    Args:
        title, x, y: what it shows, and its axes.
    Raises:
        ValueError: no line, or one without points.
    """
    if not lines or not all(line.points for line in lines):
        raise ValueError("line_plot: lines is empty or holds an empty line: give each line at least one point")
    xs = [math.log10(p[0]) for line in lines for p in line.points]
    top = max(p[1] for line in lines for p in line.points) * 1.05
    low, high = min(xs), max(max(xs), min(xs) + 1e-9)

    def place(px: float, py: float) -> tuple[float, float]:
        across = (math.log10(px) - low) / (high - low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - py / top * (HEIGHT - TOP - BOTTOM)

    body = [f'<text class="title" x="{LEFT}" y="28">{html.escape(title)}</text>']
    body += _grid(place, low=low, high=high, top=top)
    body.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.1f}" y="{HEIGHT - 14}" text-anchor="middle">{html.escape(x)}</text>'
    )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = f'text-anchor="middle" transform="rotate(-90 18 {middle:.1f})"'
    body.append(f'<text x="18" y="{middle:.1f}" {turned}>{html.escape(y)}</text>')
    paths, colour = [[place(*p) for p in line.points] for line in lines], -1
    for line, path, label in zip(lines, paths, _apart([path[-1][1] for path in paths])):
        colour += not line.dashed
        body += _line(line, path, label=label, colour=COLOURS[colour % len(COLOURS)])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n"
        f'<rect class="paper" x="0.5" y="0.5" width="{WIDTH - 1:g}" height="{HEIGHT - 1:g}" rx="8"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _apart(heights: Sequence[float]) -> list[float]:
    """Heights of labels, each at least a line below the one above it."""
    found, last = list(heights), -SPACE
    for i in sorted(range(len(heights)), key=lambda i: heights[i]):
        last = found[i] = max(heights[i], last + SPACE)
    return found


def _line(line: Line, at: Sequence[tuple[float, float]], *, label: float, colour: str) -> list[str]:
    """A path, dots, and a name at its end."""
    path = "M" + " L".join(f"{px:.1f} {py:.1f}" for px, py in at)
    dash = ' stroke-dasharray="5 5"' if line.dashed else ""
    made = [f'<path d="{path}" stroke="{colour}"{dash}><title>{html.escape(line.name)}</title></path>']
    if not line.dashed:
        made += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{colour}"/>' for px, py in at]
    made.append(f'<text x="{at[-1][0] + 10:.1f}" y="{label + 4:.1f}">{html.escape(line.name)}</text>')
    return made


def _grid(place: Callable[[float, float], tuple[float, float]], *, low: float, high: float, top: float) -> list[str]:
    """Lines and their values."""
    made = []
    for power in range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1):
        px, base = place(10.0**power, 0.0)
        made.append(f'<line class="grid" x1="{px:.1f}" y1="{TOP}" x2="{px:.1f}" y2="{base:.1f}"/>')
        made.append(f'<text x="{px:.1f}" y="{base + 18:.1f}" text-anchor="middle">{10**power:,}</text>')
    step = max(1.0, math.ceil(top / 6))
    value = 0.0
    while value <= top:
        px, py = place(10.0**low, value)
        made.append(f'<line class="grid" x1="{px:.1f}" y1="{py:.1f}" x2="{WIDTH - RIGHT:.1f}" y2="{py:.1f}"/>')
        made.append(f'<text x="{px - 8:.1f}" y="{py + 4:.1f}" text-anchor="end">{value:g}</text>')
        value += step
    return made
