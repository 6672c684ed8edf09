"""Autoregression is the chain rule, exactly."""

import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Batch, Canvas
from anyorder.models import ModelConfig, Transformer
from anyorder.processes import Autoregressive
from anyorder.testing.contracts import Leaf
from anyorder.testing.oracle import CausalView, MarkovOracle, RandomTable, states_of, vocab_of

NOISE = Noise.of(31)


def batch_of(x, target=None, segment=None):
    return Batch(x, torch.ones_like(x, dtype=torch.bool) if target is None else target, segment, torch.arange(len(x)))


def test_the_loss_of_a_markov_chain_is_minus_log_p():
    chain = MarkovOracle.random(3, noise=NOISE)
    x = chain.sample(50, 7, noise=NOISE.at("x"))
    loss = Autoregressive().loss(CausalView(chain), batch_of(x), noise=NOISE)
    torch.testing.assert_close(loss.nelbo.double(), -chain.log_prob(x), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(loss.total, loss.nelbo.sum())
    assert loss.num_tokens == 350


def test_the_loss_of_any_causal_model_is_the_chain_rule_by_hand():
    model = CausalView(RandomTable(3, NOISE.at("table")))
    x = states_of(3, 4)
    target = torch.tensor([False, True, True, True]).repeat(81, 1)
    loss = Autoregressive().loss(model, batch_of(x, target), noise=NOISE)
    expected = torch.zeros(81, dtype=torch.float64)
    for i in range(1, 4):
        prefix = x.clone()
        prefix[:, i:] = model.vocab.mask_id
        at = torch.zeros_like(target)
        at[:, i] = True
        logits = model.inner(Canvas.of(prefix, vocab=model.vocab), at)
        expected -= logits.log_softmax(-1).gather(1, x[:, i : i + 1]).squeeze(1)
    torch.testing.assert_close(loss.nelbo.double(), expected, rtol=1e-6, atol=1e-6)
    assert loss.num_tokens == 243


def test_the_probabilities_of_a_network_sum_to_one():
    vocab = vocab_of(3)
    vocab = type(vocab)(size=3, mask_id=3, pad_id=4, eos_id=2)
    model = Transformer(ModelConfig(num_layers=2, num_heads=2, d_model=16, d_ff=32, causal=True), vocab)
    model.init_weights(NOISE.at("weights"))
    for p in model.parameters():
        p.data.mul_(2.0)
    loss = Autoregressive().loss(model, batch_of(states_of(3, 4)), noise=NOISE)
    torch.testing.assert_close((-loss.nelbo.double()).exp().sum(), torch.tensor(1.0).double(), atol=1e-5, rtol=0)
    assert loss.nelbo.std() > 0.1


def test_gradient_reaches_targets_only_and_noise_is_not_used():
    x = torch.tensor([[0, 1, 2, 4], [2, 2, 0, 1]])
    target = torch.tensor([[False, True, True, False], [True, True, True, True]])
    logits = torch.zeros(2, 4, 3, requires_grad=True)
    loss = Autoregressive().loss(Leaf(logits, vocab_of(3)), batch_of(x, target, (x != 4).long()), noise=NOISE)
    loss.total.backward()
    one_hot = torch.nn.functional.one_hot(x.clamp(max=2), 3)
    torch.testing.assert_close(logits.grad, (1 / 3 - one_hot) * target[..., None])
    again = Autoregressive().loss(Leaf(logits, vocab_of(3)), batch_of(x, target), noise=Noise.of(99))
    assert torch.equal(again.nelbo, loss.nelbo)
