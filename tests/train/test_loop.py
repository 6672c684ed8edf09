"""Training reaches the entropy of a language it can be measured on; runs are guarded, recorded and reproducible."""

import dataclasses
import errno
import json
import math
import os
import shutil

import pytest
import torch
from toy import SCORED, SMALL, STATES, TARGETS, config, data, rows

from anyorder.core.config import load_config
from anyorder.core.files import locked
from anyorder.core.log import read_records
from anyorder.core.noise import Noise
from anyorder.core.types import Batch
from anyorder.hub.load import load_model
from anyorder.likelihood.exact import nelbo_enumerated
from anyorder.processes import Autoregressive
from anyorder.train import checkpoint, loop
from anyorder.train.config import RunConfig
from anyorder.train.loop import Run, train

LONG = {
    "optim": {"lr": 2e-2, "min_lr_ratio": 0.0, "warmup_steps": 10, "ema": 0.95, "weight_decay": 0.0},
    "batch": {"rows": 128},
    "num_steps": 160,
    "save_every": 160,
    "log_every": 100,
    "evaluate": {"every": 160, "rows": 64},
}


def gap(law, nats):
    """Mean nats above the entropy of the law: its divergence from the model."""
    return float((law * nats).sum() + torch.special.xlogy(law, law).sum())


def test_an_mdm_converges_to_the_entropy_of_an_enumerable_language(tmp_path):
    _, law = rows()
    model = load_model(train(config(**LONG), data(), tmp_path, quiet=True)).model
    assert 0 < gap(law, nelbo_enumerated(model, STATES, target=SCORED)) < 0.07
    uniform = torch.full_like(law, TARGETS * math.log(3))
    assert gap(law, uniform) > 0.6  # there was something to learn


def test_an_arm_converges_to_the_entropy_of_an_enumerable_language(tmp_path):
    _, law = rows()
    model = load_model(train(config("arm", **LONG | {"num_steps": 80}), data(), tmp_path, quiet=True)).model
    batch = Batch(STATES, SCORED, None, torch.arange(27))
    nats = Autoregressive().loss(model, batch, noise=Noise.of(0)).nelbo.double()
    assert float((-nats).exp().sum()) < 1 + 1e-5  # a law over all sequences; the rest is on EOS
    assert 0 < gap(law, nats) < 0.05


GOLDEN = {  # nats per token of five steps, float32; they change only when training itself changes
    "mdm": [1.7634487, 1.4677999, 1.1705983, 1.0636444, 0.9584133],
    "arm": [2.1443109, 1.4830334, 1.1529174, 1.0778752, 1.0632552],
}


@pytest.mark.parametrize("kind", GOLDEN)
def test_five_steps_are_golden(kind, tmp_path):
    settings = {"num_steps": 5, "log_every": 1, "save_every": 5, "evaluate": {"every": 5}}
    train(config(kind, **settings), data(), tmp_path, quiet=True)
    curve = [r["nats_per_token"] for r in read_records(tmp_path / "metrics.jsonl") if r["kind"] == "train"]
    assert curve == pytest.approx(GOLDEN[kind], rel=1e-4)


def test_a_run_folder_holds_what_it_promises(tmp_path):
    run = config()
    place = train(run, data(), tmp_path, quiet=True)
    names = {"config.yaml", "data.json", "metrics.jsonl", "model", "step_000009", "step_000012", ".lock"}
    assert {p.name for p in tmp_path.iterdir()} == names
    assert place == tmp_path / "model"
    assert load_config(RunConfig, tmp_path / "config.yaml") == run
    records = read_records(tmp_path / "metrics.jsonl")
    assert [(r["step"], r["kind"]) for r in records] == [
        *[(2, "train"), (4, "train"), (4, "valid"), (6, "train"), (8, "train"), (8, "valid")],
        *[(10, "train"), (12, "train"), (12, "valid")],
    ]
    for r in records:
        assert r["tokens"] == r["step"] * 16 * TARGETS
        assert all(math.isfinite(v) for v in r.values() if isinstance(v, float))
    last = [r for r in records if r["kind"] == "train"][-1]
    assert last["lr"] == pytest.approx(3e-4)
    assert last["flops"] % 12 == 0
    valid = records[-1]
    assert valid["num_tokens"] == 16 * TARGETS
    assert valid["bits_per_byte"] == pytest.approx(valid["nats_per_token"] / math.log(2))  # one byte a symbol


