"""The likelihood a sampler gives to a text: let it choose where to write, and write the text there."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.categorical import log_prob_of
from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas, Carry, Vocab, Write
from anyorder.samplers.passes import places
from anyorder.samplers.revise import Keep
from anyorder.samplers.unmask import Unmask


@dataclass(frozen=True)
class Forced:
    """`inner` with its tokens replaced by those of `x0`: `generate(...).logp` is the log-probability of its path.

    Rules that draw nothing (confidence, margin, entropy, left to right; any count but Binomial) have one path for
    each text, so this is the exact log-likelihood of the sampler, for any network: over all texts it sums to 1.
    A rule that draws its positions gives the log-probability of the tokens along one drawn path; its mean bounds.

    Args:
        inner: a sampler that chooses positions before it draws tokens.
        x0: the texts, one row for each of `row_id`.
    Raises:
        ValueError: a sampler that draws first: its positions depend on tokens that are not the text's; or that revises:
            many paths lead to one text.
    Source:
        arXiv:2603.01367 (DUEL: exact likelihood of deterministic unmasking policies).
    """

    inner: Unmask
    x0: Int[Tensor, "N L"]
    row_id: Int[Tensor, " N"]

    paper: ClassVar[str] = "arXiv:2603.01367"

    def __post_init__(self) -> None:
        if not isinstance(self.inner.revise, Keep):
            raise ValueError(
                f"sampler.revise={type(self.inner.revise).__name__}: has no likelihood of this kind; use revise=Keep()"
            )
        if self.inner.order != "choose_first":
            raise ValueError("sampler.order='draw_first': has no likelihood of this kind; use order='choose_first'")

    @property
    def exact(self) -> bool:
        return False  # it writes what it is given

    def init(self, canvas: Canvas, *, vocab: Vocab) -> Carry:
        return self.inner.init(canvas, vocab=vocab)

    def step(self, model: Denoiser, canvas: Canvas, carry: Carry, *, noise: Noise) -> Write:
        heard = Listener(model)
        step = self.inner.step(heard, canvas, carry, noise=noise)
        text = self.x0[places(canvas.row_id, among=self.row_id)]
        logits = self.inner.token.law(heard.logits_at(canvas, step.wrote))
        logp = torch.zeros_like(step.logp).masked_scatter(step.wrote, log_prob_of(logits, text[step.wrote]))
        x = torch.where(step.wrote, text, canvas.x)
        return dataclasses.replace(step, canvas=dataclasses.replace(canvas, x=x), logp=logp)


class Listener:
    """A denoiser that remembers what it answered in a step."""

    def __init__(self, model: Denoiser) -> None:
        self.model = model
        self.heard: list[tuple[Int[Tensor, " B"], Bool[Tensor, "B L"], Float[Tensor, "N V"]]] = []

    @property
    def nfe(self) -> int:
        return self.model.nfe

    @property
    def vocab(self) -> Vocab:
        return self.model.vocab

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        logits = self.model(canvas, at)
        self.heard.append((canvas.row_id, at, logits))
        return logits

    def logits_at(self, canvas: Canvas, wrote: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        """What was answered at the written positions, row-major; a step makes one pass, or none if it wrote nothing."""
        if not self.heard:
            return torch.zeros(0, self.vocab.size, dtype=torch.float64, device=canvas.x.device)
        (row_id, at, logits) = self.heard[0]
        rows = places(row_id, among=canvas.row_id)
        return logits[wrote[rows][at]]
