"""Values worked out on paper or with a few lines of numpy, each against the code; the other tests hold more of them."""

import itertools
import math

import pytest
import torch

from anyorder.core.categorical import entropy, lattice_gumbel_law, truncated_gumbel_law
from anyorder.core.noise import Noise
from anyorder.core.schedule import SCHEDULES, Linear
from anyorder.core.types import Canvas
from anyorder.samplers.adaptive import EntropyBound, Threshold
from anyorder.samplers.base import generate
from anyorder.samplers.count import Binomial, One, flip_chance
from anyorder.samplers.forced import Forced
from anyorder.samplers.position import Confidence
from anyorder.samplers.presets import make_sampler
from anyorder.samplers.remasking import Cap, Remasking
from anyorder.samplers.unmask import Unmask
from anyorder.studies.numerics import matching_temperature
from anyorder.testing.contracts import blank, observed
from anyorder.testing.laws import chi_square_p
from anyorder.testing.oracle import CausalView, MarkovOracle, Oracle, RandomTable, states_of
from anyorder.testing.tiny import oracle_a

NOISE = Noise.of(31)
TABLE = RandomTable(2, NOISE.at("table"), scale=2.0)
SINGLE = 16.6355  # the largest Gumbel number that float32 noise can make


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def zipf(a):
    p = torch.arange(1, 50258, dtype=torch.float64) ** -a
    return p / p.sum()


def nats(law):
    return float(entropy((law / law.sum()).log()[None]))


@pytest.mark.parametrize("alpha_t", [0.0, 0.4, 0.55])
def test_remdm_is_a_reverse_step_and_then_a_corrector(alpha_t):
    """11: over {token, mask}; the corrector sends back with sigma and writes with sigma alpha_s/(1 - alpha_s)."""
    i = round(alpha_t * 20)
    path = Remasking(20, Cap(0.3))
    alpha_s, sigma = alpha_t + 0.05, 0.3
    delta, write = 0.05 / (1 - alpha_t), sigma * alpha_s / (1 - alpha_s)
    both = f64([1, 0], [delta, 1 - delta]) @ f64([1 - sigma, sigma], [write, 1 - write])
    back, forth = float(path.back[i]), float(path.write[i])
    torch.testing.assert_close(both, f64([1 - back, back], [forth, 1 - forth]))


def test_positions_without_entropy_are_free():
    """15: gamma = 0 writes what is certain and one more; gamma = inf everything."""
    p = f64([1, 0, 0], [0.5, 0.3, 0.2], [0, 1, 0], [0.4, 0.4, 0.2], [0, 0, 1])
    model = Oracle(torch.einsum("a,b,c,d,e->abcde", *p).flatten(), 3, 5)
    for gamma, written in ((0.0, [4, 5]), (math.inf, [5])):
        order = generate(
            Unmask(EntropyBound(gamma), Confidence("entropy")), model, blank(model.vocab, 1, 5), noise=NOISE
        ).order
        assert torch.bincount(order[0]).cumsum(0).tolist() == written
    assert order.max() == 0


@pytest.mark.parametrize(("tau", "passes"), [(1.0, 6), (0.0, 1)])
def test_thresholds_that_nothing_and_everything_reaches(tau, passes):
    """16: a model that is nowhere sure of anything."""
    unsure = RandomTable(2, NOISE.at("unsure"), scale=0.1)
    sample = generate(Unmask(Threshold(tau), Confidence()), unsure, blank(unsure.vocab, 7, 6), noise=NOISE)
    assert sample.nfe.tolist() == [passes] * 7
    assert sample.order.sort(-1).values.tolist() == [[i % passes for i in range(6)]] * 7


@pytest.mark.parametrize(("bits", "largest"), [(24, 16.6355), (53, 36.7368), (8, 5.54), (11, 7.62)])
def test_the_largest_gumbel_number(bits, largest):
    """17: with it Proposition 5.2 gives a class of mass eps exp(-1) of its mass, and the lattice 1/(e - 1)."""
    eps = 2.0**-bits
    assert -math.log(-math.log1p(-eps)) == pytest.approx(largest, abs=5e-3 if bits < 24 else 5e-5)
    if bits == 24:
        rare = f64(eps, 1 - eps)
        assert float(truncated_gumbel_law(rare, SINGLE)[0] / eps) == pytest.approx(0.37, abs=5e-3)
        assert float(lattice_gumbel_law(rare[:1], 1 - eps)[0] / eps) == pytest.approx(0.58, abs=5e-3)


