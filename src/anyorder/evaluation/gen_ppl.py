"""Generative perplexity: how surprised a left-to-right judge is by written text.

Never a figure by itself: a model that repeats one likely phrase has an excellent one (`evaluation/quality.py`).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas
from anyorder.data.tokenizer import Tokenizer
from anyorder.likelihood.chain import exact_causal

LOGITS_AT_ONCE = 1 << 26  # numbers; bounds the memory of one pass
ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Judged:
    """What a judge says of texts, one entry each.

    Args:
        nats: negative log-likelihood of the tokens scored, float64.
        scored: their number.
        cut: tokens beyond the judge's length, left out.
    """

    nats: Float[Tensor, " B"]
    scored: Int[Tensor, " B"]
    cut: Int[Tensor, " B"]


@runtime_checkable
class Judge(Protocol):
    """A left-to-right language model that reads text; it tokenizes anew, in its own way."""

    @property
    def name(self) -> str: ...

    @property
    def first_token(self) -> str:
        """What becomes of a text's first token, in words."""
        ...

    def nll(self, texts: Sequence[str]) -> Judged:
        """Nats of each text; ValueError for text that the judge's tokenizer cannot spell."""
        ...

    def features(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        """The judge's last hidden state after each text, for MAUVE."""
        ...


@dataclass(frozen=True)
class ModelJudge:
    """One of our autoregressive models. A text is scored from its first token on, given the end-of-document token.

    Args:
        name: what tables call it.
        model: left to right: its logits at a position depend on the tokens before it alone.
        tokenizer: the judge's own.
        max_length: tokens of a text that are read.
    """

    name: str
    model: Denoiser
    tokenizer: Tokenizer
    max_length: int
    device: str = "cpu"

    @property
    def first_token(self) -> str:
        return "scored, given the end-of-document token"

    @torch.no_grad()
    def nll(self, texts: Sequence[str]) -> Judged:
        ids = self._encoded(texts)
        parts = [self._score([row[: self.max_length] for row in rows]) for rows in self._batches(ids)]
        scored = [min(len(row), self.max_length) for row in ids]
        return Judged(
            nats=torch.cat([torch.zeros(0, dtype=torch.float64), *parts]),
            scored=torch.tensor(scored, dtype=torch.int64),
            cut=torch.tensor([len(row) - n for row, n in zip(ids, scored)], dtype=torch.int64),
        )

    @torch.no_grad()
    def features(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        """What the head reads one position after the end of each text; a longer one is cut to leave that position."""
        head = self.model.get_submodule("head") if isinstance(self.model, nn.Module) else None
        if head is None:
            raise ValueError(f"judge {self.name}: has no hidden states; MAUVE needs a network as the judge")
        seen: list[Tensor] = []
        handle = head.register_forward_pre_hook(lambda _, given: seen.append(given[0].double().cpu()))
        try:
            for rows in self._batches(self._encoded(texts)):
                self._read([[*row[: self.max_length - 1], self._eos] for row in rows])
        finally:
            handle.remove()
        return torch.cat(seen)

    @property
    def _eos(self) -> int:
        eos = self.model.vocab.eos_id
        assert eos is not None  # a causal network has one
        return eos

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        try:
            return self.tokenizer.encode_batch(texts)
        except ValueError as error:
            raise ValueError(
                f"judge {self.name}: cannot read the text ({error}); name a judge whose tokenizer holds it"
            ) from None

    def _batches(self, ids: Sequence[list[int]]) -> Iterator[Sequence[list[int]]]:
        size = max(1, min(ROWS_AT_ONCE, LOGITS_AT_ONCE // (self.max_length * self.model.vocab.size)))
        return (ids[at : at + size] for at in range(0, len(ids), size))

    def _rows(self, ids: Sequence[list[int]]) -> tuple[Int[Tensor, "B L"], Int[Tensor, "B L"] | None]:
        """Token ids filled up to one length, and segments where that took padding."""
        length = max(1, *map(len, ids))
        x = torch.full((len(ids), length), self.model.vocab.pad_id)
        for number, row in enumerate(ids):
            x[number, : len(row)] = torch.tensor(row, dtype=torch.int64)
        size = torch.tensor([len(row) for row in ids])
        segment = (torch.arange(length) < size[:, None]).long()
        return x.to(self.device), None if bool(segment.all()) else segment.to(self.device)

    def _score(self, ids: Sequence[list[int]]) -> Float[Tensor, " B"]:
        x, segment = self._rows(ids)
        target = torch.ones_like(x, dtype=torch.bool) if segment is None else segment > 0
        return exact_causal(self.model, x, target=target, segment=segment).nats.cpu()

    def _read(self, ids: Sequence[list[int]]) -> None:
        """One pass that asks for the last position of every row."""
        x, segment = self._rows(ids)
        last = torch.tensor([len(row) - 1 for row in ids], device=x.device)
        at = torch.arange(x.shape[1], device=x.device) == last[:, None]
        whole = torch.ones_like(at)
        row_id = torch.arange(len(x), device=x.device)
        self.model(Canvas(x=x, fixed=whole, window=whole, segment=segment, row_id=row_id), at)


def documents(row: Sequence[int], *, eos_id: int | None) -> list[list[int]]:
    """The documents of a row: what stands between end-of-document tokens, empty ones left out."""
    found: list[list[int]] = [[]]
    for token in row:
        if token == eos_id:
            found.append([])
        else:
            found[-1].append(token)
    return [part for part in found if part]


def perplexity(nats: Float[Tensor, " B"], scored: Int[Tensor, " B"]) -> tuple[float, float]:
    """exp(sum of nats / sum of tokens scored), weighted by tokens, and its jackknife standard error over samples.

    Raises:
        ValueError: fewer than 2 samples with a token.
    """
    if int((scored > 0).sum()) < 2:
        raise ValueError(
            "a perplexity and its error need at least 2 samples with text; write more samples, or longer ones"
        )
    total, tokens = nats.sum(), scored.sum()
    whole = float((total / tokens).exp())
    if not math.isfinite(whole):
        return whole, math.nan
    without = ((total - nats) / (tokens - scored)).exp()
    spread = (without - without.mean()).square().mean()
    return whole, float((spread * (len(nats) - 1)).sqrt())
