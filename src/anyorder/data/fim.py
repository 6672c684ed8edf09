"""Fill-in-the-middle for an autoregressive model: the text with a mark for each gap, then what stood in the gaps.

    prefix MASK suffix EOS middle EOS

The order prefix, suffix, middle ("PSM") with sentinels that the vocabulary has anyway: the mask says where a gap is, is
read and never written; EOS says that the text is over and, later, that a gap is filled. With several gaps each has
its mask and its end, in order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.types import Vocab
from anyorder.data.infill import Infill, Stretch, cut, stretches
from anyorder.data.rows import RowBlock
from anyorder.data.shards import Shards


def fim_prompt(item: Infill, *, vocab: Vocab) -> list[int]:
    """What the model reads before it writes the gaps."""
    return [*item.filled([[vocab.mask_id]] * len(item.gaps)), _end(vocab)]


def fim_answer(item: Infill, *, vocab: Vocab) -> list[int]:
    """The gaps, each followed by EOS."""
    return [i for gap in item.gaps for i in (*gap, _end(vocab))]


def fim_gaps(written: Sequence[int], *, vocab: Vocab, num_gaps: int) -> list[list[int]]:
    """The gaps in what a model wrote after a prompt; those that it did not come to are empty, the rest is not read."""
    gaps: list[list[int]] = [[]]
    for i in written:
        if i != _end(vocab):
            gaps[-1].append(i)
        elif len(gaps) == num_gaps:
            break
        else:
            gaps.append([])
    return gaps + [[] for _ in range(num_gaps - len(gaps))]


@dataclass(frozen=True)
class FimRows:
    """Rows of an ARM that learns to fill in: texts of a corpus, one a row, a share of them with gaps.

    In a text with gaps their number is uniform from 1 to `num_gaps`, and that of the missing tokens uniform on all that
    is possible. All tokens are targets, but for the marks of gaps. Every text ends with EOS, wherever it was cut off.

    Args:
        length: of a row; a text of n tokens needs n + 1, and 2 more for each gap.
        rate: share of rows with gaps.
        copies: of each text, with gaps of its own; `num_rows` counts them.
        noise: the stream of cuts.
    Raises:
        ValueError: no text, a number outside its range, or a vocabulary without EOS.
    Source:
        arXiv:2207.14255 (PSM, applied to token ids; joint training at a rate of 0.5).
    """

    shards: Shards
    vocab: Vocab
    length: int
    noise: Noise
    texts: tuple[Stretch, ...]
    rate: float = 0.5
    num_gaps: int = 1
    copies: int = 1

    def __post_init__(self) -> None:
        _end(self.vocab)
        if not 0.0 <= self.rate <= 1.0 or self.num_gaps < 1 or self.copies < 1:
            raise ValueError(
                f"rate={self.rate}, num_gaps={self.num_gaps}, copies={self.copies}: "
                "must be a share of rows, >= 1 and >= 1"
            )
        if not self.texts:
            raise ValueError("texts: the corpus has none of this length; lower `least`")
        longest = max(text.size for text in self.texts)
        if longest + 1 + 2 * self.num_gaps > self.length:
            raise ValueError(
                f"length={self.length}: a text of {longest} tokens with {self.num_gaps} gaps needs "
                f"{longest + 1 + 2 * self.num_gaps}; raise length, or take shorter texts"
            )

    @property
    def num_rows(self) -> int:
        return self.copies * len(self.texts)

    def segmented(self, rows: Int[Tensor, " B"]) -> bool:
        return any(len(row) < self.length for row in self._written(rows))

    def take(self, rows: Int[Tensor, " B"]) -> RowBlock:
        """Rows with padding at the end."""
        pad = self.vocab.pad_id
        written = [row + [pad] * (self.length - len(row)) for row in self._written(rows)]
        tokens = torch.tensor(written, dtype=torch.int64).reshape(-1, self.length)
        held = tokens != pad
        return RowBlock(
            tokens=tokens,
            target=held & (tokens != self.vocab.mask_id),
            segment=None if bool(held.all()) else held.long(),
        )

    def _written(self, rows: Int[Tensor, " B"]) -> list[list[int]]:
        """The rows without padding."""
        u = self.noise.uniform(rows[:, None], 0, torch.arange(2 + 2 * self.num_gaps))
        return [self._row(self.texts[r % len(self.texts)], draws) for r, draws in zip(rows.tolist(), u.tolist())]

    def _row(self, text: Stretch, u: list[float]) -> list[int]:
        tokens = text.read(self.shards)
        most = min(self.num_gaps, len(tokens) // 2)
        if u[0] >= self.rate or most < 1:
            return [*tokens, _end(self.vocab)]
        gaps = 1 + int(u[1] * most)
        highest = len(tokens) - max(gaps - 1, 1)
        missing = gaps + int(u[2] * (highest - gaps + 1))
        item = cut(tokens, text, missing=missing, num_gaps=gaps, u=u[3 : 2 + 2 * gaps])
        return fim_prompt(item, vocab=self.vocab) + fim_answer(item, vocab=self.vocab)


def fim_rows(
    shards: Shards,
    *,
    vocab: Vocab,
    length: int,
    noise: Noise,
    rate: float = 0.5,
    num_gaps: int = 1,
    copies: int = 1,
    least: int = 2,
) -> FimRows:
    """Rows of `length` from all documents of a corpus, in pieces that fit with their marks."""
    texts = stretches(shards, least=least, most=length - 1 - 2 * num_gaps)
    return FimRows(shards, vocab, length, noise, tuple(texts), rate, num_gaps, copies)


def _end(vocab: Vocab) -> int:
    if vocab.eos_id is None:
        raise ValueError(
            "vocab.eos_id=None: filling in the middle ends texts and gaps with EOS; give the vocabulary one"
        )
    return vocab.eos_id
