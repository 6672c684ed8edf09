"""Passes with a price: one policy for all prices, which begins as the hand schedule and learns what passes bring."""

import json

import pytest
import torch
from pydantic import ValidationError

from anyorder.core.log import read_records
from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.data.tasks import make_task
from anyorder.models import ModelConfig, Transformer
from anyorder.rl.advantage import group_advantages
from anyorder.rl.bodies import Adaptive, Figures, StepTable
from anyorder.rl.config import ObjectiveConfig, RlConfig
from anyorder.rl.counts import Counts, Room
from anyorder.rl.loop import METRICS, Run, learn
from anyorder.rl.make import Lesson, make_lesson
from anyorder.rl.parts import prices_of
from anyorder.rl.policy import SchedulePolicy
from anyorder.rl.rollout import roll_out
from anyorder.rl.update import schedule_gradients, schedule_terms
from anyorder.samplers.base import generate
from anyorder.samplers.presets import make_sampler
from anyorder.samplers.schedules import Table, hand
from anyorder.samplers.steered import Steered
from anyorder.testing.oracle import MarkovOracle

NOISE = Noise.of(9)
TASK = "scenes:grid=4,num_train=60,num_valid=12,num_test=12"
PRICED = {
    "task": TASK,
    "mode": "schedule_only",
    "schedule": {"num_steps": 6, "body": "table", "counts": True, "concentration": 4.0},
    "sampler": {"may_finish": True},
    "step_price_max": 1.0,
    "evaluate_prices": 3,
    "prompts": 4,
    "group": 6,
    "iterations": 12,
    "lr_schedule": 0.3,
    "evaluate_every": 6,
    "evaluate_problems": 6,
    "save_every": 4,
}


def copies(values=2):
    """A model of equal tokens, which knows them all once it sees one."""
    law = torch.full((values,), 1 / values, dtype=torch.float64)
    return MarkovOracle(law, torch.eye(values, dtype=torch.float64))


def blank(rows, length=2):
    model = copies()
    return model, Canvas.of(torch.full((rows, length), model.vocab.mask_id), vocab=model.vocab)


def passes_at(policy, prices, *, table):
    model, canvas = blank(len(prices))
    taken = roll_out(
        model,
        Steered(table, may_finish=True),
        canvas,
        noise=NOISE.at("look"),
        policy=policy,
        explore=False,
        price=torch.tensor(prices, dtype=torch.float64),
    )
    return taken.nfe.tolist()


@pytest.mark.parametrize(
    ("body", "rate", "iterations"), [("table", 0.2, 20), pytest.param("figures", 0.02, 60, marks=pytest.mark.slow)]
)
def test_passes_are_saved_from_the_price_on_at_which_they_cost_more_than_they_bring(body, rate, iterations):
    """Two equal tokens of two values: one pass is right half the time, two always are, so that the second is worth 1/2.

    With two steps it costs price / 2: two passes are best below a price of 1, one above it.
    """
    table = Table(((0.6, 1.0, 1.0, 0.0), (0.0, 1.0, 1.0, 0.0)))
    made = {
        "table": StepTable(2, priced=True),
        "figures": Figures(2, width=16, priced=True, noise=NOISE),
    }[body]
    policy = SchedulePolicy(table, made, prices=(0.0, 2.0))
    assert passes_at(policy, [0.0, 1.0, 2.0], table=table) == [2, 2, 2]  # the schedule made by hand
    optimizer = torch.optim.Adam(policy.parameters(), lr=rate)
    model, canvas = blank(32 * 6)
    for iteration in range(iterations):
        noise = NOISE.at(iteration)
        price = (2 * noise.at("price").uniform(torch.arange(32))).repeat_interleave(6)
        taken = roll_out(
            model,
            Steered(table, may_finish=True),
            canvas,
            noise=noise,
            policy=policy,
            explore=True,
            price=price,
        )
        right = (taken.final == taken.final[:, :1]).all(-1).double()
        advantages = group_advantages(right - price * taken.nfe / 2, size=6, scale="none")
        with torch.no_grad():
            old = schedule_terms(policy, taken)[0]
        optimizer.zero_grad()
        schedule_gradients(policy, taken, advantages, old_logp=old, config=ObjectiveConfig())
        optimizer.step()
    assert passes_at(policy, [0.0, 0.5, 1.5, 2.0], table=table) == [2, 2, 1, 1]


def network(task):
    model = Transformer(
        ModelConfig(num_layers=1, num_heads=2, d_model=16, d_ff=24, max_length=task.length), task.tokenizer.vocab
    )
    model.init_weights(NOISE)
    return model


def run(folder, config):
    made = make_lesson(config)
    given = Lesson(made.task, lambda samples: torch.ones(len(samples.x)).double(), made.train, made.valid)
    learn(config, network(given.task), given.task.tokenizer, given, folder, quiet=True)
    return read_records(folder / METRICS)


