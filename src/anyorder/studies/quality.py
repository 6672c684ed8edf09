"""Measure how good a model's samples are: write, let a judge read, set held-out text beside them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from anyorder.api import LanguageModel, load
from anyorder.core.config import load_config
from anyorder.core.device import pick_device
from anyorder.core.types import Batch
from anyorder.data.loader import in_order
from anyorder.evaluation.gen_ppl import Judge
from anyorder.evaluation.judges import find_twin, load_judge, run_of
from anyorder.evaluation.mauve_score import check_mauve, mauve
from anyorder.evaluation.quality import Figures, Quality, Sampling, measure
from anyorder.train.config import RunConfig
from anyorder.train.data import run_data
from anyorder.train.loop import CONFIG


@dataclass(frozen=True)
class Writing:
    """How samples are to be written; values as in `LanguageModel.sample`."""

    n: int = 64
    length: int | None = None
    sampler: str | None = None
    num_steps: int | None = None
    top_k: int = 0
    top_p: float = 1.0
    block: int | None = None
    seed: int = 0


def quality(
    run: str,
    *,
    judge: str | None = None,
    writing: Writing = Writing(),
    temperatures: Sequence[float] = (1.0,),
    dtype: str = "float32",
    device: str = "cpu",
    bos: str | None = None,
    reference: bool = True,
    with_mauve: bool = False,
) -> list[Quality]:
    """The quality of a run's samples at each temperature; all rows written are scored, none are rejected.

    Args:
        bos: as in `anyorder.load`.
        judge: a folder or hub:NAME; None: the autoregressive twin beside the run.
        reference: measure held-out rows of the run's own text as well, as many and as long, where the run has them.
        with_mauve: compare samples and held-out rows by MAUVE too.
    Raises:
        ValueError: no model or judge, a judge that is not autoregressive or cannot read the text, fewer than 2 samples
            with text, MAUVE without enough samples, held-out rows or its library, or a value out of range.
    """
    if writing.n < 2:
        raise ValueError(
            f"n={writing.n}: quality is measured on at least 2 samples, and means little below 50; raise n"
        )
    if with_mauve:
        check_mauve(writing.n)
    device = str(pick_device(device))
    model = load(run, dtype=dtype, device=device, bos=bos)
    reader = load_judge(judge or str(twin_of(Path(run).expanduser())), device=device)
    real = held_out(model, writing) if reference else None
    if with_mauve and (real is None or len(real) < writing.n):
        raise ValueError(
            f"{run}: MAUVE compares with as many held-out rows as samples, and here are "
            f"{0 if real is None else len(real)}; lower n, or leave MAUVE out"
        )
    beside = None if real is None else measure(real, tokenizer=model.tokenizer, judge=reader)
    return [
        _one(model, reader, writing, temperature=t, real=real if with_mauve else None, beside=beside)
        for t in temperatures
    ]


def twin_of(run: Path) -> Path:
    """The autoregressive twin beside a run; ValueError if there is none."""
    found = find_twin(run)
    if found is None:
        raise ValueError(
            f"{run}: no autoregressive run with its tokenizer lies beside it to judge; "
            "name a judge with --judge: a folder, or hub:NAME"
        )
    return found


def held_out(model: LanguageModel, writing: Writing) -> list[Int[Tensor, " _"]] | None:
    """Up to n held-out rows of the model's own run, cut to the length of the samples; None if it has not enough.

    An insertion model writes documents, so they are documents then.

    Raises:
        ValueError: the run's text cannot be read any more.
    """
    file = run_of(model.folder) / CONFIG
    if not file.exists():
        return None
    try:
        rows = run_data(load_config(RunConfig, file)).valid
    except ValueError as error:
        raise ValueError(f"held-out text: {error}; or leave it out with --no-reference") from None
    batch, length = next(in_order(rows, rows=writing.n, limit=writing.n)), writing.length or model.max_length
    if model.kind == "ilm":
        whole = _documents(batch, eos_id=model.model.vocab.eos_id)[: writing.n]
    else:
        whole = [row for row in batch.tokens[:, :length] if not bool((row == model.model.vocab.pad_id).any())]
    return [row[:length] for row in whole] if len(whole) > 1 else None


def _documents(batch: Batch, *, eos_id: int | None) -> list[Int[Tensor, " _"]]:
    """The documents of rows, without the end-of-document that ends one."""
    segment = torch.ones_like(batch.tokens) if batch.segment is None else batch.segment
    found = [row[part == s] for row, part in zip(batch.tokens, segment) for s in range(1, int(part.max()) + 1)]
    return [row[row != eos_id] for row in found if bool((row != eos_id).any())]


def _one(
    model: LanguageModel,
    judge: Judge,
    writing: Writing,
    *,
    temperature: float,
    real: Sequence[Int[Tensor, " _"]] | None,
    beside: Figures | None,
) -> Quality:
    made = model.sample(
        n=writing.n,
        length=writing.length,
        sampler=writing.sampler,
        num_steps=writing.num_steps,
        temperature=temperature,
        top_k=writing.top_k,
        top_p=writing.top_p,
        block=writing.block,
        seed=writing.seed,
    )
    rows = [torch.tensor(g.tokens, dtype=torch.int64) for g in made]
    sampling = Sampling(
        model=str(run_of(model.folder)),
        sampler=made[0].sampler,
        num_steps=writing.num_steps,
        temperature=temperature,
        top_k=writing.top_k,
        top_p=writing.top_p,
        block=writing.block,
        seed=writing.seed,
        dtype=str(model.model.dtype).removeprefix("torch."),
        nfe=math.fsum(g.nfe for g in made) / len(made),
    )
    return Quality(
        figures=measure(rows, tokenizer=model.tokenizer, judge=judge),
        sampling=sampling,
        judge=judge.name,
        first_token=judge.first_token,
        reference=beside,
        mauve=None if real is None else _mauve(model, judge, rows, real),
    )


def _mauve(
    model: LanguageModel, judge: Judge, rows: Sequence[Int[Tensor, " _"]], real: Sequence[Int[Tensor, " _"]]
) -> float:
    ours, theirs = (judge.features([model.tokenizer.decode(row.tolist()) for row in x]) for x in (rows, real))
    return mauve(ours, theirs)
