"""A model that answers nan ends every sampler with one sentence; settings that would make one are refused."""

import itertools

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas, Vocab
from anyorder.guidance.classifier_free import ClassifierFree
from anyorder.rl.rollout import roll_out
from anyorder.samplers.base import steps
from anyorder.samplers.blockwise import Blockwise
from anyorder.samplers.count import One
from anyorder.samplers.flexmdm import InsertMasks
from anyorder.samplers.inserted import opened
from anyorder.samplers.presets import PRESETS, make_sampler
from anyorder.samplers.schedules import hand
from anyorder.samplers.steered import Steered
from anyorder.samplers.unmask import Unmask

NOISE = Noise.of(3)
SENTENCE = "the model's logits are nan, \\+inf or all -inf .* lower the guidance"
VOCAB = Vocab(size=5, mask_id=5, pad_id=6, eos_id=4)


class Broken:
    """Answers nan everywhere, or at some positions only; counts its forward passes."""

    nfe = 1

    def __init__(self, where=slice(None), value=torch.nan, *, vocab=VOCAB):
        self.where, self.value, self.vocab, self.calls = where, value, vocab, 0

    def __call__(self, canvas, at):
        self.calls += 1
        place = at.nonzero()[:, 1]
        bad = torch.zeros(at.shape[1], dtype=torch.bool)
        bad[self.where] = True
        logits = torch.arange(float(self.vocab.size)).repeat(len(place), 1)
        return logits.masked_fill(bad[place, None], self.value)


def blank(rows=2, length=6):
    return Canvas.of(torch.full((rows, length), VOCAB.mask_id), vocab=VOCAB)


def ends(sampler, model=None, canvas=None):
    with pytest.raises(RuntimeError, match=SENTENCE):
        list(itertools.islice(steps(sampler, model or Broken(), canvas or blank(), noise=NOISE), 300))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_refuses_nan(name):
    ends(make_sampler(name, num_steps=3 if PRESETS[name].paced else None))


@pytest.mark.parametrize("name", ["top-prob", "margin", "entropy", "threshold", "factor", "moment", "low-confidence"])
def test_nan_at_one_position_alone_is_written_at_once_and_refused(name):
    for temperature in (0.0, 1.0):
        model = Broken(slice(4, 5))
        ends(make_sampler(name, temperature=temperature, block=6), model)
        assert model.calls == 1
    ends(make_sampler(name), Broken(slice(2, 3), torch.inf))


@pytest.mark.parametrize("name", ["first-hitting", "top-prob", "causal"])
def test_greedy_tokens_refuse_an_infinite_logit_as_drawn_ones_do(name):
    for value in (torch.inf, -torch.inf):
        ends(make_sampler(name, temperature=0.0), Broken(value=value))


@pytest.mark.parametrize("order", ["draw_first", "choose_first"])
def test_steered_samplers_and_rollouts_refuse_nan(order):
    sampler = Steered(hand("maskgit", 3), order=order)
    ends(sampler)
    with pytest.raises(RuntimeError, match=SENTENCE):
        roll_out(Broken(), sampler, blank(), noise=NOISE, policy=None, explore=False)


@pytest.mark.parametrize("name", ["insertion", "ilm", "insertion:at_once=2"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_insertion_refuses_nan_in_its_scores_and_in_its_stop(name, temperature):
    class NoStop(Broken):
        def __call__(self, canvas, at):
            first = at.nonzero()[:, 1] == 0
            return torch.where(
                first[:, None] & (torch.arange(5) == 4), torch.nan, super().__call__(canvas, at).nan_to_num()
            )

    for model in (Broken(), NoStop()):
        canvas = opened([[1, 2]], gaps=[[0, 2]], length=8, vocab=VOCAB, row_id=torch.arange(1))
        ends(make_sampler(name, temperature=temperature), model, canvas)


def test_guidance_that_overflows_is_refused_before_anything_is_written():
    for scale in (1e39, float("inf"), float("nan"), -1.0):
        with pytest.raises(ValueError, match=r"guidance.scale=.*: must be >= 0 and at most 1e\+06"):
            ClassifierFree(Broken(), scale)


@pytest.mark.parametrize(
    "spec",
    ["moment:beta=inf", "maskgit:noise=inf", "maskgit:noise=nan", "top-prob:noise=inf", "factor:f=inf", "ilm:stop=nan"],
)
def test_settings_that_are_not_finite_are_refused(spec):
    with pytest.raises(ValueError, match="must be finite; published is"):
        make_sampler(spec)


def test_a_position_rule_that_chooses_nothing_is_named():
    class Nowhere:
        def weights(self, look):
            return None

        def __call__(self, look, k):
            return torch.zeros_like(look.open)

    for sampler in (Unmask(One(), Nowhere()), Blockwise(Unmask(One(), Nowhere()), 2)):
        with pytest.raises(RuntimeError, match="position=Nowhere: chose no position although some are open"):
            next(steps(sampler, Broken(slice(0)), blank(), noise=NOISE))


def test_growing_rows_refuse_nan_in_tokens_rates_and_stop():
    class Growing(Broken):
        def __init__(self, column):
            super().__init__()
            self.column = column

        def __call__(self, canvas, at):
            logits = torch.zeros(int(at.sum()), VOCAB.size + 2)
            logits[:, self.column] = torch.nan
            return logits

    for column in (0, VOCAB.size, VOCAB.size + 1):
        canvas = Canvas.of(torch.tensor([[4, 5, 6, 6]]), vocab=VOCAB, segment=torch.tensor([[1, 1, 0, 0]]))
        ends(InsertMasks(), Growing(column), canvas)
