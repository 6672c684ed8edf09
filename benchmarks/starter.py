"""The starter model: measure a trained run on held-out files, and write the model folder and card that are shipped.

    python benchmarks/starter.py RUN [--twin RUN] [--out src/anyorder/starter] [--rows 512]

RUN is trained by `anyorder train configs/starter-mdm.yaml`; its newest checkpoint's averaged weights are taken, in
bfloat16. Measured: bits per byte of held-out files (a bound; exact for the twin), single hidden tokens and hidden spans
of four tokens found by the likeliest guess, and ten samples and infills with seeds 0 to 9, shown unselected.
"""

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from anyorder.api import GAP, LanguageModel, load
from anyorder.core.config import load_config
from anyorder.core.files import write_atomic
from anyorder.core.noise import Noise
from anyorder.core.types import Batch, Canvas
from anyorder.data.corpus import open_corpus, split
from anyorder.data.loader import in_order
from anyorder.data.packages import package_files
from anyorder.hub.save import save_model
from anyorder.models.network import trainable
from anyorder.models.transformer import Transformer
from anyorder.samplers.base import generate
from anyorder.samplers.presets import make_sampler
from anyorder.train.checkpoint import checkpoints, read_state
from anyorder.train.config import RunConfig
from anyorder.train.data import run_data
from anyorder.train.loop import CONFIG, RunData
from anyorder.train.watch import Validation, validate
from common import at_least, at_most, machine

AIMS = {"bits per byte (bound)": 1.75, "single hidden tokens found": 0.6, "hidden spans of 4 found": 0.25}
SPAN = 4
INFILLS = (
    ["def add(a, b):\n    return ", GAP(4), "\n"],
    ["for i in range(", GAP(3), "):\n    print(i)\n"],
    ["import os\n\npath = os.path.", GAP(4), "(folder, name)\n"],
)
PROMPT = "def main():\n"
KNOWN = "import os\n\n\ndef read(path):\n    with open(path) as f:\n        return f.read()\n"
LICENCES = {
    "stdlib": "PSF-2.0",
    "numpy": "BSD-3-Clause",
    "networkx": "BSD-3-Clause",
    "pydantic": "MIT",
    "rich": "MIT",
    "pip": "MIT",
    "jinja2": "BSD-3-Clause",
}


def newest(run: Path, config: RunConfig, data: RunData) -> tuple[Transformer, int]:
    """The averaged weights of a run's newest checkpoint in their network, and the step."""
    folder = checkpoints(run)[-1]
    step = read_state(folder)["step"]
    model = trainable(config.resolved_model(length=data.train.length), data.tokenizer.vocab)
    assert isinstance(model, Transformer)
    weights = load_file(folder / ("ema.safetensors" if config.optim.ema else "model.safetensors"))
    model.load_state_dict(weights, strict=True)
    return shortened(model, data.train.length).requires_grad_(False).eval(), int(step)


def shortened(model: Transformer, length: int) -> Transformer:
    """The network for rows as long as those it was trained on: places behind them in the table never learned."""
    short = trainable(model.config.model_copy(update={"max_length": length}), model.vocab)
    assert isinstance(short, Transformer)
    weights = model.state_dict()
    if model.config.local:
        weights["embed_local.place"] = weights["embed_local.place"][:length].clone()
    short.load_state_dict(weights, strict=True)
    return short


def held_out(model: Transformer, data: RunData, *, kind: str, rows: int, draws: int = 8) -> Validation:
    batches = list(in_order(data.valid, rows=16, limit=rows))
    noise, table = Noise.of(1).at("starter"), data.tokenizer.bytes_per_token
    return validate(model, batches, kind=kind, draws=draws, noise=noise, bytes_per_token=table)


