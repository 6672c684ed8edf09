"""Learning from rewards: what each mode moves, exact resuming, sums over parts, rails."""

import json

import pytest
import torch
from safetensors.torch import load_file

from anyorder.core.config import load_config
from anyorder.core.device import pick_dtype
from anyorder.core.log import read_records
from anyorder.core.noise import Noise
from anyorder.data.tasks import make_task
from anyorder.data.tasks.scenes import Scenes
from anyorder.models import ModelConfig, Transformer
from anyorder.rl.advantage import group_advantages
from anyorder.rl.config import ObjectiveConfig, RlConfig
from anyorder.rl.diagnostics import Diagnostics
from anyorder.rl.loop import METRICS, Run, learn
from anyorder.rl.lora import add_lora, merged
from anyorder.rl.make import Lesson, asked, make_lesson, make_policy, make_steered
from anyorder.rl.parts import check_parity, numbers, shared
from anyorder.rl.rollout import roll_out
from anyorder.rl.update import model_gradients
from anyorder.samplers.presets import make_sampler

TASK = "scenes:grid=4,num_train=60,num_valid=12,num_test=12"
NOISE = Noise.of(3)
SMALL = {
    "task": TASK,
    "mode": "joint",
    "schedule": {"num_steps": 3, "body": "table"},
    "prompts": 3,
    "group": 4,
    "iterations": 6,
    "lr_model": 3e-3,
    "lr_schedule": 3e-2,
    "evaluate_every": 3,
    "evaluate_problems": 6,
    "save_every": 2,
}


def settings(**changed):
    return RlConfig(**(SMALL | changed))


def network(task):
    vocab = task.tokenizer.vocab
    model = Transformer(ModelConfig(num_layers=1, num_heads=2, d_model=16, d_ff=24, max_length=task.length), vocab)
    model.init_weights(NOISE)
    return model


def background(samples):
    """The share of empty cells: something that can be learned at once."""
    return (samples.x[:, 6:] == 0).double().mean(-1)


def lesson(reward=background):
    made = make_lesson(settings())
    return Lesson(made.task, reward, made.train, made.valid)


def run(folder, config=None, reward=background, model=None):
    config = config or settings()
    given = lesson(reward)
    model = model or network(given.task)
    learn(config, model, given.task.tokenizer, given, folder, quiet=True)
    return model, read_records(folder / METRICS)


@pytest.mark.parametrize(("dtype", "resolved"), [("auto", None), ("bfloat16", "bfloat16")])
def test_the_dtype_is_written_resolved_and_half_precision_agrees_within_its_rounding(tmp_path, dtype, resolved):
    model, records = run(tmp_path, settings(iterations=2, mode="joint", dtype=dtype))
    expected = resolved or pick_dtype("auto", torch.device("cpu")).name
    assert load_config(RlConfig, tmp_path / "rl.yaml").dtype == expected
    assert model.dtype == getattr(torch, expected)
    assert records[-1]["iteration"] == 2


def weights(folder):
    last = sorted(folder.glob("step_*"))[-1]
    return load_file(last / "model.safetensors")


def test_reward_rises_and_what_was_learned_can_be_used(tmp_path):
    rates = {"lr_model": 1e-2, "evaluate_every": 12, "save_every": 12}
    _, records = run(tmp_path / "run", settings(iterations=12, prompts=4, group=8, **rates))
    rewards = [r["reward"] for r in records if r["kind"] == "iteration"]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.2
    evaluations = [r for r in records if r["kind"] == "evaluation"]
    assert evaluations[-1]["reward"] > rewards[0] + 0.2
    held = json.loads((tmp_path / "run" / "schedule.json").read_text())
    assert len(held["steps"]) == 3
    assert make_sampler(str(tmp_path / "run" / "schedule.json")).steering.num_steps == 3
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("mode", "moved"),
    [("model_only", {"model"}), ("schedule_only", {"policy"}), ("joint", {"model", "policy"})],
)
@pytest.mark.parametrize("explore", ["all", "ratio"])
def test_each_mode_moves_what_it_names(tmp_path, mode, moved, explore):
    before = network(make_task(TASK)).state_dict()
    schedule = SMALL["schedule"] | {"explore": explore}
    model, _ = run(tmp_path, settings(mode=mode, iterations=2, schedule=schedule, likelihood="augmented"))
    assert all(p.requires_grad for p in model.parameters())
    after = weights(tmp_path)
    same = all(torch.equal(after[f"model.{name}"], value) for name, value in before.items() if f"model.{name}" in after)
    assert same == ("model" not in moved)
    assert bool((after["policy.body.added"] == 0).all()) == ("policy" not in moved)


