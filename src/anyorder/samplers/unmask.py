"""Unmasking as a product of rules: how many positions, which ones, which token, and which tokens go back."""

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.categorical import log_prob_of
from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas, Carry, Vocab, Write, put_rows, take_rows
from anyorder.samplers.base import idle
from anyorder.samplers.certainty import certainty
from anyorder.samplers.chances import count_log_prob, position_log_prob
from anyorder.samplers.count import One
from anyorder.samplers.look import CountRule, Look, PositionRule
from anyorder.samplers.position import Confidence, Uniform, check_together
from anyorder.samplers.revise import Keep, ReviseRule, check_paths
from anyorder.samplers.token import TokenRule


@dataclass(frozen=True)
class Unmask:
    """Choose how many, choose where, draw the tokens there: one network pass, one uniform per token.

    The mask never competes with the tokens in one categorical, and a row that writes nothing pays nothing.

    Args:
        count, position, token: the rules.
        order: "choose_first" settles the positions before any token is drawn, so the choice cannot tilt the tokens'
            law. "draw_first" draws a token at every open position and lets the position rule see them (MaskGIT, LLaDA);
            confident draws are kept more often than they should be, and the law is no longer the model's.
        revise: which written tokens go back to the mask, in the same step and seeing the same canvas as the writing.
        never_eos: never write the end of document; the model's distribution is taken without it.
    Raises:
        ValueError: rules that do not go together; (in `init`) a rule about the end of document, and a vocabulary
            without it.
    Source:
        arXiv:2409.02908, arXiv:2406.07524, arXiv:2502.06768, arXiv:2503.00307: each is one choice of rules
        (`presets.py`).
    """

    count: CountRule = field(default_factory=One)
    position: PositionRule = field(default_factory=Uniform)
    token: TokenRule = field(default_factory=TokenRule)

    order: Literal["choose_first", "draw_first"] = "choose_first"
    revise: ReviseRule = field(default_factory=Keep)
    never_eos: bool = False

    paper: ClassVar[str] = "arXiv:2406.07524, arXiv:2409.02908"

    def __post_init__(self) -> None:
        check_together(self.count, self.position, self.order)
        check_paths(self.count, self.revise, self.order)

    @property
    def exact(self) -> bool:
        """One position at a time, chosen before its token, and tokens from the model's own law."""
        kept = isinstance(self.revise, Keep)
        alone = self.count.one_at_a_time and self.order == "choose_first"
        return alone and self.token.exact and kept and not self.never_eos

    def init(self, canvas: Canvas, *, vocab: Vocab) -> Carry:
        eos_last = isinstance(self.position, Confidence) and self.position.eos_last
        if vocab.eos_id is None and (self.never_eos or eos_last):
            raise ValueError("sampler: the vocabulary has no end of document to keep back; leave that setting out")
        carry = start(canvas, vocab=vocab)
        if isinstance(self.revise, Keep):
            return carry
        more = torch.zeros_like(carry.step) if self.revise.extra else None
        return dataclasses.replace(carry, logp=torch.zeros_like(canvas.x, dtype=torch.float64), more=more)

    def step(self, model: Denoiser, canvas: Canvas, carry: Carry, *, noise: Noise) -> Write:
        look = Look(self._asked(model), canvas, carry, noise, self.token)
        if isinstance(self.revise, Keep):
            return self._unmask(look)
        revised = self.revise(look)  # first: it may ask about written positions too
        return self._wait(self._revise(self._unmask(look), look, revised), look)

    def log_prob(self, model: Denoiser, before: Canvas, carry: Carry, after: Canvas) -> Float[Tensor, " B"]:
        """As `Scorable`: how many positions, which ones, and their tokens; nats, float64.

        Raises:
            ValueError: a sampler that draws first, whose step depends on tokens nobody kept, or that revises.
        """
        if self.order != "choose_first" or not isinstance(self.revise, Keep):
            raise ValueError(
                f"sampler.order={self.order!r}, sampler.revise={type(self.revise).__name__}: its steps have no "
                "likelihood; use order='choose_first' and revise=Keep(), as first-hitting, ancestral, margin or moment"
            )
        look = Look(self._asked(model), before, carry, Noise.of(0), self.token)
        wrote = look.open & (after.x != before.x)
        where = count_log_prob(self.count, look, wrote.sum(-1)) + position_log_prob(self.position, look, wrote)
        tokens = log_prob_of(self.token.law(look.logits_at(wrote)), after.x[wrote])
        return where + torch.zeros_like(before.x, dtype=torch.float64).masked_scatter(wrote, tokens).sum(-1)

    def _asked(self, model: Denoiser) -> Denoiser:
        eos_id = model.vocab.eos_id
        return Without(model, eos_id) if self.never_eos and eos_id is not None else model

    def _revise(self, step: Write, look: Look, revised: Int[Tensor, "B L"]) -> Write:
        """The step with what becomes of the tokens that were visible before it; what it wrote is remembered."""
        assert look.carry.logp is not None
        edited = look.written & (revised != look.canvas.x) & (revised != look.model.vocab.mask_id)
        scores = certainty(look, "drawn") if self.order == "draw_first" else step.logp
        carry = dataclasses.replace(step.carry, logp=torch.where(step.wrote, scores, look.carry.logp))
        x = torch.where(look.written, revised, step.canvas.x)
        if look.carry.more is not None:
            full = look.left == step.wrote.sum(-1)
            again = torch.where((revised != look.canvas.x).any(-1), look.carry.more - 1, 0)
            more = torch.where(look.left == 0, again, torch.where(full, self.revise.extra, 0))
            over = (carry.step >= self.revise.num_steps) & (self.revise.num_steps > 0)
            carry = dataclasses.replace(carry, more=more.masked_fill(over, 0))
        return dataclasses.replace(
            step, canvas=dataclasses.replace(step.canvas, x=x), carry=carry, wrote=step.wrote | edited
        )

    def _wait(self, step: Write, look: Look) -> Write:
        """Rows without masks take their next steps at once, for free, until a token goes back or nothing can."""
        vocab = look.model.vocab
        while not self.revise.extra:
            full = ~(step.canvas.open(vocab) & step.canvas.window).any(-1)
            rows = (full & (step.carry.step < self.revise.num_steps)).nonzero().squeeze(-1)
            if not len(rows):
                break
            canvas, carry = take_rows(step.canvas, rows), take_rows(step.carry, rows)
            x = self.revise(Look(look.model, canvas, carry, look.noise, self.token))
            masked, later = dataclasses.replace(canvas, x=x), dataclasses.replace(carry, step=carry.step + 1)
            step = dataclasses.replace(
                step, canvas=put_rows(step.canvas, rows, masked), carry=put_rows(step.carry, rows, later)
            )
        return step

    def _unmask(self, look: Look) -> Write:
        canvas, carry = look.canvas, look.carry
        k = torch.minimum(self.count(look), look.left)
        rows = k.nonzero().squeeze(-1)
        if len(rows) == len(k):
            return self._write(look, k)
        rest = idle(canvas, dataclasses.replace(carry, step=carry.step + 1))
        return put_rows(rest, rows, self._write(look.take(rows), k[rows])) if len(rows) else rest

    def _write(self, look: Look, k: Int[Tensor, " B"]) -> Write:
        canvas, carry = look.canvas, look.carry
        chosen = self.position(look, k)
        if self.order == "draw_first":
            token, logp = (drawn[chosen[look.open]] for drawn in look.drawn)
        else:
            token, logp = self.token(look.logits_at(chosen), look.token_noise(chosen))
        at = chosen.nonzero(as_tuple=True)
        if not len(at[0]):  # every row was to write: without this the loop would ask again for ever
            raise RuntimeError(
                f"sampler.position={type(self.position).__name__}: chose no position although some are open; a "
                "position rule must choose k of them, whatever the scores (samplers.position.best does)"
            )
        return Write(
            canvas=dataclasses.replace(canvas, x=canvas.x.index_put(at, token)),
            carry=dataclasses.replace(carry, step=carry.step + 1),
            wrote=chosen,
            logp=torch.zeros_like(canvas.x, dtype=torch.float64).index_put(at, logp),
        )


@dataclass(frozen=True)
class Without:
    """A denoiser whose distribution leaves one token out."""

    model: Denoiser
    token: int

    @property
    def nfe(self) -> int:
        return self.model.nfe

    @property
    def vocab(self) -> Vocab:
        return self.model.vocab

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        logits = self.model(canvas, at)
        return logits.index_fill(-1, torch.tensor([self.token], device=logits.device), -torch.inf)


def start(canvas: Canvas, *, vocab: Vocab) -> Carry:
    """The carry of rows that have taken no step."""
    return Carry(step=torch.zeros_like(canvas.row_id), start=(canvas.open(vocab) & canvas.window).sum(-1))
