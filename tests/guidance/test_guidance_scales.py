"""Test T9: however its scale is written guidance is one law, without it the other reading is not touched."""

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.samplers.look import Look
from anyorder.samplers.schedules import Table
from anyorder.samplers.steered import Steered
from anyorder.testing.oracle import vocab_of

NOISE = Noise.of(19)
V, ROWS, LENGTH = 6, 4, 5
VOCAB = vocab_of(V)


class TwoReadings(torch.nn.Module):
    """Logits of each position with the prompt in sight, and others without; unnormalised."""

    nfe, vocab = 1, VOCAB

    def __init__(self):
        super().__init__()
        place = torch.arange(LENGTH * V).view(LENGTH, V)
        self.told, self.blind = (torch.nn.Parameter(3 * NOISE.normal(i, 0, place)) for i in torch.arange(2))
        self.asked = 0

    def __call__(self, canvas, at):
        self.asked += 1
        row, position = at.nonzero(as_tuple=True)
        sees = (canvas.x[:, 0] != VOCAB.mask_id)[row, None]
        return torch.where(sees, self.told[position], self.blind[position])


def asked():
    x = torch.full((ROWS, LENGTH), VOCAB.mask_id)
    x[:, 0] = torch.arange(ROWS)
    return Canvas.of(x, vocab=VOCAB)


def knobs(guidance, heat=1.0):
    made = torch.tensor([[0.5, 1.0, heat, 0.0]] * ROWS, dtype=torch.float64)
    made[:, 3] = torch.tensor(guidance)
    return made


def laws(model, setting):
    """Log-probabilities that tokens are drawn from, (rows, open positions, V)."""
    canvas = asked()
    law = Steered(Table(((0.0, 1.0, 1.0, 0.0),))).laws(model, canvas, canvas.open(VOCAB), setting)[1]
    return law.log_softmax(-1).view(ROWS, LENGTH - 1, V)


@pytest.mark.parametrize("s", [1.5, 4.0, 9.0])
@pytest.mark.parametrize("heat", [1.0, 0.4])
def test_scales_that_are_written_differently_are_one_law(s, heat):
    model, w = TwoReadings(), s - 1
    told, blind = model.told[1:], model.blind[1:]
    got = laws(model, knobs([w] * ROWS, heat))
    for theirs in (
        blind + s * (told - blind),  # Meissonic
        told + w * (told - blind),  # AdaNAT
        (1 + w) * told - w * blind,  # Show-o
        blind + (w + 1) * (told - blind),  # LLaDA
    ):
        want = (theirs / heat).log_softmax(-1).expand_as(got)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_rows_that_are_not_guided_are_the_model_s_own_and_leave_the_other_reading_alone():
    model = TwoReadings()
    got = laws(model, knobs([0.0] * ROWS))
    assert torch.equal(got[0], model.told[1:].log_softmax(-1))
    assert model.asked == 1
    got.select(-1, 0).sum().backward()
    assert model.told.grad.abs().sum() > 0
    assert model.blind.grad is None or not bool(model.blind.grad.any())
    model.zero_grad()
    mixed = laws(model, knobs([0.0, 2.0, 0.0, 0.5]))
    torch.testing.assert_close(mixed[0], model.told[1:].log_softmax(-1), rtol=0, atol=1e-12)
    mixed[[0, 2]].select(-1, 0).sum().backward(retain_graph=True)
    assert not bool(model.blind.grad.any())
    mixed[[1, 3]].select(-1, 0).sum().backward()
    assert model.blind.grad.abs().sum() > 0


@pytest.mark.parametrize("order", ["draw_first", "choose_first"])
def test_towards_temperature_zero_the_guided_argmax_is_drawn(order):
    model, w = TwoReadings(), 2.5
    best = (model.told + w * (model.told - model.blind))[1:].argmax(-1)
    assert not torch.equal(best, model.told[1:].argmax(-1))
    for heat in (1e-3, 0.0):
        sampler = Steered(Table(((0.0, 1.0, heat, w),)), order=order)
        canvas = asked()
        look = Look(model, canvas, sampler.init(canvas, vocab=VOCAB), NOISE)
        made = sampler.decide(look, sampler.steering(look))
        assert torch.equal(made.token[:, 1:], best.expand(ROWS, -1))
        assert float(made.logp.abs().max().detach()) < 1e-6
    surest = [float(laws(model, knobs([w] * ROWS, heat)).amax(-1).mean().detach()) for heat in (1.0, 0.3, 0.1, 0.0)]
    assert surest == sorted(surest)
    assert surest[0] < -0.05
