"""What a generation did, step by step: a value that can be written to a file, replayed and shown.

Steps are those of `samplers.base.steps`, numbered from 0. Rows are named by `row_id`, so a record does not depend on
how the rows were cut into batches. Log-probabilities are natural. docs/traces.md describes every field.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel, Field, FiniteFloat, NonNegativeInt, PositiveInt, model_validator

from anyorder.core.protocols import Denoiser, Sampler
from anyorder.core.types import Vocab
from anyorder.guidance.classifier_free import ClassifierFree
from anyorder.models.cache import with_cache
from anyorder.samplers.insertion import Room
from anyorder.samplers.presets import make_sampler

FORMAT: Final = "anyorder-trace"
VERSION: Final = 1
STREAM = "sample"  # the noise of a generation is Noise.of(seed).at(STREAM)

Token = tuple[NonNegativeInt, NonNegativeInt | None, FiniteFloat]
Inserted = tuple[NonNegativeInt, NonNegativeInt, FiniteFloat]
Gap = tuple[NonNegativeInt, NonNegativeInt | None]


class _Value(BaseModel, frozen=True, extra="forbid"):
    """Frozen, strict about keys."""


class ModelId(_Value):
    """Which network wrote.

    Args:
        path: its folder, as seen from where the record was made.
        sha256: of its weights.
        tokenizer: hash of its tokenizer.
        dtype: of its activations.
        bos: what it read before every row, if that was not its own token.
    """

    path: str
    kind: Literal["mdm", "arm", "ilm"]
    sha256: str
    tokenizer: str
    dtype: str
    bos: str | None = None


class Settings(_Value):
    """What `make_sampler` makes a sampler of, and what the model is wrapped in.

    Args:
        gaps: least and most tokens of each gap, for a sampler that inserts; None: any number.
    """

    name: str
    num_steps: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    block: int | None = None
    aligned: bool = False
    window: int | None = None
    stride: int | None = None
    guidance: float = 0.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    cache: str = "none"
    gaps: tuple[Gap, ...] | None = None

    def around(self, model: Denoiser) -> Denoiser:
        """The model as the sampler asks it; ValueError as `ClassifierFree` and `cached`."""
        return self.guided(self.cached(model))

    def guided(self, model: Denoiser) -> Denoiser:
        """The model with its guidance, if there is any."""
        low, high = self.guidance_interval
        return ClassifierFree(model, self.guidance, low=low, high=high) if self.guidance else model

    def cached(self, model: Denoiser) -> Denoiser:
        """The model with a new cache, if there is one.

        Raises:
            ValueError: a block cache without a block, or as `with_cache`.
        """
        cached = with_cache(model, self.cache)
        if self.cache in ("prefix", "dual") and self.block is None:
            raise ValueError(
                f"cache={self.cache!r}: keeps what stands outside of a block; name the block's size, as in block=32"
            )
        return cached

    def build(self) -> Sampler:
        """The sampler; ValueError as `make_sampler`."""
        return make_sampler(
            self.name,
            num_steps=self.num_steps,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            block=self.block,
            aligned=self.aligned,
            window=self.window,
            stride=self.stride,
            gaps=None if self.gaps is None else [Room(least, most) for least, most in self.gaps],
        )


class RowStart(_Value):
    """A row before its first step.

    Args:
        tokens: `vocab.mask_id` stands where one is to be written.
        open: of a row that grows, the places where tokens may be inserted: k is after its first k tokens. Else None.
        length: most tokens of a row that grows. Else None.
    """

    row: NonNegativeInt
    tokens: tuple[NonNegativeInt, ...]
    open: tuple[NonNegativeInt, ...] | None = None
    length: PositiveInt | None = None

    @model_validator(mode="after")
    def _grows_as_a_whole(self) -> "RowStart":
        if (self.open is None) != (self.length is None):
            raise ValueError("open and length: a row that grows has both, another has neither")
        if max(self.open or (0,)) > len(self.tokens) or len(self.tokens) > (self.length or math.inf):
            raise ValueError(f"open={self.open}, length={self.length}: do not fit a row of {len(self.tokens)} tokens")
        return self


class Header(_Value):
    """All that a generation depends on.

    Args:
        package: version of anyorder that wrote the record.
        vocab: sizes and special ids, as `Vocab`.
        rows_at_once: rows of one batch; results do not depend on it but for float rounding.
        board: cells per row if the rows are boards of a puzzle.
    """

    format: Literal["anyorder-trace"] = FORMAT
    version: Literal[1] = VERSION
    package: str
    model: ModelId
    sampler: Settings
    seed: int
    vocab: Vocab
    rows_at_once: PositiveInt
    board: PositiveInt | None = None
    rows: tuple[RowStart, ...] = Field(min_length=1)


class RowStep(_Value):
    """What one step did to one row.

    Args:
        nfe: network passes the row took part in.
        writes: (position, token, log-probability) of each token written; the token is None where the same step took it
            back, so that nobody saw it.
        masked: positions that went back to the mask.
        edited: positions of `writes` that showed a token before; it may have been drawn again.
        inserted: (position, token, log-probability) of each token inserted, from the left, where it stands when the
            step is done: what stood there and behind it has moved up.
    """

    row: NonNegativeInt
    nfe: NonNegativeInt = 0
    writes: tuple[Token, ...] = ()
    masked: tuple[NonNegativeInt, ...] = ()
    edited: tuple[NonNegativeInt, ...] = ()
    inserted: tuple[Inserted, ...] = ()


class StepRecord(_Value):
    """One step of the loop; rows that it neither asked about nor changed are left out."""

    step: NonNegativeInt
    rows: tuple[RowStep, ...]


class RowEnd(_Value):
    """A finished row.

    Args:
        order: the step each token was last written in, -1 for what was given.
        token_logp: log-probability of each token when it was last written, 0 for what was given; `logp` is their sum.
    """

    row: NonNegativeInt
    tokens: tuple[NonNegativeInt, ...]
    order: tuple[int, ...]
    token_logp: tuple[FiniteFloat, ...]
    logp: FiniteFloat
    nfe: NonNegativeInt


class End(_Value):
    """How it ended; `pieces` is the text of every token id that occurs anywhere in the record."""

    rows: tuple[RowEnd, ...]
    pieces: dict[int, str]


class Record(_Value):
    """A whole generation; `fold(header.rows, steps)` is `end.rows`."""

    header: Header
    steps: tuple[StepRecord, ...]
    end: End

    def ids(self) -> set[int]:
        """Every token id in it but the mask."""
        given = {token for row in self.header.rows for token in row.tokens}
        written = {t for s in self.steps for r in s.rows for _, t, _ in (*r.writes, *r.inserted) if t is not None}
        return (given | written) - {self.header.vocab.mask_id}


def make_record(header: Header, steps: tuple[StepRecord, ...], *, text_of: Callable[[int], str]) -> Record:
    """A record from what is known before and what was done.

    Args:
        text_of: the text of a token id.
    Raises:
        ValueError: as `fold`.
    """
    end = End(rows=fold(header.rows, steps, vocab=header.vocab), pieces={})
    bare = Record(header=header, steps=steps, end=end)
    pieces = {token: text_of(token) for token in sorted(bare.ids())}
    return bare.model_copy(update={"end": end.model_copy(update={"pieces": pieces})})


def merge(batches: Iterable[Sequence[StepRecord]]) -> tuple[StepRecord, ...]:
    """The steps of batches of different rows as if all had been one batch; steps that did nothing are left out."""
    together: dict[int, list[RowStep]] = {}
    for batch in batches:
        for step in batch:
            together.setdefault(step.step, []).extend(step.rows)
    found = ((i, sorted(together[i], key=lambda r: r.row)) for i in sorted(together))
    return tuple(StepRecord(step=i, rows=tuple(rows)) for i, rows in found if rows)


def fold(rows: Sequence[RowStart], done: Iterable[StepRecord], *, vocab: Vocab) -> tuple[RowEnd, ...]:
    """The finished rows that steps lead to.

    Raises:
        ValueError: a step writes outside a row, over what was given, or an id that is no token; or leaves a mask.
    """
    sheets = {row.row: _Sheet(row, vocab) for row in rows}
    for step in done:
        for change in step.rows:
            if change.row not in sheets:
                raise ValueError(f"step {step.step}: row {change.row} is not in the header")
            sheets[change.row].take(step.step, change)
    return tuple(sheet.end() for sheet in sheets.values())


class _Sheet:
    """One row while steps are applied to it."""

    def __init__(self, start: RowStart, vocab: Vocab) -> None:
        self.row, self.vocab, self.length = start.row, vocab, start.length
        self.tokens = list(start.tokens)
        self.open = [t == vocab.mask_id for t in start.tokens]
        self.gaps = None if start.open is None else [k in start.open for k in range(len(self.tokens) + 1)]
        self.order = [-1] * len(self.tokens)
        self.logp = [0.0] * len(self.tokens)
        self.nfe = 0

    def take(self, step: int, change: RowStep) -> None:
        self.nfe += change.nfe
        for position, token, logp in change.writes:
            self._check(step, position, token)
            self.tokens[position] = self.vocab.mask_id if token is None else token
            self.order[position], self.logp[position] = step, logp
        for position in change.masked:
            self._check(step, position, None)
            self.tokens[position] = self.vocab.mask_id
        for position, token, logp in change.inserted:
            self._insert(step, position, token, logp)

    def _insert(self, step: int, position: int, token: int, logp: float) -> None:
        where = f"row {self.row}, step {step}, position {position}"
        if self.gaps is None or position >= len(self.gaps) or not self.gaps[position]:
            raise ValueError(f"{where}: is not a place where tokens may be inserted")
        if len(self.tokens) == self.length:
            raise ValueError(f"{where}: the row has its {self.length} tokens already")
        self._check_token(where, token)
        rows: tuple[tuple[list[Any], Any], ...] = (
            (self.tokens, token), (self.open, False), (self.gaps, True), (self.order, step), (self.logp, logp)
        )  # fmt: skip
        for values, value in rows:
            values.insert(position, value)

    def _check(self, step: int, position: int, token: int | None) -> None:
        where = f"row {self.row}, step {step}, position {position}"
        if position >= len(self.tokens) or not self.open[position]:
            raise ValueError(f"{where}: is not a position that was to be written")
        if token is not None:
            self._check_token(where, token)

    def _check_token(self, where: str, token: int) -> None:
        if token >= self.vocab.size:
            raise ValueError(f"{where}: token {token} is not below the vocabulary's size, {self.vocab.size}")

    def end(self) -> RowEnd:
        if self.vocab.mask_id in self.tokens:
            raise ValueError(f"row {self.row}: position {self.tokens.index(self.vocab.mask_id)} is never written")
        return RowEnd(
            row=self.row,
            tokens=tuple(self.tokens),
            order=tuple(self.order),
            token_logp=tuple(self.logp),
            logp=math.fsum(self.logp),
            nfe=self.nfe,
        )
