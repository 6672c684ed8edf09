"""Samplers that judge what is written: editing in place, and RDM's conditional routing."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas, Vocab
from anyorder.samplers.adaptive import Threshold
from anyorder.samplers.base import generate, steps
from anyorder.samplers.blockwise import Blockwise
from anyorder.samplers.keep_best import Best, LowestConfidence
from anyorder.samplers.look import Look
from anyorder.samplers.position import Confidence
from anyorder.samplers.remasking import Remasking
from anyorder.samplers.revise import Edit, Written
from anyorder.samplers.token import TokenRule
from anyorder.samplers.unmask import Unmask, start
from anyorder.testing.contracts import blank
from anyorder.testing.oracle import RandomTable

NOISE = Noise.of(1)
TABLE = RandomTable(2, Noise.of(2))


@dataclass(frozen=True)
class Critic:
    """Sure of token 0 at masks; once nothing is masked, of 1 wherever 0 stands, one position a pass, from the left."""

    vocab: ClassVar[Vocab] = TABLE.vocab
    nfe: ClassVar[int] = 1

    def __call__(self, canvas, at):
        masked = (canvas.x == self.vocab.mask_id).any(-1)
        first = (canvas.x == 0) & ((canvas.x == 0).cumsum(-1) == 1)
        want = torch.where(~masked[:, None] & first, 1, torch.where(canvas.x < 2, canvas.x, 0))
        return torch.nn.functional.one_hot(want, self.vocab.size).double()[at] * 20


def test_editing_goes_on_after_the_last_mask_until_a_pass_changes_nothing():
    sampler = Unmask(Threshold(0.9), Confidence("prob"), revise=Edit(0.9, extra=16))
    canvas = blank(TABLE.vocab, 2, 3)
    canvas = replace(canvas, x=canvas.x.index_put((torch.tensor([1]), torch.tensor([0])), torch.tensor(1)))
    sample = generate(sampler, Critic(), canvas, noise=NOISE)
    assert sample.canvas.x.tolist() == [[1, 1, 1], [1, 1, 1]]
    assert sample.nfe.tolist() == [5, 4], "one to write, one for each edit, one that finds nothing"
    assert sample.revised.tolist() == [[1, 1, 1], [0, 1, 1]]
    assert sample.order.tolist() == [[1, 2, 3], [-1, 1, 2]]


def test_editing_ends_with_its_extra_passes_and_leaves_prompts_alone():
    sampler = Unmask(Threshold(0.9), Confidence("prob"), revise=Edit(0.9, extra=2))
    sample = generate(sampler, Critic(), blank(TABLE.vocab, 1, 4), noise=NOISE)
    assert sample.canvas.x.tolist() == [[1, 1, 0, 0]]
    prompt = Canvas.of(torch.tensor([[0, 2, 0]]), vocab=TABLE.vocab)
    assert generate(sampler, Critic(), prompt, noise=NOISE).canvas.x.tolist() == [[0, 0, 0]]


@dataclass(frozen=True)
class Hasty(Critic):
    """The same, whether or not something is masked."""

    def __call__(self, canvas, at):
        first = (canvas.x == 0) & ((canvas.x == 0).cumsum(-1) == 1)
        want = torch.where(first, 1, torch.where(canvas.x < 2, canvas.x, 0))
        return torch.nn.functional.one_hot(want, self.vocab.size).double()[at] * 20


def test_each_block_is_edited_before_the_next_begins():
    sampler = Blockwise(Unmask(Threshold(0.9), Confidence("prob"), revise=Edit(0.9)), 2)
    taken = [step.canvas.x[0].tolist() for step in steps(sampler, Hasty(), blank(TABLE.vocab, 1, 4), noise=NOISE)]
    assert taken[:4] == [[0, 0, 2, 2], [1, 0, 2, 2], [1, 1, 2, 2], [1, 1, 2, 2]]
    assert taken[-1] == [1, 1, 1, 1]


def test_editing_needs_a_legal_threshold():
    with pytest.raises(ValueError, match=r"sampler\.tau=1.5: must be in \[0, 1\]"):
        Edit(1.5)
    with pytest.raises(ValueError, match=r"sampler\.extra=-1: must be >= 0"):
        Edit(extra=-1)
    written = Written(Remasking(4))
    with pytest.raises(ValueError, match="needs count=Written"):
        Unmask(written, revise=Edit())


def test_rdm_sends_only_fallen_tokens_back():
    """At temperature 0 a written token is drawn again or not, with a score that it is compared by."""
    best_of = Best(4, curve="cosine", judge="drawn")
    rule = LowestConfidence(best_of, "fallen")
    canvas = Canvas.of(torch.tensor([[0, 1, 0, 2]]), vocab=TABLE.vocab)
    canvas = replace(canvas, fixed=torch.zeros(1, 4, dtype=torch.bool))

    class Fixed:
        nfe, vocab = 1, TABLE.vocab
        law = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.55, 0.45], [0.99, 0.01]], dtype=torch.float64).log()

        def __call__(self, canvas, at):
            return self.law.expand(len(canvas.x), 4, 2)[at]

    carry = replace(start(canvas, vocab=TABLE.vocab), step=torch.tensor([0]))
    look = lambda logp: Look(  # noqa: E731
        Fixed(), canvas, replace(carry, logp=torch.tensor([logp], dtype=torch.float64).log()), NOISE, TokenRule(0.0)
    )
    # one masked after step 1 of 4 by cosine: 4 cos(pi/8) = 3.7 -> 3 masks; kept: the mask's drawn token (0.99)
    assert rule(look([0.95, 0.9, 0.9, 1.0])).tolist() == [[2, 1, 2, 2]]  # position 1 would be drawn as another token
    assert rule(look([0.5, 0.9, 0.9, 1.0])).tolist() == [[0, 1, 2, 2]]  # position 0 has risen since
    lowest = LowestConfidence(best_of)
    assert lowest(look([0.5, 0.9, 0.9, 1.0])).tolist() == [[2, 2, 2, 2]]
    with pytest.raises(ValueError, match="'fallen' with"):
        LowestConfidence(Best(4), "fallen")


def test_a_full_row_goes_on_falling_until_its_steps_are_over():
    """Sure at masks; at written tokens less sure with each look, so that tokens fall from rows that are full."""

    class Fading:
        nfe, vocab = 1, TABLE.vocab

        def __call__(self, canvas, at):
            masked = (canvas.x == self.vocab.mask_id)[at]
            return torch.where(masked[:, None], torch.tensor([9.0, 0.0]), torch.tensor([1.0, 0.0])).double()

    rule = LowestConfidence(Best(6, judge="drawn"), "fallen")
    sampler = Unmask(rule.best, Confidence("drawn"), TokenRule(0.0), "draw_first", rule)
    sample = generate(sampler, Fading(), blank(TABLE.vocab, 1, 6), noise=NOISE)
    assert int(sample.nfe) == 6
    assert int(sample.revised.sum()) > 0
    assert not (sample.canvas.x == TABLE.vocab.mask_id).any()
