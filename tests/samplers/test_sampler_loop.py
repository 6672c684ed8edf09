"""The one loop: who takes part in a step, what it costs, when it ends."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas, Vocab
from anyorder.samplers.base import generate, steps
from anyorder.samplers.blockwise import Blockwise
from anyorder.samplers.count import Binomial, One, PerStep
from anyorder.samplers.position import Confidence, LeftToRight
from anyorder.samplers.token import TokenRule
from anyorder.samplers.unmask import Unmask
from anyorder.testing.contracts import CountingDenoiser, blank
from anyorder.testing.oracle import RandomTable

NOISE = Noise.of(1)
MODEL = RandomTable(3, Noise.of(2))
M = MODEL.vocab.mask_id


class Watched:
    """A denoiser that notes the rows and the number of positions of each call."""

    nfe = 1
    vocab = MODEL.vocab

    def __init__(self):
        self.rows, self.named = [], []

    def __call__(self, canvas, at):
        self.rows.append(canvas.row_id.tolist())
        self.named.append(at.sum(-1).tolist())
        return MODEL(canvas, at)


def rows_of_masks(*lengths):
    """Rows with 1, 2, ... masks at the right end of a prompt."""
    x = torch.zeros(len(lengths), max(lengths), dtype=torch.int64)
    for row, n in enumerate(lengths):
        x[row, x.shape[1] - n :] = M
    return Canvas.of(x, vocab=MODEL.vocab, row_id=torch.arange(len(lengths)) + 10)


def test_finished_rows_leave_the_compute():
    model = Watched()
    sample = generate(Unmask(), model, rows_of_masks(1, 3, 2), noise=NOISE)
    assert model.rows == [[10, 11, 12], [11, 12], [11]]
    assert sample.nfe.tolist() == [1, 3, 2]


def test_one_pass_names_only_what_is_written_unless_a_rule_needs_scores():
    plain, scored = Watched(), Watched()
    generate(Unmask(PerStep(2)), plain, rows_of_masks(5), noise=NOISE)
    generate(Unmask(PerStep(2), Confidence()), scored, rows_of_masks(5), noise=NOISE)
    assert plain.named == [[2], [2], [1]]
    assert scored.named == [[5], [3], [1]]


def test_rows_that_write_nothing_are_not_forwarded_and_idle_steps_make_no_call():
    model = CountingDenoiser(MODEL)
    taken = list(steps(Unmask(Binomial(50)), model, blank(MODEL.vocab, 3, 2), noise=NOISE))
    busy = [step for step in taken if step.wrote.any()]
    assert model.calls == len(busy) < len(taken) <= 50
    for step in taken:
        assert torch.equal(step.nfe, step.wrote.any(-1).long())


@dataclass(frozen=True)
class SureRows:
    """A count rule that looks at the logits and lets only some rows write."""

    one_at_a_time: ClassVar[bool] = True

    def chance(self, look):
        return None

    def __call__(self, look):
        rows = look.open.nonzero()[:, 0]
        first = torch.zeros(len(look.left), dtype=torch.float64).index_put((rows,), look.logits[:, 0], accumulate=True)
        return ((first > -1.1 * look.left) | (look.carry.step >= 2)).long()


def test_a_rule_that_asked_for_logits_shares_its_pass_with_the_draw():
    model, sampler = CountingDenoiser(MODEL), Unmask(SureRows(), LeftToRight(), TokenRule(temperature=0.0))
    canvas = blank(MODEL.vocab, 1, 3)
    prompt = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    canvas = Canvas.of(torch.cat([canvas.x.repeat(9, 1), prompt], 1), vocab=MODEL.vocab)
    taken = list(steps(sampler, model, canvas, noise=NOISE))
    mixed = [step for step in taken if step.wrote.any() and not step.wrote.any(-1).all()]
    assert model.calls <= len(taken)
    assert mixed, "no step in which some rows write and others only look"
    assert sum(step.nfe for step in taken).tolist() == [model.passes[row] for row in range(9)]
    before = canvas
    for step in taken:  # greedy tokens from the shared pass are those of a pass of their own
        wrote = step.wrote
        assert torch.equal(step.canvas.x[wrote], MODEL(before, wrote).argmax(-1))
        before = step.canvas


def test_only_the_window_is_written():
    canvas = blank(MODEL.vocab, 2, 4)
    window = torch.tensor([[True, False, True, False], [False] * 4])
    sample = generate(Unmask(), MODEL, replace(canvas, window=window), noise=NOISE)
    assert torch.equal(sample.canvas.x == M, ~window)
    assert sample.nfe.tolist() == [2, 0]


def test_nothing_to_write_costs_nothing():
    model = CountingDenoiser(MODEL)
    sample = generate(Unmask(), model, Canvas.of(torch.zeros(2, 3, dtype=torch.int64), vocab=MODEL.vocab), noise=NOISE)
    assert model.calls == 0
    assert sample.nfe.tolist() == [0, 0]
    assert (sample.order == -1).all()


class Lazy:
    """Never writes; its clock may run or stand."""

    paper, exact = "none", False

    def __init__(self, ticks):
        self.ticks = ticks

    def init(self, canvas, *, vocab):
        return Unmask().init(canvas, vocab=vocab)

    def step(self, model, canvas, carry, *, noise):
        done = Unmask(Binomial(10**6)).step(model, canvas, carry, noise=noise)
        carry = replace(carry, step=carry.step + self.ticks)
        return replace(done, canvas=canvas, carry=carry, wrote=torch.zeros_like(done.wrote))


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: Blockwise(s, 2)])
def test_a_sampler_that_repeats_itself_for_ever_is_stopped(wrap):
    with pytest.raises(RuntimeError, match=r"advance carry\.step"):
        generate(wrap(Lazy(0)), MODEL, blank(MODEL.vocab, 2, 3), noise=NOISE)
    stream = steps(wrap(Lazy(1)), MODEL, blank(MODEL.vocab, 2, 3), noise=NOISE)
    assert [int(next(stream).carry.step[0]) for _ in range(20)] == list(range(1, 21))


def test_streaming_gives_what_generate_gives_and_leaves_gradients_on():
    canvas = rows_of_masks(4, 2, 3)
    order = torch.full_like(canvas.x, -1)
    for index, step in enumerate(steps(Unmask(), MODEL, canvas, noise=NOISE)):
        assert torch.is_grad_enabled()
        assert step.canvas.x.shape == canvas.x.shape
        order = torch.where(step.wrote, index, order)
        last = step.canvas
    sample = generate(Unmask(), MODEL, canvas, noise=NOISE)
    assert torch.equal(sample.canvas.x, last.x)
    assert torch.equal(sample.order, order)


def test_a_model_without_a_law_is_reported():
    class Broken(Watched):
        vocab = Vocab(3, 3, 4)

        def __call__(self, canvas, at):
            return super().__call__(canvas, at) * torch.nan

    for token in (TokenRule(), TokenRule(temperature=0.0)):
        with pytest.raises(RuntimeError, match="no distribution to draw a token from; lower the guidance"):
            generate(Unmask(One(), token=token), Broken(), rows_of_masks(2), noise=NOISE)
