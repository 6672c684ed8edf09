"""Checkpoints: whole or absent, exact, and checked when read."""

import errno
import json
import os
import shutil

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from anyorder.train import checkpoint
from anyorder.train.checkpoint import checkpoints, load_checkpoint, read_state, save_checkpoint
from anyorder.train.config import OptimConfig
from anyorder.train.ema import Ema
from anyorder.train.optim import make_optimizer

STATE = {"tokens": 12345678901234, "seconds": 0.1 + 0.2}


class Trained:
    """A small network after some steps, with optimiser and average."""

    def __init__(self, steps=3, *, width=4):
        self.model = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 2))
        for i, p in enumerate(self.model.parameters()):
            p.data.copy_(torch.linspace(-1, 1 / 3, p.numel()).view(p.shape) + i)
        self.optimizer = make_optimizer(self.model, OptimConfig())
        self.ema = Ema(self.model, decay=0.9)
        for _ in range(steps):
            self.step()

    def step(self):
        self.model(torch.ones(1, 3)).square().sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update(self.model)

    def save(self, run, step, *, keep=9, ema=True):
        parts = {"model": self.model, "optimizer": self.optimizer, "ema": self.ema if ema else None}
        save_checkpoint(run, step=step, **parts, state=STATE, keep=keep)

    def load(self, folder, *, ema=True):
        return load_checkpoint(folder, model=self.model, optimizer=self.optimizer, ema=self.ema if ema else None)

    def numbers(self):
        moments = [v for p in self.model.parameters() for _, v in sorted(self.optimizer.state[p].items())]
        return [*self.model.state_dict().values(), *moments, *self.ema.weights.values()]


def same(a, b):
    return all(torch.equal(x, y) and x.dtype == y.dtype for x, y in zip(a.numbers(), b.numbers()))


@pytest.mark.parametrize("ema", [False, True])
def test_a_loaded_run_goes_on_as_if_never_stopped(tmp_path, ema):
    a, b = Trained(), Trained(steps=0)
    a.save(tmp_path, 3, ema=ema)
    state = b.load(tmp_path / "step_000003", ema=ema)
    assert {key: state[key] for key in ("step", *STATE)} == {"step": 3, **STATE}
    if not ema:
        b.ema = a.ema
    assert same(a, b)
    for run in (a, b):
        run.step()
    assert same(a, b)
    expected = ["model.safetensors", "optimizer.safetensors", "state.json"]
    assert (
        sorted(p.name for p in (tmp_path / "step_000003").iterdir()) == (["ema.safetensors"] if ema else []) + expected
    )


def test_the_newest_are_kept_in_the_order_of_steps(tmp_path):
    """Numbers, not names: step 1000000 comes after step 999999."""
    run = Trained()
    for step in (999_998, 999_999, 1_000_000):
        run.save(tmp_path, step, keep=2)
    (tmp_path / "step_notes").mkdir()
    (tmp_path / "step_000007").write_text("a file")
    assert [p.name for p in checkpoints(tmp_path)] == ["step_999999", "step_1000000"]
    shutil.rmtree(tmp_path / "step_notes")
    (tmp_path / "step_000007").unlink()
    assert len(list(tmp_path.iterdir())) == 2


def edit_state(folder, **values):
    path = folder / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def flip(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)


DAMAGE = {
    "flipped bit": (lambda f: flip(f / "model.safetensors"), r"model\.safetensors: missing, truncated or altered"),
    "flipped moment": (lambda f: flip(f / "optimizer.safetensors"), r"optimizer\.safetensors: missing, truncated or"),
    "truncated": (
        lambda f: os.truncate(f / "ema.safetensors", 100),
        r"ema\.safetensors: missing, truncated or altered",
    ),
    "missing": (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors: missing, truncated or altered"),
    "no state": (lambda f: (f / "state.json").unlink(), r"state\.json is missing or unreadable"),
    "state cut off": (lambda f: os.truncate(f / "state.json", 20), r"state\.json is missing or unreadable"),
    "state not UTF-8": (lambda f: (f / "state.json").write_bytes(b"\xff"), r"state\.json is missing or unreadable"),
    "state a list": (lambda f: (f / "state.json").write_text("[]"), r"state\.json: altered"),
    "state empty": (lambda f: (f / "state.json").write_text("{}"), r"state\.json: altered"),
    "another step": (lambda f: edit_state(f, step=4), r"state\.json: altered \(its checksum differs\)"),
    "another checksum": (lambda f: edit_state(f, sha256={}), r"state\.json: altered"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_one_sentence_with_a_way_out(tmp_path, damage):
    run = Trained()
    run.save(tmp_path, 3)
    before = [value.clone() for value in run.numbers()]
    folder = tmp_path / "step_000003"
    change, message = DAMAGE[damage]
    change(folder)
    with pytest.raises(ValueError, match=message) as caught:
        run.load(folder)
    assert str(caught.value).endswith(f"delete {folder} to resume from the checkpoint before it")
    assert "\n" not in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(before, run.numbers()))
    with pytest.raises(ValueError, match=message):
        read_state(folder)


def test_another_model_s_checkpoint_is_refused(tmp_path):
    Trained().save(tmp_path, 3)
    with pytest.raises(ValueError, match=r"holds the tensors of another model; use the config\.yaml of this run"):
        Trained(width=5).load(tmp_path / "step_000003")


def disk_full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def safetensors_full(*args, **kwargs):
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(("place", "fault"), [("fsync", disk_full), ("save_file", safetensors_full)])
def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch, place, fault):
    run = Trained()
    run.save(tmp_path, 3, keep=1)
    monkeypatch.setattr(os if place == "fsync" else checkpoint, place, fault)
    with pytest.raises(
        OSError, match=r"disk full while writing .*step_000004; nothing was half-written, free some space"
    ):
        run.save(tmp_path, 4, keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step_000003"]
    assert run.load(tmp_path / "step_000003")["step"] == 3


def test_nothing_is_pickled(tmp_path):
    Trained().save(tmp_path, 3)
    for file in (tmp_path / "step_000003").glob("*.safetensors"):
        assert file.read_bytes()[8:9] == b"{"  # the safetensors header
