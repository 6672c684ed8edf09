"""Schedule policies: they begin as the schedule made by hand, and their log-probabilities are those of what they do."""

import math

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas, Vocab
from anyorder.models import ModelConfig, Transformer
from anyorder.rl.bodies import Adaptive, Figures, StepTable
from anyorder.rl.counts import Counts, Room
from anyorder.rl.policy import SchedulePolicy, squash, unsquash
from anyorder.rl.rollout import roll_out
from anyorder.samplers.base import generate
from anyorder.samplers.look import Look
from anyorder.samplers.schedules import HANDS, Table, hand
from anyorder.samplers.steered import Steered
from anyorder.testing.laws import chi_square_p
from anyorder.testing.oracle import RandomTable

VOCAB = Vocab(size=6, mask_id=6, pad_id=7)
NOISE = Noise.of(4)
INSIDE = Table(((0.9, 0.8, 1.0, 0.5), (0.6, 0.5, 1.2, 1.0), (0.2, 0.1, 0.7, 2.0)))


def network():
    model = Transformer(ModelConfig(num_layers=1, num_heads=2, d_model=16, d_ff=16, max_length=12), VOCAB)
    model.init_weights(NOISE)
    return model.requires_grad_(False).eval()


def blank(rows):
    x = torch.full((rows, 11), VOCAB.mask_id)
    x[:, 0], x[:, 1] = torch.arange(rows) % 5, 2
    return Canvas.of(x, vocab=VOCAB)


def bodies(model):
    return {
        "table": StepTable(3),
        "figures": Figures(3, width=8, noise=NOISE),
        "adaptive": Adaptive(model, (3, 3), widths=(8, 4, 8, 8), noise=NOISE),
    }


def test_squashing_is_inverted():
    torch.testing.assert_close(squash(unsquash(INSIDE.tensor)), INSIDE.tensor)
    edge = squash(unsquash(torch.tensor([[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0]], dtype=torch.float64)))
    torch.testing.assert_close(edge[:, 0], torch.tensor([1e-3, 1 - 1e-3], dtype=torch.float64))


@pytest.mark.parametrize("name", ["table", "figures", "adaptive"])
def test_a_new_policy_is_the_schedule_made_by_hand(name):
    model = network()
    policy = SchedulePolicy(INSIDE, bodies(model)[name])
    by_hand, learned = (Steered(s, without="absent") for s in (INSIDE, policy))
    want = generate(by_hand, model, blank(4), noise=NOISE)
    got = generate(learned, model, blank(4), noise=NOISE)
    assert torch.equal(want.canvas.x, got.canvas.x)
    assert torch.equal(want.order, got.order)
    taken = roll_out(model, by_hand, blank(4), noise=NOISE, policy=policy, explore=False)
    torch.testing.assert_close(taken.setting[:, 0], INSIDE.tensor, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "counts"),
    [(name, None) for name in HANDS]
    + [pytest.param(n, Counts(), marks=[] if n in ("adanat", "maskgit") else pytest.mark.slow) for n in HANDS],
)
def test_a_new_policy_is_every_published_schedule_token_by_token(name, counts):
    """Test T10, to the bit: also at knobs that are 0, where ratios fall on whole tokens, and with many to spare."""
    model = RandomTable(6, NOISE)
    for num_steps, length in ((3, 8), (4, 20), (8, 66)):
        table = hand(name, num_steps)
        x = torch.full((4, length), model.vocab.mask_id)
        x[:, 0], x[:, 1] = torch.arange(4), 2
        by_hand, learned = (
            roll_out(model, Steered(table), Canvas.of(x, vocab=model.vocab), noise=NOISE, policy=policy, explore=False)
            for policy in (None, SchedulePolicy(table, Figures(num_steps, width=8, noise=NOISE), counts=counts))
        )
        for field in ("final", "written", "token", "rank", "logp", "order_logp", "nfe"):
            assert torch.equal(getattr(by_hand, field), getattr(learned, field)), (num_steps, field)
        assert counts is not None or torch.equal(by_hand.setting, learned.setting)


def test_a_knob_that_is_off_stays_off_and_costs_no_pass():
    table = hand("adanat", 3, guidance=0.0)
    policy = SchedulePolicy(table, StepTable(3))
    policy.body.added.data.fill_(2.0)
    taken = roll_out(network(), Steered(table), blank(6), noise=NOISE, policy=policy, explore=True)
    assert bool((taken.setting[..., 3] == 0).all())
    assert taken.nfe.tolist() == [3] * 6
    assert bool((taken.setting[:2, :, :3] > table.tensor[:2, None, :3]).all())


