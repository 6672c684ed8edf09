"""Samplers that take tokens back, against enumeration of their kernels and against their formulas."""

import itertools
from dataclasses import replace

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.schedule import Linear, LogLinear, OneMinusCosine, Poly
from anyorder.core.types import Canvas
from anyorder.samplers.base import generate, steps
from anyorder.samplers.blockwise import Blockwise
from anyorder.samplers.count import Binomial, One
from anyorder.samplers.forced import Forced
from anyorder.samplers.keep_best import Best, LowestConfidence
from anyorder.samplers.look import Look
from anyorder.samplers.position import Confidence
from anyorder.samplers.presets import make_sampler
from anyorder.samplers.remasking import Cap, Corrector, During, Plateau, Psi, Remasking, Rescale, sigma_max
from anyorder.samplers.revise import Keep, ReMDM, Written
from anyorder.samplers.unmask import Unmask, start
from anyorder.testing.contracts import CountingDenoiser, blank, check_exact, same
from anyorder.testing.laws import ancestral_law, chi_square_p
from anyorder.testing.oracle import MarkovOracle, Oracle, RandomTable, states_of
from anyorder.testing.tiny import oracle_a

NOISE = Noise.of(2503_00307)
TABLE = RandomTable(2, Noise.of(5).at("table"), scale=1.5)
SIGMAS = {
    "cap": Cap(0.3),
    "rescale": Rescale(0.5),
    "switch": During(Cap(0.3), start=0.5),
    "loop": During(Cap(0.1), start=0.55, end=0.05),
    "fb": Corrector(),
    "dfm": Corrector(10.0, 0.25),
    "psi": Psi(0.6),
    "most": Rescale(1.0),
}


def path_of(name, num_steps, schedule=None):
    return Remasking(num_steps, SIGMAS[name], schedule or (Plateau() if name == "loop" else Linear()))


def sampler_of(path):
    return Unmask(Written(path), revise=ReMDM(path))


def alphas_of(path):
    return path.schedule.alpha(path.times)


def test_the_posterior_of_a_step_by_hand():
    """alpha_t = .4, alpha_s = .6, sigma = .3."""
    path = Remasking(5, Cap(0.3))
    assert alphas_of(path)[2:4].tolist() == pytest.approx([0.4, 0.6])
    assert float(path.back[2]) == pytest.approx(0.3)
    assert float(path.write[2]) == pytest.approx((0.6 - 0.7 * 0.4) / 0.6)
    assert 0.4 * 0.7 + 0.6 * float(path.write[2]) == pytest.approx(0.6)


@pytest.mark.parametrize("schedule", [Linear(), OneMinusCosine(), Poly(2.0), Plateau()])
@pytest.mark.parametrize("num_steps", [1, 2, 7, 50])
@pytest.mark.parametrize("name", SIGMAS)
def test_every_step_keeps_the_marginal(name, num_steps, schedule):
    path = path_of(name, num_steps, schedule)
    alpha = alphas_of(path)
    for chance in (path.back, path.write):
        assert bool(((chance >= -1e-12) & (chance <= 1 + 1e-12)).all())
    visible = alpha[:-1] * (1 - path.back) + (1 - alpha[:-1]) * path.write
    torch.testing.assert_close(visible, alpha[1:], atol=1e-12, rtol=0)
    assert (float(path.back[-1]), float(path.write[-1])) == (0.0, 1.0)


def test_the_published_values_of_sigma():
    t, s = torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64), torch.tensor([0.8, 0.4, 0.1], dtype=torch.float64)
    a, b = 1 - t, 1 - s
    torch.testing.assert_close(sigma_max(a, b), torch.tensor([1.0, 0.8, 0.125], dtype=torch.float64))
    assert Cap(0.3)(t, a, b).tolist() == [0.3] * 3
    torch.testing.assert_close(Rescale(0.5)(t, a, b), torch.tensor([0.5, 0.4, 0.0625], dtype=torch.float64))
    torch.testing.assert_close(Corrector()(t, a, b), torch.tensor([1.0, 0.2, 0.125], dtype=torch.float64))
    torch.testing.assert_close(Corrector(10.0, 0.25)(t, a, b), 10 * (t * (1 - t)) ** 0.25 * (b - a) / a)
    torch.testing.assert_close(Psi(0.6)(t, a, b), torch.tensor([0.32, 0.16, 0.04], dtype=torch.float64))
    capped = Remasking(10, Cap(0.3)).back
    assert capped.tolist() == pytest.approx([0.3] * 7 + [0.2 / 0.7, 0.1 / 0.8, 0.0])