def test_the_published_weights_are_the_average(tmp_path):
    train(config(), data(), tmp_path, quiet=True)
    published = dict(load_model(tmp_path / "model").model.named_parameters())
    own = checkpoint.load_file(tmp_path / "step_000012" / "model.safetensors")
    average = checkpoint.load_file(tmp_path / "step_000012" / "ema.safetensors")
    assert all(torch.equal(published[name], average[name]) for name in average)
    assert not torch.equal(own["head.weight"], average["head.weight"])


def test_without_an_average_the_weights_themselves_are_published(tmp_path):
    train(config(optim={"warmup_steps": 3}), data(), tmp_path, quiet=True)
    own = checkpoint.load_file(tmp_path / "step_000012" / "model.safetensors")
    published = dict(load_model(tmp_path / "model").model.named_parameters())
    assert all(torch.equal(published[name], own[name]) for name in own)
    assert not (tmp_path / "step_000012" / "ema.safetensors").exists()


def test_validation_and_logging_do_not_change_the_weights(tmp_path):
    rare = {"evaluate": {"every": 100}, "log_every": 100, "save_every": 100}
    for name, settings in (("a", {}), ("b", rare)):
        train(config(**settings), data(), tmp_path / name, quiet=True)
    a, b = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in "ab")
    assert a == b


def test_more_figures_join_each_validation(tmp_path):
    seen = []

    def measure(model):
        seen.append(float(model.head.weight.detach().sum()))
        return {"sum": seen[-1]}

    model = load_model(train(config(), data(), tmp_path, quiet=True, measure=measure)).model
    records = read_records(tmp_path / "metrics.jsonl")
    assert [r["sum"] for r in records if r["kind"] == "valid"] == seen
    assert len(set(seen)) == len(seen) > 1
    assert all("sum" not in r for r in records if r["kind"] == "train")
    assert float(model.head.weight.detach().sum()) == seen[-1]


def test_the_same_run_is_the_same_and_another_seed_is_not(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(config(seed=seed, num_steps=3), data(), tmp_path / name, quiet=True)
    a, b, c = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_a_finished_run_is_only_published_again(tmp_path):
    train(config(), data(), tmp_path, quiet=True)
    before = (tmp_path / "metrics.jsonl").read_bytes(), (tmp_path / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "model")
    train(config(), data(), tmp_path, quiet=True)
    assert (
        (tmp_path / "metrics.jsonl").read_bytes(),
        (tmp_path / "model" / "model.safetensors").read_bytes(),
    ) == before


def refused(run, folder, message, kind=ValueError):
    with pytest.raises(kind, match=message) as caught:
        train(run, data(), folder, quiet=True)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_belongs_to_one_configuration(tmp_path):
    train(config(), data(), tmp_path, quiet=True)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    text = refused(config(seed=7), tmp_path, r"holds a run with another seed \(0, asked for 7\); use another --out, or")
    assert str(tmp_path) in text
    refused(config(num_steps=13), tmp_path, "another num_steps")
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_folder_belongs_to_one_data(tmp_path):
    train(config(), data(), tmp_path, quiet=True)
    other = data()
    tokens = other.train.tokens.clone()
    tokens[0, 1] = (tokens[0, 1] + 1) % 3
    edited = dataclasses.replace(other, train=dataclasses.replace(other.train, tokens=tokens))
    with pytest.raises(ValueError, match=r"was begun on other data .* use another --out, or delete the folder"):
        train(config(), edited, tmp_path, quiet=True)


def test_what_a_run_refuses_does_not_claim_the_folder(tmp_path):
    refused(config(process={"kind": "mdm", "form": "time", "schedule": "linaer"}), tmp_path, "did you mean 'linear'")
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]
    train(config(num_steps=1), data(), tmp_path, quiet=True)


