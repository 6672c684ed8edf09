"""Line plots as one small SVG: straight lines, labels at their ends, light and dark."""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 760.0, 420.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 170.0, 48.0, 56.0
SPACE = 16.0  # between labels
ACROSS, UP = 12, 6  # most values of linear axes
COLOURS = ("#0f766e", "#c2410c", "#4f46e5", "#a16207", "#be185d", "#64748b", "#65a30d", "#0284c7", "#1f2937")
STYLE = """
text { font-family: system-ui, sans-serif; font-size: 13px; fill: #1f1e1b; }
.title { font-weight: bold; font-size: 15px; }
.paper { fill: #fbfaf7; stroke: #e4e0d8; } .grid { stroke: #d8d3c8; stroke-width: 1; }
path { fill: none; stroke-width: 2; }
@media (prefers-color-scheme: dark) { text { fill: #e9e7e2; } .paper { fill: #1b1d21; stroke: #2e3036; }
.grid { stroke: #41454d; } }"""


@dataclass(frozen=True)
class Line:
    """A line through points (x, y), x > 0 on a logarithmic axis, and its name, which may be empty.

    A dashed one has no dots and the colour of the line before it. Others have the next colour, or one by number, which
    tells a thing from others in several frames.
    """

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False
    colour: int | None = None


@dataclass(frozen=True)
class Plot:
    """Lines in one frame.

    Args:
        title, x, y: what it shows, and its axes.
        log_x: whether x is logarithmic.
        log_y: whether y is; else it begins at 0.
        legend: names stand beside the frame, for lines that end in one place, instead of at the ends of the lines.
    Raises:
        ValueError: no line, or one without points.
    """

    lines: Sequence[Line]
    title: str
    x: str
    y: str
    log_x: bool = True
    log_y: bool = False
    legend: bool = False

    def __post_init__(self) -> None:
        if not self.lines or not all(line.points for line in self.lines):
            raise ValueError("line_plot: lines is empty or holds an empty line: give each line at least one point")


Place = Callable[[float, float], tuple[float, float]]


def line_plot(lines: Sequence[Line], *, title: str, x: str, y: str) -> str:
    """One plot, with grid lines at powers of ten of x and at round values of y from 0.

    Raises:
        ValueError: no line, or one without points.
    """
    return line_plots([Plot(lines, title, x, y)])


def line_plots(plots: Sequence[Plot]) -> str:
    """Plots below each other in one picture."""
    height = HEIGHT * len(plots)
    title = html.escape("; ".join(plot.title for plot in plots))
    frames = [f'<g transform="translate(0 {HEIGHT * i:g})">\n{_frame(plot)}\n</g>' for i, plot in enumerate(plots)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {height:g}" role="img">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n"
        f'<rect class="paper" x="0.5" y="0.5" width="{WIDTH - 1:g}" height="{height - 1:g}" rx="8"/>\n'
        + "\n".join(frames)
        + "\n</svg>\n"
    )