def test_forward_backward_writes_twice_as_much_as_ancestral():
    path, alpha = Remasking(20, Corrector()), torch.linspace(0, 1, 21, dtype=torch.float64)
    delta = (alpha[1:] - alpha[:-1]) / (1 - alpha[:-1])
    some = slice(2, 18)  # sigma is not cut there
    torch.testing.assert_close(path.write[some], 2 * delta[some])
    torch.testing.assert_close(path.back[some], ((alpha[1:] - alpha[:-1]) / alpha[:-1])[some])


def test_switch_and_loop_have_their_phases():
    switch = Remasking(10, During(Cap(0.04), start=0.45)).back
    assert switch.tolist() == pytest.approx([0.0] * 6 + [0.04] * 3 + [0.0])
    loop = make_sampler("remdm-loop", num_steps=20).revise.path
    alpha, t = alphas_of(loop), loop.times
    rising, flat = t > 0.5501, (t <= 0.5501) & (t > 0.0501)
    torch.testing.assert_close(alpha[rising], (1 - t[rising]) * 0.9 / 0.45)
    torch.testing.assert_close(alpha[flat], torch.full_like(alpha[flat], 0.9))
    assert float(alpha[-1]) == 1.0
    busy = flat[:-1] & (t[:-1] < 0.5499)
    torch.testing.assert_close(loop.back[busy], torch.full_like(loop.back[busy], 0.02))
    torch.testing.assert_close(loop.write[busy], torch.full_like(loop.write[busy], 0.02 * 0.9 / 0.1))
    assert bool((loop.back[rising[:-1]] == 0).all())
    assert float(loop.back[-1]) == 0.0


@pytest.mark.parametrize("kappa", [0.0, 0.3, 1.0])
def test_psi_is_remdm_as_a_matrix(kappa):
    """kappa q(x_s | x_t, x_0) + (1 - kappa) q(x_s | x_0) over {token, mask}, from each of them."""
    path = Remasking(9, Psi(kappa))
    for i, (a, b) in enumerate(itertools.pairwise(alphas_of(path).tolist())):
        delta = (b - a) / (1 - a)
        mixed = kappa * torch.tensor([[1, 0], [delta, 1 - delta]]) + (1 - kappa) * torch.tensor([[b, 1 - b]] * 2)
        back, write = float(path.back[i]), float(path.write[i])
        assert mixed.flatten().tolist() == pytest.approx([1 - back, back, write, 1 - write], abs=1e-7), i
        if b < 1:
            assert kappa == pytest.approx(1 - back / (1 - b))


@pytest.mark.parametrize(
    ("num_steps", "schedule"), [(1, Linear()), (4, LogLinear()), pytest.param(30, Linear(), marks=pytest.mark.slow)]
)
def test_without_taking_back_it_is_ancestral_number_for_number(num_steps, schedule):
    for sigma in (Cap(0.0), Rescale(0.0), Psi(1.0), Corrector(0.0)):
        again = sampler_of(Remasking(num_steps, sigma, schedule))
        canvas = blank(TABLE.vocab, 20, 6)
        mine, theirs = (generate(s, TABLE, canvas, noise=NOISE) for s in (again, Unmask(Binomial(num_steps, schedule))))
        assert torch.equal(mine.canvas.x, theirs.canvas.x)
        assert torch.equal(mine.nfe, theirs.nfe)
        assert torch.equal(mine.logp, theirs.logp)
        assert not bool(mine.revised.any())


def revised_law(model, length, path):
    """Law of the sampler over all sequences, by its kernel over all canvases."""
    size = model.vocab.size
    canvases = states_of(size + 1, length)
    masked = canvases == size
    cond = torch.zeros(*canvases.shape, size, dtype=torch.float64)
    asked = model(Canvas.of(canvases, vocab=model.vocab), masked).double().softmax(-1)
    cond[masked] = asked
    law = torch.zeros(len(canvases), dtype=torch.float64)
    law[-1] = 1.0
    for back, write in zip(path.back.tolist(), path.write.tolist()):
        kernel = torch.ones(len(canvases), len(canvases), dtype=torch.float64)
        for j in range(length):
            here = canvases[:, j]
            new = torch.zeros(len(canvases), size + 1, dtype=torch.float64)
            new[:, :size] = torch.where(
                masked[:, j, None],
                write * cond[:, j],
                (1 - back) * torch.nn.functional.one_hot(here, size + 1)[:, :size],
            )
            new[:, size] = torch.where(masked[:, j], 1 - write, back)
            kernel = kernel * new[:, here]
        law = law @ kernel
    return law[(canvases != size).all(-1)]


