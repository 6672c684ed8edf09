"""The command `quality`: how good a model's samples are, by a judge and by their own variety."""

import dataclasses
from typing import TYPE_CHECKING

from anyorder.cli.parser import Parser, add_model, add_sampling
from anyorder.cli.show import finish, table

if TYPE_CHECKING:
    from anyorder.evaluation.quality import Quality


def quality(args: list[str]) -> None:
    parser = Parser(
        "quality",
        usage="RUN [--judge RUN] [--n N] [--sampler NAME] [--steps K] [--temperatures T,T,...] ...",
        about="Measure samples: generative perplexity under a judge together with their entropy, distinct n-grams and\n"
        "repetition, beside held-out text. No figure means much alone: compare models as frontiers over temperature.",
        example="  anyorder quality runs/quickstart --n 64\n"
        "  anyorder quality runs/quickstart --steps 16 --temperatures 0.8,0.9,1.0\n"
        "  anyorder quality runs/quickstart --judge hub:gpt2-large",
    )
    add_model(parser)
    parser.add_argument(
        "--judge",
        metavar="RUN",
        help="autoregressive: a folder of ours or of transformers, or hub:NAME (default the twin beside RUN)",
    )
    parser.add_argument("--length", type=int, metavar="L", help="tokens of a row (default the model's)")
    add_sampling(parser, n=64)
    parser.add_argument("--temperatures", metavar="T,T,...", help="a row of figures for each, instead of --temperature")
    parser.add_argument("--no-reference", action="store_true", help="do not measure held-out text")
    parser.add_argument("--mauve", action="store_true", help="MAUVE against held-out text, from 100 samples on")
    found = parser.parse(args)
    from anyorder.studies.quality import Writing
    from anyorder.studies.quality import quality as study

    writing = Writing(
        n=found.n,
        length=found.length,
        sampler=found.sampler,
        num_steps=found.steps,
        top_k=found.top_k,
        top_p=found.top_p,
        block=found.block,
        seed=found.seed,
    )
    made = study(
        found.run,
        judge=found.judge,
        writing=writing,
        temperatures=[found.temperature] if found.temperatures is None else numbers(found.temperatures),
        dtype=found.dtype,
        device=found.device,
        bos=found.bos,
        reference=not found.no_reference,
        with_mauve=found.mauve,
    )
    finish({"run": found.run, "quality": [dataclasses.asdict(q) for q in made]}, as_json=found.json, text=shown(made))


def numbers(text: str) -> list[float]:
    """Numbers divided by commas; ValueError for anything else."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--temperatures {text}: must be numbers divided by commas, as in 0.8,0.9,1.0") from None


def shown(made: "list[Quality]") -> str:
    """The table, and below it what its figures rest on."""
    from anyorder.evaluation.quality import COLUMNS

    first = made[0]
    rows = []
    for q in made:
        cells = q.figures.cells(f"temperature {q.sampling.temperature:g}", passes=f"{q.sampling.nfe:.1f}")
        rows.append(cells if q.mauve is None else [*cells, f"{q.mauve:.3f}"])
    if first.reference is not None:
        real = first.reference.cells("held-out text", passes="-")
        rows.append(real if first.mauve is None else [*real, "-"])
    sampling, written = first.sampling, sum(q.figures.rows for q in made)
    cut, empty = sum(q.figures.cut for q in made), sum(q.figures.empty for q in made)
    itself = ", the model itself" if first.judge == sampling.model else ""
    notes = [
        f"samples: {sampling.model}, {sampling}; {sampling.noise}; {sampling.dtype} network",
        f"{written} rows written, {written} scored, {sampling.rejected} rejected",
        f"judge: {first.judge}{itself}; first token of a document {first.first_token}",
        "entropy in nats; it and the n-grams count the writer's tokens, scored counts the judge's",
    ]
    if cut or empty:
        notes.append(f"{empty} rows without text; {cut} tokens beyond the judge's length were not read")
    if first.reference is None:
        notes.append("no held-out text beside: the run has none, or it was left out")
    columns = list(COLUMNS) if first.mauve is None else [*COLUMNS, "MAUVE"]
    return "\n".join([table(columns, rows), "", *notes])
