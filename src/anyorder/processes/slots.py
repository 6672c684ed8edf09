"""Insertion Transformer (IT): one softmax for each gap, in which end-of-document says that nothing is missing there."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser, Inserting
from anyorder.core.types import Batch, InsertionOut, Loss
from anyorder.processes.levels import Draw, levels
from anyorder.processes.row_mass import row_mass
from anyorder.processes.thin import Thinned, documents, end_of, how_many, ranks_within, thin


@dataclass(frozen=True)
class Slots:
    """Insertion Transformer with the uniform loss, as trained for comparison with ILM.

    Of a gap with c missing tokens the loss is

        -(sum over them of log p(token | gap) + eos_weight log p(end-of-document | gap)) / (c + 1),

    summed over gaps. No bound on -log p is known; `nelbo` is this loss.

    Args:
        eos_weight: of saying, in every gap, that nothing is missing.
        tau: the missing tokens of a gap share their weight c by softmax(-distance from the middle / tau): a model that
            learns to put the middle one first fills all gaps in floor(log2 L) + 1 rounds. None: uniformly, which is
            the limit of a large tau.
        draw, group, pack: as in `Insertion`.
    Raises:
        ValueError: a weight or a tau that is not positive.
    Source:
        arXiv:1902.03249, uniform and binary-tree loss; arXiv:2505.05755 for end-of-document in every gap.
    """

    paper: ClassVar[str] = "arXiv:1902.03249"
    eos_weight: float = 1.0
    tau: float | None = None
    draw: Draw = "antithetic"
    group: int = 1
    pack: bool = True

    def __post_init__(self) -> None:
        if not self.eos_weight > 0.0:
            raise ValueError(f"eos_weight={self.eos_weight}: must be > 0, or no gap is ever closed")
        if self.tau is not None and not self.tau > 0.0:
            raise ValueError(f"tau={self.tau}: must be > 0; leave it out for the uniform loss")

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
        nll = slot_nll(out, thinned, eos_id=end_of(model.vocab), eos_weight=self.eos_weight, tau=self.tau)
        row = thinned.row[thinned.document]
        return Loss(
            total=nll.sum(),
            nelbo=nll.detach().new_zeros(len(batch.tokens)).index_add(0, row, nll.detach()),
            num_tokens=int(thinned.size.sum()),
        )


def slot_nll(
    out: InsertionOut, thinned: Thinned, *, eos_id: int, eos_weight: float, tau: float | None = None
) -> Float[Tensor, " N"]:
    """The loss of each open position, nats."""
    mass = row_mass(out.states, out.head)
    weight = out.head.to(out.states.dtype)
    ends = mass - (out.states @ weight[eos_id]).to(mass.dtype)
    hit = (out.states[thinned.gap] * weight[thinned.token]).sum(-1).to(mass.dtype)
    count = torch.zeros_like(mass).index_add(0, thinned.gap, torch.ones_like(hit))
    share = hit if tau is None else hit * middle_weight(thinned.gap, tau=tau).to(hit.dtype) * count[thinned.gap]
    tokens = count * mass - torch.zeros_like(mass).index_add(0, thinned.gap, share)
    return (tokens + eos_weight * ends) / (count + 1)


def middle_weight(gap: Int[Tensor, " M"], *, tau: float) -> Float[Tensor, " M"]:
    """softmax(-|(m - 1)/2 - i| / tau) over the m missing tokens of each gap, i counting them in reading order."""
    count = gap.bincount()
    i = ranks_within(torch.arange(len(gap), device=gap.device).double(), gap, count)
    m = count[gap]
    away = (i - (m - 1).double() / 2).abs() - (m + 1) % 2 / 2  # less that of the nearest, so that it never vanishes
    share = (-away / tau).exp()
    return share / share.new_zeros(len(count)).index_add(0, gap, share)[gap]