def test_the_enumeration_without_taking_back_is_the_ancestral_law():
    path = Remasking(4, Cap(0.0))
    expected = ancestral_law(TABLE, 3, alphas=[0, 0.25, 0.5, 0.75, 1])
    torch.testing.assert_close(revised_law(TABLE, 3, path), expected)


@pytest.mark.parametrize("name", SIGMAS)
def test_every_strategy_has_its_enumerated_law(name):
    path = path_of(name, 6)
    law = revised_law(TABLE, 3, path)
    check_exact(sampler_of(path), TABLE, law, length=3, generate=generate, noise=NOISE, rows=30_000)


def test_the_laws_of_the_strategies_differ_so_that_the_test_above_can_fail():
    laws = [revised_law(TABLE, 3, path_of(name, 6)) for name in ("cap", "most", "fb")]
    laws.append(ancestral_law(TABLE, 3, alphas=torch.linspace(0, 1, 7).double().tolist()))
    for p, q in itertools.combinations(laws, 2):
        assert float((p - q).abs().sum()) > 0.02


@pytest.mark.parametrize("name", ["fb", "most", "loop"])
def test_how_often_a_single_position_is_written_is_a_two_state_chain(name):
    """With one position every row is full or empty: the free steps of full rows are what is tested."""
    path, rows = path_of(name, 12), 20_000
    sample = generate(sampler_of(path), TABLE, blank(TABLE.vocab, rows, 1), noise=NOISE)
    law = torch.zeros(2, 14, dtype=torch.float64)  # masked or visible, by passes
    law[0, 0] = 1.0
    for back, write in zip(path.back, path.write):
        written = torch.cat([torch.zeros(1), law[0, :-1] * write])
        law = torch.stack([law[0] * (1 - write) + law[1] * back, law[1] * (1 - back) + written])
    assert float(law[0].sum()) == 0.0
    assert chi_square_p(torch.bincount(sample.revised[:, 0] + 1, minlength=14), law[1]) > 1e-4
    assert (sample.nfe == 1).all(), "the one canvas there is was evaluated twice"


@pytest.mark.parametrize("name", ["cap", "fb", "dfm", "psi", "loop"])
def test_the_share_of_masks_follows_the_schedule(name):
    path, rows, length = path_of(name, 8), 160, 150  # long rows: none is ever full before the end
    alpha = alphas_of(path)
    model, last = RandomTable(3, NOISE.at("long")), 0
    for step in steps(sampler_of(path), model, blank(model.vocab, rows, length), noise=NOISE):
        i = int(step.carry.step.min())
        if i == last + 1 and bool((step.carry.step == i).all()):
            share = float((step.canvas.x == model.vocab.mask_id).double().mean())
            expected = 1 - float(alpha[i])
            assert abs(share - expected) <= 4.5 * (expected * (1 - expected) / (rows * length)) ** 0.5, i
            last = i
    assert last == 8


PRODUCT = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.5, 0.25, 0.25]], dtype=torch.float64)


@pytest.mark.parametrize("name", ["cap", "rescale", "switch", "loop", "fb", "dfm", "psi"])
@pytest.mark.parametrize("num_steps", [2, 5])
def test_independent_positions_are_written_exactly(name, num_steps):
    joint = torch.einsum("a,b,c->abc", *PRODUCT).flatten()
    sampler = sampler_of(path_of(name, num_steps))
    check_exact(sampler, Oracle(joint, 3, 3), joint, length=3, generate=generate, noise=NOISE, rows=20_000)
    assert not sampler.exact


@pytest.mark.parametrize("sigma", [Cap(0.1), Rescale(0.3), Psi(0.9), Corrector(), Corrector(10.0, 0.25)])
def test_the_law_tends_to_the_data_with_more_steps(sigma):
    """Two dependent bits: ancestral sampling ends at KL .0447, .0098, .0024 nats after 4, 16, 64 steps.

    With a perfect denoiser taking back does not do better: every step also writes more tokens from one prediction.
    """

    def kl(path):
        p = oracle_a().table
        return float(torch.special.xlogy(p, p / revised_law(oracle_a(), 2, path)).sum())

    values = [kl(Remasking(n, sigma)) for n in (4, 16, 64)]
    plain = [kl(Remasking(n, Cap(0.0))) for n in (4, 16, 64)]
    assert plain == pytest.approx([0.04467, 0.00983, 0.00237], abs=1e-5)
    assert all(0 < p < v < 0.1 for p, v in zip(plain, values))
    assert values == sorted(values, reverse=True)


