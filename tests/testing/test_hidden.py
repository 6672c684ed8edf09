"""Hidden Markov languages against their joint tables, explicit sums over states, and their own samples."""

import itertools
import math

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas
from anyorder.testing.hidden import (
    HiddenMarkovOracle,
    clock,
    clock_entropy,
    ngram,
    ngram_entropy,
    sparse_laws,
    stationary,
)
from anyorder.testing.laws import chi_square_p
from anyorder.testing.oracle import MarkovOracle, states_of

SEED = Noise.of(23)


def hidden(states=3, size=2, *, forbidden=0):
    laws = [sparse_laws(states, k, noise=SEED.at(f"{states}{k}"), forbidden=forbidden) for k in (states, size)]
    return HiddenMarkovOracle(sparse_laws(1, states, noise=SEED.at("first"))[0], *laws)


def trigram(size=2, *, forbidden=0):
    return sparse_laws(size**2, size, noise=SEED.at("trigram").at(size), forbidden=forbidden)


ALL = [hidden(), hidden(4, 3, forbidden=1), ngram(trigram()), ngram(trigram(3, forbidden=1)), clock(2, 4), clock(3, 3)]


def by_paths(oracle, x):
    """p(x) as a plain sum over all paths of states."""
    total = 0.0
    for path in itertools.product(range(len(oracle.initial)), repeat=len(x)):
        p = float(oracle.initial[path[0]])
        for before, after in itertools.pairwise(path):
            p *= float(oracle.transition[before, after])
        for state, token in zip(path, x):
            p *= float(oracle.emission[state, token])
        total += p
    return total