@pytest.mark.parametrize(
    ("a", "before", "steps", "ratio", "after", "tau"),
    [
        (1.0, 7.566, 1024, 0.688, 5.628, 0.849),
        (1.0, 7.566, 2048, 0.628, 5.210, 0.820),
        (1.0, 7.566, 10_000, 0.489, 4.235, 0.751),
        (1.0, 7.566, 50_000, 0.348, 3.210, 0.671),
        (1.5, 3.157, 1024, 0.958, 2.763, 0.946),
        (1.5, 3.157, 2048, 0.946, 2.680, 0.934),
        (1.5, 3.157, 10_000, 0.905, 2.439, 0.897),
        (1.5, 3.157, 50_000, 0.836, 2.103, 0.841),
        (2.5, 1.016, 1024, 0.997, 0.992, 0.989),
        (2.5, 1.016, 2048, 0.996, 0.982, 0.985),
        (2.5, 1.016, 10_000, 0.990, 0.945, 0.967),
        (2.5, 1.016, 50_000, 0.973, 0.870, 0.932),
    ],
)
def test_what_float32_noise_does_to_zipf_in_the_first_step(a, before, steps, ratio, after, tau):
    """17: V = 50257, tokens beside a mask that holds nearly everything."""
    law = zipf(a)
    drawn = lattice_gumbel_law(law / steps, 1.0)
    assert nats(law) == pytest.approx(before, abs=6e-4)
    assert float(drawn.sum()) * steps == pytest.approx(ratio, abs=6e-4)
    assert nats(drawn) == pytest.approx(after, abs=6e-4)
    assert matching_temperature(law, nats(drawn)) == pytest.approx(tau, abs=6e-4)


def test_a_dominating_mask_makes_proposition_5_2_simple():
    """17: pi exp(-eps/pi) to four digits."""
    pi = zipf(1.0) / 10_000
    law = truncated_gumbel_law(torch.cat([pi, 1 - pi.sum(0, keepdim=True)]), SINGLE)[:-1]
    simple = pi * torch.exp(-math.exp(-SINGLE) / pi)
    assert float(law.sum()) == pytest.approx(float(simple.sum()), rel=1e-4)
    assert nats(law) == pytest.approx(nats(simple), rel=1e-4)


@pytest.mark.parametrize(
    ("a", "largest", "after", "away"),
    [(1.0, SINGLE, 7.552, 2e-3), (2.5, SINGLE, None, 6e-5), (1.5, 5.54, 1.93, None), (1.0, 5.54, 3.25, None),
     (1.0, 7.62, 4.37, None)],
)  # fmt: skip
def test_coarse_noise_without_a_mask(a, largest, after, away):
    """17: single precision does next to nothing, half precision ruins the law."""
    law = zipf(a)
    drawn = truncated_gumbel_law(law, largest)
    if after is not None:
        assert nats(drawn) == pytest.approx(after, abs=6e-4 if largest == SINGLE else 6e-3)
    if away is not None:
        assert float((drawn - law).abs().sum()) / 2 == pytest.approx(away, rel=0.2)


def drawn_first(x):
    """Product of the tokens' probabilities when the text's own likeliest token is kept in each step."""
    now, total = torch.full_like(x, 2), 1.0
    while bool((masked := now == 2).any()):
        p = TABLE(Canvas.of(now[None], vocab=TABLE.vocab), masked[None]).softmax(-1)
        chance = p[torch.arange(len(p)), x[masked]]
        best = int(chance.argmax())
        place = int(masked.nonzero()[best])
        now, total = now.index_put((torch.tensor(place),), x[place]), total * float(chance[best])
    return total