def test_a_folder_belongs_to_one_process(tmp_path):
    with locked(tmp_path):
        refused(config(), tmp_path, "another process is writing in this run folder; wait for it or use another --out")
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_an_altered_checkpoint_is_refused_and_the_one_before_serves(tmp_path):
    train(config(), data(), tmp_path, quiet=True)
    good = (tmp_path / "model" / "model.safetensors").read_bytes()
    newest = tmp_path / "step_000012"
    os.truncate(newest / "optimizer.safetensors", 999)
    text = refused(config(), tmp_path, r"optimizer\.safetensors: missing, truncated or altered")
    assert text.endswith(f"delete {newest} to resume from the checkpoint before it")
    shutil.rmtree(newest)
    train(config(), data(), tmp_path, quiet=True)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == good


def test_an_altered_configuration_is_refused(tmp_path):
    train(config(num_steps=1), data(), tmp_path, quiet=True)
    path = tmp_path / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "sed: 0"))
    refused(config(num_steps=1), tmp_path, r"config\.yaml: unknown key 'sed'; did you mean 'seed'\?")


def test_a_full_disk_leaves_whole_checkpoints_and_the_run_goes_on_later(tmp_path, monkeypatch):
    train(config(), data(), tmp_path / "good", quiet=True)
    saves, save_file = [], checkpoint.save_file

    def filling(tensors, path):
        saves.append(path)
        if len(saves) > 4:  # in the second checkpoint: three files each
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", filling)
    refused(config(), tmp_path / "run", r"disk full while writing .*step_000006; nothing was half-written", OSError)
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert names == {".lock", "config.yaml", "data.json", "metrics.jsonl", "step_000003"}
    monkeypatch.undo()
    train(config(), data(), tmp_path / "run", quiet=True)
    ours, good = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("run", "good"))
    assert ours == good


def test_ctrl_c_leaves_the_run_to_be_resumed(tmp_path, monkeypatch):
    train(config(), data(), tmp_path / "good", quiet=True)
    for place in ("step", "_validate"):
        calls, original = [], getattr(Run, place)

        def interrupted(self, step, calls=calls, original=original, place=place):
            calls.append(step)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return original(self, step)

        monkeypatch.setattr(Run, place, interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config(), data(), tmp_path / place, quiet=True)
        monkeypatch.undo()
        assert not any(p.name.endswith(".tmp") for p in (tmp_path / place).iterdir())
        train(config(), data(), tmp_path / place, quiet=True)
        ours, good = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in (place, "good"))
        assert ours == good


def test_a_loss_that_explodes_stops_the_run_and_saves_nothing_of_it(tmp_path):
    hot = config(optim={"lr": 1e30, "warmup_steps": 0, "clip": 1e30}, save_every=1)
    refused(hot, tmp_path, r"(loss|gradient's norm) became (nan|inf); lower optim\.lr", RuntimeError)
    for folder in checkpoint.checkpoints(tmp_path):
        weights = checkpoint.load_file(folder / "model.safetensors")
        assert all(value.isfinite().all() for value in weights.values())


def test_rows_longer_than_the_model_are_refused(tmp_path):
    short = config(model=SMALL.model_copy(update={"max_length": 3}))
    refused(short, tmp_path, r"a row of 4 tokens is longer than model\.max_length=3")


def test_metrics_are_json(tmp_path):
    train(config(num_steps=2), data(), tmp_path, quiet=True)
    for line in (tmp_path / loop.METRICS).read_text().splitlines():
        assert json.loads(line)["step"] <= 2
