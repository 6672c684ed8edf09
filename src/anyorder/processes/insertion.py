"""Insertion (ILM): take out some tokens of a document, and say which are missing after which of those that are left.

No mask marks a gap and nothing says how long the document was. What is predicted is one insertion, any of the missing
tokens; with each document weighted by its number of lengths, L + 1, the optimum writes the law of the data.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser, Inserting
from anyorder.core.types import Batch, InsertionOut, Loss
from anyorder.processes.levels import Draw, levels
from anyorder.processes.row_mass import row_mass
from anyorder.processes.thin import Thinned, documents, end_of, how_many, thin

LengthWeight = Literal["len_plus_one", "document"]


@dataclass(frozen=True)
class Insertion:
    """Insertion: n of a document's L tokens are taken out, n uniform on 0..L, and put back one at a time.

    The loss of what is left is

        -1/n sum over missing tokens of log p(insert it in its gap)  +  binary cross-entropy of "nothing is missing".

    The prompt (outside `batch.target`) is never taken out and nothing is inserted into it. Its expectation, times L + 1
    and less log L!, bounds -log p of the document: a uniformly random order of insertion is one of L!, and all orders
    that end in the document add up.

    Args:
        length_weight: "len_plus_one" counts a document L + 1 times, once a length, and its optimum writes the law p of
            the data. "document" counts each once, as published; its optimum writes p / (L + 1), normalised: too many
            short texts.
        stop_class_weight: w in (0, 1): "nothing is missing" counts w and its opposite 1 - w, so that the optimum is no
            longer the chance that the document is complete; None: both count 1.
        stop_loss_weight: of the second term; leaves the optimum as it is.
        draw, group: how rows share their n, as in `MaskedDiffusion`.
        pack: what is left of several documents shares a row of the network's input; the loss is the same.
    Raises:
        ValueError: a weight outside its range.
    Source:
        arXiv:2505.05755. The weight L + 1 and the bound are derived in docs/reproduce/ilm.md and tested by enumeration.
    """

    paper: ClassVar[str] = "arXiv:2505.05755"
    length_weight: LengthWeight = "len_plus_one"
    stop_class_weight: float | None = None
    stop_loss_weight: float = 1.0
    draw: Draw = "antithetic"
    group: int = 1
    pack: bool = True

    def __post_init__(self) -> None:
        if self.stop_class_weight is not None and not 0.0 < self.stop_class_weight < 1.0:
            raise ValueError(
                f"stop_class_weight={self.stop_class_weight}: must be between 0 and 1; leave it out for 1:1"
            )
        if not 0.0 < self.stop_loss_weight <= 1.0:
            raise ValueError(f"stop_loss_weight={self.stop_loss_weight}: must be in (0, 1]")

    def loss(self, model: Denoiser, batch: Batch, *, noise: Noise) -> Loss:
        """Sum over documents of their weighted losses; `nelbo` is the unbiased bound whatever is trained.

        Raises:
            ValueError: end-of-document inside a document, or a model that does not insert.
        """
        if not isinstance(model, Inserting):
            raise ValueError("process.kind=ilm: the network has no insertion head; train one with it")
        given = documents(batch, vocab=model.vocab)
        level = levels(batch.sample_id, draw=self.draw, group=self.group, noise=noise)
        missing = how_many(given, level, batch.sample_id, noise=noise)
        thinned = thin(batch, given, missing, vocab=model.vocab, noise=noise, pack=self.pack)
        out = model.insertion(thinned.canvas, thinned.canvas.window)
        where, stop = insertion_nll(out, thinned, eos_id=end_of(model.vocab)), self.stop_nll(out, thinned)
        times = thinned.size + 1
        weight = times if self.length_weight == "len_plus_one" else torch.ones_like(times)
        bound = draw_of_bound(where, stop_nll(out, thinned), thinned).detach()
        return Loss(
            total=(weight * (where + self.stop_loss_weight * stop)).sum(),
            nelbo=bound.new_zeros(len(batch.tokens)).index_add(0, thinned.row, bound),
            num_tokens=int(thinned.size.sum()),
        )

    def stop_nll(self, out: InsertionOut, thinned: Thinned) -> Float[Tensor, " S"]:
        """The second term, with its class weights."""
        plain = stop_nll(out, thinned)
        if self.stop_class_weight is None:
            return plain
        return plain * torch.where(thinned.missing == 0, self.stop_class_weight, 1 - self.stop_class_weight)


def insertion_nll(out: InsertionOut, thinned: Thinned, *, eos_id: int) -> Float[Tensor, " S"]:
    """-1/n sum over the missing tokens of log p(position, token), nats; 0 where nothing is missing.

    The softmax of a document runs over its open positions and all tokens but end-of-document.
    """
    total = mass_of_documents(row_mass(out.states, out.head, without=eos_id), thinned)
    hit = (out.states[thinned.gap] * out.head[thinned.token].to(out.states.dtype)).sum(-1).to(total.dtype)
    mean_hit = torch.zeros_like(total).index_add(0, thinned.owner, hit) / thinned.missing.clamp(min=1)
    return torch.where(thinned.missing > 0, total - mean_hit, 0.0)


def draw_of_bound(where: Float[Tensor, " S"], stop: Float[Tensor, " S"], thinned: Thinned) -> Float[Tensor, " S"]:
    """(L + 1) (where + stop) - log L!, whose mean over n and over what is taken out bounds -log p; nats."""
    times = thinned.size + 1
    bound: Tensor = times * (where + stop) - torch.lgamma(times.to(where.dtype))
    return bound


def mass_of_documents(mass: Float[Tensor, " N"], thinned: Thinned) -> Float[Tensor, " S"]:
    """logsumexp over the positions of each document; 0 for one without an open position."""
    top = torch.full_like(thinned.size, -torch.inf, dtype=mass.dtype)
    top = top.scatter_reduce(0, thinned.document, mass.detach(), "amax").nan_to_num(neginf=0.0)
    share = (mass - top[thinned.document]).exp()
    total = torch.zeros_like(top).index_add(0, thinned.document, share)
    return top + torch.where(total > 0, total, 1.0).log()


def stop_nll(out: InsertionOut, thinned: Thinned) -> Float[Tensor, " S"]:
    """-log of the chance given to what is true: that something is missing, or nothing; nats."""
    complete = (thinned.missing == 0).to(out.stop.dtype)
    return F.binary_cross_entropy_with_logits(out.stop, complete, reduction="none")
