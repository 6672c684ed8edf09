"""Token draws: exact law by sweeping u, edge cases, filters, and the faulty Gumbel draw against its closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anyorder.core.categorical import (
    draw,
    draw_with_log_prob,
    entropy,
    exponential,
    greedy,
    gumbel_argmax_float32_faulty,
    lattice_gumbel_law,
    log_prob_of,
    log_probs,
    temperature,
    top_k,
    top_p,
    truncated_gumbel_law,
)
from anyorder.core.noise import Noise
from anyorder.testing.laws import chi_square_p

VOCAB = 1000  # several blocks and a ragged last one


def some_logits(n: int, v: int = VOCAB, scale: float = 3.0, seed: int = 0) -> torch.Tensor:
    return (scale * Noise.of(seed).normal(torch.arange(n)[:, None], 0, torch.arange(v))).float()


def uniforms(n: int, seed: int = 1) -> torch.Tensor:
    return Noise.of(seed).uniform(torch.arange(n))


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture(scope="module", params=["one by one", "together"])
def way(request):
    """Both ways to find the tokens of a few rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anyorder.core.categorical.FEW", 10_000 if request.param == "one by one" else 0)
        yield


both_ways = pytest.mark.usefixtures("way")


@both_ways
@pytest.mark.parametrize("v", [1, 2, 255, 256, 257, 512, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draw_is_the_inverse_cdf(v, dtype):
    logits = some_logits(1, v).to(dtype).expand(4096, -1)
    u = (torch.arange(4096, dtype=torch.float64) + 0.5) / 4096
    cum = log_probs(logits[:1])[0].exp().cumsum(-1)
    expected = torch.searchsorted(cum, u, right=True).clamp(max=v - 1)
    got = draw(logits, u)
    near = (cum[None] - u[:, None]).abs().amin(-1) < (1e-6 if dtype == torch.float32 else 1e-13)
    assert torch.equal(got[~near], expected[~near])
    assert int(near.sum()) < 100


def slice_width(logits: torch.Tensor, token: int) -> float:
    """Length of the set of u that draws `token`, by bisection at both ends: its exact probability under `draw`."""

    def first_at_least(k: int) -> float:
        low, high = 0.0, 1.0
        for _ in range(80):
            middle = (low + high) / 2
            if int(draw(logits[None], f64(middle))) >= k:
                high = middle
            else:
                low = middle
        return high

    return first_at_least(token + 1) - first_at_least(token)


@both_ways
def test_each_slice_has_the_probability_of_its_token():
    logits = some_logits(1, 700)[0]
    p = log_probs(logits[None])[0].exp()
    for token in (0, 1, 255, 256, 300, 511, 512, 640):
        assert slice_width(logits, token) == pytest.approx(float(p[token]), rel=1e-6)


@both_ways
def test_rare_tokens_keep_their_mass():
    logits = torch.full((600,), -math.inf)
    logits[[3, 7, 300, 599]] = torch.log(f64(1e-15, 1e-9, 1.0, 1e-7)).float()
    p = log_probs(logits[None])[0].exp()
    assert slice_width(logits, 3) == pytest.approx(float(p[3]), rel=1e-6)
    assert slice_width(logits, 7) == pytest.approx(float(p[7]), rel=1e-6)


def test_chi_square_with_rare_classes():
    law = f64(1e-5, 0.3, 1e-4, 0.2, 0.49, 0.00989)
    counts = torch.bincount(draw(law.log().float().expand(400_000, -1), uniforms(400_000)), minlength=6)
    assert chi_square_p(counts, law) > 1e-4
    assert int(counts[0]) > 0


@both_ways
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 600), st.sampled_from([2.0**-64, 0.5, 1 - 2.0**-53]))
def test_impossible_tokens_are_never_drawn(seed, v, u):
    mask = Noise.of(seed).at("hole").uniform(torch.arange(v)) < 0.7
    mask[int(Noise.of(seed).at("keep").uniform(0) * v)] = False
    logits = some_logits(1, v, seed=seed).masked_fill(mask, -math.inf)
    token = int(draw(logits, f64(u)))
    assert token >= 0
    assert not mask[token]
    possible = (~mask).nonzero().squeeze(-1)
    if u < 1e-10:
        assert token == int(possible[0])


@both_ways
def test_the_largest_uniform_never_falls_off_the_end():
    """Sums and cumulative sums round differently; the last possible token takes what is left over."""
    logits = some_logits(3000, 700)
    logits[:, 530:] = -math.inf
    token = draw(logits, torch.full((3000,), 1 - 2.0**-53, dtype=torch.float64))
    assert 0 <= int(token.min()) <= int(token.max()) < 530


