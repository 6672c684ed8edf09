"""Classifier-free guidance: predictions pushed away from what the model would say without the prompt."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas, Vocab, put_rows, take_rows

CURVES = ("constant", "rising", "falling")
MOST = 1e6  # times a difference of log-probabilities this still fits float32


@dataclass(frozen=True)
class ClassifierFree:
    """p(x | prompt)^(1 + w) / p(x | no prompt)^w, normalised at each position; a denoiser around a denoiser.

    Unsupervised guidance needs no training for it: the prompt's tokens are replaced by masks, which every masked model
    has seen. A model that was trained with its prompts left out is guided by leaving the prompt out. The prompt is
    `canvas.fixed`; rows without one, and rows outside the interval, cost one pass instead of two. A guided
    log-probability is a score: it belongs to no model whose law it could be.

    Args:
        scale: w; 0 is the model itself.
        without: "masked": prompt positions hold masks; "absent": nobody attends to them, as to padding.
        low, high: guide while low < (share of the row's unwritten positions) <= high.
        curve: w itself, or w times the share written ("rising") or unwritten ("falling").
    Raises:
        ValueError: scale outside [0, `MOST`], no 0 <= low < high <= 1, an unknown way or curve.
    Source:
        arXiv:2410.18514, section 4 (unsupervised: masked); arXiv:2207.12598 (trained for it); arXiv:2503.07197
        (intervals).
    """

    model: Denoiser
    scale: float
    without: str = "masked"
    low: float = 0.0
    high: float = 1.0
    curve: str = "constant"

    def __post_init__(self) -> None:
        if not 0.0 <= self.scale <= MOST:
            raise ValueError(
                f"guidance.scale={self.scale}: must be >= 0 and at most {MOST:g}, beyond which logits overflow; 0 is "
                "the model itself, and published scales are below 10"
            )
        if not 0.0 <= self.low < self.high <= 1.0:
            raise ValueError(
                f"guidance.low={self.low}, guidance.high={self.high}: must be 0 <= low < high <= 1, shares of a row"
            )
        if self.without not in ("masked", "absent"):
            raise ValueError(f"guidance.without={self.without!r}: must be 'masked' or 'absent'")
        if self.curve not in CURVES:
            raise ValueError(f"guidance.curve={self.curve!r}: must be one of {', '.join(CURVES)}")

    @property
    def nfe(self) -> int:
        return 2 * self.model.nfe

    @property
    def vocab(self) -> Vocab:
        return self.model.vocab

    def price(self, canvas: Canvas) -> Int[Tensor, " B"]:
        """Network passes a call costs each row."""
        return self.model.nfe * (1 + (self.scales(canvas) > 0).long())

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        return guided(self.model, canvas, at, self.scales(canvas), without=self.without)

    def scales(self, canvas: Canvas) -> Float[Tensor, " B"]:
        """w of each row as it stands now; 0 where it is not guided."""
        is_open = canvas.open(self.vocab)
        body = (canvas.valid & ~canvas.fixed).sum(-1)
        share = is_open.sum(-1).double() / body.clamp(min=1)
        factor = {"constant": torch.ones_like(share), "rising": 1 - share, "falling": share}[self.curve]
        prompted = (canvas.fixed & canvas.valid).any(-1)
        return torch.where(prompted & (share > self.low) & (share <= self.high), self.scale * factor, 0.0)


def guided(
    model: Denoiser,
    canvas: Canvas,
    at: Bool[Tensor, "B L"],
    scale: Float[Tensor, " B"],
    *,
    without: str,
    told: Float[Tensor, "N V"] | None = None,
) -> Float[Tensor, "N V"]:
    """The model's logits at the named positions; in rows of scale w > 0 those of (1 + w) log p - w log p(no prompt).

    Gradients flow through both readings, and into the scale.

    Args:
        told: the model's own logits there, if they are known.
    """
    logp = model(canvas, at) if told is None else told
    rows = (scale > 0).nonzero().squeeze(-1)
    if not len(rows):
        return logp
    logp = logp.log_softmax(-1)
    here = torch.zeros_like(scale, dtype=torch.bool).index_fill(0, rows, True)[at.nonzero()[:, 0]]
    blind = model(blinded(take_rows(canvas, rows), model.vocab, without), at[rows]).log_softmax(-1)
    w = scale[at.nonzero()[:, 0]][here, None].to(logp.dtype)
    own = logp[here]
    pushed = own + w * (own - blind)
    possible = (own > -torch.inf) & (blind > -torch.inf)  # where the blind law is 0 there is nothing to push from
    return put_rows(logp, here.nonzero().squeeze(-1), torch.where(possible, pushed, own))  # type: ignore[no-any-return]


def blinded(canvas: Canvas, vocab: Vocab, without: str) -> Canvas:
    """The rows without their prompt: "masked" or "absent", as `ClassifierFree` has it."""
    if without == "masked":
        x = canvas.x.masked_fill(canvas.fixed & canvas.valid, vocab.mask_id)
        return Canvas(x, canvas.fixed, canvas.window, canvas.segment, canvas.row_id)
    segment = torch.ones_like(canvas.x) if canvas.segment is None else canvas.segment
    return Canvas(canvas.x, canvas.fixed, canvas.window, segment.masked_fill(canvas.fixed, 0), canvas.row_id)