def test_one_run_gives_a_frontier_and_a_schedule_for_each_price(tmp_path):
    """Every answer is worth 1: there is nothing to lose by fewer passes."""
    records = run(tmp_path, RlConfig(**PRICED | {"evaluate_every": 12, "save_every": 12}))
    frontier = [r for r in records if r["kind"] == "evaluation"][-1]["frontier"]
    assert [point["price"] for point in frontier] == [0.0, 0.5, 1.0]
    assert [point["reward"] for point in frontier] == [1.0, 1.0, 1.0]
    first = next(r for r in records if r["kind"] == "iteration")
    assert all(point["nfe"] < first["nfe"] - 1 for point in frontier)
    names = ["schedule.json", "schedule-p0.5.json", "schedule-p1.json"]
    assert sorted(p.name for p in tmp_path.glob("schedule*.json")) == sorted(names)
    for name, point in zip(names, frontier):
        sampler = make_sampler(str(tmp_path / name))
        assert sampler.may_finish
        assert len(json.loads((tmp_path / name).read_text())["steps"]) >= point["nfe"] / 2  # guided: two passes a step
    iterations = [r for r in records if r["kind"] == "iteration"]
    assert all(r["reward"] < 1 - 0.2 * r["nfe"] / 6 for r in iterations)


def test_a_killed_run_with_prices_goes_on_to_the_same_records(tmp_path, monkeypatch):
    small = {"iterations": 4, "prompts": 2, "group": 3, "evaluate_problems": 2, "evaluate_every": 2, "save_every": 2}
    config = RlConfig(**PRICED | small | {"mode": "joint"})
    whole = run(tmp_path / "whole", config)
    after = Run.after

    def dies(self, done):
        after(self, done)
        if done == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "after", dies)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", config)
    monkeypatch.setattr(Run, "after", after)
    killed = run(tmp_path / "killed", config)
    assert [r | {"seconds": 0} for r in whole] == [r | {"seconds": 0} for r in killed]
    for name in ("schedule.json", "schedule-p1.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


@pytest.mark.parametrize("counts", [None, Counts()])
@pytest.mark.parametrize("name", ["table", "figures", "adaptive"])
def test_a_new_policy_is_the_schedule_made_by_hand_at_every_price(name, counts):
    task = make_task(TASK)
    model, table = network(task).requires_grad_(False), hand("adanat", 3)
    body = {
        "table": StepTable(3, priced=True),
        "figures": Figures(3, width=8, priced=True, noise=NOISE),
        "adaptive": Adaptive(model, (4, 4), widths=(8, 4, 8, 8), priced=True, noise=NOISE),
    }[name]
    policy = SchedulePolicy(table, body, counts=counts, may_finish=True, prices=(0.0, 2.0))
    canvas = task.test(noise=NOISE).canvas
    sampler = Steered(table, may_finish=True)
    price = torch.linspace(0, 2, len(canvas.x), dtype=torch.float64)
    taken = roll_out(model, sampler, canvas, noise=NOISE, policy=policy, explore=False, price=price)
    by_hand = generate(sampler, model, canvas, noise=NOISE.at("draws"))
    assert torch.equal(taken.final, by_hand.canvas.x)
    assert torch.equal(taken.nfe, by_hand.nfe)
    torch.testing.assert_close(taken.feature[0, :, -1].double(), price / 2)
    for p in policy.parameters():
        p.data.add_(0.3 * NOISE.at(str(tuple(p.shape))).normal(torch.arange(p.numel())).view(p.shape).float())
    low, high = (
        roll_out(
            model, sampler, canvas, noise=NOISE, policy=policy, explore=False, price=torch.full_like(price, p)
        ).mean
        for p in (0.0, 2.0)
    )
    assert (low[0] - high[0]).abs().min() > 1e-4
    default = roll_out(model, sampler, canvas, noise=NOISE, policy=policy, explore=False).mean
    assert torch.equal(default, low)


def test_counts_that_may_finish_are_a_law_on_all_that_is_left():
    full = torch.ones(1, dtype=torch.int64)
    for left, ahead in [(12, 3), (4, 3), (2, 3), (9, 0), (1, 2)]:
        here = Room(start=12 * full, left=left * full, ahead=ahead * full, may_finish=True)
        counts, half = Counts(5.0), torch.tensor([0.5], dtype=torch.float64)
        share = counts.share(half, torch.zeros(1, dtype=torch.float64), here)
        chance = [float(counts.log_prob(share, here, torch.tensor([k])).exp()) for k in range(1, left + 1)]
        assert sum(chance) == pytest.approx(1.0 if ahead and left > 1 else left)
        assert counts.take(share, here, torch.ones(1, dtype=torch.float64) - 1e-12).tolist() == [left]


def test_a_group_has_one_price_and_an_iteration_many():
    config = RlConfig(**PRICED | {"step_price": 0.25, "prompts": 200})
    price = prices_of(config, noise=NOISE)
    assert torch.equal(price, prices_of(config, noise=NOISE))
    assert not torch.equal(price, prices_of(config, noise=NOISE.at(1)))
    assert (price.min() >= 0.25, price.max() <= 1.0) == (True, True)
    assert float(price.mean()) == pytest.approx(0.625, abs=4 * 0.75 / (12 * 200) ** 0.5)
    assert config.prices == (0.25, 0.625, 1.0)
    alone = RlConfig(step_price=0.25)
    assert (alone.prices, prices_of(alone, noise=NOISE).unique().tolist()) == ((0.25,), [0.25])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"step_price": 1.0}, "must be above step_price=1"),
        ({"sampler": {"may_finish": False}}, "--sampler.may_finish true"),
        ({"mode": "model_only"}, "a mode that learns the schedule"),
    ],
)
def test_prices_that_could_not_matter_are_refused(changed, said):
    with pytest.raises(ValidationError, match=said):
        RlConfig(**PRICED | changed)
