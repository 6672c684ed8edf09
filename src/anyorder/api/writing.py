"""Rows from a model: how they begin goes in, generations come out, and a record of every step for whoever asks."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from anyorder.api.scoring import rows_at_once
from anyorder.api.values import Generation
from anyorder.core.device import canvas_device
from anyorder.core.noise import Noise
from anyorder.core.types import Step
from anyorder.data.hub_tokenizer import piece_of
from anyorder.data.tokenizer import SymbolTokenizer, Tokenizer
from anyorder.models.cache_error import CacheError
from anyorder.models.network import Network
from anyorder.samplers.base import generate
from anyorder.trace.record import (
    STREAM,
    Header,
    Record,
    RowEnd,
    RowStart,
    Settings,
    StepRecord,
    fold,
    make_record,
    merge,
)
from anyorder.trace.replay import model_id
from anyorder.trace.watch import canvas_of, record_steps, row_ends


@dataclass(frozen=True)
class Calls:
    """Who is told: of every step as it is done, and at the end what was done and what the cache changed."""

    on_record: Callable[[Record], None] | None = None
    on_cache_error: Callable[[CacheError], None] | None = None
    on_step: Callable[[Step], None] | None = None


@dataclass(frozen=True)
class Job:
    """Rows to be written.

    Args:
        start: how every row begins; the rows are numbered from 0.
        end_at_eos: the text of a row ends before the first end-of-document.
        bos: as in `load`.
    """

    model: Network
    tokenizer: Tokenizer
    folder: Path
    start: RowStart
    rule: Settings
    n: int
    seed: int
    end_at_eos: bool
    bos: str | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n={self.n}: must be >= 1 sample")

    @property
    def grows(self) -> bool:
        """Whether tokens are inserted."""
        return self.start.open is not None

    @property
    def rows_at_once(self) -> int:
        width = len(self.start.tokens) if self.start.length is None else self.start.length + 1
        return rows_at_once(width, vocab_size=self.model.vocab.size)

    @property
    def rows(self) -> tuple[RowStart, ...]:
        return tuple(self.start.model_copy(update={"row": i}) for i in range(self.n))


def write(job: Job, calls: Calls) -> list[Generation]:
    """The finished rows.

    Raises:
        ValueError: the error of a cache is asked for, and there is no cache.
    """
    if calls.on_cache_error is not None and job.rule.cache == "none":
        raise ValueError("cache='none': there is no cache to measure; use 'exact' (ARM), 'prefix' or 'dual' (MDM)")
    vocab, device, noise = job.model.vocab, canvas_device(job.model.rope_cos.device), Noise.of(job.seed).at(STREAM)
    sampler, cached = job.rule.build(), job.rule.cached(job.model)
    meter = None if calls.on_cache_error is None else CacheError(cached, job.model)
    model = job.rule.guided(meter or cached)
    written: list[Generation] = []
    batches: list[list[StepRecord]] = []
    for first in range(0, job.n, job.rows_at_once):
        began, rows = time.perf_counter(), job.rows[first : first + job.rows_at_once]
        canvas = canvas_of(rows, vocab=vocab, device=device)
        if calls.on_record is None and calls.on_step is None:
            ends = row_ends(generate(sampler, model, canvas, noise=noise), grown=job.grows)
        else:
            batches.append(list(record_steps(sampler, model, canvas, noise=noise, on_step=calls.on_step)))
            ends = fold(rows, batches[-1], vocab=vocab)
        seconds = time.perf_counter() - began
        written += [_generation(job, end, seconds=seconds) for end in ends]
    if calls.on_record is not None:
        calls.on_record(_record(job, batches))
    if calls.on_cache_error is not None and meter is not None:
        calls.on_cache_error(meter)
    return written


def _record(job: Job, batches: list[list[StepRecord]]) -> Record:
    size = len(job.start.tokens)
    side = math.isqrt(size)
    is_board = isinstance(job.tokenizer, SymbolTokenizer) and side * side == size and not job.grows
    header = Header(
        package=version("anyorder"),
        model=model_id(job.folder, dtype=job.model.dtype, bos=job.bos),
        sampler=job.rule,
        seed=job.seed,
        vocab=job.model.vocab,
        rows_at_once=job.rows_at_once,
        board=side if is_board else None,
        rows=job.rows,
    )
    return make_record(header, merge(batches), text_of=lambda i: piece_of(job.tokenizer, i))


def _generation(job: Job, end: RowEnd, *, seconds: float) -> Generation:
    tokens = list(end.tokens)
    ends = [i for i, token in enumerate(tokens) if token == job.model.vocab.eos_id]  # no prompt can spell it
    return Generation(
        text=job.tokenizer.decode(tokens[: ends[0]] if job.end_at_eos and ends else tokens),
        tokens=tokens,
        pieces=[piece_of(job.tokenizer, i) for i in tokens],
        order=list(end.order),
        token_logp=list(end.token_logp),
        logp=end.logp,
        num_tokens=sum(when >= 0 for when in end.order),
        nfe=end.nfe,
        seconds=seconds,
        sampler=job.rule.name,
        grown=job.grows,
    )