def test_confidence_shares_sigma_out():
    path = Remasking(4, Rescale(1.0), by_confidence=True)
    x = torch.tensor([[0, 1, 2, 3, 1]])
    canvas = Canvas(x, torch.tensor([[True] + [False] * 4]), torch.ones_like(x) > 0, None, torch.tensor([0]))
    many = 40_000
    canvas = replace(
        canvas,
        **{f: getattr(canvas, f).repeat(many, 1) for f in ("x", "fixed", "window")},
        row_id=torch.arange(many),
    )
    model = RandomTable(3, NOISE)
    p = torch.tensor([0.2, 0.9, 0.5])
    logp = torch.tensor([0.0, 0.2, 0.9, 1.0, 0.5]).double().log().clamp(min=-9).repeat(many, 1)
    carry = replace(start(canvas, vocab=model.vocab), step=torch.full((many,), 2), logp=logp)
    back = (ReMDM(path)(Look(model, canvas, carry, NOISE)) == model.vocab.mask_id) & (canvas.x != model.vocab.mask_id)
    assert not bool(back[:, [0, 3]].any())  # a prompt and a mask
    share = float(path.back[2]) * (-p.double()).softmax(-1)
    seen = back[:, [1, 2, 4]].double().mean(0)
    assert bool(((seen - share).abs() < 4.5 * (share * (1 - share) / many) ** 0.5).all())
    assert float(path.back[2]) == pytest.approx(0.5)
    torch.testing.assert_close(path.write[:3], torch.tensor([1 / 4, 1 / 3, 1 / 2]).double())  # as ancestral


@pytest.mark.parametrize("name", ["cap", "fb"])
def test_log_probabilities_are_those_of_the_canvas_each_token_was_drawn_on(name):
    canvas = blank(TABLE.vocab, 30, 6)
    sampler = sampler_of(path_of(name, 10))
    sample = generate(sampler, TABLE, canvas, noise=NOISE)
    assert bool((sample.revised > 0).any())
    last = torch.zeros(30, 6, dtype=torch.float64)
    for step in steps(sampler, TABLE, canvas, noise=NOISE):
        logits = torch.full((30, 6, 2), torch.nan, dtype=torch.float64)
        logits[step.wrote] = TABLE(canvas, step.wrote).double()
        token = step.canvas.x.clamp(max=1)
        kept = step.wrote & (step.canvas.x != TABLE.vocab.mask_id)
        expected = logits.gather(-1, token[..., None]).squeeze(-1)
        torch.testing.assert_close(step.logp[kept], expected[kept])
        last = torch.where(step.wrote, step.logp, last)
        canvas = step.canvas
    torch.testing.assert_close(sample.token_logp, last)
    assert torch.equal(sample.canvas.x, canvas.x)


def test_blocks_are_revised_within_themselves():
    path = Remasking(6, Corrector())
    taken = list(steps(Blockwise(sampler_of(path), 3), TABLE, blank(TABLE.vocab, 50, 6), noise=NOISE))
    before, again = blank(TABLE.vocab, 50, 6).x, 0
    for step in taken:
        went = (step.canvas.x == 2) & (before != 2)
        full = (before[:, :3] != 2).all(-1) & (before[:, 3:] != 2).any(-1)
        assert not bool(went[full][:, :3].any())
        again += int(went[:, 3:].sum())
        before = step.canvas.x
    assert again > 0
    assert not bool((before == 2).any())


