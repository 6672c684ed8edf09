"""Writing masks that may stand for no token, one or more (DreamOn): one a pass, the surest first."""

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas, Carry, Vocab, Write
from anyorder.processes.dreamon import length_states
from anyorder.samplers.certainty import negentropy
from anyorder.samplers.inserted import insert, room_of
from anyorder.samplers.token import TokenRule
from anyorder.samplers.unmask import start


@dataclass(frozen=True)
class ExpandAndDelete:
    """One step: the mask of lowest entropy is written; [expand] makes two masks of it, [delete] takes it out.

    Rows are written from the left and padded (segment 0) at the right, which is the room they have. Where a row has no
    room or no budget left, [expand] is not drawn.

    Args:
        token: temperature, top-k and top-p of what is drawn.
        budget: expansions a row may take; None: as many as there is room for, room that deletions give back included.
    Raises:
        ValueError: a negative budget; (in `init`) rows without segments, which cannot change their length.
    Source:
        arXiv:2602.01326.
    """

    token: TokenRule = field(default_factory=TokenRule)
    budget: int | None = None

    paper: ClassVar[str] = "arXiv:2602.01326"

    def __post_init__(self) -> None:
        if self.budget is not None and self.budget < 0:
            raise ValueError(f"sampler.budget={self.budget}: must be >= 0; leave it out for as many as there is room")

    @property
    def exact(self) -> bool:
        return False

    def init(self, canvas: Canvas, *, vocab: Vocab) -> Carry:
        if canvas.segment is None:
            raise ValueError("canvas.segment=None: rows change their length; mark their padding with segment 0")
        return start(canvas, vocab=vocab)

    def step(self, model: Denoiser, canvas: Canvas, carry: Carry, *, noise: Noise) -> Write:
        expand, delete = length_states(model.vocab)
        is_open = canvas.open(model.vocab) & canvas.window
        spent = (is_open.sum(-1) - carry.start + carry.step) // 2  # a step takes one mask away, or adds one
        may = room_of(canvas) > 0
        if self.budget is not None:
            may &= spent < self.budget
        row = is_open.nonzero()[:, 0]
        logits = model(canvas, is_open)
        closed = torch.zeros_like(logits, dtype=torch.bool)
        closed[:, expand] = ~may[row]
        logits = logits.masked_fill(closed, -torch.inf)
        sure = torch.full(is_open.shape, -torch.inf, dtype=torch.float64, device=logits.device)
        best = sure.masked_scatter(is_open, negentropy(logits)).argmax(-1)
        chosen = torch.zeros_like(is_open).scatter(-1, best[:, None], True)
        u = noise.at("token").uniform(canvas.row_id, carry.step, best)
        token, logp = self.token(logits[chosen[is_open]], u)
        return _done(
            canvas, carry, chosen, token, logp, grows=token == expand, shrinks=token == delete, vocab=model.vocab
        )


def _done(
    canvas: Canvas,
    carry: Carry,
    chosen: Bool[Tensor, "B L"],
    token: Int[Tensor, " B"],
    logp: Tensor,
    *,
    grows: Bool[Tensor, " B"],
    shrinks: Bool[Tensor, " B"],
    vocab: Vocab,
) -> Write:
    """The step, with one token drawn for one mask of each row."""
    written = torch.where(grows | shrinks, vocab.mask_id, token)
    shown = dataclasses.replace(canvas, x=canvas.x.masked_scatter(chosen, written))
    shorter, kept = remove(shown, chosen & shrinks[:, None], vocab=vocab)
    masks = torch.full((int(grows.sum()),), vocab.mask_id, device=token.device)
    longer, _, moved = insert(shorter, torch.zeros_like(canvas.x), chosen & grows[:, None], masks)
    wrote = chosen & ~(grows | shrinks)[:, None]  # a row in which a token is written keeps its length
    return Write(
        canvas=longer,
        carry=dataclasses.replace(carry, step=carry.step + 1),
        wrote=wrote,
        logp=torch.zeros(chosen.shape, dtype=torch.float64, device=logp.device).masked_scatter(
            wrote, logp[~(grows | shrinks)]
        ),
        origin=torch.where(moved < 0, -1, kept.gather(-1, moved.clamp(min=0))),
    )


def remove(canvas: Canvas, chosen: Bool[Tensor, "B L"], *, vocab: Vocab) -> tuple[Canvas, Int[Tensor, "B L"]]:
    """Rows without the chosen positions, padded at the right, and where what stands at each position stood before."""
    origin = chosen.long().argsort(dim=-1, stable=True)
    new = chosen.gather(-1, origin)
    assert canvas.segment is not None  # from `init`
    shorter = dataclasses.replace(
        canvas,
        x=canvas.x.gather(-1, origin).masked_fill(new, vocab.pad_id),
        fixed=canvas.fixed.gather(-1, origin),
        window=canvas.window.gather(-1, origin) & ~new,
        segment=canvas.segment.gather(-1, origin).masked_fill(new, 0),
    )
    return shorter, origin.masked_fill(new, -1)
