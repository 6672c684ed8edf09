"""Everything computes where the model is: on a device that is not the CPU, and gives there what the CPU gives."""

from dataclasses import fields, is_dataclass

import pytest
import torch

from anyorder import GAP, load
from anyorder.cli.main import main
from anyorder.core import dist
from anyorder.core.config import parse_config
from anyorder.core.log import read_records
from anyorder.core.noise import Noise
from anyorder.core.types import Batch, Canvas, Vocab, moved
from anyorder.models import attention
from anyorder.models.config import SIZES, ModelConfig
from anyorder.models.transformer import Transformer
from anyorder.processes import PROCESSES
from anyorder.rl.config import RlConfig
from anyorder.rl.loop import METRICS, Run, learn
from anyorder.rl.make import make_lesson
from anyorder.samplers.base import generate
from anyorder.samplers.presets import PRESETS, make_sampler
from anyorder.testing.contracts import same
from anyorder.testing.elsewhere import elsewhere
from ilm_demo import make_ilm

NOISE = Noise.of(5)
VOCAB = Vocab(size=7, mask_id=7, pad_id=8, eos_id=0)


@pytest.fixture(autouse=True)
def _one_kernel(monkeypatch):
    """Devices are compared, not attention kernels: PyTorch's fused one of CPUs rounds otherwise."""
    monkeypatch.setattr(attention, "PLAIN_UP_TO", dict.fromkeys(attention.PLAIN_UP_TO, 1024))


def network(*, causal=False):
    model = Transformer(SIZES["tiny"].model_copy(update={"causal": causal}), VOCAB)
    model.init_weights(NOISE.at("weights"))
    return model.eval()


def canvas():
    """A prompt with a hole in the window behind it, and padding."""
    x = torch.full((2, 5), VOCAB.mask_id)
    x[0, 0] = 2
    x[1, 4] = VOCAB.pad_id
    made = Canvas.of(x, vocab=VOCAB, segment=(x != VOCAB.pad_id).long(), row_id=torch.tensor([4, 10**9]))
    made.window[0, 3] = False
    return made


CALLED = [(name, {}) for name in PRESETS] + [("entropy", {"block": 2, "temperature": 0.7, "top_k": 3, "top_p": 0.9})]


@pytest.mark.parametrize(("name", "values"), CALLED)
def test_samplers(name, values):
    sampler = make_sampler(name, num_steps=2 if PRESETS[name].paced else None, **values)
    model = network(causal=name == "causal")
    here = generate(sampler, model, canvas(), noise=NOISE)
    with elsewhere() as device:
        there = generate(sampler, model.to(device), moved(canvas(), device), noise=NOISE)
        assert there.canvas.x.device == device
        assert same(moved(there, torch.device("cpu")), here)


@pytest.mark.parametrize("name", ["mdm", "smdm", "arm"])
def test_objectives(name):
    tokens = torch.tensor([[0, 2, 1, 1, 5], [2, 0, 0, 6, 4], [1, 3, 2, VOCAB.pad_id, VOCAB.pad_id]])
    target = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 0, 1, 0, 0]]).bool()
    batch = Batch(tokens, target, (tokens != VOCAB.pad_id).long(), torch.arange(3) + 100)

    def learned(device):
        """Bounds and gradients."""
        model = network(causal=name == "arm").to(device)
        loss = PROCESSES[name]().loss(model, moved(batch, device), noise=NOISE)
        loss.total.backward()
        return [t.cpu() for t in (loss.nelbo, *(p.grad for p in model.parameters()))]

    here = learned(torch.device("cpu"))
    with elsewhere() as device:
        there = learned(device)
    for a, b in zip(there, here, strict=True):
        torch.testing.assert_close(a, b)


ALL = {
    "sample": lambda m: m.sample("ab", n=2, length=7, temperature=0.8, top_p=0.9, seed=2),
    "score": lambda m: m.score(["x y"], draws=4, seed=2),
}
CAUSAL = {"score with context": lambda m: m.score(["def bob_cy(x, y): return x + y  # and so on"], context=5, draws=4)}
CAUSAL |= {"answer": lambda m: m.answer("def ", ["ada", "bob(x)"], seed=2)}
MASKED = CAUSAL | {
    "infill": lambda m: m.infill(["def ", GAP(3), "(x):"], seed=2),
    "infill of unknown length": lambda m: m.infill(["def ", GAP(2, 4), "(x):"], seed=2),
    "guided": lambda m: m.sample("ab", length=7, guidance=0.5, seed=2),
    "blocks": lambda m: m.sample("ab", n=2, length=8, block=4, cache="dual", sampler="top-prob", seed=2),
    "prefix": lambda m: m.sample("ab", n=2, length=12, block=4, cache="prefix", num_steps=2, seed=2),
    "windows": lambda m: m.sample("ab", length=36, stride=8, num_steps=1, seed=2),
    "bound": lambda m: m.answer("def ", ["ada", "bob(x)"], estimator="chain", guidance=0.3, seed=2),
}
INSERTING = {
    "infill": lambda m: m.infill(["d", GAP(1, 2), "("], seed=2),
}
CALLS = {"mdm": ALL | MASKED, "arm": ALL | CAUSAL, "ilm": ALL | INSERTING}


