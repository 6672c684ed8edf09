"""The dtype of a run: decided once, written into its configuration, kept on another machine."""

import pytest
from toy import config, data

from anyorder.core import device as d
from anyorder.core.config import load_config
from anyorder.train import loop
from anyorder.train.config import RunConfig
from anyorder.train.loop import train


def run_dtype(folder):
    return load_config(RunConfig, folder / "config.yaml").dtype


def machine(monkeypatch, *, native):
    """A CPU with fast bfloat16, or without."""
    monkeypatch.setattr(d, "has_bf16", lambda: native)
    monkeypatch.setattr(d, "bf16_ratio", lambda: 4.0 if native else 0.1)


@pytest.mark.parametrize(("native", "name"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_written_resolved(monkeypatch, tmp_path, native, name):
    machine(monkeypatch, native=native)
    train(config(num_steps=1, dtype="auto"), data(), tmp_path, quiet=True)
    assert run_dtype(tmp_path) == name


@pytest.mark.parametrize("began_native", [True, False])
def test_a_resumed_run_keeps_its_dtype_and_bits_on_another_machine(monkeypatch, tmp_path, capsys, began_native):
    machine(monkeypatch, native=began_native)
    settings = {"num_steps": 4, "save_every": 2, "keep": 9, "dtype": "auto"}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config(**settings), data(), whole, quiet=True)

    class Killed(Exception):
        pass

    after = loop.Run.after

    def killed(self, done, result):
        after(self, done, result)
        if done == 2:
            raise Killed

    monkeypatch.setattr(loop.Run, "after", killed)
    with pytest.raises(Killed):
        train(config(**settings), data(), cut, quiet=True)
    monkeypatch.setattr(loop.Run, "after", after)
    machine(monkeypatch, native=not began_native)
    capsys.readouterr()
    train(config(**settings), data(), cut, quiet=True)
    assert run_dtype(cut) == run_dtype(whole) == ("bfloat16" if began_native else "float32")
    assert ("10 times slower" in capsys.readouterr().err) == began_native
    same = [(folder / "step_000004" / "model.safetensors").read_bytes() for folder in (whole, cut)]
    assert same[0] == same[1]


def test_another_dtype_than_the_runs_is_refused(tmp_path):
    train(config(num_steps=1, dtype="float32"), data(), tmp_path, quiet=True)
    with pytest.raises(ValueError, match="dtype"):
        train(config(num_steps=1, dtype="bfloat16"), data(), tmp_path, quiet=True)


def test_compiling_without_a_compiler_is_refused_before_the_folder_is_claimed(monkeypatch, tmp_path):
    monkeypatch.setattr(loop, "cpp_compiler", lambda: None)
    with pytest.raises(ValueError, match=r"no C\+\+ compiler here"):
        train(config(num_steps=1, compile=True), data(), tmp_path, quiet=True)
    assert not (tmp_path / "config.yaml").exists()
    train(config(num_steps=1), data(), tmp_path, quiet=True)
