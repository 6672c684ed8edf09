"""What goes into the API and what comes out of it: gaps, written rows, scores."""

import math
from dataclasses import dataclass

from anyorder.data.tokenizer import PLACEHOLDER
from anyorder.samplers.insertion import Room


@dataclass(frozen=True)
class GAP:
    """A gap in `LanguageModel.infill`: `GAP()` of any number of tokens, none included, which only an insertion model
    fills; `GAP(4)` of 4 tokens; `GAP(2, 6)` of at least 2 and at most 6.

    Raises:
        ValueError: a gap of no tokens, a negative number, or at most fewer than at least.
    """

    num_tokens: int | None = None
    most: int | None = None

    def __post_init__(self) -> None:
        if self.num_tokens is None and self.most is not None:
            raise ValueError(f"GAP(None, {self.most}): says at most and not at least; write GAP(0, {self.most})")
        if self.most is None and self.num_tokens is not None and self.num_tokens < 1:
            raise ValueError(f"GAP({self.num_tokens}): a gap has at least 1 token; leave it out for none")
        if self.num_tokens is not None and self.most is not None:
            said = f"GAP({self.num_tokens}, {self.most})"
            if self.num_tokens < 0 or self.most < 1:
                raise ValueError(f"{said}: a gap has at least 0 tokens and at most 1 or more; leave it out for none")
            if self.most < self.num_tokens:
                raise ValueError(f"{said}: at most {self.most} contradicts at least {self.num_tokens}; swap them")

    @property
    def room(self) -> Room:
        """What it takes."""
        if self.num_tokens is None:
            return Room()
        return Room(self.num_tokens, self.num_tokens if self.most is None else self.most)


@dataclass(frozen=True)
class Generation:
    """One written row. Lists have one entry per position of the finished row, prompt included.

    Args:
        text: the row as text. `sample` cuts it before the first end-of-document token that a text model wrote (what
            follows would be another document); `infill` and puzzles keep the whole row, in which that token is nothing.
        tokens: ids.
        pieces: text of each position; bytes that are no character by themselves read U+FFFD.
        order: step (from 0) at which each position was written, -1 for what was given.
        token_logp: log-probability of each written token given what was visible, under the law it was drawn from
            (after temperature and truncation), of its place too where it was inserted; nats, 0 for what was given.
        logp: their sum, float64.
        num_tokens: tokens written.
        nfe: network passes this row took part in.
        seconds: wall time of the batch that this row was written in.
        sampler: what wrote it.
        grown: whether tokens were inserted, and those behind them moved up; else there was a mask for each.
    """

    text: str
    tokens: list[int]
    pieces: list[str]
    order: list[int]
    token_logp: list[float]
    logp: float
    num_tokens: int
    nfe: int
    seconds: float
    sampler: str
    grown: bool = False

    def at(self, step: int) -> str:
        """The row as it stood after `step` steps: ░ where a mask was still to be written."""
        blank = "" if self.grown else PLACEHOLDER
        return "".join(p if when < step else blank for p, when in zip(self.pieces, self.order, strict=True))


@dataclass(frozen=True)
class Score:
    """How well a model predicts a text: its negative log-likelihood (ARM), or an upper bound on it (MDM, ILM).

    Args:
        nats: of the whole text. An MDM and an ARM are told how many tokens each window has; an ILM is not, and its
            value includes where the window ends.
        stderr: Monte-Carlo standard error of `nats`; 0 for an ARM, whose value is exact.
        num_tokens, num_bytes: of the text; no end-of-document token is added.
        estimator: the function of `anyorder.likelihood` that made it.
        draws: masked or thinned copies of each window; 1 for an ARM.
        nfe: rows sent through the network.
        windows: pieces of at most the model's length; each is scored given `context` tokens before it, by default none.
    """

    nats: float
    stderr: float
    num_tokens: int
    num_bytes: int
    estimator: str
    draws: int
    nfe: int
    windows: int

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.num_tokens

    @property
    def nats_per_token_stderr(self) -> float:
        return self.stderr / self.num_tokens

    @property
    def bits_per_byte(self) -> float:
        return self.nats / self.num_bytes / math.log(2)

    @property
    def bits_per_byte_stderr(self) -> float:
        return self.stderr / self.num_bytes / math.log(2)
