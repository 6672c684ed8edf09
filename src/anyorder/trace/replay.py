"""Do a recorded generation again and say whether, and where first, something else came out."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.hub.load import read_about, weights_hash
from anyorder.trace.record import STREAM, ModelId, Record, RowStep, StepRecord
from anyorder.trace.watch import canvas_of, record_steps

# Machines, thread counts, batch sizes and versions of PyTorch add the terms of a sum in different orders, and then the
# last digits of log-probabilities differ: in float32 by about 1e-6 for the same rows in other batches. On the machine
# that recorded it, a replay gives the very same numbers.
TOLERANCE = {"float64": 1e-6, "float32": 1e-4, "bfloat16": 0.25}  # nats


@dataclass(frozen=True)
class Replay:
    """What a replay found.

    Args:
        difference: the first one, in a sentence; None if there is none.
        largest: largest difference of a log-probability, nats, as far as the replay went.
        steps, rows, writes, revisions, nfe: of the record.
    """

    difference: str | None
    largest: float
    steps: int
    rows: int
    writes: int
    revisions: int
    nfe: int


def model_id(folder: Path, *, dtype: torch.dtype, bos: str | None = None) -> ModelId:
    """Which model lies in a model folder, read with this `bos`; ValueError as `read_about`."""
    about = read_about(folder)
    return ModelId(
        path=str(folder),
        kind=about["kind"],
        sha256=weights_hash(about),
        tokenizer=about["tokenizer_hash"],
        dtype=str(dtype).removeprefix("torch."),
        bos=bos,
    )


def check_model(record: Record, folder: Path) -> None:
    """Raises ValueError unless the folder holds the model that made the record."""
    asked, found = record.header.model, model_id(folder, dtype=torch.float32)
    for name, a, b in (("SHA-256", asked.sha256, found.sha256), ("tokenizer", asked.tokenizer, found.tokenizer)):
        if a != b:
            raise ValueError(
                f"{folder}: is not the model of the trace, {asked.path}: their {name} differ ({b[:12]}... here, "
                f"{a[:12]}... in the trace); name the right one: anyorder replay TRACE RUN"
            )


def replay(record: Record, model: Denoiser, *, device: torch.device | None = None) -> Replay:
    """Write the same rows again, with the same sampler and seed, and compare step by step until something differs.

    Writes, revisions and passes must be the same; log-probabilities may differ by `TOLERANCE` of the recorded dtype.

    Raises:
        ValueError: another vocabulary, or settings that no sampler has.
    """
    header = record.header
    if model.vocab != header.vocab:
        raise ValueError(f"the trace has vocabulary {header.vocab}, the model {model.vocab}; name the right model")
    limit, largest, found = TOLERANCE.get(header.model.dtype, math.inf), 0.0, None
    for difference, gap in _compare(record, model, device or torch.device("cpu"), limit):
        largest, found = max(largest, gap), difference
        if found is not None:
            break
    every = [row for step in record.steps for row in step.rows]
    return Replay(
        difference=found,
        largest=largest,
        steps=max((s.step for s in record.steps), default=-1) + 1,
        rows=len(header.rows),
        writes=sum(len(r.writes) + len(r.inserted) for r in every),
        revisions=sum(len(r.masked) + len(r.edited) for r in every),
        nfe=sum(r.nfe for r in every),
    )


def _compare(record: Record, model: Denoiser, device: torch.device, limit: float) -> Iterator[tuple[str | None, float]]:
    """Step by step: the first difference in it, and the largest of its log-probabilities."""
    header = record.header
    sampler, noise = header.sampler.build(), Noise.of(header.seed).at(STREAM)
    model = header.sampler.around(model)
    for first in range(0, len(header.rows), header.rows_at_once):
        rows = header.rows[first : first + header.rows_at_once]
        ids = {row.row for row in rows}
        expected = {s.step: {r.row: r for r in s.rows if r.row in ids} for s in record.steps}
        canvas = canvas_of(rows, vocab=header.vocab, device=device)
        for done in record_steps(sampler, model, canvas, noise=noise):
            yield _step_difference(expected.pop(done.step, {}), done, record, limit)
        for step, left in expected.items():
            for row in left:
                yield f"row {row}, step {step}: the trace goes on, the replay had finished this row", 0.0


def _step_difference(
    expected: dict[int, RowStep], done: StepRecord, record: Record, limit: float
) -> tuple[str | None, float]:
    got = {r.row: r for r in done.rows}
    largest = 0.0
    for row in sorted(expected.keys() | got.keys()):
        nothing = RowStep(row=row)
        ours, theirs = got.get(row, nothing), expected.get(row, nothing)
        what, gap = _row_difference(theirs, ours, record.end.pieces, limit)
        largest = max(largest, gap)
        if what is not None:
            return f"row {row}, step {done.step}{what}", largest
    return None, largest


def _row_difference(theirs: RowStep, ours: RowStep, pieces: dict[int, str], limit: float) -> tuple[str | None, float]:
    """What differs first, by position, then in passes; and by how much log-probabilities differ."""
    wrote, writes = ({p: (t, logp) for p, t, logp in (*r.writes, *r.inserted)} for r in (theirs, ours))
    largest = 0.0
    for position in sorted({*wrote, *writes, *theirs.masked, *ours.masked, *theirs.edited, *ours.edited}):
        told, did = (_said(r, position, pieces) for r in (theirs, ours))
        if told != did:
            return f", position {position}: the trace {told}, the replay {did}", largest
        if position in wrote:
            (_, a), (_, b) = wrote[position], writes[position]
            largest = max(largest, abs(a - b))
            if not abs(a - b) <= limit:
                return f", position {position}: log-probability {a:.9g} in the trace, {b:.9g} in the replay", largest
    if theirs.nfe != ours.nfe:
        return f": {theirs.nfe} network passes in the trace, {ours.nfe} in the replay", largest
    return None, largest


def _said(row: RowStep, position: int, pieces: dict[int, str]) -> str:
    """What a step did at a position, in words."""
    token = next((t for p, t, _ in (*row.writes, *row.inserted) if p == position), -1)
    back = position in row.masked
    if token is None:
        return "wrote it and took it back"
    if token >= 0:
        how = "replaced it by" if position in row.edited else "inserted" if row.inserted else "wrote"
        text = f"{pieces[token]!r} (token {token})" if token in pieces else f"token {token}"
        return f"{how} {text}" + (" and took it back" if back else "")
    return "took it back" if back else "left it as it was"
