"""An invented run, to test the page. `python tests/page/report_demo.py FOLDER` writes the page and the picture."""

import sys
from pathlib import Path

import torch

from anyorder.core.noise import Noise
from anyorder.page.report import Act, Cost, Curve, MadeWith, ReportData, Share, Table, Trace, write_report
from anyorder.page.trace_svg import trace_svg

CODE = '''    def get(self, key, default=None):
        """Return the value for key, or default."""
        try:
            return self._items[key]
        except KeyError:
            return default
'''
ROUGH = '''    def _get(self, name, default):
        """Return the name of the value, None if
        not self.name is not in the value.
        """
        if name is None:
            return self._name[key]
'''
GRID = "1234341221434321"


def pieces(text: str, size: int = 4) -> list[str]:
    """Tokens of a size that varies; line breaks and indents are tokens of their own."""
    out: list[str] = []
    for line in text.splitlines(keepends=True):
        body = line.lstrip(" ")
        out += [line[: len(line) - len(body)]] if body != line else []
        body = body.rstrip("\n")
        out += [body[i : i + size] for i in range(0, len(body), size)] + ["\n"]
    return out


def shuffled(n: int, name: str) -> list[int]:
    u = Noise.of(7).at(name).uniform(torch.arange(n))
    return u.argsort().argsort().tolist()


def surprises(n: int, name: str) -> list[float]:
    u = Noise.of(8).at(name).uniform(torch.arange(n))
    return (2.2 * u.log() * u).tolist()


def text_trace(kind: str, sampler: str, text: str, *, group: str, given: range = range(0), **more: object) -> Trace:
    tokens = pieces(text)
    n = len(tokens)
    open_ = [i for i in range(n) if kind != "infill" or i not in given]
    ranks = list(range(len(open_))) if kind == "ARM" else shuffled(len(open_), group + sampler)
    at = dict(zip(open_, ranks))
    order = [at.get(i, -1) for i in range(n)]
    logp = surprises(n, sampler + group)
    return Trace.model_validate(
        dict(kind=kind, sampler=sampler, tokens=tokens, order=order, logp=logp, nfe=len(open_), group=group, **more)
    )


def board(sampler: str, *, wrong: dict[int, str], ok: bool) -> Trace:
    clues = (0, 3, 6, 9, 12, 14)
    empty = [i for i in range(16) if i not in clues]
    ranks = list(range(10)) if sampler == "left to right" else shuffled(10, sampler)
    at = dict(zip(empty, ranks))
    return Trace(
        kind="puzzle", sampler=sampler, tokens=[wrong.get(i, c) for i, c in enumerate(GRID)],
        order=[at.get(i, -1) for i in range(16)], logp=surprises(16, sampler), nfe=10, seconds=0.08, grid=4, ok=ok,
        wrong=list(wrong), group="Puzzle 1",
    )  # fmt: skip


def curve(label: str, start: float, end: float) -> Curve:
    xs = [20_000 * 1.5**i for i in range(13)]
    ys = [end + (start - end) / (1 + i) ** 0.9 for i in range(13)]
    points = [(x, y, 0.06 / (1 + i / 3)) for i, (x, y) in enumerate(zip(xs, ys))]
    return Curve(label=label, unit="bits per byte", points=points, final=end + 0.19, final_stderr=0.013)


def text_act() -> Act:
    many = [(n, 0.9 + 2.9 * (n / 128) ** 0.7, 0.05 + 0.4 / n) for n in range(1, 129, 4)]
    pair = "Sample 1"
    return Act(
        name="text",
        title="Writing Python, in two ways",
        summary="Two networks of the same size read the same 1.9 million tokens of Python's standard library. One "
        "learned to write left to right, the other to fill in blanks in any order. Below, each writes a piece of code.",
        curves=[curve("MDM (bound)", 6.1, 2.4), curve("ARM (exact)", 5.2, 1.62)],
        z_curve=many,
        samples=[
            text_trace("MDM", "first-hitting", ROUGH, group=pair, seconds=0.94),
            text_trace("ARM", "causal", CODE, group=pair, seconds=0.51),
            text_trace(
                "infill", "first-hitting", CODE, group="Infill", given=range(0, 17), seconds=0.21,
                prompt="The first lines were given; the model filled in the rest.",
            ),
        ],
        cost=[
            Cost(label="Training speed", value=21_934.2, unit="tokens/s", help="MDM, forward and backward, 2 cores"),
            Cost(label="Training compute", value=2.3e13, unit="FLOP", help="matrix products of both models"),
            Cost(label="Model FLOPs use", value="31 %", help="of the matrix-product peak measured on this machine"),
            Cost(label="Parameters", value=1_049_088, help="each model, embeddings included"),
        ],
    )  # fmt: skip


def puzzle_act() -> Act:
    rows = [
        ["MDM, surest cell first", Share(share=0.931, stderr=0.012), 10],
        ["MDM, random order", Share(share=0.547, stderr=0.023), 10],
        ["MDM, left to right", Share(share=0.602, stderr=0.022), 10],
        ["ARM twin, left to right", Share(share=0.310, stderr=0.02), 10],
    ]
    return Act(
        name="puzzle",
        title="Why order matters: 4x4 sudoku",
        summary="Every row, column and box holds 1 to 4 once. Some cells are easy, some must wait. A model free to "
        "choose writes the easy ones first. None of these puzzles was in its training data.",
        samples=[
            board("surest first", wrong={}, ok=True),
            board("random order", wrong={1: "4", 15: "2"}, ok=False),
            board("left to right", wrong={2: "2"}, ok=False),
        ],
        table=Table(
            columns=["Order of writing", "Puzzles solved", "Passes"], rows=rows, caption="480 held-out puzzles, 6 clues"
        ),
        cost=[Cost(label="Training time", value="2 min 30 s", help="20k tokens/s on 2 cores")],
    )


def demo() -> ReportData:
    return ReportData(
        title="A model that writes in any order, and its left-to-right twin",
        subtitle="Trained from nothing on two processor cores in seven minutes: what they wrote, in what order, and "
        "how sure they were.",
        caveat="At this budget the masked model's text is still rough: it knows the words and the layout of Python, "
        "not its meaning. About forty minutes more bring it to where the autoregressive twin is now.",
        made_with=MadeWith(
            version="0.1.0", commit="24494a9", command="anyorder quickstart --minutes 7 --out runs/quickstart",
            machine="2 cores, 24 GiB, no GPU", seconds=431.2,
        ),
        config="seed: 0\nmodel:\n  d_model: 256\n  num_layers: 4\nbatch:\n  tokens: 16384\n  length: 128\n",
        acts=[text_act(), puzzle_act()],
    )  # fmt: skip


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    data = demo()
    write_report(folder / "report.html", data)
    samples = data.acts[0].samples
    (folder / "trace.svg").write_text(trace_svg([samples[0], data.acts[1].samples[0]]), encoding="utf-8")