def test_the_ratio_alone_is_explored_and_the_other_knobs_learn_as_well(tmp_path):
    config = settings(schedule=SMALL["schedule"] | {"explore": "ratio"}, likelihood="augmented", iterations=3)
    _, _, taken = taken_by(config)
    assert taken.action[:, :, 1:].abs().max() == 0  # as the policy's mean at the beginning
    assert taken.action[:, :, 0].std() > 0.1
    run(tmp_path, config)
    assert (weights(tmp_path)["policy.body.added"][:2, :3].abs() > 1e-3).all()


def test_the_ratio_alone_learns(tmp_path):
    config = settings(schedule=SMALL["schedule"] | {"explore": "ratio-only"}, iterations=3)
    _, _, taken = taken_by(config)
    assert taken.action[:, :, 0].std() > 0.1
    run(tmp_path, config)
    added = weights(tmp_path)["policy.body.added"]
    assert (added[:2, 0].abs() > 1e-3).all()
    assert (added[:, 1:] == 0).all()


def test_equal_answers_share_what_one_is_worth(tmp_path):
    rows = torch.tensor([[1, 2], [1, 2], [1, 3], [1, 2], [1, 2], [4, 4], [4, 5], [4, 5]])
    value = torch.tensor([6.0, 6.0, 5.0, 6.0, 3.0, 2.0, -1.0, -1.0]).double()
    want = torch.tensor([2.0, 2.0, 5.0, 2.0, 3.0, 2.0, -1.0, -1.0]).double()
    assert torch.equal(shared(value, rows, group=4), want)
    ones = {"reward": lambda samples: torch.ones(len(samples.x)).double()}
    at_once = {"iterations": 1, "mode": "model_only", "schedule": {"num_steps": 1}, "group": 24}
    for name, is_shared in (("apart", False), ("shared", True)):
        run(tmp_path / name, settings(reward_shared=is_shared, **at_once), model=sure(), **ones)
    apart, together = (read_records(tmp_path / name / METRICS)[0] for name in ("apart", "shared"))
    assert apart["distinct"] < 1.0
    assert (apart["reward"], apart["skipped"]) == (1.0, 3)
    assert together["reward"] == 1.0  # what is reported is what was earned
    assert together["skipped"] < 3


def sure():
    """A model that often writes the same."""
    model = network(make_task(TASK))
    with torch.no_grad():
        model.head.weight.mul_(20.0)
    return model


def test_rates_fall_over_the_last_iterations(tmp_path, monkeypatch):
    seen, step = [], Run._step
    monkeypatch.setattr(
        Run,
        "_step",
        lambda self, phase: seen.append([g["lr"] for g in self.optimizer.param_groups]) or step(self, phase),
    )
    run(tmp_path, settings(iterations=6, decay=0.5))
    assert torch.allclose(torch.tensor(seen) / torch.tensor(seen[0]), torch.tensor([1, 1, 1, 1, 2 / 3, 1 / 3])[:, None])
    assert seen[0] == [SMALL["lr_model"], SMALL["lr_schedule"]]
    assert settings(decay=0.0, iterations=6).pace(5) == 1.0


def test_phases_alternate():
    config = settings(mode="alternate", model_iterations=2, schedule_iterations=1)
    assert ["+".join(config.phase(i)) for i in range(6)] == ["model", "model", "schedule"] * 2


