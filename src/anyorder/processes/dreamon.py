"""DreamOn: a masked model whose masks may stand for no token, one or more, by two tokens that are no text.

[expand] behind a mask says that more than one token is missing there, [delete] that none is. Both are ordinary ids to
the network: the last two below `vocab.size`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Batch, Canvas, Loss, Vocab
from anyorder.processes.cross_entropy import token_nll
from anyorder.processes.levels import Draw
from anyorder.processes.masked import MaskedDiffusion


@dataclass(frozen=True)
class DreamOn:
    """DreamOn: targets are masked with chance t, runs of masks merge into one of [expand], masks of [delete] follow.

    A row's loss is (1 - t) x (sum of the cross-entropies of tokens and of [expand] + mean of those of [delete]), t
    uniform on (0, 1). It bounds nothing: `nelbo` is this loss. No law is known that its optimum writes.

    Args:
        merge: the chance that a mask merges into the one before it, which then says [expand] for all of them.
        fade: in this share of the rows that chance is merge (1 - share of masks) instead.
        deletions: at most so many masks of [delete], a uniform number from 0, stand behind a row's last target. Rows
            become so much longer than their text.
        draw, group: of t, as in `MaskedDiffusion`.
    Raises:
        ValueError: merge or fade outside [0, 1], or deletions < 0.
    Source:
        arXiv:2602.01326 and its public code, where [delete] is end-of-document, its mean is that of the whole batch,
        and the last target may merge with a [delete].
    """

    paper: ClassVar[str] = "arXiv:2602.01326"
    merge: float = 0.5
    fade: float = 0.5
    deletions: int = 63
    draw: Draw = "antithetic"
    group: int = 1

    def __post_init__(self) -> None:
        for name, value in (("merge", self.merge), ("fade", self.fade)):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name}={value}: must be a chance, from 0 to 1")
        if self.deletions < 0:
            raise ValueError(f"deletions={self.deletions}: must be >= 0; 0 trains without [delete]")

    def loss(self, model: Denoiser, batch: Batch, *, noise: Noise) -> Loss:
        """Sum over rows, nats.

        Raises:
            ValueError: a vocabulary without room for the two ids, or a row that holds one.
        """
        resized = self.corrupt(batch, vocab=model.vocab, noise=noise)
        nll = token_nll(model(resized.canvas, resized.masked), resized.label[resized.masked])
        deleted = resized.deleted[resized.masked]
        row = resized.masked.nonzero()[:, 0]
        empty = torch.zeros(len(batch.tokens), device=nll.device)
        text = empty.index_add(0, row[~deleted], nll[~deleted])
        ends = empty.index_add(0, row[deleted], nll[deleted]) / resized.deleted.sum(-1).clamp(min=1)
        loss = (1 - resized.t).float() * (text + ends)
        return Loss(total=loss.sum(), nelbo=loss.detach(), num_tokens=int(batch.target.sum()))

    def corrupt(self, batch: Batch, *, vocab: Vocab, noise: Noise) -> "Resized":
        """Rows with masks merged and added."""
        expand, delete = length_states(vocab)
        if bool((batch.target & ((batch.tokens == expand) | (batch.tokens == delete))).any()):
            raise ValueError(f"a text holds id {expand} or {delete}, which say [expand] and [delete]; they are no text")
        plain = MaskedDiffusion(form="time", draw=self.draw, group=self.group)
        t = plain.levels(batch.sample_id, noise=noise)
        masked, _ = plain.corrupt(batch, t, noise=noise)
        into_next = self._merging(batch, masked, noise)
        gone = into_next.roll(1, 1)  # the last position merges into none
        u = noise.at("delete").uniform(batch.sample_id)
        extra = (u * (self.deletions + 1)).floor().long().clamp(max=self.deletions)
        return resize(
            batch,
            label=torch.where(into_next, expand, batch.tokens),
            masked=masked,
            gone=gone,
            extra=torch.where(batch.target.any(-1), extra, 0),
            vocab=vocab,
            t=t,
        )

    def _merging(self, batch: Batch, masked: Bool[Tensor, "B L"], noise: Noise) -> Bool[Tensor, "B L"]:
        """Masks whose right neighbour merges into them."""
        share = masked.sum(-1) / batch.target.sum(-1).clamp(min=1)
        fades = noise.at("fade").uniform(batch.sample_id) < self.fade
        chance = self.merge * torch.where(fades, 1 - share, 1.0)
        position = torch.arange(masked.shape[1], device=masked.device)
        u = noise.at("merge").uniform(batch.sample_id[:, None], 0, position)
        merging = masked & masked.roll(-1, 1) & (u < chance[:, None])
        merging[:, -1] = False
        if batch.segment is not None:
            merging = merging & (batch.segment == batch.segment.roll(-1, 1))
        return merging


@dataclass(frozen=True)
class Resized:
    """Rows that are shorter by merged masks and longer by masks of [delete].

    Args:
        label: what stands behind each mask, and the token elsewhere.
        deleted: masks of [delete].
        t: the chance with which each row was masked.
    """

    canvas: Canvas
    label: Int[Tensor, "B W"]
    masked: Bool[Tensor, "B W"]
    deleted: Bool[Tensor, "B W"]
    t: Float[Tensor, " B"]


def resize(
    batch: Batch,
    *,
    label: Int[Tensor, "B L"],
    masked: Bool[Tensor, "B L"],
    gone: Bool[Tensor, "B L"],
    extra: Int[Tensor, " B"],
    vocab: Vocab,
    t: Float[Tensor, " B"],
) -> Resized:
    """Rows without the positions that are gone, and with `extra` masks of [delete] behind each row's last target."""
    length = batch.tokens.shape[1]
    segment = torch.ones_like(label) if batch.segment is None else batch.segment
    position = torch.arange(length, device=label.device)
    last = torch.where(batch.target, position, -1).amax(-1, keepdim=True)
    stays = (segment > 0) & ~gone
    count = stays + torch.where(position == last, extra[:, None], 0)
    end = count.cumsum(-1)
    width = int(end[:, -1].max())
    column = torch.arange(width, device=label.device).expand(len(label), -1).contiguous()
    inside = column < end[:, -1:]
    source = torch.searchsorted(end, column, right=True).clamp(max=length - 1)
    deleted = inside & ~(stays.gather(-1, source) & (column == (end - count).gather(-1, source)))
    behind = torch.where(deleted, length_states(vocab)[1], label.gather(-1, source))
    hidden = inside & (deleted | masked.gather(-1, source))
    x = behind.masked_fill(hidden, vocab.mask_id).masked_fill(~inside, vocab.pad_id)
    canvas = Canvas(
        x=x,
        fixed=~hidden,
        window=hidden,
        segment=torch.where(inside, segment.gather(-1, source), 0),
        row_id=batch.sample_id,
    )
    return Resized(canvas, behind, hidden, deleted, t)


def length_states(vocab: Vocab) -> tuple[int, int]:
    """The ids of [expand] and [delete].

    Raises:
        ValueError: one of them means something else.
    """
    expand, delete = vocab.size - 2, vocab.size - 1
    if expand < 1 or {expand, delete} & {vocab.mask_id, vocab.pad_id, vocab.eos_id}:
        raise ValueError(
            f"vocab.size={vocab.size}: its last two ids are [expand] and [delete], and one of them is mask, padding or "
            "end-of-document; make a vocabulary with two ids more"
        )
    return expand, delete