@pytest.mark.parametrize("name", ["figures", "adaptive"])
def test_what_a_policy_sees_can_move_its_knobs(name):
    model = network()
    policy = SchedulePolicy(INSIDE, bodies(model)[name])
    for p in policy.parameters():
        p.data.add_(0.3 * NOISE.at(str(tuple(p.shape))).normal(torch.arange(p.numel())).view(p.shape).float())
    taken = roll_out(model, Steered(INSIDE), blank(5), noise=NOISE, policy=policy, explore=False)
    assert taken.mean[1].std(0).min() > 1e-6  # rows of different prompts are steered differently
    alone = roll_out(model, Steered(INSIDE), blank(1), noise=NOISE, policy=policy, explore=False)
    torch.testing.assert_close(alone.mean[:, 0], taken.mean[:, 0], atol=1e-5, rtol=0)


def test_exploration_is_the_gaussian_it_says():
    policy = SchedulePolicy(INSIDE, StepTable(3), std=0.4)
    policy.body.added.data.copy_(torch.arange(12.0).view(3, 4) / 10)
    canvas = blank(3000)
    carry = Steered(INSIDE).init(canvas, vocab=VOCAB)
    turn = policy.turn(Look(network(), canvas, carry, NOISE), noise=NOISE)
    off = (turn.action - turn.mean) / 0.4
    assert off.mean(0).abs().max() < 0.08
    assert (off.std(0) - 1).abs().max() < 0.06
    torch.testing.assert_close(turn.setting, squash(unsquash(INSIDE.tensor)[0] + turn.action))
    step, left = torch.zeros(3000, dtype=torch.int64), carry.start
    logp, away = policy.log_prob(turn.feature, step, turn.action, left=left, start=left)
    torch.testing.assert_close(logp, -(off**2).sum(-1) / 2)
    torch.testing.assert_close(away, (turn.mean**2).sum(-1) / (2 * 0.4**2))


@pytest.mark.parametrize(
    ("mean", "value", "slope"),
    [(0.0, 0.101513, 0.222952), (0.5, 0.239933, 0.330624), (1.0, 0.560276, 0.982833), (2.0, 0.999318, 0.007717)],
)
def test_the_gradient_of_a_schedule_in_closed_form(mean, value, slope):
    """Eight equal tokens of four values, two steps: success 4^-(k - 1) where k are revealed first."""
    policy = SchedulePolicy(Table(((math.cos(math.pi / 4), 1.0, 1.0, 0.0), (0.0, 1.0, 1.0, 0.0))), StepTable(2))
    policy.double().body.added.data[0, 0] = mean
    grid = torch.linspace(mean - 3.0, mean + 3.0, 600_001, dtype=torch.float64)
    action = torch.zeros(len(grid), 4, dtype=torch.float64)
    action[:, 0] = grid
    knobs = squash(policy.base[0] + action)
    masks = (8 * knobs[:, 0]).floor().clamp(1, 7)
    reward = 4.0 ** -(8 - masks - 1)
    eight, step = torch.full((len(grid),), 8), torch.zeros(len(grid), dtype=torch.int64)
    logp, _ = policy.log_prob(torch.zeros(len(grid), 0), step, action, left=eight, start=eight)
    density = logp.detach().exp() / logp.detach().exp().sum()
    (density * reward * logp).sum().backward()
    assert float((density * reward).sum()) == pytest.approx(value, abs=2e-6)
    assert float(policy.body.added.grad[0, 0]) == pytest.approx(slope, abs=2e-5)


@pytest.mark.parametrize("counts", [None, Counts(2.0)])
def test_every_step_explores_by_itself(counts):
    table = Table(((0.6, 0.8, 1.0, 0.5), (0.3, 0.5, 1.2, 1.0), (0.2, 0.1, 0.7, 2.0)))
    n, policy = 500, SchedulePolicy(table, StepTable(3), std=0.5, counts=counts)
    taken = roll_out(network(), Steered(table), blank(n), noise=NOISE, policy=policy, explore=True)
    first, second = ((taken.action[t] - taken.action[t].mean(0)) / taken.action[t].std(0) for t in (0, 1))
    between = (first * second).mean(0)[1 if counts else 0 :]
    assert between.abs().max() < 4 / n**0.5  # knobs of different steps
    assert (first[:, 1] * first[:, 2]).mean().abs() < 4 / n**0.5  # knobs of one step
    if counts:
        after_four = taken.fill(0).sum(-1) == 4  # the second count knows of the first no more than what is left
        here = room(5, 1, start=9)
        share = counts.share(table.tensor[1, :1], torch.zeros(1).double(), here)
        law = torch.stack([counts.log_prob(share, here, torch.tensor([k])).exp()[0] for k in range(1, 5)])
        seen = torch.bincount(taken.fill(1).sum(-1)[after_four] - 1, minlength=4)
        assert chi_square_p(seen, law) > 1e-4
        assert int(seen.sum()) > 50


