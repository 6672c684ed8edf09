"""Every preset's law by enumeration: what it samples is that law, and it is exact if and only if it says so."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from kernels import output_law, transitions

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.samplers.base import generate, step_log_probs, steps
from anyorder.samplers.blockwise import Blockwise
from anyorder.samplers.causal import Causal
from anyorder.samplers.chances import set_log_prob
from anyorder.samplers.count import Binomial, One, PerStep
from anyorder.samplers.look import Look
from anyorder.samplers.position import Confidence, Moment
from anyorder.samplers.presets import PRESETS, make_sampler
from anyorder.samplers.revise import Keep, ReMDM
from anyorder.samplers.token import TokenRule
from anyorder.samplers.unmask import Unmask
from anyorder.testing.contracts import blank, observed
from anyorder.testing.laws import chi_square_p, random_order_law, total_variation
from anyorder.testing.oracle import MarkovOracle, Oracle, RandomTable

NOISE = Noise.of(2409_02908)
TABLE = RandomTable(2, Noise.of(5).at("table"), scale=1.5)
RUGGED = Oracle.random(2, 3, noise=Noise.of(6).at("joint"))
STICKY = MarkovOracle(
    torch.tensor([0.5, 0.5], dtype=torch.float64), torch.tensor([[0.99, 0.01], [0.01, 0.99]], dtype=torch.float64)
).joint(3)
LENGTH = 3
UNMASKING = [name for name in PRESETS if isinstance(make_sampler(name), Unmask)]
FEW = 3  # steps of presets that take a number of them: enumeration walks over every canvas at every step


def few_steps(name, num_steps=FEW):
    return make_sampler(name, num_steps=num_steps if PRESETS[name].paced else None)


# Those that take tokens back by chance have their laws enumerated in test_sampler_revise.py, too.
TAKEN_BACK = [n for n in UNMASKING if isinstance(make_sampler(n).revise, ReMDM) and n != "remdm-cap"]


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in TAKEN_BACK else n for n in UNMASKING])
def test_samples_follow_the_enumerated_law(name):
    cool = make_sampler(name, num_steps=2 if PRESETS[name].paced else None, temperature=0.7)
    for sampler in (few_steps(name), cool):
        law = output_law(sampler, TABLE, LENGTH)
        assert float(law.sum()) == pytest.approx(1.0, abs=1e-12)
        counts = observed(generate(sampler, TABLE, blank(TABLE.vocab, 20_000, LENGTH), noise=NOISE), TABLE.vocab)
        assert chi_square_p(counts, law) > 1e-4


@pytest.mark.parametrize("name", UNMASKING)
def test_a_preset_is_exact_if_and_only_if_it_says_so(name):
    """At its own settings where one walk can follow them, and in two steps; on a rugged law and on a sticky one."""
    samplers = [few_steps(name, 2)] if PRESETS[name].paced else []
    if PRESETS[name].exact or not PRESETS[name].paced:
        samplers.append(make_sampler(name))
    for sampler in samplers:
        away = max(total_variation(output_law(sampler, joint, LENGTH), joint.table) for joint in (RUGGED, STICKY))
        assert away < 1e-12 if sampler.exact else away > 1e-4, away


def everything(canvas, vocab):
    """All canvases that one step could make of a canvas, as one batch."""
    choices = [range(vocab.size + 1) if token == vocab.mask_id else [token] for token in canvas.x[0].tolist()]
    x = torch.tensor(list(itertools.product(*choices)))
    row_id = torch.zeros(len(x), dtype=torch.int64)
    return [
        replace(canvas, x=y, fixed=canvas.fixed.expand(y.shape), window=canvas.window.expand(y.shape), row_id=row_id)
        for y in (canvas.x.expand(x.shape), x)
    ]


SCORED = {name: few_steps(name) for name in UNMASKING if isinstance(few_steps(name).revise, Keep)}
SCORED = {name: sampler for name, sampler in SCORED.items() if sampler.order == "choose_first"} | {
    "noisy confidence": Unmask(PerStep(2), Confidence("entropy", noise=0.5)),
    "linear noise": Unmask(Binomial(2), Confidence("prob", noise=0.3, linear=True)),
    "annealed": Unmask(One(), Confidence("margin", noise=2.0, anneal=2)),
    "moment, two": Unmask(PerStep(2), Moment(3.0), TokenRule(temperature=1 / 3)),
    "cool": Unmask(Binomial(3), token=TokenRule(0.5, 1)),
}


def test_races_are_run_with_noise_of_their_own():
    """Independent of the coin flips that count."""
    canvas = blank(TABLE.vocab, 2000, LENGTH)
    look = Look(TABLE, canvas, Unmask().init(canvas, vocab=TABLE.vocab), NOISE)
    pair = torch.stack([look.u.flatten(), (-(-look.gumbel).exp()).exp().flatten()])  # both uniform
    assert abs(float(torch.corrcoef(pair)[0, 1])) < 4 / 6000**0.5
    sampler = SCORED["linear noise"]
    counts = observed(generate(sampler, TABLE, blank(TABLE.vocab, 40_000, LENGTH), noise=NOISE), TABLE.vocab)
    assert chi_square_p(counts, output_law(sampler, TABLE, LENGTH)) > 1e-4


@pytest.mark.parametrize("name", SCORED)
def test_the_log_probabilities_of_all_steps_are_the_kernel_and_sum_to_one(name):
    sampler = SCORED[name]
    for x in ([2, 2, 2], [2, 0, 2], [1, 1, 2]):
        canvas = replace(Canvas.of(torch.tensor([x]), vocab=TABLE.vocab), fixed=torch.zeros(1, 3, dtype=torch.bool))
        for step in (0, 1, 2):
            carry = replace(sampler.init(canvas, vocab=TABLE.vocab), step=torch.tensor([step]))
            before, after = everything(canvas, TABLE.vocab)
            many = replace(carry, step=carry.step.expand(len(after.x)), start=carry.start.expand(len(after.x)))
            chance = sampler.log_prob(TABLE, before, many, after).exp()
            assert float(chance.sum()) == pytest.approx(1.0, abs=1e-9)
            kernel = transitions(sampler, TABLE, canvas, carry)
            for y, p in zip(after.x.tolist(), chance.tolist()):
                assert p == pytest.approx(kernel.get((tuple(y), (), 0), 0.0), abs=1e-9)


@pytest.mark.parametrize("name", [*SCORED, "causal", "blocks"])
def test_a_trajectory_scores_what_its_steps_were_drawn_with(name):
    sampler = {"causal": Causal(), "blocks": Blockwise(Unmask(Binomial(2)), 2)}.get(name) or SCORED[name]
    canvas = blank(TABLE.vocab, 50, LENGTH)
    taken = list(steps(sampler, TABLE, canvas, noise=NOISE))
    logp = torch.stack(list(step_log_probs(sampler, TABLE, canvas, taken=taken)))
    assert logp.shape == (len(taken), 50)
    tokens = torch.stack([step.logp.sum(-1) for step in taken])
    assert bool((logp <= tokens + 1e-9).all()), "choosing positions cannot make a step likelier than its tokens"
    assert bool(logp.isfinite().all())
    if name in ("causal", "threshold", "dream-margin"):  # nothing but tokens is drawn
        torch.testing.assert_close(logp, tokens)


def test_first_hitting_trajectories_add_up_to_the_law_of_the_sampler():
    law = torch.zeros(8, dtype=torch.float64)
    canvas, sampler = Canvas.of(torch.full((1, 3), 2), vocab=TABLE.vocab), Unmask()
    for x in itertools.product((0, 1), repeat=3):
        for order in itertools.permutations(range(3)):
            now, total = canvas, 0.0
            carry = sampler.init(now, vocab=TABLE.vocab)
            for i in order:
                y = now.x.clone()
                y[0, i] = x[i]
                total += float(sampler.log_prob(TABLE, now, carry, replace(now, x=y)))
                now, carry = replace(now, x=y), replace(carry, step=carry.step + 1)
            law[x[0] * 4 + x[1] * 2 + x[2]] += math.exp(total)
    torch.testing.assert_close(law, random_order_law(TABLE, 3))


def test_log_probabilities_carry_a_gradient():
    logits = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)

    class Learned:
        nfe, vocab = 1, TABLE.vocab

        def __call__(self, canvas, at):
            return logits.expand(int(at.sum()), 2)

    canvas = Canvas.of(torch.tensor([[2, 2]]), vocab=TABLE.vocab)
    after = replace(canvas, x=torch.tensor([[0, 2]]))
    sampler = Unmask(One(), Moment(2.0))
    sampler.log_prob(Learned(), canvas, sampler.init(canvas, vocab=TABLE.vocab), after).sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[0.5, -0.5]], dtype=torch.float64))


@pytest.mark.parametrize("name", ["low-confidence", "remdm-cap", "p2"])
def test_steps_without_a_likelihood_say_what_has_one(name):
    canvas = blank(TABLE.vocab, 1, 3)
    for block in (None, 2):
        sampler = make_sampler(name, num_steps=2, block=block)
        with pytest.raises(ValueError, match="use order='choose_first' and revise=Keep"):
            list(step_log_probs(sampler, TABLE, canvas, taken=list(steps(sampler, TABLE, canvas, noise=NOISE))))


def plackett_luce(weights, chosen):
    """By all orders in which the chosen can come."""
    total = 0.0
    for order in itertools.permutations(chosen):
        left, chance = list(range(len(weights))), 1.0
        for i in order:
            chance *= math.exp(weights[i]) / math.fsum(math.exp(weights[j]) for j in left)
            left.remove(i)
        total += chance
    return math.log(total)


@pytest.mark.parametrize("scale", [0.0, 1.0, 4.0, 12.0])
def test_the_chance_of_a_set_is_the_sum_over_its_orders(scale):
    weights = NOISE.at("weights").normal(torch.arange(6)) * scale
    for k in range(7):
        for chosen in itertools.combinations(range(6), k):
            mask = torch.isin(torch.arange(6), torch.tensor(chosen, dtype=torch.int64))[None]
            got = float(set_log_prob(weights[None], mask, allowed=torch.ones_like(mask)))
            assert got == pytest.approx(plackett_luce(weights.tolist(), chosen), abs=1e-9, rel=1e-9)


def test_the_chance_of_a_large_set_is_continuous_in_its_weights():
    mask = (torch.arange(1024) % 4 == 0)[None]
    weights = torch.zeros(1, 1024, dtype=torch.float64)
    equal = set_log_prob(weights, mask, allowed=torch.ones_like(mask))
    assert float(equal) == pytest.approx(-math.log(math.comb(1024, 256)), rel=1e-12)
    weights[0, 0] = 1e-9
    assert float(set_log_prob(weights, mask, allowed=torch.ones_like(mask))) == pytest.approx(float(equal), abs=1e-6)