def _frame(plot: Plot) -> str:
    """Title, grid, axes and lines of one plot."""
    scale = math.log10 if plot.log_x else float
    across = _span([scale(px) for line in plot.lines for px, _ in line.points])
    ys = [py for line in plot.lines for _, py in line.points]
    up = _span([math.log10(py) for py in ys]) if plot.log_y else (0.0, max(ys) * 1.05 or 1.0)

    def place(px: float, py: float) -> tuple[float, float]:
        along = (scale(px) - across[0]) / (across[1] - across[0])
        high = ((math.log10(py) if plot.log_y else py) - up[0]) / (up[1] - up[0])
        return LEFT + along * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - high * (HEIGHT - TOP - BOTTOM)

    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = f'text-anchor="middle" transform="rotate(-90 18 {middle:.1f})"'
    body = [
        f'<text class="title" x="{LEFT}" y="28">{html.escape(plot.title)}</text>',
        *_upright(place, _powers(*across) if plot.log_x else _round_values(*across, most=ACROSS)),
        *_level(place, _powers(*up) if plot.log_y else _round_values(*up, most=UP)),
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.1f}" y="{HEIGHT - 14}" text-anchor="middle">'
        f"{html.escape(plot.x)}</text>",
        f'<text x="18" y="{middle:.1f}" {turned}>{html.escape(plot.y)}</text>',
    ]
    paths, colours, colour = [[place(*p) for p in line.points] for line in plot.lines], [], -1
    for line, path in zip(plot.lines, paths):
        colour = colour + (not line.dashed) if line.colour is None else line.colour
        colours.append(COLOURS[colour % len(COLOURS)])
        body += _line(line, path, colour=colours[-1])
    return "\n".join(body + (_legend(plot.lines, colours) if plot.legend else _names(plot.lines, paths)))


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Least and greatest, never the same."""
    return min(values), max(max(values), min(values) + 1e-9)


def _powers(low: float, high: float) -> list[float]:
    """Powers of ten between 10^low and 10^high; where they are fewer than three, 2 and 5 times them too."""
    powers = range(math.floor(low), math.floor(high) + 1)
    every = [[f * 10.0**p for p in powers for f in factors] for factors in ((1.0,), (1.0, 2.0, 5.0))]
    plain, fine = [[v for v in values if low - 1e-9 <= math.log10(v) <= high + 1e-9] for values in every]
    return plain if len(plain) > 2 else fine


def _round_values(low: float, high: float, *, most: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten between two values, in at most so many steps."""
    rough = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1.0, 2.0, 5.0, 10.0) if unit * factor >= rough - 1e-12)
    return [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _line(line: Line, at: Sequence[tuple[float, float]], *, colour: str) -> list[str]:
    """A path and its dots."""
    path = "M" + " L".join(f"{px:.1f} {py:.1f}" for px, py in at)
    dash = ' stroke-dasharray="5 5"' if line.dashed else ""
    made = [f'<path d="{path}" stroke="{colour}"{dash}><title>{html.escape(line.name)}</title></path>']
    if not line.dashed:
        made += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{colour}"/>' for px, py in at]
    return made


def _names(lines: Sequence[Line], paths: Sequence[Sequence[tuple[float, float]]]) -> list[str]:
    """The names at the ends of the lines, each at least a line of text below the one above it."""
    made, last = [], -SPACE
    for (px, py), name in sorted(((path[-1], line.name) for line, path in zip(lines, paths)), key=lambda e: e[0][1]):
        if name:
            last = max(py, last + SPACE)
            made.append(f'<text x="{px + 10:.1f}" y="{last + 4:.1f}">{html.escape(name)}</text>')
    return made


def _legend(lines: Sequence[Line], colours: Sequence[str]) -> list[str]:
    """A piece of each line with its name, one below the other."""
    made, left = [], WIDTH - RIGHT + 10
    for number, (line, colour) in enumerate(zip(lines, colours)):
        py = TOP + 8 + 1.25 * SPACE * number
        made += _line(line, [(left, py), (left + 22, py)], colour=colour)
        made.append(f'<text x="{left + 30:.1f}" y="{py + 4:.1f}">{html.escape(line.name)}</text>')
    return made


def _upright(place: Place, values: Sequence[float]) -> list[str]:
    """Grid lines at values of x."""
    made = []
    for value in values:
        px = place(value, 1.0)[0]
        base = HEIGHT - BOTTOM
        made.append(f'<line class="grid" x1="{px:.1f}" y1="{TOP}" x2="{px:.1f}" y2="{base:.1f}"/>')
        made.append(f'<text x="{px:.1f}" y="{base + 18:.1f}" text-anchor="middle">{value:,.10g}</text>')
    return made


def _level(place: Place, values: Sequence[float]) -> list[str]:
    """Grid lines at values of y."""
    made = []
    for value in values:
        py = place(1.0, value)[1]
        made.append(f'<line class="grid" x1="{LEFT:.1f}" y1="{py:.1f}" x2="{WIDTH - RIGHT:.1f}" y2="{py:.1f}"/>')
        made.append(f'<text x="{LEFT - 8:.1f}" y="{py + 4:.1f}" text-anchor="end">{value:.10g}</text>')
    return made