@pytest.mark.parametrize(
    ("mode", "explore"),
    [("joint", "all"), pytest.param("alternate", "all", marks=pytest.mark.slow), ("alternate", "ratio")],
)
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, monkeypatch, mode, explore):
    schedule = SMALL["schedule"] | {"explore": explore}
    config = settings(mode=mode, model_iterations=2, schedule_iterations=2, schedule=schedule, likelihood="augmented")
    run(tmp_path / "whole", config)
    after = Run.after

    def dies(self, done):
        after(self, done)
        if done == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "after", dies)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", config)
    monkeypatch.setattr(Run, "after", after)
    run(tmp_path / "killed", config)
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    keep = ("iteration", "kind", "reward", "schedule", "rollouts")
    lines = [
        [{k: r.get(k) for k in keep} for r in read_records(tmp_path / name / METRICS)] for name in ("whole", "killed")
    ]
    assert lines[0] == lines[1]


def test_another_group_size_or_mode_is_refused(tmp_path):
    run(tmp_path, settings(iterations=1))
    for changed, key in (({"group": 6}, "group"), ({"mode": "model_only"}, "mode")):
        with pytest.raises(ValueError, match=f"another {key}"):
            run(tmp_path, settings(iterations=1, **changed))


def test_groups_without_variance_teach_nothing_and_are_counted(tmp_path):
    before = {name: value.clone() for name, value in network(make_task(TASK)).state_dict().items()}
    model, records = run(tmp_path, settings(iterations=2), reward=lambda samples: torch.ones(len(samples.x)).double())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [r["skipped"] for r in records if r["kind"] == "iteration"] == [3, 3]


def test_steps_cost_reward(tmp_path):
    constant = {"reward": lambda samples: torch.ones(len(samples.x)).double()}
    _, free = run(tmp_path / "free", settings(iterations=1), **constant)
    _, priced = run(tmp_path / "priced", settings(iterations=1, step_price=0.5), **constant)
    assert free[0]["reward"] == 1.0
    assert priced[0]["reward"] == pytest.approx(1 - 0.5 * priced[0]["nfe"] / 3)


def taken_by(config):
    given = lesson()
    model = network(given.task)
    _, canvas = asked(given.train, torch.arange(3), group=4)
    sampler = make_steered(config)
    taken = roll_out(model, sampler, canvas, noise=NOISE, policy=make_policy(config, model, given.task), explore=True)
    return model, sampler, taken


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("kind", ["fill", "all", "augmented"])
def test_gradients_are_the_same_in_parts(kind, level):
    model, sampler, taken = taken_by(settings())
    advantages = group_advantages(background(taken_samples(taken)), size=4)
    found = []
    for rows_per_pass in (256, 5):
        model.zero_grad()
        model_gradients(
            model,
            sampler,
            taken,
            advantages,
            kind=kind,
            config=ObjectiveConfig(level=level),
            rows_per_pass=rows_per_pass,
        )
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert found[0].abs().max() > 1e-4
    torch.testing.assert_close(found[0], found[1], atol=1e-7, rtol=1e-4)


class taken_samples:  # what `background` reads
    def __init__(self, taken):
        self.x = taken.final


@pytest.mark.parametrize("likelihood", ["one-step", "coupled", "elbo", "left-to-right", "all", "augmented"])
def test_every_likelihood_learns(tmp_path, likelihood):
    _, records = run(tmp_path, settings(likelihood=likelihood, mode="model_only", iterations=2, inner=2))
    assert all(r["model"]["entropy"] > 0 for r in records if r["kind"] == "iteration")
    assert records[-1]["kind"] == "evaluation"


def test_positions_first_learns(tmp_path):
    config = settings(likelihood="position_first", sampler={"order": "choose_first"}, iterations=2)
    run(tmp_path, config)


def test_wd1_and_a_reference_learn(tmp_path):
    run(tmp_path / "wd1", settings(objective={"wd1": True}, iterations=2))
    _, records = run(tmp_path / "kl", settings(objective={"beta": 0.1, "beta_schedule": 0.1}, iterations=2))
    assert records[1]["model"]["penalty"] > 0


