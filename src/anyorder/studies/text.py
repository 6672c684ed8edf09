"""Tables that studies print."""

from collections.abc import Sequence


def columns(heading: str, rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Rows of text in columns, whose names are divided by |; all but the first `left` are flush right."""
    lines = [heading.split("|"), *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    placed = [[c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(x, widths))] for x in lines]
    return "\n".join("  ".join(line).rstrip() for line in placed)
