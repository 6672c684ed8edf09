"""Oracles against brute-force conditionals, each other, and their own samples."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas, Vocab
from anyorder.testing.laws import chi_square_p
from anyorder.testing.oracle import CausalView, MarkovOracle, Oracle, RandomTable, states_of
from anyorder.testing.tiny import oracle_a, oracle_b, oracle_c

SEED = Noise.of(11)
ALL = [Oracle.random(3, 4, noise=SEED), MarkovOracle.random(3, noise=SEED), RandomTable(3, SEED)]
ALL += [CausalView(d) for d in ALL]


def canvas_of(rows: list[list[int]], vocab: Vocab, segment: list[list[int]] | None = None) -> Canvas:
    return Canvas.of(torch.tensor(rows), vocab=vocab, segment=None if segment is None else torch.tensor(segment))


def all_canvases(size: int, length: int, vocab: Vocab) -> Canvas:
    return Canvas.of(states_of(size + 1, length), vocab=vocab)


def brute_conditional(oracle: Oracle, row: list[int], position: int) -> list[float]:
    """p(x_position | visible others) by a plain loop over the table."""
    mass = [0.0] * oracle.size
    for p, state in zip(oracle.table.tolist(), itertools.product(range(oracle.size), repeat=oracle.length)):
        if all(v in (oracle.size, s) or j == position for j, (v, s) in enumerate(zip(row, state))):
            mass[state[position]] += p
    total = sum(mass)
    return [m / total if total else 1 / oracle.size for m in mass]


@pytest.mark.parametrize(
    "oracle", [Oracle.random(2, 3, noise=SEED), Oracle.random(3, 2, noise=SEED), oracle_a(), oracle_c(3)]
)
def test_oracle_conditionals_by_brute_force(oracle):
    canvas = all_canvases(oracle.size, oracle.length, oracle.vocab)
    at = torch.ones_like(canvas.fixed)
    got = oracle(canvas, at).exp()
    expected = [brute_conditional(oracle, row, j) for row in canvas.x.tolist() for j in range(oracle.length)]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("denoiser", ALL, ids=lambda d: repr(d)[:30])
def test_denoiser_contract(denoiser):
    assert isinstance(denoiser, Denoiser)
    canvas = all_canvases(3, 4, denoiser.vocab)
    before = canvas.x.clone()
    at = canvas.open(denoiser.vocab)
    logits = denoiser(canvas, at)
    assert logits.shape == (int(at.sum()), 3)
    assert logits.dtype == torch.float64
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(len(logits)).double(), rtol=1e-12, atol=0)
    assert torch.equal(canvas.x, before)
    some = at & (torch.arange(4) % 2 == 0)  # named positions only, row-major
    assert torch.equal(denoiser(canvas, some), logits[some[at]])
    alone = Canvas.of(canvas.x[77:78], vocab=denoiser.vocab)
    torch.testing.assert_close(
        denoiser(alone, at[77:78]), logits[at[:77].sum() : at[:78].sum()], rtol=1e-13, atol=1e-13
    )
    assert denoiser(canvas, torch.zeros_like(at)).shape == (0, 3)


def test_markov_equals_its_joint_table():
    for chain, length in ((MarkovOracle.random(3, noise=SEED.at("m")), 4), (oracle_b(), 6)):
        joint = chain.joint(length)
        canvas = all_canvases(joint.size, length, joint.vocab)
        at = torch.ones_like(canvas.fixed)
        torch.testing.assert_close(chain(canvas, at), joint(canvas, at), rtol=0, atol=1e-12)
        torch.testing.assert_close(chain.log_prob(joint.states), joint.log_prob(joint.states), rtol=1e-12, atol=0)
        assert chain.entropy(length) == pytest.approx(joint.entropy(), abs=1e-12)


def test_markov_documents_are_separate_and_padding_is_silent():
    chain = MarkovOracle.random(3, noise=SEED.at("docs"))
    m, pad = chain.vocab.mask_id, chain.vocab.pad_id
    packed = canvas_of([[0, m, m, m, 1, m, pad, pad]], chain.vocab, [[1, 1, 1, 2, 2, 2, 0, 0]])
    logits = chain(packed, packed.open(chain.vocab))
    first, second = canvas_of([[0, m, m]], chain.vocab), canvas_of([[m, 1, m]], chain.vocab)
    parts = [chain(c, c.open(chain.vocab)) for c in (first, second)]
    torch.testing.assert_close(logits, torch.cat(parts), rtol=1e-13, atol=0)


def test_markov_long_rows_do_not_underflow():
    chain = MarkovOracle.random(5, noise=SEED.at("long"))
    x = chain.sample(2, 3000, noise=SEED.at("x"))
    canvas = Canvas.of(x.masked_fill(torch.arange(3000) % 3 == 1, chain.vocab.mask_id), vocab=chain.vocab)
    logits = chain(canvas, canvas.open(chain.vocab))
    assert bool(logits.isfinite().all())
    left, right = x[0, 3], x[0, 5]
    exact = chain.transition[left] * chain.transition[:, right]
    torch.testing.assert_close(logits[1].exp(), exact / exact.sum(), rtol=1e-12, atol=0)


def test_markov_samples_follow_the_law():
    chain = MarkovOracle.random(2, noise=SEED.at("s"))
    x = chain.sample(50_000, 3, noise=SEED.at("draws"))
    counts = torch.bincount((x * torch.tensor([4, 2, 1])).sum(-1), minlength=8)
    assert chi_square_p(counts, chain.joint(3).table) > 1e-4


def test_impossible_contexts_answer_uniformly():
    copy = oracle_c(3)
    canvas = canvas_of([[0, 1, 2], [0, 2, 2]], copy.vocab)
    logits = copy(canvas, canvas.open(copy.vocab)).exp()
    assert logits.tolist() == [[0.5, 0.5], [1.0, 0.0], [1.0, 0.0]]
    frozen = MarkovOracle(torch.tensor([1.0, 0.0]).double(), torch.eye(2).double())
    canvas = canvas_of([[1, 2, 2], [2, 2, 1], [2, 2, 0]], frozen.vocab)
    logits = frozen(canvas, canvas.open(frozen.vocab)).exp()
    assert logits.tolist() == [[0.5, 0.5]] * 4 + [[1.0, 0.0]] * 2


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_visible_positions_are_answered_leave_one_out(seed):
    oracle = Oracle.random(3, 3, noise=Noise.of(seed))
    x = oracle.states[seed % 27]
    everywhere = oracle(Canvas.of(x[None], vocab=oracle.vocab), torch.ones(1, 3, dtype=torch.bool))
    for j in range(3):
        one = Canvas.of(x.masked_fill(torch.arange(3) == j, 3)[None], vocab=oracle.vocab)
        torch.testing.assert_close(oracle(one, one.open(oracle.vocab))[0], everywhere[j])


def test_random_table_is_a_function_of_what_is_visible():
    table = RandomTable(4, SEED)
    m, pad = table.vocab.mask_id, table.vocab.pad_id
    at = torch.tensor([[True, False, False]])
    base = table(canvas_of([[m, 1, m]], table.vocab), at)
    assert torch.equal(base, table(canvas_of([[m, 1, m]], table.vocab), at))
    longer = canvas_of([[m, 1, m, pad]], table.vocab, [[1, 1, 1, 0]])
    assert torch.equal(base, table(longer, torch.tensor([[True, False, False, False]])))
    for other in ([m, 2, m], [m, m, 1], [m, 1, 0], [1, 1, m]):
        assert not torch.equal(base, table(canvas_of([other], table.vocab), at))
    canvases = all_canvases(2, 5, Vocab(2, 2, 3))
    logits = RandomTable(2, SEED)(canvases, torch.ones_like(canvases.fixed))
    assert len(logits[:, 0].unique()) == canvases.x.numel()


def test_random_table_fits_no_joint_law():
    """p(x0) p(x1 | x0) and p(x1) p(x0 | x1) differ, as they never do for an oracle."""

    def gap(denoiser):
        v = denoiser.vocab
        both = denoiser(canvas_of([[2, 2]], v), torch.ones(1, 2, dtype=torch.bool)).exp()
        right = denoiser(canvas_of([[0, 2], [1, 2]], v), torch.tensor([[False, True]] * 2)).exp()
        left = denoiser(canvas_of([[2, 0], [2, 1]], v), torch.tensor([[True, False]] * 2)).exp()
        return float((both[0][:, None] * right - (both[1][:, None] * left).T).abs().max())

    assert gap(Oracle.random(2, 2, noise=SEED)) < 1e-14
    assert gap(RandomTable(2, SEED)) > 0.01


def test_causal_view_reads_only_the_past():
    oracle = Oracle.random(3, 3, noise=SEED)
    view = CausalView(oracle)
    logits = view(Canvas.of(oracle.states, vocab=oracle.vocab), torch.ones(27, 3, dtype=torch.bool)).reshape(27, 3, 3)
    total = logits.gather(-1, oracle.states[..., None]).sum((1, 2))
    torch.testing.assert_close(total, oracle.log_prob(oracle.states), rtol=1e-12, atol=0)


def test_tables_are_checked():
    with pytest.raises(ValueError, match=r"^table: has 3 entries"):
        Oracle(torch.ones(3).double() / 3, 2, 2)
    for bad in (torch.ones(4).double(), torch.tensor([1.5, -0.5, 0, 0]).double(), torch.ones(4) / 4):
        with pytest.raises(ValueError, match=r"^table: must be"):
            Oracle(bad, 2, 2)
    with pytest.raises(ValueError, match="length 3"):
        oracle_a()(canvas_of([[2, 2, 2]], oracle_a().vocab), torch.ones(1, 3, dtype=torch.bool))


def test_entropies_of_the_small_laws():
    """Known entropies of the three tiny languages."""
    assert oracle_a().entropy() == pytest.approx(1.0296530140645737, abs=1e-14)
    assert oracle_b().entropy(6) == pytest.approx(2.318562047517186, abs=1e-14)
    assert oracle_c(5).entropy() == pytest.approx(math.log(2), abs=1e-15)