@pytest.mark.parametrize(("kind", "call"), [(kind, call) for kind, calls in CALLS.items() for call in calls])
def test_the_python_interface(tiny_runs, tmp_path, kind, call, monkeypatch):
    folder = tmp_path / "model" if kind == "ilm" else getattr(tiny_runs, kind)
    if kind == "ilm":
        make_ilm(folder)
    ask = CALLS[kind][call]
    here = ask(load(folder))
    with elsewhere() as device:
        monkeypatch.setattr("anyorder.api.model.pick_device", torch.device)  # which knows no device of this name
        agree(ask(load(folder, device=str(device))), here)


def agree(a, b):
    """Whole numbers and texts are the same, numbers up to rounding; but for times."""
    assert type(a) is type(b)
    if is_dataclass(a):
        for field in fields(a):
            if field.name != "seconds":
                agree(getattr(a, field.name), getattr(b, field.name))
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for one, other in zip(a, b):
            agree(one, other)
    elif isinstance(a, dict):
        agree(list(a.items()), list(b.items()))
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-6)
    else:
        assert a == b


def lines(path):
    """Of a file of metrics, without times."""
    return [{k: v for k, v in r.items() if "second" not in k} for r in read_records(path)]


@pytest.mark.parametrize("kind", ["mdm", "arm", "ilm"])
def test_training(tiny_runs, tmp_path, monkeypatch, kind):
    words = ["train", *tiny_runs.options(), "--process.kind", kind, "--quiet", "--evaluate.every", "3"]
    words += ["--data.packing", "documents"] if kind == "ilm" else []
    words += ["--num_steps", "3", "--save_every", "2", "--evaluate.rows", "4", "--evaluate.draws", "4"]
    assert main([*words, "--out", str(tmp_path / "here")]) == 0
    with elsewhere() as device:
        monkeypatch.setattr(dist, "device", lambda: device)
        assert main([*words, "--out", str(tmp_path / "there")]) == 0
    here, there = (lines(tmp_path / name / "metrics.jsonl") for name in ("here", "there"))
    agree(there, here)


SCENES = "scenes:grid=4,num_train=60,num_valid=12,num_test=12"
RL = {
    "task": SCENES,
    "mode": "joint",
    "prompts": 2,
    "group": 2,
    "iterations": 2,
    "evaluate_every": 2,
    "evaluate_problems": 2,
    "save_every": 1,
    "reward": "correct+dense",
    "reward_shared": True,
}
LEARNING = {
    "exact": {"likelihood": "augmented", "schedule": {"num_steps": 2, "explore": "ratio"}, "lora": 2},
    "coupled": {
        "likelihood": "coupled",
        "mode": "model_only",
        "schedule": {"num_steps": 2},
        "objective": {"beta": 0.1},
    },
}


def learned(name, folder):
    """The lines of a run's metrics."""
    config = parse_config(RlConfig, RL | LEARNING[name], source="test")
    lesson = make_lesson(config)
    shape = ModelConfig(num_layers=1, num_heads=2, d_model=16, d_ff=24, max_length=lesson.task.length)
    model = Transformer(shape, lesson.task.tokenizer.vocab)
    model.init_weights(NOISE)
    learn(config, model, lesson.task.tokenizer, lesson, folder, quiet=True)
    return lines(folder / METRICS)


@pytest.mark.parametrize("name", LEARNING)
def test_learning_from_rewards_and_going_on_when_killed(tmp_path, monkeypatch, name):
    here, after = learned(name, tmp_path / "here"), Run.after

    def dies(run, done):
        after(run, done)
        if done == 1:
            raise KeyboardInterrupt

    with elsewhere() as device:
        monkeypatch.setattr(dist, "device", lambda: device)
        monkeypatch.setattr(Run, "after", dies)
        with pytest.raises(KeyboardInterrupt):
            learned(name, tmp_path / "there")
        monkeypatch.setattr(Run, "after", after)
        agree(learned(name, tmp_path / "there"), here)


@pytest.mark.parametrize("name", ["first-hitting", "top-prob", "causal"])
def test_a_canvas_may_stay_on_the_cpu_and_draws_are_made_there(name):
    """As on Apple's GPUs, which have no float64: the network computes there, everything else on the CPU."""
    sampler, model = make_sampler(name), network(causal=name == "causal")
    here = generate(sampler, model, canvas(), noise=NOISE)
    with elsewhere() as device:
        there = generate(sampler, model.to(device), canvas(), noise=NOISE)
        assert there.canvas.x.device.type == "cpu"
        assert model.embed.weight.device == device
    assert torch.equal(there.canvas.x, here.canvas.x)
    torch.testing.assert_close(there.token_logp, here.token_logp, atol=1e-5, rtol=0)


def test_a_loss_of_rows_on_the_cpu_reaches_weights_elsewhere():
    x = torch.tensor([[1, 2, 3], [4, 5, 6]])
    batch = Batch(tokens=x, target=torch.ones_like(x).bool(), segment=None, sample_id=torch.arange(2))
    gradients = []
    model = network().requires_grad_(True)
    loss = PROCESSES["mdm"]().loss(model, batch, noise=NOISE)
    loss.total.backward()
    gradients.append(model.head.weight.grad.clone())
    with elsewhere() as device:
        model = network().to(device).requires_grad_(True)
        PROCESSES["mdm"]().loss(model, batch, noise=NOISE).total.backward()
        gradients.append(model.head.weight.grad.to("cpu"))
    torch.testing.assert_close(*gradients)