def test_a_text_has_no_such_likelihood_if_tokens_are_drawn_first():
    """23: forcing the text sums to one for positions chosen first; kept draws sum to more, and are drawn otherwise."""
    x = states_of(2, 4)
    forced = generate(
        Forced(Unmask(One(), Confidence()), x, torch.arange(16)), TABLE, blank(TABLE.vocab, 16, 4), noise=NOISE
    )
    assert float(forced.logp.exp().sum()) == pytest.approx(1, abs=1e-12)
    kept = f64(*[drawn_first(row) for row in x])
    assert float(kept.sum()) > 1.1
    sampler = Unmask(One(), Confidence("drawn"), order="draw_first")
    counts = observed(generate(sampler, TABLE, blank(TABLE.vocab, 20_000, 4), noise=NOISE), TABLE.vocab)
    assert chi_square_p(counts, kept / kept.sum()) < 1e-6


def analytic(mu, alpha_t, alpha_s):
    """SEDD's step from a mask: its score, staggered, times the transposed transition of sigma_t - sigma_s."""
    growth = alpha_s / alpha_t  # exp(sigma_t - sigma_s)
    score = torch.cat([alpha_t / (1 - alpha_t) * mu, f64(1.0)])  # of each token, and of the mask itself
    staggered = growth * score
    staggered[-1] += (1 - growth) * score.sum()
    return staggered * (1 - 1 / growth + (torch.arange(len(score)) == len(mu)).double() / growth)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_analytic_step_of_a_score_is_the_ancestral_step(name):
    """26: with score = alpha/(1 - alpha) mu, under every schedule; the Euler step is the same under the linear one."""
    schedule, mu = SCHEDULES[name](), f64(0.5, 0.3, 0.2)
    t = torch.linspace(1, 0, 9, dtype=torch.float64)
    alpha, delta = schedule.alpha(t).tolist(), flip_chance(schedule, 8).tolist()
    for i in range(1, 7):  # inside: at t = 1 a score may be 0, and the last step writes everything
        step = analytic(mu, alpha[i], alpha[i + 1])
        torch.testing.assert_close(step, torch.cat([delta[i] * mu, f64(1 - delta[i])]), rtol=1e-9, atol=1e-12)
    euler = schedule.weight(t[1:7]) / 8
    linear = name in ("linear", "log-linear")
    assert torch.allclose(euler, f64(*delta[1:7]), rtol=1e-9, atol=0) == linear


def test_analytic_steps_write_two_bits_as_two_ancestral_steps():
    """26: the first from nearly all masked; the second, to t = 0, writes what is left."""
    model, half = oracle_a(), {}
    blank_row = f64(0.7, 0.3), f64(0.5, 0.5)
    start = [analytic(mu, 1e-6, 0.5) for mu in blank_row]
    for x in itertools.product(range(3), repeat=2):
        half[x] = float(start[0][x[0]] * start[1][x[1]])
    law = torch.zeros(2, 2, dtype=torch.float64)
    for x, chance in half.items():
        masked = torch.tensor([x]) == 2
        p = iter(model(Canvas.of(torch.tensor([x]), vocab=model.vocab), masked).exp())
        now = [next(p) if token == 2 else torch.eye(2).double()[token] for token in x]
        law += chance * torch.outer(*now)
    torch.testing.assert_close(law.flatten(), f64(0.425, 0.275, 0.075, 0.225), rtol=0, atol=2e-6)
    counts = observed(generate(Unmask(Binomial(2)), model, blank(model.vocab, 20_000, 2), noise=NOISE), model.vocab)
    assert chi_square_p(counts, law.flatten()) > 1e-4


def test_one_token_at_a_time_never_makes_a_forbidden_step():
    """28: sequence error rate 0, of any order; in four steps it is not."""
    moves = f64([0, 0.5, 0.5, 0], [0.2, 0, 0.8, 0], [0, 0, 0.1, 0.9], [1, 0, 0, 0])
    chain = MarkovOracle(f64(0.5, 0.5, 0, 0), moves)

    def wrong(sampler, model=chain):
        x = generate(sampler, model, blank(chain.vocab, 300, 20), noise=NOISE).canvas.x
        return float((chain.log_prob(x) == -math.inf).double().mean())

    for name in ("first-hitting", "margin", "left-to-right", "highest-entropy"):
        assert wrong(make_sampler(name)) == 0, name
    assert wrong(make_sampler("causal"), CausalView(chain)) == 0
    assert wrong(Unmask(Binomial(4, Linear()))) > 0.5
