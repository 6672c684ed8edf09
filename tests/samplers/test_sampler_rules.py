"""Count, position and order rules against brute force and known laws."""

import itertools
import math

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.samplers.adaptive import EntropyBound, Factor, Threshold
from anyorder.samplers.base import generate, steps
from anyorder.samplers.count import One, PerStep, Quota
from anyorder.samplers.look import Look
from anyorder.samplers.position import Confidence, HighestEntropy, Moment, Uniform
from anyorder.samplers.presets import PRESETS, make_sampler
from anyorder.samplers.scheduled import Scheduled, Shares
from anyorder.samplers.token import TokenRule
from anyorder.samplers.unmask import Unmask, start
from anyorder.testing.contracts import CountingDenoiser, blank, check_exact
from anyorder.testing.laws import chi_square_p, group_law
from anyorder.testing.oracle import MarkovOracle, Oracle, RandomTable

NOISE = Noise.of(13)
MODEL = RandomTable(3, Noise.of(2))
P = torch.tensor([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25], [0.5, 0.49, 0.01]], dtype=torch.float64)


def product(p):
    """The law of independent positions with these marginals, and what a denoiser says of it: the marginals."""
    joint = torch.tensor(
        [
            math.prod(float(p[i, x]) for i, x in enumerate(xs))
            for xs in itertools.product(range(p.shape[1]), repeat=len(p))
        ],
        dtype=torch.float64,
    )
    return Oracle(joint, p.shape[1], len(p))


def look_at(p, rows=1):
    model = product(p)
    canvas = blank(model.vocab, rows, len(p))
    return Look(model, canvas, start(canvas, vocab=model.vocab), NOISE)


def first_writes(sampler, p, rows=100_000):
    """How often each (position, token) is what the first step writes."""
    model = product(p)
    step = next(steps(sampler, model, blank(model.vocab, rows, len(p)), noise=NOISE))
    row, position = step.wrote.nonzero(as_tuple=True)
    assert torch.equal(row, torch.arange(rows))
    return torch.bincount(position * p.shape[1] + step.canvas.x[row, position], minlength=p.numel())


@pytest.mark.parametrize("alpha", [1.0, 0.5, 3.0])
def test_maskgit_keeps_a_draw_by_its_probability_and_gumbel_noise(alpha):
    law = torch.zeros_like(P)
    for xs in itertools.product(range(3), repeat=3):
        p = torch.tensor([P[i, x] for i, x in enumerate(xs)])
        weight = p ** (1 / alpha)
        for i, x in enumerate(xs):
            law[i, x] += p.prod() * weight[i] / weight.sum()
    if alpha == 1.0:
        torch.testing.assert_close(law[0].tolist(), [0.320128, 0.038934, 0.010799], atol=1e-6, rtol=0)
    sampler = Unmask(One(), Confidence("drawn", noise=alpha), order="draw_first")
    assert chi_square_p(first_writes(sampler, P), law.flatten()) > 1e-4


def test_moment_draws_position_and_token_by_a_power_of_the_probability():
    law = P**2 / (P**2).sum()
    torch.testing.assert_close(law[0].tolist(), [0.356312, 0.029087, 0.007272], atol=1e-6, rtol=0)
    sampler = Unmask(One(), Moment(2.0), TokenRule(temperature=0.5))
    assert chi_square_p(first_writes(sampler, P), law.flatten()) > 1e-4
    assert make_sampler("moment").token.temperature == 0.5


def test_linear_noise_draws_positions_without_replacement():
    """Dream's alg_temp: softmax(confidence / alg_temp), here of the largest probabilities."""
    law = (P.amax(-1) / 0.2).softmax(-1)
    counts = first_writes(Unmask(One(), Confidence("prob", noise=0.2, linear=True)), P).view(3, 3).sum(-1)
    assert chi_square_p(counts, law) > 1e-4


def test_annealed_noise_ends():
    noisy = Unmask(One(), Confidence("prob", noise=50.0, anneal=1))
    assert first_writes(noisy, P, rows=500).view(3, 3)[0].sum() == 500  # the surest position, always