@pytest.mark.parametrize("oracle", ALL[:4])
def test_log_prob_sums_over_paths(oracle):
    x = states_of(oracle.vocab.size, 3)
    want = torch.tensor([by_paths(oracle, row) for row in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(oracle.log_prob(x), want.log(), rtol=1e-12, atol=1e-12)
    assert float(want.sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("oracle", ALL)
def test_conditionals_equal_those_of_the_joint_table(oracle):
    assert isinstance(oracle, Denoiser)
    length = 4 if oracle.vocab.size < 4 else 3
    joint = oracle.joint(length)
    canvas = Canvas.of(states_of(oracle.vocab.size + 1, length), vocab=oracle.vocab)
    at = torch.ones_like(canvas.fixed)
    got, want = oracle(canvas, at).exp(), joint(canvas, at).exp()
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    some = canvas.open(oracle.vocab) & (torch.arange(length) % 2 == 0)
    assert torch.equal(oracle(canvas, some).exp(), got[some[at]])


def test_states_that_emit_themselves_are_a_markov_chain():
    chain = MarkovOracle.random(3, noise=SEED.at("chain"))
    same = HiddenMarkovOracle(chain.initial, chain.transition, torch.eye(3, dtype=torch.float64))
    canvas = Canvas.of(states_of(4, 4), vocab=chain.vocab)
    at = torch.ones_like(canvas.fixed)
    torch.testing.assert_close(same(canvas, at), chain(canvas, at), rtol=0, atol=1e-12)
    x = states_of(3, 4)
    torch.testing.assert_close(same.log_prob(x), chain.log_prob(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("oracle", [hidden(4, 3, forbidden=1), ngram(trigram(3))])
def test_documents_are_separate_and_padding_is_silent(oracle):
    m, pad = oracle.vocab.mask_id, oracle.vocab.pad_id

    def answer(row, segment=None):
        given = None if segment is None else torch.tensor([segment])
        canvas = Canvas.of(torch.tensor([row]), vocab=oracle.vocab, segment=given)
        return oracle(canvas, canvas.open(oracle.vocab))

    packed = answer([0, m, m, m, 1, m, pad, pad], [1, 1, 1, 2, 2, 2, 0, 0])
    torch.testing.assert_close(packed, torch.cat([answer([0, m, m]), answer([m, 1, m])]), rtol=1e-12, atol=0)


def test_long_rows_do_not_underflow():
    law = trigram(3)
    oracle = ngram(law)
    x = oracle.sample(2, 800, noise=SEED.at("long"))
    hole = Canvas.of(x.masked_fill(torch.arange(800) == 400, oracle.vocab.mask_id), vocab=oracle.vocab)
    got = oracle(hole, hole.open(oracle.vocab)).exp()
    a, b, _, c, d = x[:, 398:403].unbind(-1)
    w = torch.arange(3)
    want = law[(a * 3 + b)[:, None], w] * law[b[:, None] * 3 + w, c[:, None]] * law[w * 3 + c[:, None], d[:, None]]
    torch.testing.assert_close(got, want / want.sum(-1, keepdim=True), rtol=1e-10, atol=0)
    assert bool(oracle.log_prob(x).isfinite().all())


def test_samples_follow_the_law_and_their_entropy_is_the_exact_one():
    oracle = hidden(3, 2)
    x = oracle.sample(40_000, 3, noise=SEED.at("draws"))
    counts = torch.bincount((x * torch.tensor([4, 2, 1])).sum(-1), minlength=8)
    joint = oracle.joint(3)
    assert chi_square_p(counts, joint.table) > 1e-4
    mean, stderr = oracle.entropy(3, samples=20_000, noise=SEED.at("entropy"))
    assert abs(mean - joint.entropy()) < 4 * stderr < 0.05


@pytest.mark.parametrize("law", [trigram(2), trigram(3, forbidden=1), sparse_laws(8, 2, noise=SEED)])
def test_ngrams_are_stationary_and_follow_their_law(law):
    oracle, size = ngram(law), law.shape[1]
    known = round(math.log(len(law), size))
    table = oracle.joint(known + 1).table.reshape(-1, size)
    torch.testing.assert_close(table, table.sum(-1, keepdim=True) * law, rtol=0, atol=1e-12)
    torch.testing.assert_close(table.sum(-1), table.reshape(size, -1).sum(0), rtol=0, atol=1e-12)
    for length in (1, known, known + 1, 5):
        assert ngram_entropy(law, length) == pytest.approx(oracle.joint(length).entropy(), abs=1e-12)


@pytest.mark.parametrize(("phases", "size"), [(2, 2), (2, 4), (3, 3)])
def test_clock(phases, size):
    oracle = clock(phases, size)
    assert clock_entropy(phases, size, 4) == pytest.approx(oracle.joint(4).entropy(), abs=1e-12)
    x = oracle.sample(50, 9, noise=SEED)
    assert bool(((x[:, 1:] - x[:, :-1]) % phases == 1).all())
    assert oracle.log_prob(torch.zeros(1, 2, dtype=torch.int64)).item() == -math.inf


def test_sparse_laws_forbid_so_many():
    law = sparse_laws(50, 5, noise=SEED, forbidden=2)
    assert bool(((law == 0).sum(-1) == 2).all())
    torch.testing.assert_close(law.sum(-1), torch.ones(50).double())
    assert len((law == 0).unique(dim=0)) > 5
    sharp = sparse_laws(50, 5, noise=SEED, sharpness=3.0)
    assert float(sharp.max(-1).values.mean()) > float(sparse_laws(50, 5, noise=SEED).max(-1).values.mean()) + 0.1


def test_stationary_law_of_chains_that_alternate():
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).double()
    assert stationary(swap).tolist() == [0.5, 0.5]
    uneven = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)
    torch.testing.assert_close(stationary(uneven), torch.tensor([0.75, 0.25]).double(), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: stationary(torch.eye(2).double()), "more than one stationary law"),
        (lambda: sparse_laws(2, 3, noise=SEED, forbidden=3), "forbidden=3: must be in 0..2"),
        (lambda: ngram(torch.ones(3, 2).double() / 2), "has 3 contexts of 2 tokens"),
        (lambda: ngram(torch.ones(1, 2).double() / 2), "n >= 2"),
        (lambda: clock(3, 4), "phases must be >= 2 and divide size"),
        (lambda: HiddenMarkovOracle(torch.ones(2).double(), torch.eye(2).double(), torch.eye(2).double()), "^initial"),
        (lambda: HiddenMarkovOracle(torch.ones(1).double(), torch.ones(1, 1), torch.ones(1, 1).double()), "^transit"),
    ],
)
def test_wrong_laws_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