def room(left, ahead, *, start=12, rows=1):
    full = torch.full((rows,), 1)
    return Room(start=start * full, left=left * full, ahead=ahead * full)


def test_counts_are_a_law_on_what_every_later_step_can_still_complete():
    counts = Counts(5.0)
    for left, ahead in [(12, 3), (4, 3), (9, 0), (1, 0), (2, 3)]:
        here = room(left, ahead)
        share = counts.share(torch.tensor([0.5], dtype=torch.float64), torch.zeros(1, dtype=torch.float64), here)
        legal = range(1, max(1, left - ahead) + 1)
        total = sum(float(counts.log_prob(share, here, torch.tensor([k])).exp()) for k in legal)
        assert total == pytest.approx(1.0 if ahead and left - 1 > ahead else len(legal))
    here = room(12, 3, rows=20_000)
    share = torch.full((20_000,), 0.3, dtype=torch.float64)
    drawn = counts.take(share, here, NOISE.uniform(torch.arange(20_000)))
    assert (drawn.min(), drawn.max()) == (1, 9)
    want = torch.stack([counts.log_prob(share[:1], room(12, 3), torch.tensor([k])).exp()[0] for k in range(1, 10)])
    found = torch.bincount(drawn, minlength=10)[1:] / len(drawn)
    assert ((found - want).abs() < 4 * (want * (1 - want) / len(drawn)).sqrt()).all()


@pytest.mark.parametrize("concentration", [2.0, 20.0])
def test_counts_have_the_mean_and_the_variance_of_a_beta_binomial(concentration):
    counts, here = Counts(concentration), room(12, 3)
    share, n = torch.tensor([0.3], dtype=torch.float64), 8
    j = torch.arange(n + 1).double()
    chance = torch.stack([counts.log_prob(share, here, torch.tensor([k])).exp()[0] for k in range(1, n + 2)])
    mean = float((chance * j).sum())
    assert mean == pytest.approx(0.3 * n, rel=1e-12)
    wide = n * 0.3 * 0.7 * (concentration + n) / (concentration + 1)
    assert float((chance * (j - mean) ** 2).sum()) == pytest.approx(wide, rel=1e-12)


def test_counts_begin_as_the_schedule_s_and_waste_no_step():
    model, table = network(), hand("adanat", 4)
    policy = SchedulePolicy(table, StepTable(4), counts=Counts())
    taken = roll_out(model, Steered(table), blank(3), noise=NOISE, policy=policy, explore=False)
    by_hand = roll_out(model, Steered(table), blank(3), noise=NOISE, policy=None, explore=False)
    for t in range(4):
        assert torch.equal(taken.fill(t).sum(-1), by_hand.fill(t).sum(-1))
    explored = roll_out(model, Steered(table), blank(50), noise=NOISE, policy=policy, explore=True)
    written = torch.stack([explored.fill(t).sum(-1) for t in range(4)])
    assert (written >= 1).all()
    assert (written.sum(0) == 9).all()
    assert torch.equal(written[0].double(), explored.action[0, :, 0])
    assert len(torch.unique(written[0])) > 2


def test_what_is_not_explored_has_no_density():
    policy = SchedulePolicy(INSIDE, StepTable(3), std=0.4, explore="ratio")
    action = torch.tensor([[0.2, 0.0, 0.0, 0.0], [0.2, 1.0, -2.0, 0.5]], dtype=torch.float64)
    step, left = torch.zeros(2, dtype=torch.int64), torch.full((2,), 8)
    logp, _ = policy.log_prob(torch.zeros(2, 0), step, action, left=left, start=left)
    torch.testing.assert_close(logp, torch.full((2,), -(0.2**2) / (2 * 0.4**2), dtype=torch.float64))


def test_what_cannot_explore_is_refused():
    with pytest.raises(ValueError, match=r"policy\.std"):
        SchedulePolicy(INSIDE, StepTable(3), std=0.0)
    with pytest.raises(ValueError, match=r"policy\.explore='some': must be one of all, ratio, ratio-only"):
        SchedulePolicy(INSIDE, StepTable(3), explore="some")
    with pytest.raises(ValueError, match="concentration"):
        Counts(0.0)