def hidden(batch: Batch, *, span: int, mask_id: int, noise: Noise) -> tuple[Canvas, Tensor]:
    """Each row with one span of target tokens of one document hidden, and where; rows without such a span are left out.

    The span begins at a uniformly drawn position among those where it fits.
    """
    document = batch.segment if batch.segment is not None else torch.ones_like(batch.tokens)
    fits = batch.target.clone()
    for ahead in range(1, span):
        fits[:, :-ahead] &= batch.target[:, ahead:] & (document[:, :-ahead] == document[:, ahead:])
        fits[:, -ahead:] = False
    rows = fits.any(-1).nonzero()[:, 0]
    fits = fits[rows]
    u = noise.uniform(batch.sample_id[rows])
    wanted = (u * fits.sum(-1)).floor().long()
    begin = ((fits.cumsum(-1) - 1 == wanted[:, None]) & fits).long().argmax(-1)
    column = torch.arange(batch.tokens.shape[1])
    where = (column >= begin[:, None]) & (column < begin[:, None] + span)
    x = batch.tokens[rows].masked_fill(where, mask_id)
    segment = None if batch.segment is None else batch.segment[rows]
    canvas = Canvas(x=x, fixed=~where, window=where, segment=segment, row_id=batch.sample_id[rows])
    return canvas, batch.tokens[rows]


def found_share(model: Transformer, data: RunData, *, span: int, rows: int) -> tuple[float, float]:
    """Share of hidden spans that the likeliest tokens, most certain position first, restore exactly; standard error."""
    right = []
    sampler = make_sampler("top-prob", temperature=0.0)
    for batch in in_order(data.valid, rows=16, limit=rows):
        canvas, true = hidden(batch, span=span, mask_id=model.vocab.mask_id, noise=Noise.of(2).at(f"span{span}"))
        with torch.no_grad():
            made = generate(sampler, model, canvas, noise=Noise.of(0))
        right.append((made.canvas.x == true).all(-1))
    hits = torch.cat(right).double()
    return float(hits.mean()), float(hits.std() / len(hits) ** 0.5)


def shown(model: LanguageModel) -> Iterator[str]:
    """Infills and samples with seeds 0 to 9, as Markdown."""
    yield "\nInfills, the surest position first, temperature 0.5:"
    for parts in INFILLS:
        yield f"\n`{''.join(p if isinstance(p, str) else f'[[{p.num_tokens}]]' for p in parts)!r}`\n"
        for seed in range(10):
            g = model.infill(parts, sampler="top-prob", temperature=0.5, seed=seed)[0]
            yield f"- {seed}: `{g.text!r}`"
    yield "\nSamples of 64 tokens after `'def main():\\n'`, first-hitting, temperature 0.7:\n"
    for seed in range(10):
        g = model.sample(PROMPT, length=64, sampler="first-hitting", temperature=0.7, seed=seed)[0]
        yield f"```python\n# seed {seed}\n{g.text}\n```"


def corpus_table(config: RunConfig) -> list[dict[str, str | int]]:
    """What the model learned from: package, version, licence, files and bytes."""
    rows: list[dict[str, str | int]] = []
    for name in config.data.corpus.removeprefix("packages:").split(","):
        versioned, _, files = package_files(name)
        size = sum(path.stat().st_size for path in files)
        rows.append({"package": versioned, "licence": LICENCES[name], "files": len(files), "bytes": size})
    return rows


def known_answers(model: LanguageModel) -> dict[str, object]:
    """A score and a greedy infill that every machine should give again."""
    score = model.score([KNOWN], draws=4, seed=0)[0]
    filled = model.infill(INFILLS[0], sampler="top-prob", temperature=0.0)[0]
    return {"nats_per_token": round(score.nats_per_token, 6), "infill": filled.text}