def test_rules_that_do_not_go_together_are_refused():
    one, other = Remasking(4), Remasking(5)
    for count, revise in ((Written(one), Keep()), (Written(one), ReMDM(other)), (One(), ReMDM(one))):
        with pytest.raises(
            ValueError, match=r"needs count=Written\(path\) and revise=ReMDM\(path\) of one and the same"
        ):
            Unmask(count, revise=revise)
    Unmask(Written(one), revise=ReMDM(Remasking(4)))
    with pytest.raises(ValueError, match=r"sampler.revise=ReMDM: has no likelihood of this kind"):
        Forced(sampler_of(one), torch.zeros(1, 2, dtype=torch.int64), torch.tensor([0]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cap(1.5), r"sampler.eta=1.5: must be in \[0, 1\]"),
        (lambda: Rescale(-0.1), r"sampler.eta=-0.1: must be in \[0, 1\]"),
        (lambda: Psi(2.0), r"sampler.kappa=2.0: must be in \[0, 1\]"),
        (lambda: Corrector(-1.0), r"sampler.scale=-1.0: must be >= 0"),
        (lambda: Corrector(1.0, -1.0), r"sampler.power=-1.0: must be >= 0"),
        (lambda: During(start=0.2, end=0.4), r"sampler.start=0.2, sampler.end=0.4: must be 0 <= end < start <= 1"),
        (lambda: Plateau(start=1.0), r"sampler.start=1.0: must be < 1"),
        (lambda: Plateau(level=1.0), r"sampler.level=1.0: must be in \(0, 1\)"),
        (lambda: Remasking(0), r"sampler.num_steps=0: must be >= 1"),
    ],
)
def test_bad_values_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_presets_are_made_of_their_parts():
    for name, sigma in {
        "remdm-cap": Cap(0.04),
        "remdm-rescale": Rescale(0.04),
        "remdm-switch": During(Cap(0.04), start=0.5),
        "forward-backward": Corrector(),
        "dfm-corrector": Corrector(10.0, 0.25),
        "psi": Psi(0.95),
    }.items():
        assert make_sampler(name, num_steps=7) == sampler_of(Remasking(7, sigma))
        assert make_sampler(name).count.path.num_steps == 256
    conf = make_sampler("remdm-conf", num_steps=7)
    assert conf == sampler_of(Remasking(7, Rescale(1.0), by_confidence=True))
    loop = make_sampler("remdm-loop", num_steps=7)
    assert loop == sampler_of(Remasking(7, During(Cap(0.02), 0.55, 0.05), Plateau(0.55, 0.05, 0.9)))


def test_rows_do_not_depend_on_their_batch_when_some_wait():
    sampler = sampler_of(Remasking(9, Rescale(0.7)))
    model = MarkovOracle.random(3, noise=NOISE)
    canvas = blank(model.vocab, 12, 2)
    together = generate(sampler, model, canvas, noise=NOISE)
    for row in range(12):
        alone = replace(blank(model.vocab, 1, 2), row_id=torch.tensor([row]))
        part = generate(sampler, model, alone, noise=NOISE)
        assert torch.equal(part.canvas.x[0], together.canvas.x[row])
        assert torch.equal(part.revised[0], together.revised[row])
        assert same(part.logp[0], together.logp[row], atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 2.0])
def test_planning_keeps_the_best_of_drawn_and_written_tokens(eta):
    best, model, num_steps, length = Best(5, eta), RandomTable(3, NOISE.at("plan"), scale=2.0), 5, 7
    sampler = Unmask(best, Confidence("drawn"), order="draw_first", revise=LowestConfidence(best))
    before, went = blank(model.vocab, 30, length), 0
    everywhere = torch.ones_like(before.fixed)
    for i, step in enumerate(steps(sampler, model, before, noise=NOISE)):
        masked = before.x == model.vocab.mask_id
        look = Look(model, before, replace(step.carry, step=step.carry.step - 1), NOISE)
        drawn = before.x.masked_scatter(masked, look.drawn[0])
        p = model(before, everywhere).double().view(30, length, 3).exp().gather(-1, drawn[..., None]).squeeze(-1)
        score = torch.where(masked, p, eta * p)
        keep = length - length * (num_steps - 1 - i) // num_steps
        for row in range(30):
            order = sorted(range(length), key=lambda j, s=score[row]: (-float(s[j]), j))
            assert (step.canvas.x[row] != model.vocab.mask_id).nonzero().squeeze(-1).tolist() == sorted(order[:keep])
        shown = step.canvas.x != model.vocab.mask_id
        assert torch.equal(step.canvas.x[shown], drawn[shown])
        went += int((~shown & ~masked).sum())
        assert step.nfe.tolist() == [1] * 30
        before = step.canvas
    assert i == num_steps - 1
    assert went > 0
    assert not sampler.exact


def test_planning_costs_one_pass_a_step_and_its_rules_go_together():
    model = CountingDenoiser(TABLE)
    sample = generate(make_sampler("p2", num_steps=4), model, blank(TABLE.vocab, 5, 8), noise=NOISE)
    assert sample.nfe.tolist() == [4] * 5
    assert model.calls == 4
    best = Best(4)
    for make in (
        lambda: Unmask(best, Confidence("drawn"), order="draw_first"),
        lambda: Unmask(best, revise=LowestConfidence(best)),
        lambda: Unmask(best, Confidence("drawn"), order="draw_first", revise=LowestConfidence(Best(5))),
        lambda: Unmask(One(), revise=LowestConfidence(best)),
    ):
        with pytest.raises(ValueError, match="Best and LowestConfidence go together"):
            make()
    with pytest.raises(ValueError, match=r"sampler.eta=-1.0: must be >= 0"):
        Best(3, -1.0)
