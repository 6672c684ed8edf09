"""Validation: ratios by hand, exact for exact models, and standard errors that mean what they say."""

import dataclasses
import math

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Batch
from anyorder.likelihood.exact import nelbo_enumerated
from anyorder.testing.oracle import CausalView, MarkovOracle, RandomTable, states_of
from anyorder.train.watch import _ratio, validate

NOISE = Noise.of(17)
BYTES = torch.tensor([1, 2, 3, 0, 0])


def batch_of(tokens, target=None):
    where = torch.ones_like(tokens, dtype=torch.bool) if target is None else target
    return Batch(tokens, where, None, torch.arange(len(tokens)))


def test_ratio_and_error_by_hand():
    """y = (1, 2, 6), x = (1, 1, 2): ratio 9/4; residuals -5/4, -1/4, 3/2; error sqrt(3 * 3.875/2) / 4."""
    ratio, error = _ratio(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1.0, 1.0, 2.0]))
    assert ratio == 9 / 4
    assert error == pytest.approx(math.sqrt(3 * (25 / 16 + 1 / 16 + 36 / 16) / 2) / 4)


def test_ratio_with_equal_weights_is_the_plain_standard_error():
    y = NOISE.normal(torch.arange(50))
    ratio, error = _ratio(y, torch.ones(50).double())
    assert ratio == pytest.approx(float(y.mean()))
    assert error == pytest.approx(float(y.std()) / 50**0.5)


def test_ratio_of_nothing_is_no_number():
    assert all(math.isnan(v) for v in _ratio(torch.zeros(3), torch.zeros(3)))
    ratio, error = _ratio(torch.tensor([3.0]), torch.tensor([2.0]))
    assert ratio == 1.5
    assert math.isnan(error)


def test_an_arm_is_scored_exactly_in_nats_and_bits():
    chain = MarkovOracle.random(3, noise=NOISE.at("chain"))
    x = chain.sample(20, 5, noise=NOISE.at("x"))
    target = torch.arange(5) > 0
    target = target.repeat(20, 1)
    batches = [batch_of(x[:7], target[:7]), batch_of(x[7:], target[7:])]
    value = validate(CausalView(chain), batches, kind="arm", draws=2, noise=NOISE, bytes_per_token=BYTES)
    nats = -chain.transition.log()[x[:, :-1], x[:, 1:]].sum()
    assert value.num_tokens == 80
    assert value.nats_per_token == pytest.approx(float(nats) / 80)
    num_bytes = int((x[:, 1:] + 1).sum())
    assert value.bits_per_byte == pytest.approx(float(nats) / math.log(2) / num_bytes)
    again = validate(CausalView(chain), batches, kind="arm", draws=2, noise=Noise.of(1), bytes_per_token=BYTES)
    assert again == value


def test_uniform_logits_cost_log_v_whatever_is_masked():
    x = states_of(3, 3)
    value = validate(
        RandomTable(3, NOISE, scale=0.0),
        [batch_of(x)],
        kind="mdm",
        draws=2,
        noise=NOISE,
        bytes_per_token=torch.zeros(5).long(),
    )
    assert value.nats_per_token == pytest.approx(math.log(3))
    assert value.stderr == pytest.approx(0, abs=1e-12)
    assert math.isnan(value.bits_per_byte)


def test_an_mdm_s_standard_error_covers_text_and_masks():
    """z-scores over 150 independent validation sets, each of 40 random rows of a known law: mean 0, spread 1."""
    table = RandomTable(3, NOISE.at("table"))
    states = states_of(3, 4)
    exact = nelbo_enumerated(table, states)
    mean = float(exact.mean()) / 4  # rows uniform over all states
    scores = []
    for i in range(150):
        pick = (NOISE.at("rows").uniform(torch.arange(40), i) * 81).long()
        batch = dataclasses.replace(batch_of(states[pick]), sample_id=torch.arange(40) + 40 * i)
        value = validate(table, [batch], kind="mdm", draws=2, noise=NOISE, bytes_per_token=BYTES)
        scores.append((value.nats_per_token - mean) / value.stderr)
    z = torch.tensor(scores)
    assert abs(float(z.mean())) < 4 / 150**0.5
    assert float(z.std()) == pytest.approx(1.0, abs=0.24)  # 4 standard errors of a standard deviation of 150 values


def test_validation_does_not_depend_on_how_rows_are_batched():
    table, x = RandomTable(3, NOISE.at("table")), states_of(3, 4)[::5]
    whole = batch_of(x)
    parts = [Batch(x[r], whole.target[r], None, r) for r in torch.arange(len(x)).split(5)]
    a, b = (
        validate(table, batches, kind="mdm", draws=4, noise=NOISE, bytes_per_token=BYTES)
        for batches in ([whole], parts)
    )
    assert dataclasses.astuple(a) == pytest.approx(dataclasses.astuple(b), rel=1e-12)
