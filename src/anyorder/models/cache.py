"""Denoisers that remember keys and values between passes: exact for a causal model, approximate for one that is not.

Both are values of one generation with fixed weights: they keep no gradients, and what they answer depends on the
canvas alone, not on what was asked before.
"""

import dataclasses

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.config import nearest
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas, Vocab, take_rows
from anyorder.models.memory import Columns, KeyValues, read_columns
from anyorder.models.transformer import Transformer

CACHES = {
    "none": "every pass computes whole rows",
    "exact": "a causal model computes new tokens only; the same answers",
    "prefix": "block by block; what stands before the block is computed once a block; other answers",
    "dual": "block by block; what stands before and after the block is computed once a block; other answers",
}


class CausalCache:
    """A causal network that computes only the columns it has not read yet: the exact key-value cache.

    Rows may come in any order, batch and number, at different positions, packed or padded. Of each row the longest
    prefix that some remembered row shares is kept, so rows that begin alike compute their beginning once, and a changed
    token costs what comes after it.

    Raises:
        ValueError: a network that is not causal.
    """

    nfe = 1

    def __init__(self, model: Transformer) -> None:
        if not model.config.causal:
            raise ValueError(
                "cache='exact': this model sees both sides, so every new token changes all it has read; "
                "use 'none', or 'prefix' or 'dual' with a block"
            )
        self.model = model
        self.memory = KeyValues(model)

    @property
    def vocab(self) -> Vocab:
        return self.model.vocab

    @torch.no_grad()
    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        row, column = at.nonzero(as_tuple=True)
        if row.tolist() == list(range(len(at))):
            first, end = column.tolist(), (column + 1).tolist()  # one a row: what samplers of a causal model ask
        elif bool((asked := at.any(-1)).all()):
            first, end = (edge.tolist() for edge in span(at))
        else:
            return _only(self, canvas, at, asked)
        if self.model.config.shift_logits:
            first = [max(0, f - 1) for f in first]
        width = max(end)
        tokens = self.model.reads(canvas)
        content = content_of(tokens, canvas, self.vocab)[:, :width]
        slots, known = self.memory.place(canvas.row_id, content, enough=first)
        begin = [min(pair) for pair in zip(known, first)]
        columns = Columns.between(begin, end, width=width, device=at.device)
        outputs = outputs_of(self.model, canvas, at) if self.model.config.shift_logits else (row, column)
        logits = read_columns(
            self.model,
            self.memory,
            tokens=tokens,
            segment=canvas.segment,
            slots=slots,
            columns=columns,
            outputs=outputs,
        )
        read = None if columns.first is not None else [max(pair) for pair in zip(known, end)]
        self.memory.note(slots, content, end=read)
        return logits


