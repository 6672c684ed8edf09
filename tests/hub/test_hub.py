"""A model folder comes back bit for bit, or says what is wrong with it."""

import errno
import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from anyorder.core.files import sha256_of
from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.data.tokenizer import BpeTokenizer, ByteTokenizer, SymbolTokenizer
from anyorder.hub.load import load_model
from anyorder.hub.save import save_model
from anyorder.models import ModelConfig, Transformer

SIZE = ModelConfig(num_layers=2, num_heads=2, d_model=16, d_ff=24, max_length=8)
SYMBOLS = SymbolTokenizer("abc")


def network(tokenizer=SYMBOLS, *, causal=False, seed=0):
    model = Transformer(SIZE.model_copy(update={"causal": causal}), tokenizer.vocab)
    model.init_weights(Noise.of(seed))
    return model


@pytest.fixture
def saved(tmp_path):
    save_model(tmp_path / "model", network(), SYMBOLS)
    return tmp_path / "model"


@pytest.mark.parametrize("tokenizer", [SYMBOLS, ByteTokenizer(), BpeTokenizer.train(["ab abc abd"] * 9, size=260)])
@pytest.mark.parametrize("causal", [False, True])
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, tokenizer, causal):
    model = network(tokenizer, causal=causal)
    save_model(tmp_path / "m", model, tokenizer)
    loaded = load_model(tmp_path / "m")
    assert loaded.kind == ("arm" if causal else "mdm")
    assert loaded.model.config == model.config
    assert loaded.model.vocab == model.vocab
    assert loaded.tokenizer.hash == tokenizer.hash
    assert loaded.tokenizer.encode("abc") == tokenizer.encode("abc")
    ours, theirs = dict(model.named_parameters()), dict(loaded.model.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not loaded.model.training
    assert not any(p.requires_grad for p in theirs.values())
    x = torch.tensor([tokenizer.encode("abcab")])
    canvas = Canvas.of(x, vocab=tokenizer.vocab)
    assert torch.equal(loaded.model(canvas, x >= 0), model(canvas, x >= 0))
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_loading_in_bfloat16_keeps_the_weights(saved):
    loaded = load_model(saved, dtype=torch.bfloat16)
    x = torch.tensor([[0, 1]])
    assert loaded.model(Canvas.of(x, vocab=SYMBOLS.vocab), x >= 0).dtype == torch.bfloat16
    assert torch.equal(loaded.model.head.weight, network().head.weight)


def test_saving_twice_writes_the_same_bytes(saved, tmp_path):
    save_model(tmp_path / "again", network(), SYMBOLS)
    for file in saved.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_an_older_model_is_replaced_whole(saved):
    (saved / "left.over").write_text("of the older one")
    save_model(saved, network(seed=1), SYMBOLS)
    assert sorted(p.name for p in saved.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert torch.equal(load_model(saved).model.head.weight, network(seed=1).head.weight)


def test_a_full_disk_keeps_the_older_model(saved, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full while writing"):
        save_model(saved, network(seed=1), SYMBOLS)
    monkeypatch.undo()
    assert torch.equal(load_model(saved).model.head.weight, network().head.weight)
    assert [p.name for p in saved.parent.iterdir()] == ["model"]


def rewrite_weights(folder, change):
    """Other tensors with a checksum that fits them."""
    tensors = change(load_file(folder / "model.safetensors"))
    save_file(tensors, folder / "model.safetensors")
    rewrite_config(folder, lambda c: c["sha256"].update({"model.safetensors": sha256_of(folder / "model.safetensors")}))


def rewrite_config(folder, change):
    about = json.loads((folder / "config.json").read_text())
    change(about)
    (folder / "config.json").write_text(json.dumps(about))


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def replaced(tensors, **values):
    return {**tensors, **{name.replace("__", "."): value for name, value in values.items()}}


FAULTS = {
    "missing tensor": (
        lambda f: rewrite_weights(f, lambda t: {k: v for k, v in t.items() if k != "norm.weight"}),
        r"model\.safetensors: tensor 'norm\.weight' is missing",
    ),
    "unknown tensor": (
        lambda f: rewrite_weights(f, lambda t: replaced(t, extra=torch.zeros(1))),
        r"model\.safetensors: tensor 'extra' is unknown",
    ),
    "wrong shape": (
        lambda f: rewrite_weights(f, lambda t: replaced(t, norm__weight=torch.zeros(3))),
        r"norm\.weight has shape \(3,\), expected \(16,\)",
    ),
    "not safetensors": (
        lambda f: rewrite_config(
            f,
            lambda c: (
                (f / "model.safetensors").write_bytes(b"nothing"),
                c["sha256"].update({"model.safetensors": sha256_of(f / "model.safetensors")}),
            ),
        ),
        r"model\.safetensors: not a safetensors file",
    ),
    "altered byte": (
        lambda f: flip_a_byte(f / "model.safetensors"),
        r"model\.safetensors: missing, truncated or altered",
    ),
    "truncated": (
        lambda f: os.truncate(f / "model.safetensors", 1000),
        r"model\.safetensors: missing, truncated or altered .*; restore it",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors: missing, truncated or altered"),
    "other tokenizer": (
        lambda f: SymbolTokenizer("abd").save(f),
        r"tokenizer\.json is not the one the model was trained with; restore it",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"tokenizer"),
    "broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("{"), r"tokenizer\.json"),
    "not JSON": (lambda f: (f / "config.json").write_text("{"), r"config\.json: not JSON; the file was altered"),
    "not UTF-8": (lambda f: (f / "config.json").write_bytes(b"\xff"), r"config\.json: not JSON"),
    "a list": (
        lambda f: (f / "config.json").write_text("[1]"),
        r"config\.json: holds a list, not a JSON object; the file was altered, restore it",
    ),
    "a number for the model": (
        lambda f: rewrite_config(f, lambda c: c.update(model=3)),
        r"config\.json: model=3: must be an object; the file was altered, restore it",
    ),
    "half a vocab": (
        lambda f: rewrite_config(f, lambda c: c["vocab"].pop("size")),
        r"config\.json: vocab: .*size.*; the file was altered, restore it",
    ),
    "other format": (
        lambda f: rewrite_config(f, lambda c: c.update(format="anyorder-model-9")),
        r"config\.json: format='anyorder-model-9', expected 'anyorder-model-1'",
    ),
    "no vocab": (lambda f: rewrite_config(f, lambda c: c.pop("vocab")), r"config\.json: key 'vocab' is missing"),
    "no checksum": (
        lambda f: rewrite_config(f, lambda c: c["sha256"].clear()),
        r"model\.safetensors: missing, truncated or altered",
    ),
    "unknown size": (
        lambda f: rewrite_config(f, lambda c: c["model"].update(d_modle=3)),
        r"config\.json: unknown key 'd_modle'; did you mean 'd_model'\?",
    ),
    "other vocab": (lambda f: rewrite_config(f, lambda c: c["vocab"].update(size=5)), r"config\.json: .*vocab"),
    "no model": (lambda f: (f / "config.json").unlink(), r"no model here \(no config\.json\); name a run folder or"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_folder_says_so(saved, fault):
    damage, message = FAULTS[fault]
    damage(saved)
    with pytest.raises(ValueError, match=message) as caught:
        load_model(saved)
    assert "\n" not in str(caught.value)
