"""Insertion Transformer (IT): one softmax for each gap, in which end-of-document says that nothing is missing there."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser, Inserting
from anyorder.core.types import Batch, InsertionOut, Loss
from anyorder.processes.levels import Draw, levels
from anyorder.processes.row_mass import row_mass
from anyorder.processes.thin import Thinned, documents, end_of, how_many, thin


@dataclass(frozen=True)
class Slots:
    """Insertion Transformer with the uniform loss, as trained for comparison with ILM: of a gap with c missing tokens

        -(sum over them of log p(token | gap) + eos_weight log p(end-of-document | gap)) / (c + 1),

    summed over gaps. No bound on -log p is known; `nelbo` is this loss.

    Args:
        eos_weight: of saying, in every gap, that nothing is missing.
        draw, group, pack: as in `Insertion`.
    Raises:
        ValueError: a weight that is not positive.
    Source:
        arXiv:1902.03249, uniform loss; arXiv:2505.05755 for end-of-document in every gap.
    """

    paper: ClassVar[str] = "arXiv:1902.03249"
    eos_weight: float = 1.0
    draw: Draw = "antithetic"
    group: int = 1
    pack: bool = True

    def __post_init__(self) -> None:
        if not self.eos_weight > 0.0:
            raise ValueError(f"eos_weight={self.eos_weight}: must be > 0, or no gap is ever closed")

    def loss(self, model: Denoiser, batch: Batch, *, noise: Noise) -> Loss:
        """Sum over gaps, nats.

        Raises:
            ValueError: as `Insertion.loss`.
        """
        if not isinstance(model, Inserting):
            raise ValueError("process.kind=it: the network has no insertion head; train one with it")
        given = documents(batch, vocab=model.vocab)
        level = levels(batch.sample_id, draw=self.draw, group=self.group, noise=noise)
        missing = how_many(given, level, batch.sample_id, noise=noise)
        thinned = thin(batch, given, missing, vocab=model.vocab, noise=noise, pack=self.pack)
        out = model.insertion(thinned.canvas, thinned.canvas.window)
        nll = slot_nll(out, thinned, eos_id=end_of(model.vocab), eos_weight=self.eos_weight)
        row = thinned.row[thinned.document]
        return Loss(
            total=nll.sum(),
            nelbo=nll.detach().new_zeros(len(batch.tokens)).index_add(0, row, nll.detach()),
            num_tokens=int(thinned.size.sum()),
        )


def slot_nll(out: InsertionOut, thinned: Thinned, *, eos_id: int, eos_weight: float) -> Float[Tensor, " N"]:
    """The loss of each open position, nats."""
    mass = row_mass(out.states, out.head)
    weight = out.head.to(out.states.dtype)
    ends = mass - (out.states @ weight[eos_id]).to(mass.dtype)
    hit = (out.states[thinned.gap] * weight[thinned.token]).sum(-1).to(mass.dtype)
    count = torch.zeros_like(mass).index_add(0, thinned.gap, torch.ones_like(hit))
    tokens = count * mass - torch.zeros_like(mass).index_add(0, thinned.gap, hit)
    return (tokens + eos_weight * ends) / (count + 1)