def test_low_rank_updates_leave_the_matrices_alone(tmp_path):
    task = make_task(TASK)
    model, plain = network(task), network(task)
    add_lora(model, 2, noise=NOISE)
    changing = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(changing) == 2 * 4
    assert all(name.endswith((".down", ".up")) for name in changing)
    rows, _ = asked(lesson().train, torch.arange(2), group=1)
    at = rows.canvas.open(task.tokenizer.vocab)
    torch.testing.assert_close(model(rows.canvas, at), plain(rows.canvas, at))
    for name, p in model.named_parameters():
        if name.endswith(".up"):
            p.data.copy_(0.1 * NOISE.at(name).normal(torch.arange(p.numel())).view(p.shape))
    folded = merged(model)
    assert set(folded.state_dict()) == set(plain.state_dict())
    torch.testing.assert_close(folded(rows.canvas, at), model(rows.canvas, at))
    run(tmp_path, settings(lora=2, iterations=2))


def test_rails_stop_a_run_and_say_why(tmp_path):
    _, records = run(tmp_path, settings(iterations=5, stop={"min_entropy": 100.0}, mode="model_only"))
    iterations = [r for r in records if r["kind"] == "iteration"]
    assert len(iterations) == 1
    assert iterations[0]["stopped"].startswith("stop.min_entropy=100")
    _, again = run(tmp_path, settings(iterations=5, stop={"min_entropy": 100.0}, mode="model_only"))
    assert again == records
    _, gap = run(tmp_path / "gap", settings(iterations=4, evaluate_every=2, stop={"max_gap": 1e-9}))
    assert gap[-1]["practice"] is not None


def test_a_trainer_that_disagrees_with_the_sampler_is_found():
    _, _, taken = taken_by(settings())
    zero = torch.zeros((), dtype=torch.float64)
    far = Diagnostics(*([zero] * 6), farthest=zero + 1.0)
    with pytest.raises(RuntimeError, match="no dropout"):
        check_parity(taken, far)
    check_parity(taken, None)


def test_every_problem_is_asked_once_an_epoch():
    asked_ = torch.cat([numbers(i, 4, among=10, noise=NOISE) for i in range(5)])
    assert sorted(asked_[:10].tolist()) == sorted(asked_[10:].tolist()) == list(range(10))
    assert asked_[:10].tolist() != asked_[10:].tolist()


def test_what_does_not_fit_is_named(tmp_path):
    given = lesson()
    other = make_task("sudoku").tokenizer
    with pytest.raises(ValueError, match="cannot hold the prompts"):
        learn(settings(), network(given.task), other, given, tmp_path, quiet=True)
    with pytest.raises(ValueError, match="no problems to learn from; tasks that have some: arithmetic, "):
        make_lesson(settings(task="zebra"))
    with pytest.raises(ValueError, match="token grid"):
        make_policy(settings(schedule={"body": "adaptive"}), network(given.task), make_task("star"))
    with pytest.raises(ValueError, match=r"likelihood='position_first'"):
        make_steered(settings(likelihood="position_first"))
    with pytest.raises(ValueError, match=r"sampler.order"):
        make_steered(settings(likelihood="augmented", sampler={"order": "choose_first"}))


def test_more_updates_of_the_schedule_leave_the_model_s_alone(tmp_path):
    """The answers are the same either way; a schedule that is updated by them thrice goes further than once."""
    moved = []
    for times in (1, 3):
        run(tmp_path / str(times), settings(iterations=1, inner_schedule=times, clip=1e9))
        moved.append(weights(tmp_path / str(times)))
    once, thrice = moved
    assert all(torch.equal(once[name], thrice[name]) for name in once if name.startswith("model."))
    far = [sum(float(w.abs().sum()) for name, w in each.items() if name.startswith("policy.")) for each in moved]
    assert far[1] > 1.5 * far[0] > 0


def test_a_run_goes_on_from_the_model_it_began_with_only(tmp_path):
    run(tmp_path, settings(iterations=2))
    other = network(lesson().task)
    with torch.no_grad():
        next(other.parameters()).add_(1e-3)
    with pytest.raises(ValueError, match="began with another model"):
        run(tmp_path, settings(iterations=2), model=other)


def test_evaluations_count_right_answers_whatever_is_rewarded(tmp_path, monkeypatch):
    monkeypatch.setattr(Scenes, "correct", lambda self, problems, x: torch.arange(len(x)) % 3 == 0)
    _, records = run(tmp_path, settings(iterations=1))
    found = [r for r in records if r["kind"] == "evaluation"][-1]
    assert found["correct"] == pytest.approx(1 / 3)
    assert found["reward"] != found["correct"]
