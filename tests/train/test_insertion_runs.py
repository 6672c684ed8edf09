"""Runs of an insertion model on text: whole documents, killed and resumed, compiled; and what they say of them."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import anyorder
from anyorder.cli.main import main
from anyorder.core.log import read_records
from anyorder.evaluation.diversity import unigram_entropy
from anyorder.studies.quality import Writing, held_out
from anyorder.train.config import RunConfig
from anyorder.train.data import run_data
from anyorder.train.loop import Run, train

NAMES = ("ada", "bob", "cy", "dan", "eve")
TEXT = "def {a}_{b}(x, y):\n    return x {o} y\n"


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Short documents of made Python."""
    folder = tmp_path_factory.mktemp("documents")
    texts = [TEXT.format(a=a, b=b, o=o) for a in NAMES for b in NAMES for o in "+-*"]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    return {
        "data": {
            "corpus": str(folder / "texts.jsonl"),
            "cache": str(folder / "cache"),
            "tokenizer": "bytes",
            "length": 48,
            "packing": "documents",
        },
        "process": {"kind": "ilm"},
        "size": "tiny",
        "dtype": "float32",
        "batch": {"rows": 8},
        "num_steps": 12,
        "save_every": 4,
        "log_every": 4,
        "evaluate": {"every": 6, "rows": 8, "draws": 2},
    }


def words(options):
    """The same as typed."""
    flat = {}
    for key, value in options.items():
        flat |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return [word for key, value in flat.items() for word in (f"--{key}", str(value))]


def test_from_the_command_line_and_resumed_to_the_same_weights(options, tmp_path, capsys, monkeypatch):
    assert main(["train", *words(options), "--out", str(tmp_path / "whole"), "--quiet"]) == 0
    assert "bits/byte" in capsys.readouterr().out
    after = Run.after

    def killed(self, done, result):
        after(self, done, result)
        if done == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "after", killed)
    assert main(["train", *words(options), "--out", str(tmp_path / "cut"), "--quiet"]) == 1
    monkeypatch.undo()
    assert main(["train", *words(options), "--out", str(tmp_path / "cut"), "--quiet"]) == 0
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]
    model = anyorder.load(tmp_path / "cut")
    assert (model.kind, model.max_length) == ("ilm", 48)
    assert main(["inspect", str(tmp_path / "cut"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    parts = found["model"]["parameters"]
    assert found["model"]["kind"] == "ilm"
    assert parts["stop head"] == 32 * 32 + 32 + 32 + 1
    assert parts["head"] == 257 * 32
    assert parts["total"] == sum(n for name, n in parts.items() if name != "total")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "data.packing",
            "stream",
            "process.kind=ilm: an insertion model learns from whole documents; set data.packing",
        ),
        (
            "data.random_length",
            "0.5",
            "process.kind=ilm: an insertion model learns from whole documents; set data.rand",
        ),
    ],
)
def test_what_would_cut_documents_is_refused_before_anything_is_read(key, value, message, options, tmp_path, capsys):
    given = [*words(options), "--data.corpus", "nowhere.txt", f"--{key}", value, "--out", str(tmp_path / "run")]
    assert main(["train", *given]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_flops_are_those_that_were_spent(options, tmp_path):
    """But for end-of-document before each document, and attention, which is narrower than a row."""
    config = RunConfig.model_validate(options | {"size": "0.3M", "batch": {"rows": 32}})
    run = Run(config, run_data(config), tmp_path)
    with FlopCounterMode(display=False) as counter:
        for step in range(6):
            run.step(step)
    assert counter.get_total_flops() == pytest.approx(run._flops(6), rel=0.1)


def test_held_out_text_is_measured_document_by_document(options, tmp_path):
    config = RunConfig.model_validate(options)
    train(config, run_data(config), tmp_path, quiet=True)
    last = [r for r in read_records(tmp_path / "metrics.jsonl") if r["kind"] == "valid"][-1]
    valid = run_data(config).valid.take(torch.arange(run_data(config).valid.num_rows))
    assert last["num_tokens"] == int((valid.target & (valid.tokens != 256)).sum())  # 256: end of document
    assert 0 < last["nats_per_token"] < 8


def test_quality_of_documents_of_different_lengths(options, tiny_runs, tmp_path, capsys):
    config = RunConfig.model_validate(options | {"batch": {"rows": 16}, "num_steps": 30, "optim": {"lr": 1e-2}})
    train(config, run_data(config), tmp_path, quiet=True)
    assert main(["quality", str(tmp_path), "--judge", str(tiny_runs.arm), "--n", "12", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out.splitlines()[-1])["quality"]
    made = anyorder.load(tmp_path).sample(n=12)
    sizes = [g.num_tokens for g in made]
    assert found["figures"]["length"] == pytest.approx(sum(sizes) / 12)
    assert found["sampling"]["nfe"] == pytest.approx(sum(g.nfe for g in made) / 12)
    assert (found["figures"]["rows"], found["sampling"]["sampler"]) == (12, "insertion")
    entropy = unigram_entropy([torch.tensor(g.tokens) for g in made if g.tokens])
    assert found["figures"]["entropy"] == pytest.approx(float(entropy.mean()))
    texts = [t.removesuffix("\n") for t in (TEXT.format(a=a, b=b, o=o) for a in NAMES for b in NAMES for o in "+-*")]
    held = held_out(anyorder.load(tmp_path), Writing(n=12))
    assert all(bytes(row.tolist()).decode().removesuffix("\n") in texts for row in held)
    assert found["reference"]["rows"] == len(held)
    assert main(["quality", str(tmp_path), "--judge", str(tmp_path), "--n", "4"]) == 2
    assert "is an insertion model, which does not read from left to right" in capsys.readouterr().err


def test_compiled_training_compiles_once_for_all_shapes(options, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(torch, "compile", lambda fn, dynamic: made.append(dynamic) or fn)
    config = RunConfig.model_validate(options | {"compile": True})
    Run(config, run_data(config), tmp_path).step(0)
    assert made
    assert all(made)