@both_ways
def test_slices_are_closed_below_and_skip_what_is_impossible():
    assert draw(torch.zeros(3, 4), f64(0.25, 0.5, 0.75)).tolist() == [1, 2, 3]
    two_blocks = torch.zeros(1, 768)
    two_blocks[:, 256:512] = -math.inf
    assert draw(two_blocks, f64(0.5)).tolist() == [512]
    two_blocks = torch.full((1, 512), -math.inf)
    two_blocks[:, [7, 300]] = 0
    assert draw(two_blocks, f64(0.5)).tolist() == [300]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_draw_what_equal_float32_logits_draw(dtype):
    half, u = some_logits(500).to(dtype), uniforms(500)
    assert torch.equal(draw(half, u), draw(half.float(), u))
    assert torch.equal(temperature(half, 0.7), temperature(half.float(), 0.7))
    assert torch.equal(log_probs(half), log_probs(half.float()))
    assert torch.equal(top_p(half, 0.9).float(), top_p(half.float(), 0.9))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_coarse_noise_is_refused(dtype):
    with pytest.raises(ValueError, match=r"must be torch\.float64"):
        draw(some_logits(2), uniforms(2).to(dtype))


def test_draw_does_not_depend_on_the_batch(monkeypatch):
    logits, u = some_logits(33, 1777), uniforms(33)
    token, logp = draw_with_log_prob(logits, u)
    back = torch.arange(32, -1, -1)
    assert torch.equal(draw(logits[back], u[back]), token[back])
    one_by_one = [draw_with_log_prob(logits[i : i + 1], u[i : i + 1]) for i in range(33)]
    assert torch.equal(torch.cat([t for t, _ in one_by_one]), token)
    assert torch.equal(torch.cat([p for _, p in one_by_one]), logp)
    monkeypatch.setattr("anyorder.core.categorical.CHUNK", 5 * 1777)
    assert torch.equal(draw(logits, u), token)
    assert torch.equal(draw(logits.T.contiguous().T, u), token)