def card(
    facts: dict[str, object],
    corpus: list[dict[str, str | int]],
    shows: list[str],
    text: str,
    known: dict[str, object],
) -> str:
    """The model card, in Markdown: `text` is the table of figures."""
    lines = [
        "# starter: a small masked diffusion model of Python source",
        "",
        "Made by `anyorder train configs/starter-mdm.yaml` and written here by `python benchmarks/starter.py`. It is",
        "for trying the tool within seconds, and for tests; do not rely on what it writes.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in facts.items()),
        "",
        "## Figures on held-out files",
        "",
        text,
        "",
        "Held-out files are those of the corpus whose SHA-256 falls below the validation share, the same rule as in",
        "every run; none of them was trained on. Errors are standard errors over rows.",
        "",
        "## Text and licence",
        "",
        "Python source without tests, generated files and vendored copies, each file once. The weights are a",
        "statistical summary of it, offered under this project's Apache-2.0 licence; the sources keep theirs:",
        "",
        "| package | licence | files | bytes |",
        "|---|---|---|---|",
        *(f"| {r['package']} | {r['licence']} | {r['files']} | {r['bytes']:,} |" for r in corpus),
        "",
        "## Known answers",
        "",
        "What `tests/hub/test_starter.py` asks of this file:",
        "",
        "```json",
        json.dumps(known, indent=1),
        "```",
        "",
        "## Ten infills and samples, unselected",
        *shows,
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument("--twin", type=Path, metavar="RUN", help="folder of the autoregressive twin's run")
    parser.add_argument("--out", type=Path, default=Path("src/anyorder/starter"), metavar="DIR")
    parser.add_argument("--rows", type=int, default=512, metavar="N", help="held-out rows measured on (default 512)")
    args = parser.parse_args()
    config = load_config(RunConfig, args.run / CONFIG)
    data = run_data(config)
    model, step = newest(args.run, config, data)
    save_model(args.out, model.to(torch.bfloat16), data.tokenizer)
    shipped = load(args.out)
    assert isinstance(shipped.model, Transformer)
    value = held_out(shipped.model, data, kind="mdm", rows=args.rows)
    one, one_error = found_share(shipped.model, data, span=1, rows=4 * args.rows)
    four, four_error = found_share(shipped.model, data, span=SPAN, rows=4 * args.rows)
    figures = [
        ["bits per byte (bound)", value.bits_per_byte, value.bits_per_byte_stderr],
        ["nats per token (bound)", value.nats_per_token, value.stderr],
        ["single hidden tokens found", one, one_error],
        [f"hidden spans of {SPAN} found", four, four_error],
    ]
    if args.twin is not None:
        theirs = load_config(RunConfig, args.twin / CONFIG)
        rows = run_data(theirs)
        twin, twin_step = newest(args.twin, theirs, rows)
        other = held_out(twin, rows, kind="arm", rows=args.rows)
        figures.append(
            [
                f"bits per byte of the ARM twin (exact), {twin_step} steps",
                other.bits_per_byte,
                other.bits_per_byte_stderr,
            ]
        )
    checks = {
        "bits per byte (bound)": at_most(value.bits_per_byte, AIMS["bits per byte (bound)"]),
        "single hidden tokens found": at_least(one, AIMS["single hidden tokens found"]),
        f"hidden spans of {SPAN} found": at_least(four, AIMS[f"hidden spans of {SPAN} found"]),
    }
    table = ["| | value | standard error |", "|---|---|---|", *(f"| {n} | {v:.4f} | {e:.4f} |" for n, v, e in figures)]
    train, _ = split(open_corpus(config.data.corpus), validation=config.data.validation)
    bytes_per_token = value.nats_per_token / math.log(2) / value.bits_per_byte
    facts: dict[str, object] = {
        "parameters": f"{sum(p.numel() for p in shipped.model.parameters()):,}, stored in bfloat16",
        "training": f"{step} of {config.num_steps} steps of {config.batch.rows} rows of {config.data.length} tokens",
        "tokens": f"BPE of {config.data.vocab_size}, {bytes_per_token:.2f} bytes each in held-out text",
        "corpus": train.name,
        "sha256 of its names and texts": train.hash,
    }
    shows, known = list(shown(shipped)), known_answers(shipped)
    write_atomic(args.out / "CARD.md", card(facts, corpus_table(config), shows, "\n".join(table), known))
    print("\n".join(table))
    print(json.dumps({"bench": "starter", "step": step, "machine": machine(), "figures": figures, "checks": checks}))


if __name__ == "__main__":
    main()