def test_confidence_scores_disagree_where_they_should():
    p = torch.tensor([[0.5, 0.49, 0.01] + [0.0] * 4, [0.4] + [0.1] * 6], dtype=torch.float64)
    chosen = {
        s: int(Confidence(s)(look_at(p), torch.tensor([1]))[0].int().argmax()) for s in ("prob", "margin", "entropy")
    }
    assert chosen == {"prob": 0, "margin": 1, "entropy": 0}
    assert HighestEntropy()(look_at(p), torch.tensor([1])).tolist() == [[False, True]]
    sure = torch.tensor([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.34, 0.33, 0.33]], dtype=torch.float64)
    assert Confidence("entropy")(look_at(sure), torch.tensor([2])).tolist() == [[True, True, False]]
    assert HighestEntropy()(look_at(sure), torch.tensor([2])).tolist() == [[False, True, True]]


def test_threshold_counts_the_sure_and_at_least_one():
    best = sorted(P.amax(-1).tolist())
    for tau in (0.0, 0.39, 0.41, 0.5, 0.69, 0.71, 1.0):
        assert Threshold(tau)(look_at(P)).item() == max(1, sum(b >= tau - 1e-12 for b in best))
    certain = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]], dtype=torch.float64)
    assert Threshold(1.0)(look_at(certain)).item() == 2


@pytest.mark.parametrize("f", [0.0, 0.3, 0.5, 0.7, 1.0, 1.6, 5.0])
def test_factor_by_brute_force(f):
    for row in range(20):
        p = NOISE.at("factor").uniform(row, 0, torch.arange(15)).view(5, 3) ** 4
        p = p / p.sum(-1, keepdim=True)
        c = sorted(p.amax(-1).tolist(), reverse=True)
        n = 0
        while n < 5 and c[n] >= 1 - f / (n + 2) - 1e-12:
            n += 1
        assert Factor(f)(look_at(p)).item() == max(1, n)


def test_entropy_bound_by_brute_force():
    for row in range(20):
        p = NOISE.at("bound").uniform(row, 0, torch.arange(15)).view(5, 3) ** 3
        p = p / p.sum(-1, keepdim=True)
        h = sorted((-(p * p.log()).sum(-1)).tolist())
        counts = []
        for gamma in (0.0, 0.05, 0.3, 0.8, 2.0, math.inf):
            counts.append(EntropyBound(gamma)(look_at(p)).item())
            assert counts[-1] == max(n for n in range(1, 6) if n == 1 or sum(h[: n - 1]) <= gamma)
        assert counts == sorted(counts)
        assert (counts[0], counts[-1]) == (1, 5)
    ties = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.5, 0.5]], dtype=torch.float64)
    assert EntropyBound(0.0)(look_at(ties)).item() == 3  # two certain ones, and one more


def counts_of(count, length):
    """How many positions each step writes."""
    model = RandomTable(2, NOISE.at("table"))
    return [int(s.wrote.sum()) for s in steps(Unmask(count), model, blank(model.vocab, 1, length), noise=NOISE)]


def test_quotas_follow_their_published_plans():
    assert counts_of(Quota(4), 10) == [3, 3, 2, 2]
    assert counts_of(Quota(5), 3) == [1, 1, 1]  # the loop ends when nothing is left
    left, plan = 20, []
    for i in range(8):
        goal = min(max(math.floor(20 * math.cos(math.pi / 2 * (i + 1) / 8)), 1), left - 1) if i < 7 else 0
        plan.append(left - goal)
        left = goal
    assert counts_of(Quota(8, "cosine"), 20) == plan
    grid = torch.linspace(1, 1e-3, 7, dtype=torch.float64).tolist()
    left, plan = 20, []
    for i in range(6):
        k = left if i == 5 else int(left * (1 - grid[i + 1] / grid[i]))
        plan.append(k)
        left -= k
    assert counts_of(Quota(6, "dream"), 20) == plan


def test_steps_that_write_nothing_cost_nothing():
    model = CountingDenoiser(RandomTable(2, NOISE.at("table")))
    sample = generate(Unmask(Quota(50, "dream")), model, blank(model.vocab, 1, 3), noise=NOISE)
    assert sample.nfe.tolist() == list(model.passes.values())
    assert sample.nfe.item() <= 3 < 50