@pytest.mark.parametrize("v", [1, 5, 255, 256, 257, 1777])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_few_rows_are_drawn_bit_for_bit_as_many(v, dtype, monkeypatch):
    logits, u = some_logits(40, v).to(dtype), uniforms(40)
    logits[:, v // 2 + 1 :: 3] = -math.inf
    u[:4] = f64(2.0**-64, 1e-12, 0.5, 1 - 2.0**-53)
    found = []
    for few in (0, 40):
        monkeypatch.setattr("anyorder.core.categorical.FEW", few)
        found.append(draw_with_log_prob(logits, u))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_no_rows_draw_nothing():
    token, logp = draw_with_log_prob(torch.zeros(0, 300), uniforms(0))
    assert (token.shape, token.dtype, logp.shape, logp.dtype) == ((0,), torch.int64, (0,), torch.float64)


@both_ways
@pytest.mark.parametrize("v", [300, 512])  # with a last block of its own, and in whole blocks
def test_a_row_without_a_law_says_so(v):
    logits = some_logits(4, v)
    logits[0], logits[1, 5], logits[2, 5] = -math.inf, math.nan, math.inf
    token, logp = draw_with_log_prob(logits, uniforms(4))
    assert token[:3].tolist() == [-1, -1, -1]
    assert bool(logp[:3].isnan().all())
    assert int(token[3]) >= 0
    assert draw(logits[:0], uniforms(4)[:0]).shape == (0,)


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
def test_log_probabilities_agree(dtype, tol):
    logits, u = some_logits(200).to(dtype), uniforms(200)
    token, logp = draw_with_log_prob(logits, u)
    exact = log_probs(logits)[torch.arange(200), token]
    torch.testing.assert_close(logp, exact, rtol=0, atol=tol)
    torch.testing.assert_close(log_prob_of(logits, token), exact, rtol=0, atol=tol)
    assert log_prob_of(logits, token).dtype == torch.float64
    logits[:, 9] = -math.inf
    assert bool((log_prob_of(logits, torch.full((200,), 9)) == -math.inf).all())


def test_inputs_are_not_edited():
    logits, u = some_logits(3), uniforms(3)
    before = logits.clone()
    for f in (lambda x: draw(x, u), lambda x: top_p(x, 0.5), lambda x: top_k(x, 3), lambda x: temperature(x, 2.0)):
        f(logits)
    log_prob_of(logits, torch.tensor([0, 1, 2]))
    assert torch.equal(logits, before)


def test_entropy_known_values():
    logits = torch.stack(
        [torch.zeros(4), torch.tensor([0.0, -math.inf, -math.inf, -math.inf]), f64(0.5, 0.5, 0, 0).log()]
    )
    torch.testing.assert_close(entropy(logits), f64(math.log(4), 0, math.log(2)), atol=1e-12, rtol=0)


def test_temperature_is_a_power_of_the_law():
    logits = some_logits(3, 20)
    p = log_probs(logits).exp() ** (1 / 0.6)
    torch.testing.assert_close(
        log_probs(temperature(logits, 0.6)).exp(), p / p.sum(-1, keepdim=True), rtol=1e-5, atol=0
    )
    for tau in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature="):
            temperature(logits, tau)


def test_greedy_is_the_limit_of_low_temperature_and_breaks_ties_low():
    logits = some_logits(50, 30)
    assert torch.equal(draw(temperature(logits, 1e-6), uniforms(50)), greedy(logits))
    assert greedy(torch.tensor([[0.0, 2.0, 2.0, 1.0]])).tolist() == [1]


def test_top_k_keeps_the_largest_and_ties():
    logits = torch.tensor([[1.0, 3.0, 2.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
    assert top_k(logits, 2).isfinite().tolist() == [[False, True, True, False], [True, True, True, False]]
    assert torch.equal(top_k(logits, 9), logits)
    with pytest.raises(ValueError, match="top_k=0"):
        top_k(logits, 0)


@pytest.mark.parametrize(("p", "kept"), [(0.01, 1), (0.39, 1), (0.41, 2), (0.69, 2), (0.75, 3), (0.95, 4), (1.0, 4)])
def test_top_p_keeps_the_crossing_token(p, kept):
    logits = f64(0.1, 0.4, 0.2, 0.3).log()[None]
    assert int(top_p(logits, p).isfinite().sum()) == kept


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 0.99))
def test_top_p_is_the_smallest_set_of_mass_p(seed, p):
    logits = some_logits(1, 40, seed=seed)
    law, kept = log_probs(logits)[0].exp(), top_p(logits, p)[0].isfinite()
    mass = float(law[kept].sum())
    assert mass >= p - 1e-12
    assert mass - float(law[kept].min()) < p
    assert bool((law[kept].min() >= law[~kept]).all())


def test_top_p_splits_ties_by_id_and_checks_p():
    assert top_p(torch.zeros(1, 4), 0.5).isfinite().tolist() == [[True, True, False, False]]
    even = top_p(torch.zeros(2, 8192), 0.5).isfinite()
    assert torch.equal(even, (torch.arange(8192) < 4096).expand(2, -1))
    for p in (0.0, -0.1, 1.1):
        with pytest.raises(ValueError, match="top_p="):
            top_p(torch.zeros(1, 4), p)


def test_fine_exponential_map():
    """The exponential map: r = 0 gives about 2^-65, monotone, no inf, nan or 0."""
    r = torch.cat([torch.arange(1000), 2 ** torch.arange(10, 63)]).double().unique()
    e = exponential((r + 0.5) * 2.0**-64)
    assert float(e[0]) == pytest.approx(2.0**-65, rel=1e-12)
    assert bool(e.isfinite().all())
    assert bool((e.diff() > 0).all())
    assert float(exponential(f64(1 - 2.0**-53))) == pytest.approx(53 * math.log(2))


def test_truncated_gumbel_known_values():
    """Prop. 5.2 of arXiv:2409.02908, checked numbers."""
    got = truncated_gumbel_law(f64(0.3, 0.05, 0.5, 0.15), 0.5)
    torch.testing.assert_close(got, f64(0.2424363, 3.05045e-6, 0.7366525, 0.0209081), rtol=3e-6, atol=0)
    got = truncated_gumbel_law(f64(0.001, 0.009, 0.09, 0.9), 7.62437)
    torch.testing.assert_close(got, f64(6.14807e-4, 8.54059e-3, 0.0896781, 0.9011665), rtol=3e-6, atol=0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30), st.floats(-0.5, 40.0))
def test_truncated_gumbel_law_sums_to_one_and_tends_to_the_law(seed, k, m):
    p = Noise.of(seed).uniform(torch.arange(k))
    p = p / p.sum()
    law = truncated_gumbel_law(p, m)
    assert float(law.sum()) == pytest.approx(1, abs=1e-9)
    torch.testing.assert_close(truncated_gumbel_law(p, 60.0), p, rtol=1e-8, atol=0)
    torch.testing.assert_close(truncated_gumbel_law(torch.cat([p, f64(0.0)]), m)[:-1], law)


def test_truncated_gumbel_law_by_quadrature():
    """P(i wins) = integral of pi_i e^-g exp(-S e^-g), with each Gumbel conditioned to be <= m."""
    p, m = f64(0.05, 0.15, 0.3, 0.5), 0.5
    top = m + p.log()  # each class's largest score
    x = torch.linspace(-4, float(top.max()), 2_000_001, dtype=torch.float64)[:-1] + 1e-6
    log_cdf = torch.where(x[:, None] < top, math.exp(-m) - p * torch.exp(-x[:, None]), 0.0)
    density = torch.where(x[:, None] < top, p * torch.exp(-x[:, None]), 0.0)
    law = (density * torch.exp(log_cdf.sum(-1, keepdim=True))).sum(0) * float(x[1] - x[0])
    torch.testing.assert_close(truncated_gumbel_law(p, m), law, rtol=1e-3, atol=1e-8)


def zipf_step(a: float, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Zipf(a) over 50257 tokens, and the joint masses in the first of `steps` linear ancestral steps."""
    mu = torch.arange(1, 50258, dtype=torch.float64) ** -a
    mu = mu / mu.sum()
    return mu, mu / steps


@pytest.mark.parametrize(
    ("a", "steps", "ratio", "before", "after"),
    [(1.0, 1024, 0.688, 7.566, 5.628), (1.0, 10000, 0.489, 7.566, 4.235), (1.0, 50000, 0.348, 7.566, 3.210),
     (1.5, 2048, 0.946, 3.157, 2.680), (2.5, 50000, 0.973, 1.016, 0.870)],
)  # fmt: skip
def test_lattice_law_reproduces_the_entropy_drop(a, steps, ratio, before, after):
    """Float32 joint draws over {tokens, mask} at V = 50257."""
    mu, pi = zipf_step(a, steps)
    law = lattice_gumbel_law(pi, 1 - 1 / steps)
    assert float(law.sum() * steps) == pytest.approx(ratio, abs=1.2e-3)
    assert float(entropy(mu.log()[None])) == pytest.approx(before, abs=6e-4)
    assert float(entropy(law.log()[None])) == pytest.approx(after, abs=1.2e-3)


@pytest.mark.parametrize(("bits", "after"), [(8, 3.25), (11, 4.37)])
def test_half_precision_noise_ruins_even_a_law_without_mask(bits, after):
    """Half-precision noise, the trap: Zipf(1) has entropy 7.566."""
    mu, _ = zipf_step(1.0, 1)
    law = truncated_gumbel_law(mu, -math.log(-math.log1p(-(2.0**-bits))))
    assert float(entropy(law.log()[None])) == pytest.approx(after, abs=6e-3)


def test_the_faulty_draw_loses_rare_tokens_and_ours_does_not():
    """11-bit noise, mask mass .96: both laws by simulation."""
    n, bits = 200_000, 11
    pi = f64(2e-2, 1e-2, 5e-3, 2e-3, 1e-3, 5e-4, 1e-4)
    mask = 1 - float(pi.sum())
    joint = torch.cat([pi, f64(mask)]).expand(n, -1)
    faulty = gumbel_argmax_float32_faulty(joint, torch.arange(n), noise=Noise.of(5), bits=bits)
    share = torch.bincount(faulty, minlength=8)[:7] / n
    torch.testing.assert_close(share[:4].double(), lattice_gumbel_law(pi, mask, bits=bits)[:4], rtol=0.08, atol=0)
    assert float(share[5]) < 0.75 * float(pi[5])
    assert float(share[6]) < 1e-5
    counts = torch.bincount(draw(joint[:1].log().expand(n, -1), uniforms(n)), minlength=8)
    assert chi_square_p(counts, joint[0]) > 1e-4


def test_the_faulty_draw_is_right_where_nothing_is_rare():
    p = f64(0.1, 0.2, 0.3, 0.25, 0.15)
    got = gumbel_argmax_float32_faulty(p.expand(50_000, -1), torch.arange(50_000), noise=Noise.of(6))
    assert chi_square_p(torch.bincount(got, minlength=5), p) > 1e-4
