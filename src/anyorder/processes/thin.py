"""Documents thinned out: what an insertion model reads in training, and what it should have inserted where.

Tokens that are taken out are gone: nothing marks where they were, and what is left closes up. A document begins with
end-of-document, which stands for its beginning; what is left of several documents shares a row where it fits.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.best_fit import best_fit
from anyorder.core.noise import Noise
from anyorder.core.types import Batch, Canvas, Vocab


@dataclass(frozen=True)
class Documents:
    """The documents of a batch, in reading order. A row is one document, or with segments each of them is.

    Args:
        of: the document each position belongs to; anything at padding.
        body: tokens that may be taken out: targets, but for the end-of-document that ends a document.
        kept: tokens that are always read: the prompt.
        open: whether a token may be inserted just after each position: the body, and what stands just before it.
        row: the batch row of each document, and its number there, from 0.
        size: L, the tokens of its body.
    """

    of: Int[Tensor, "B L"]
    body: Bool[Tensor, "B L"]
    kept: Bool[Tensor, "B L"]
    open: Bool[Tensor, "B L"]
    opens: Bool[Tensor, " S"]  # whether a token may be inserted before all others
    row: Int[Tensor, " S"]
    number: Int[Tensor, " S"]
    size: Int[Tensor, " S"]


@dataclass(frozen=True)
class Thinned:
    """What is left of S documents of which M tokens were taken out, in the order of the documents on the canvas.

    Args:
        canvas: what is left; `window` marks the N positions after which a token may be inserted.
        document: which of the S each named position stands in.
        row, size, missing: of each document: its batch row, its body's tokens L, those taken out n.
        token: each token taken out.
        gap: after which named position it is missing.
        owner: which of the S documents it is missing from.
    """

    canvas: Canvas
    document: Int[Tensor, " N"]
    row: Int[Tensor, " S"]
    size: Int[Tensor, " S"]
    missing: Int[Tensor, " S"]
    token: Int[Tensor, " M"]
    gap: Int[Tensor, " M"]
    owner: Int[Tensor, " M"]


def documents(batch: Batch, *, vocab: Vocab) -> Documents:
    """The documents of a batch.

    Raises:
        ValueError: end-of-document inside a document, or a vocabulary without one.
    """
    eos = end_of(vocab)
    segment = torch.ones_like(batch.tokens) if batch.segment is None else batch.segment
    valid = segment > 0
    edge = torch.ones_like(valid[:, :1])
    changes = segment[:, 1:] != segment[:, :-1]
    begins, ends = valid & torch.cat([edge, changes], 1), valid & torch.cat([changes, edge], 1)
    end = ends & (batch.tokens == eos)
    body = batch.target & valid & ~end
    if bool((body & (batch.tokens == eos)).any()):
        raise ValueError(
            "end-of-document stands inside a row: an insertion model learns from whole documents; "
            "set data.packing=documents"
        )
    of = (begins.flatten().cumsum(0) - 1).view_as(segment)
    next_is_body = torch.cat([body[:, 1:] & ~changes, torch.zeros_like(edge)], 1)
    first = begins.nonzero()[:, 0]
    size = torch.zeros_like(first).index_add(0, of[valid], body[valid].long())
    return Documents(
        of=of,
        body=body,
        kept=valid & ~body & ~end,
        open=body | (next_is_body & valid),
        opens=body[begins],
        row=first,
        number=torch.arange(len(first), device=first.device) - torch.searchsorted(first, first),
        size=size,
    )


def how_many(
    given: Documents, level: Float[Tensor, " B"], sample_id: Int[Tensor, " B"], *, noise: Noise
) -> Int[Tensor, " S"]:
    """n of each document: uniform on 0..L, from the level of its row; further documents of a row turn it anew."""
    turn = noise.at("document").uniform(sample_id[given.row], given.number)
    own = torch.where(given.number > 0, (level[given.row] + turn) % 1.0, level[given.row])
    return torch.minimum((own * (given.size + 1)).floor().long(), given.size)


def thin(
    batch: Batch,
    given: Documents,
    missing: Int[Tensor, " S"],
    *,
    vocab: Vocab,
    noise: Noise,
    step: Int[Tensor, " B"] | int = 0,
    pack: bool = True,
) -> Thinned:
    """Take a uniformly random set of n tokens out of each document's body.

    Args:
        missing: n of each document.
        step: which of several draws of the same row each row is.
        pack: what is left of several documents may share a row; the loss is the same.
    """
    position = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    step = torch.as_tensor(step, device=position.device).expand(len(batch.tokens))
    u = noise.at("drop").uniform(batch.sample_id[:, None], step[:, None], position)[given.body]
    gone = torch.zeros_like(given.body).masked_scatter(
        given.body, ranks_within(u, given.of[given.body], given.size) < missing[given.of[given.body]]
    )
    return without(batch, given, gone, vocab=vocab, pack=pack)


def places(length: Int[Tensor, " S"], *, pack: bool) -> tuple[Int[Tensor, " S"], int, int]:
    """Where each document begins, counted over all rows; the number of rows and their width."""
    width = int(length.max())
    rows = best_fit(length.tolist(), width) if pack else [[i] for i in range(len(length))]
    begin = torch.empty_like(length)
    for number, row in enumerate(rows):
        at = number * width
        for document in row:
            begin[document] = at
            at += int(length[document])
    return begin, len(rows), width


def ranks_within(u: Float[Tensor, " K"], group: Int[Tensor, " K"], size: Int[Tensor, " S"]) -> Int[Tensor, " K"]:
    """The place of each number among those of its group, smallest first; group s has size[s] of them."""
    order = u.argsort(stable=True)
    order = order[group[order].argsort(stable=True)]
    start = (size.cumsum(0) - size)[group[order]]
    return torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device) - start)


def end_of(vocab: Vocab) -> int:
    """The id of end-of-document.

    Raises:
        ValueError: a vocabulary without one.
    """
    if vocab.eos_id is None:
        raise ValueError(
            "vocab.eos_id=None: an insertion model reads it as the beginning of a document; give the vocabulary an EOS"
        )
    return vocab.eos_id


def without(batch: Batch, given: Documents, gone: Bool[Tensor, "B L"], *, vocab: Vocab, pack: bool = True) -> Thinned:
    """What is left when the named tokens, all of a body, are taken out."""
    device = batch.tokens.device
    left = given.kept | (given.body & ~gone)
    num_left = torch.zeros_like(given.size).index_add(0, given.of[left], torch.ones_like(given.of[left]))
    before = num_left.cumsum(0) - num_left  # tokens left of all documents before
    place = left.flatten().cumsum(0).view_as(given.of) - before[given.of]  # in its document, the beginning being 0
    begin, rows, width = places(1 + num_left, pack=pack)
    to = begin[given.of[left]] + place[left]  # where each token that is left goes
    order = begin.argsort()  # documents in the order of the canvas
    number = order.argsort()

    def flat(fill: int, at_begin: Tensor, at_tokens: Tensor) -> Tensor:
        out = torch.full((rows * width,), fill, device=device)
        return out.index_put((begin,), at_begin).index_put((to,), at_tokens).view(rows, width)

    one = torch.ones_like(begin)
    x = flat(vocab.pad_id, one * end_of(vocab), batch.tokens[left])
    segment = flat(0, number + 1, number[given.of[left]] + 1)
    window = flat(0, given.opens.long(), given.open[left].long()) > 0
    fixed = flat(0, one, given.kept[left].long()) > 0
    named = (window.flatten().cumsum(0) - 1)[begin[given.of[gone]] + place[gone]]
    return Thinned(
        canvas=Canvas(x=x, fixed=fixed, window=window, segment=segment, row_id=torch.arange(rows, device=device)),
        document=segment[window] - 1,
        row=given.row[order],
        size=given.size[order],
        missing=torch.zeros_like(given.size).index_add(0, number[given.of[gone]], torch.ones_like(given.of[gone])),
        token=batch.tokens[gone],
        gap=named,
        owner=number[given.of[gone]],
    )
