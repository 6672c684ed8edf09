"""The decision of `dtype: auto` over simulated machines, device names, and what this machine really measures."""

import warnings

import pytest
import torch

from anyorder.core import device as d
from anyorder.core import dist

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.mark.parametrize(
    ("device", "native", "ratio", "expected"),
    [
        (CPU, False, None, "float32"),  # AVX2 alone: never measured
        (CPU, True, 6.8, "bfloat16"),  # AMX
        (CPU, True, 1.3, "bfloat16"),
        (CPU, True, 1.29, "float32"),  # AVX512 without bf16 units says yes and gains nothing
        (CPU, True, 0.05, "float32"),
        (CUDA, True, None, "bfloat16"),
        (CUDA, False, None, "float32"),  # before compute capability 8.0 it is emulated
        (MPS, True, None, "float32"),
    ],
)
def test_auto_over_simulated_machines(monkeypatch, device, native, ratio, expected):
    asked = []

    def measured():
        asked.append(ratio)
        return ratio

    def supported(*, including_emulation):
        assert not including_emulation  # the default says yes to emulated bfloat16
        return native

    monkeypatch.setattr(d, "has_bf16", lambda: native)
    monkeypatch.setattr(d, "bf16_ratio", measured)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    choice = d.pick_dtype("auto", device)
    assert (choice.name, choice.ratio) == (expected, ratio)
    assert bool(asked) == (ratio is not None)  # nothing is timed where the answer is known
    assert choice.dtype == getattr(torch, expected)


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_dtype_that_is_asked_for_is_taken(monkeypatch, name):
    monkeypatch.setattr(d, "has_bf16", lambda: False)
    assert d.pick_dtype(name, CPU).name == name


def test_the_chosen_dtype_is_not_the_slower_one():
    chosen = d.pick_dtype("auto", CPU).dtype
    other = torch.float32 if chosen == torch.bfloat16 else torch.bfloat16
    assert d.product_rate(chosen) * d.GAIN > d.product_rate(other)


def test_emulated_bfloat16_is_measured_as_slow_on_any_machine():
    """Without oneDNN PyTorch multiplies bfloat16 in loops of its own, as on a CPU without the instructions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of a setting of Intel GPUs
        with torch.backends.mkldnn.flags(enabled=False):
            assert d.product_rate(torch.bfloat16) < 0.5 * d.product_rate(torch.float32)


def test_measuring_leaves_the_number_of_threads_alone():
    before = torch.get_num_threads()
    d.product_rate(torch.float32, batches=1)
    assert torch.get_num_threads() == before


def test_slow_bfloat16_is_warned_of_with_its_factor(monkeypatch):
    monkeypatch.setattr(d, "bf16_ratio", lambda: 0.08)
    said = d.warn_if_slow("bfloat16", CPU)
    assert said is not None
    assert "12 times slower" in said
    assert "--dtype float32" in said
    assert d.warn_if_slow("float32", CPU) is None
    assert d.warn_if_slow("bfloat16", CUDA) is None
    monkeypatch.setattr(d, "bf16_ratio", lambda: 2.0)
    assert d.warn_if_slow("bfloat16", CPU) is None


@pytest.mark.parametrize("name", ["gpu", "CPU", "cuda:x", "mps:0", "", "cpu:1"])
def test_unknown_devices_are_refused_by_name(name):
    with pytest.raises(ValueError, match="unknown; known: auto, cpu, cuda, cuda:N, mps"):
        d.pick_device(name)


def test_devices_that_are_not_there_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("cuda", "cuda:0", "mps"):
        with pytest.raises(ValueError, match="PyTorch sees no"):
            d.pick_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert d.pick_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="sees 2 CUDA devices"):
        d.pick_device("cuda:2")


def test_auto_is_a_cuda_gpu_or_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert d.pick_device("auto").type == ("cuda" if there else "cpu")


def test_canvases_lie_on_the_cpu_where_a_device_has_no_float64():
    assert [d.canvas_device(device).type for device in (CPU, CUDA, MPS)] == ["cpu", "cuda", "cpu"]


def test_a_process_computes_where_it_is_told(monkeypatch):
    monkeypatch.setattr(dist, "_device", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert dist.device().type == "cuda"
    dist.use("cpu")
    assert dist.device() == CPU


def test_the_compiler_is_the_one_of_the_environment_or_a_usual_one(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert d.cpp_compiler() is None
    tool = tmp_path / "my-cxx"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("CXX", "my-cxx")
    assert d.cpp_compiler() == str(tool)


def test_a_busy_core_is_noticed():
    share = d.free_share()
    assert 0 < share <= 1
    assert d.usable_cores() >= 1