def test_equal_groups_at_random_have_the_group_law():
    table = RandomTable(2, NOISE.at("table"), scale=1.5)
    for num_steps, sizes in ((2, [2, 2]), (3, [2, 1, 1]), (4, [1, 1, 1, 1])):
        check_exact(
            Unmask(Quota(num_steps)),
            table,
            group_law(table, 4, sizes=sizes),
            length=4,
            generate=generate,
            noise=NOISE,
            rows=50_000,
        )


def test_drawing_first_tilts_the_law_and_choosing_first_does_not():
    chain = MarkovOracle.random(2, noise=NOISE.at("chain"))
    law = chain.joint(3).table
    first = Unmask(One(), Confidence("drawn"), order="draw_first")
    assert not first.exact
    model = chain
    x = generate(first, model, blank(model.vocab, 50_000, 3), noise=NOISE).canvas.x
    counts = torch.bincount((x * torch.tensor([4, 2, 1])).sum(-1), minlength=8)
    assert chi_square_p(counts, law) < 1e-9
    for position in (Confidence("margin"), Confidence("entropy"), HighestEntropy(), Confidence("prob", noise=2.0)):
        assert Unmask(One(), position).exact
        check_exact(Unmask(One(), position), model, law, length=3, generate=generate, noise=NOISE, rows=50_000)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Unmask(One(), Confidence("drawn")), r"needs order='draw_first'; or choose by 'prob'"),
        (
            lambda: Unmask(order="draw_first"),
            r"Uniform does not look at drawn tokens; use position=Confidence\('drawn'\)",
        ),
        (
            lambda: Unmask(Threshold(0.5), Uniform()),
            r"Threshold: counts positions by 'prob'; use position=Confidence\('prob'\)",
        ),
        (lambda: Unmask(EntropyBound(), Confidence("prob")), r"use position=Confidence\('entropy'\)"),
        (lambda: Threshold(1.5), r"sampler\.tau=1\.5: must be in \[0, 1\]"),
        (lambda: Factor(-1.0), r"sampler\.f=-1\.0: must be >= 0"),
        (lambda: EntropyBound(-0.1), r"sampler\.gamma=-0\.1: must be >= 0 nats"),
        (lambda: Moment(0.0), r"sampler\.beta=0\.0: must be > 0"),
        (lambda: Confidence("prob", noise=-1.0), r"sampler\.noise=-1\.0: must be >= 0"),
        (lambda: Confidence("proof"), r"must be one of prob, margin, entropy, drawn"),
        (lambda: Quota(3, "evn"), r"sampler\.curve='evn': must be one of even, cosine, dream"),
        (lambda: Quota(0), r"sampler\.num_steps=0: must be >= 1"),
        (lambda: PerStep(0), r"sampler\.k=0: must be >= 1"),
    ],
)
def test_rules_that_make_no_sense_say_what_would(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", PRESETS)
def test_exact_is_derived_from_the_rules(name):
    sampler = make_sampler(name)
    if isinstance(sampler, Unmask):
        assert sampler.exact == (
            isinstance(sampler.count, One) and sampler.order == "choose_first" and sampler.token.exact
        )


def test_a_policy_paces_the_steps():
    table = Unmask(Scheduled(Shares((0.75, 0.75, 0.3, 0.0))))
    order = generate(table, MODEL, blank(MODEL.vocab, 2, 8), noise=NOISE).order
    assert [int((order[0] == i).sum()) for i in range(4)] == [2, 1, 3, 2]  # 8 -> 6, at least one fewer, -> 2, rest
    cosine = tuple(math.cos(math.pi / 2 * (i + 1) / 5) for i in range(5))
    ours = generate(Unmask(Scheduled(Shares(cosine))), MODEL, blank(MODEL.vocab, 3, 16), noise=NOISE)
    theirs = generate(Unmask(Quota(5, "cosine")), MODEL, blank(MODEL.vocab, 3, 16), noise=NOISE)
    assert torch.equal(ours.canvas.x, theirs.canvas.x)
    assert not table.exact


def test_a_policy_may_look_at_the_canvas():
    class Halving:
        num_steps = 10

        def left(self, look):
            return look.left.double() / look.carry.start / 2

    order = generate(Unmask(Scheduled(Halving())), MODEL, blank(MODEL.vocab, 1, 8), noise=NOISE).order
    assert [int((order == i).sum()) for i in range(4)] == [4, 2, 1, 1]
    with pytest.raises(ValueError, match="must be one or more shares"):
        Shares((0.5, 1.5))
