"""The chain rule of a left-to-right model is its exact likelihood."""

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.likelihood.chain import exact_causal
from anyorder.testing.oracle import CausalView, MarkovOracle, Oracle, RandomTable, states_of

SEED = Noise.of(51)


def test_exact_for_an_oracle():
    oracle = Oracle.random(3, 4, noise=SEED)
    x = oracle.states
    got = exact_causal(CausalView(oracle), x, target=torch.ones_like(x, dtype=torch.bool))
    torch.testing.assert_close(got.nats, -oracle.log_prob(x), rtol=1e-12, atol=0)
    assert got.total().stderr == 0
    assert got.nfe == 1
    assert got.num_tokens.tolist() == [4] * 81


def test_any_left_to_right_model_sums_to_one():
    x = states_of(3, 4)
    got = exact_causal(CausalView(RandomTable(3, SEED)), x, target=torch.ones_like(x, dtype=torch.bool))
    assert float((-got.nats).exp().sum()) == pytest.approx(1, abs=1e-12)


def test_targets_documents_and_padding():
    chain = MarkovOracle.random(3, noise=SEED)
    a, b = chain.sample(2, 4, noise=SEED.at("x"))
    packed = torch.cat([a, b, torch.tensor([chain.vocab.pad_id])])[None]
    segment = torch.tensor([[1] * 4 + [2] * 4 + [0]])
    model = CausalView(chain)
    whole = exact_causal(model, packed, target=segment > 0, segment=segment)
    torch.testing.assert_close(whole.nats, -chain.log_prob(torch.stack([a, b])).sum()[None], rtol=1e-12, atol=0)
    answer = torch.zeros_like(segment, dtype=torch.bool)
    answer[0, 2:4] = True
    part = exact_causal(model, packed, target=answer, segment=segment)
    expected = -chain.transition.log()[a[1:3], a[2:4]].sum()
    torch.testing.assert_close(part.nats, expected[None], rtol=1e-12, atol=0)
    assert int(part.num_tokens) == 2