class BlockCache:
    """A network that sees both sides, asked block by block: what lies outside the block is computed once a block.

    The block is where the sampler may write, `canvas.window` (see `samplers.blockwise`), from its first such column to
    its last. Keys and values outside it are those of the row with the whole block masked, as the block's first pass
    finds it; later passes compute the columns of the block alone ("dual") or of the block and all behind it ("prefix")
    and read the others as they were. The first pass of a block is exact, the others are not: `CacheError` measures by
    how much. A row whose window reaches from end to end is computed in full each time.

    A question about a position outside what would be computed is answered by a full pass.

    Raises:
        ValueError: a causal network, or an unknown kind.
    Source:
        arXiv:2505.22618 (Fast-dLLM), section 3.2: its prefix cache and DualCache.
    """

    nfe = 1

    def __init__(self, model: Transformer, *, kind: str = "dual") -> None:
        if kind not in ("prefix", "dual"):
            raise ValueError(f"cache={kind!r}: unknown; a block cache is 'prefix' or 'dual'")
        if model.config.causal:
            raise ValueError(f"cache={kind!r}: an autoregressive model has an exact cache; use 'exact' or 'none'")
        self.model, self.kind = model, kind
        self.memory = KeyValues(model)

    @property
    def vocab(self) -> Vocab:
        return self.model.vocab

    @torch.no_grad()
    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        asked = at.any(-1)
        if not bool(asked.all()):
            return _only(self, canvas, at, asked)
        block = canvas.window & ~canvas.fixed & canvas.valid
        begin, end = span(block)
        position = torch.arange(at.shape[1], device=at.device)
        near = (position >= begin[:, None]) & (position < (end[:, None] if self.kind == "dual" else len(position)))
        inside = ~(at & ~near).any(-1)
        if bool(inside.all()):
            return self._ask(canvas, at, block)
        out = torch.empty(int(at.sum()), self.vocab.size, dtype=self.model.dtype, device=at.device)
        mine = inside[at.nonzero()[:, 0]]
        far = (~inside).nonzero().squeeze(-1)
        out[~mine] = self.model(take_rows(canvas, far), at[far])
        if bool(mine.any()):
            rows = inside.nonzero().squeeze(-1)
            out[mine] = self._ask(take_rows(canvas, rows), at[rows], block[rows])
        return out

    def _ask(self, canvas: Canvas, at: Bool[Tensor, "B L"], block: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        """Logits inside the blocks: of rows that begin a block from a full pass, of others from a pass over columns."""
        begin, end = span(block)
        length = torch.full_like(begin, at.shape[1])
        before = canvas.x.masked_fill(block, self.vocab.mask_id)
        which = torch.stack([length, begin, end], -1)
        content = torch.cat([which, content_of(before, canvas, self.vocab)], -1)
        whole = content.shape[1]
        slots, known = self.memory.place(canvas.row_id, content, enough=[whole] * len(at))
        new, blank = torch.tensor(known, device=at.device) < whole, (canvas.x == before).all(-1)
        out = torch.empty(int(at.sum()), self.vocab.size, dtype=self.model.dtype, device=at.device)
        row = at.nonzero()[:, 0]
        if bool(new.any()):
            start = torch.zeros_like(begin)
            out[(new & blank)[row]] = self._read(canvas, before, at & blank[:, None], slots, new, (start, length))
            self.memory.note(slots, content)
        later = ~(new & blank)
        if bool(later.any()):
            stop = end if self.kind == "dual" else length
            start = (begin - int(self.model.config.shift_logits)).clamp(min=0)  # where the first of the block is said
            out[later[row]] = self._read(canvas, canvas.x, at, slots, later, (start, stop))
        return out

    def _read(
        self,
        canvas: Canvas,
        tokens: Int[Tensor, "B L"],
        at: Bool[Tensor, "B L"],
        slots: list[int],
        rows: Bool[Tensor, " B"],
        between: tuple[Int[Tensor, " B"], Int[Tensor, " B"]],
    ) -> Float[Tensor, "N V"]:
        """A pass over some columns of some rows."""
        index = rows.nonzero().squeeze(-1)
        begin, end = (edge[index].tolist() for edge in between)
        part = take_rows(dataclasses.replace(canvas, x=tokens), index)
        return read_columns(
            self.model,
            self.memory,
            tokens=self.model.reads(part),
            segment=part.segment,
            slots=[slots[i] for i in index.tolist()],
            columns=Columns.between(begin, end, width=at.shape[1], device=at.device),
            outputs=outputs_of(self.model, part, at[index]),
        )


def with_cache(model: Denoiser, kind: str) -> Denoiser:
    """The network itself for "none", else with a new cache of this kind.

    Raises:
        ValueError: an unknown kind, or one that does not fit the model.
    """
    if kind not in CACHES:
        raise ValueError(f"cache={kind!r}: unknown; {nearest(kind, CACHES)}")
    if kind == "none":
        return model
    if not isinstance(model, Transformer):
        raise ValueError(f"cache={kind!r}: {type(model).__name__} has no keys and values to remember; use 'none'")
    return CausalCache(model) if kind == "exact" else BlockCache(model, kind=kind)


def span(at: Bool[Tensor, "B L"]) -> tuple[Int[Tensor, " B"], Int[Tensor, " B"]]:
    """The first true column of each row and the one after its last; the whole row where there is none."""
    length = at.shape[1]
    return at.int().argmax(-1), length - at.flip(-1).int().argmax(-1)


def content_of(tokens: Int[Tensor, "B L"], canvas: Canvas, vocab: Vocab) -> Int[Tensor, "B L"]:
    """What a column's keys and values depend on besides the columns it reads: its token and its document."""
    return tokens + vocab.num_ids * (1 if canvas.segment is None else canvas.segment)


def outputs_of(model: Transformer, canvas: Canvas, at: Bool[Tensor, "B L"]) -> tuple[Tensor, Tensor]:
    """Row and column of the outputs that predict the named positions."""
    flat = model.outputs(canvas, at)
    return flat // at.shape[1], flat % at.shape[1]


def _only(cache: Denoiser, canvas: Canvas, at: Bool[Tensor, "B L"], asked: Bool[Tensor, " B"]) -> Tensor:
    """The answer for the rows that are asked about; the others have no part in it."""
    rows = asked.nonzero().squeeze(-1)
    if not len(rows):
        return torch.empty(0, cache.vocab.size, device=at.device)
    return cache(take_rows(canvas, rows), at[rows])
