"""What a checkpoint that is damaged, strange or not there says; shards, pickles, names of the hub, dtypes, memory."""

import json
import pickle
import re
import shutil
import sys
import types
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from checkpoints import (
    CONFIGS,
    DITS,
    EOS,
    MASK,
    ROWS,
    byte_tokenizer,
    dit_buffers,
    dit_shapes,
    random_tensors,
    sentencepiece_tokenizer,
    shapes_of,
    smdm_shapes,
    write,
)
from safetensors.torch import load_file, save_file

import anyorder
from anyorder.cli.main import main
from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.data.tokenizer import ByteTokenizer
from anyorder.hub import fetch
from anyorder.hub.convert import convert, open_checkpoint
from anyorder.hub.families import FAMILIES
from anyorder.hub.fields import Fields
from anyorder.hub.find import model_folder
from anyorder.hub.load import load_model, read_about, weights_hash
from anyorder.hub.published import published, stream
from anyorder.hub.save import save_model, write_tensors
from anyorder.hub.source import entries_of, open_folder, read_config
from anyorder.models import SIZES, ModelConfig, Transformer

CONFIG = CONFIGS["llada"]
WQ = "model.transformer.blocks.1.q_proj.weight"


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "c", CONFIG, random_tensors(shapes_of(CONFIG)), tokenizer=byte_tokenizer())


def change(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def reconfigure(folder, **values):
    config = {k: v for k, v in (read_config(folder) | values).items() if v is not ...}
    (folder / "config.json").write_text(json.dumps(config))


def with_value(value):
    return lambda t: t[WQ].__setitem__((0, 0), value)


def twelve_strangers(t):
    for i in range(7):
        t[f"extra.{i}"] = torch.zeros(2)
    for name in [n for n in t if "blocks.0" in n][:5]:
        del t[name]


FAULTS = {
    "missing tensor": (lambda f: change(f, lambda t: t.pop(WQ)), rf"tensor '{WQ}' is missing"),
    "unknown tensor": (lambda f: change(f, lambda t: t.update(odd=torch.zeros(1))), r"tensor 'odd' is unknown"),
    "wrong shape": (
        lambda f: change(f, lambda t: t.update({WQ: torch.zeros(3, 24)})),
        rf"{WQ} has shape \(3, 24\), expected \(24, 24\)",
    ),
    "many faults": (
        lambda f: change(f, twelve_strangers),
        r"(?=(?:.*is missing){5})(?=(?:.*is unknown){5}).*; and 2 more faults",
    ),
    "NaN": (lambda f: change(f, with_value(float("nan"))), rf"tensor '{WQ}' holds NaN or infinite values"),
    "infinite": (lambda f: change(f, with_value(float("-inf"))), rf"tensor '{WQ}' holds NaN or infinite values"),
    "never trained": (
        lambda f: change(f, lambda t: t.update({WQ: torch.full((24, 24), 0.5)})),
        rf"every value of '{WQ}' is 0\.5, as in a network that was never trained",
    ),
    "no field": (lambda f: reconfigure(f, rope_theta=...), r"config\.json: key 'rope_theta' is missing"),
    "null field": (lambda f: reconfigure(f, n_layers=None), r"config\.json: key 'n_layers' is missing"),
    "text for a number": (lambda f: reconfigure(f, d_model="24"), r"d_model='24': must be a positive whole number"),
    "negative": (lambda f: reconfigure(f, rms_norm_eps=-1.0), r"rms_norm_eps=-1\.0: must be a positive number"),
    "no flag": (lambda f: reconfigure(f, weight_tying="no"), r"weight_tying='no': must be true or false"),
    "no token": (lambda f: reconfigure(f, mask_token_id="m"), r"mask_token_id='m': must be a token id"),
    "other network": (lambda f: reconfigure(f, alibi=True), r"alibi=True: only False is supported here"),
    "other family": (
        lambda f: reconfigure(f, model_type="lada"),
        r"model_type='lada': not read here; did you mean 'llada'\?",
    ),
    "no family": (
        lambda f: reconfigure(f, model_type=..., architectures=["Other"]),
        r"names neither model_type nor a known architecture; known: llada, dream",
    ),
    "pickle": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        r"pytorch_model\.bin: (is a pickle, .*; only anyorder convert reads one|not a file of tensors alone, so it is)",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors: no such file"),
    "not safetensors": (
        lambda f: (f / "model.safetensors").write_bytes(b"nothing"),
        r"model\.safetensors: not a safetensors file",
    ),
    "two files": (
        lambda f: [(f / "model.safetensors").rename(f / "a.safetensors"), save_file({}, f / "b.safetensors")],
        r"holds 2 safetensors files and no model\.safetensors\.index\.json",
    ),
    "no tokenizer": (
        lambda f: (f / "tokenizer.json").unlink(),
        r"c: has no tokenizer\.json; name the one .* --tokenizer",
    ),
    "broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), r"tokenizer\.json: not a tokenizer"),
    "tokenizer with more ids": (
        lambda f: (f / "tokenizer.json").write_text(sentencepiece_with(300)),
        r"has ids below 300, the embedding 264 rows; name the checkpoint's own tokenizer",
    ),
    "mask outside": (
        lambda f: reconfigure(f, mask_token_id=ROWS),
        r"mask_token_id=264: the embedding has 264 rows; the files do not belong together",
    ),
}


def sentencepiece_with(count):
    spec = json.loads(sentencepiece_tokenizer())
    for i in range(len(spec["model"]["vocab"]), count):
        spec["model"]["vocab"][f"word{i}"] = i
    return json.dumps(spec)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_checkpoint_says_so(folder, fault):
    damage, message = FAULTS[fault]
    load_model(folder)
    damage(folder)
    with pytest.raises(ValueError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


JSON_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json")


@pytest.mark.parametrize("text", ["{not json", "[]", "3", "\xff", '{"model": 3, "weight_map": 3, "model_type": 3}'])
@pytest.mark.parametrize("name", JSON_FILES)
def test_any_json_file_that_is_damaged_is_named(folder, name, text):
    (folder / name).write_text(text, encoding="latin-1")
    if name == "tokenizer_config.json" and text.startswith('{"'):
        load_model(folder)  # an object without what is looked for
        return
    with pytest.raises(ValueError, match=re.escape(str(folder / name))) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("key", "value"), [("layer_types", 3), ("architectures", 3), ("model_type", [])])
def test_a_value_of_another_type_is_no_internal_error(tmp_path, key, value):
    config = CONFIGS["a2d-llama"] | {"model_type": None, "architectures": ["A2DLlamaLMHeadModel"], key: value}
    with pytest.raises(ValueError, match=rf"config\.json: .*{key.removesuffix('s')}"):
        load_model(write(tmp_path / "c", config, {"a": torch.zeros(1)}, tokenizer=byte_tokenizer()))


LLAMA3 = CONFIGS["llama scaled"]["rope_scaling"]
ROPE_FAULTS = {
    "part of a head": ({"partial_rotary_factor": 0.5}, r"partial_rotary_factor=0\.5: only 1\.0 is supported here"),
    "factor of another type": ({"factor": 4.0}, r"factor=4\.0: not read for type 'default', and may ask for other ang"),
    "attention": (LLAMA3 | {"attention_factor": 2.0}, r"attention_factor=2\.0: not read for type 'llama3'"),
    "sections": ({"mrope_section": [1, 2]}, r"mrope_section=\[1, 2\]: not read for type 'default'"),
    "by kind of layer": ({"full_attention": {"rope_theta": 1e4}}, r"full_attention=.*: not read for type 'default'"),
    "another type": ({"rope_type": "yarn", "factor": 4.0}, r"type=\['yarn'\]: only 'default' and 'llama3'"),
    "two types": ({"rope_type": "default", "type": "linear"}, r"type=\['default', 'linear'\]: only"),
    "no object": ([1], r"=\[1\]: must be an object"),
}


@pytest.mark.parametrize("key", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize("fault", ROPE_FAULTS)
def test_angles_that_are_not_read_are_refused_wherever_they_stand(fault, key):
    block, message = ROPE_FAULTS[fault]
    for name in ("llama", "qwen3", "dream", "a2d-llama"):
        with pytest.raises(ValueError, match=rf"config\.json: {key}.*{message}"):
            FAMILIES[name].read(Fields(CONFIGS[name] | {key: block}, "config.json"))
    with pytest.raises(ValueError, match=rf"{key}=.*: only null is supported here"):
        FAMILIES["llada"].read(Fields(CONFIGS["llada"] | {key: block}, "config.json"))


def test_angles_may_be_said_twice_if_they_agree():
    config = CONFIGS["llama"] | {"rope_theta": 5e5, "rope_parameters": LLAMA3 | {"rope_theta": 5e5}}
    spare = {"partial_rotary_factor": 1.0, "attention_factor": None}
    for more in ({}, {"rope_scaling": LLAMA3}, {"rope_parameters": LLAMA3 | spare}):
        found = FAMILIES["llama"].read(Fields(config | more, "config.json")).config
        assert (found.rope_base, found.rope_scaling.factor) == (5e5, 8.0)
    for more, said in (({"rope_theta": 1e4}, "rope_theta=10000.0"), ({"rope_scaling": {"type": "default"}}, "differ")):
        with pytest.raises(ValueError, match=said):
            FAMILIES["llama"].read(Fields(config | more, "config.json"))


def test_a_tokenizer_with_far_fewer_ids_than_rows_is_of_another_checkpoint(tmp_path):
    config = CONFIG | {"embedding_size": ROWS + 1100, "vocab_size": ROWS + 1100}
    folder = write(tmp_path / "c", config, random_tensors(shapes_of(config)), tokenizer=byte_tokenizer())
    with pytest.raises(ValueError, match=r"has ids below 258, the embedding 1364 rows"):
        load_model(folder)


def test_a_mask_that_nobody_names_is_asked_for(tmp_path):
    config = CONFIGS["a2d-llama"] | {"mask_token_id": None}
    folder = write(tmp_path / "c", config, random_tensors(shapes_of(config)), tokenizer=byte_tokenizer(mask=None))
    with pytest.raises(ValueError, match=r"neither config\.json nor the tokenizer names the mask; add it to config"):
        load_model(folder)
    (folder / "tokenizer.json").write_text(byte_tokenizer(mask="<|other|>"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"mask_token": {"content": "<|other|>"}}))
    assert load_model(folder).model.vocab.mask_id == MASK


def test_a_tied_head_may_be_stored_if_it_is_the_embedding(tmp_path):
    config = CONFIGS["a2d-qwen3"]
    tensors = random_tensors(shapes_of(config))
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    folder = write(tmp_path / "c", config, tensors, tokenizer=byte_tokenizer())
    assert load_model(folder).model.head is None
    change(folder, lambda t: t["lm_head.weight"].add_(1))
    with pytest.raises(ValueError, match=r"'lm_head\.weight' differs from 'model\.embed_tokens\.weight' although tie"):
        load_model(folder)


def test_rotary_buffers_of_older_files_are_left_out(tmp_path):
    config = CONFIGS["llama"]
    tensors = random_tensors(shapes_of(config)) | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(3)}
    load_model(write(tmp_path / "c", config, tensors, tokenizer=byte_tokenizer()))


def shard(folder, *, shard_bytes=9000):
    """The same checkpoint in several files, as the hub has it."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    return write_tensors(folder, tensors.items(), shard_bytes=shard_bytes)


def test_shards_are_one_checkpoint(folder):
    whole = load_model(folder).model
    files = shard(folder)
    assert len(files) > 3
    assert sorted(files) == sorted(p.name for p in folder.iterdir() if "safetensors" in p.name)
    parts = [load_file(folder / f) for f in files[:-1]]
    assert all(sum(t.nbytes for t in p.values()) <= 9000 or len(p) == 1 for p in parts)
    index = json.loads((folder / files[-1]).read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for p in parts for t in p.values())
    sharded = load_model(folder).model
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), sharded.parameters(), strict=True))


INDEX = "model.safetensors.index.json"


def lose_entry(f):
    index = json.loads((f / INDEX).read_text())
    index["weight_map"].pop(WQ)
    (f / INDEX).write_text(json.dumps(index))


SHARD_FAULTS = {
    "no shard": (lambda f: next(f.glob("model-00002*")).unlink(), r"model-00002-of-\d+\.safetensors: no such file"),
    "entry lost": (lose_entry, rf"index\.json: does not list '{WQ}' for model-\d+-of-\d+\.safetensors, which differs"),
    "broken index": (lambda f: (f / INDEX).write_text('{"weight_map": 3}'), r"index\.json: not an index of tensors"),
}


@pytest.mark.parametrize("fault", SHARD_FAULTS)
def test_shards_that_are_not_whole_say_so(folder, fault):
    shard(folder)
    damage, message = SHARD_FAULTS[fault]
    damage(folder)
    with pytest.raises(ValueError, match=message):
        load_model(folder)


def test_a_sharded_model_folder_of_ours_is_checked_and_read(folder, tmp_path, monkeypatch):
    from anyorder.hub import save

    monkeypatch.setattr(save, "SHARD_BYTES", 9000)
    convert(folder, tmp_path / "ours")
    about = read_about(tmp_path / "ours")
    assert len(about["sha256"]) > 3
    assert INDEX in about["sha256"]
    ours, theirs = load_model(tmp_path / "ours").model, load_model(folder).model
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert len(weights_hash(about)) == 64
    data = bytearray(next((tmp_path / "ours").glob("model-00002*")).read_bytes())
    data[-1] ^= 1
    next((tmp_path / "ours").glob("model-00002*")).write_bytes(data)
    with pytest.raises(ValueError, match=r"model-00002-of-\d+\.safetensors: missing, truncated or altered"):
        load_model(tmp_path / "ours")


HALF = [(torch.bfloat16, torch.float32), (torch.bfloat16, torch.bfloat16), (torch.float32, torch.bfloat16)]


@pytest.mark.parametrize(("stored", "asked"), HALF)
def test_half_precision_weights_take_on_the_dtype_asked_for(tmp_path, stored, asked):
    tensors = {n: t.to(stored) for n, t in random_tensors(shapes_of(CONFIG)).items()}
    folder = write(tmp_path / "c", CONFIG, tensors, tokenizer=byte_tokenizer())
    for place in (folder, convert(folder, tmp_path / "ours").folder):
        model = load_model(place, dtype=asked).model
        assert {p.dtype for p in model.parameters()} == {torch.float32 if stored == torch.float32 else asked}
        x = torch.tensor([[1, 2, MASK]])
        assert model(Canvas.of(x, vocab=model.vocab), x >= 0).dtype == asked
    assert {e.dtype for e in entries_of(tmp_path / "ours" / "model.safetensors").values()} == {stored}
    convert(folder, tmp_path / "cast", dtype=torch.float32)
    assert {e.dtype for e in entries_of(tmp_path / "cast" / "model.safetensors").values()} == {torch.float32}


def test_half_precision_is_computed_in_float32_unless_asked_and_by_auto_where_it_is_emulated(tmp_path, monkeypatch):
    tensors = {n: t.bfloat16() for n, t in random_tensors(shapes_of(CONFIG)).items()}
    folder = write(tmp_path / "c", CONFIG, tensors, tokenizer=byte_tokenizer())
    monkeypatch.setattr("anyorder.core.device.has_bf16", lambda: False)
    for options in ({}, {"dtype": "auto"}):
        model = anyorder.load(folder, device="cpu", **options).model
        assert {model.dtype, *(p.dtype for p in model.parameters())} == {torch.float32}
    assert torch.equal(model.embed.weight.bfloat16(), tensors["model.transformer.wte.weight"])


def test_one_tensor_of_the_file_is_in_memory_at_a_time(folder):
    """Peak memory is the model and one tensor: what was read is let go before the next is read."""
    import weakref

    checkpoint = published(open_folder(folder, config=read_config(folder)))
    alive, most = weakref.WeakSet(), []

    def watched(entry):
        def read():
            tensor = entry.read()
            alive.add(tensor)
            most.append(len(alive))
            return tensor

        return type(entry)(entry.shape, entry.dtype, read)

    source = checkpoint.source
    entries = {name: watched(entry) for name, entry in source.entries.items()}
    watching = type(source)(source.place, source.folder, source.config, entries)
    kept = dict(stream(watching, checkpoint.tensors, held=lambda stored: stored))
    assert max(most) <= 2
    assert len(most) == len(checkpoint.tensors)
    assert sum(t.numel() for t in kept.values()) == checkpoint.num_params


def save_pickle(path, held):
    torch.save(held, path)
    return path


WRAPPED = {
    "bare": lambda t: t,
    "under model": lambda t: {"model": t, "optimizer": {"state": {}}, "iter_num": 3},
    "lightning": lambda t: {
        "state_dict": {f"model.{n}": v for n, v in t.items()} | {f"predictor.model.{n}": v for n, v in t.items()},
        "epoch": 1,
    },
}


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_convert_reads_the_tensors_of_a_pickle(tmp_path, wrapped):
    tensors = random_tensors(smdm_shapes(causal=False, size=265))
    path = save_pickle(tmp_path / "mdm.pth", WRAPPED[wrapped](tensors))
    (tmp_path / "t.json").write_text(sentencepiece_tokenizer())
    convert(path, tmp_path / "ours", tokenizer=tmp_path / "t.json", heads=4)
    convert(tmp_path / "ours", tmp_path / "back", to="smdm")
    again = load_file(tmp_path / "back" / "model.safetensors")
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[n], tensors[n]) for n in tensors)
    with pytest.raises(ValueError, match=rf"of weights; make a .*: anyorder convert {path} OUT --tokenizer FOLDER"):
        model_folder(path)


def test_the_configuration_beside_a_pickle_says_what_it_is(folder, tmp_path):
    """All names of LLaDA begin as a trainer's prefix does; with a configuration they are taken as they are."""
    tensors = load_file(folder / "model.safetensors")
    assert all(name.startswith("model.") for name in tensors)
    convert(folder, tmp_path / "plain")
    (folder / "model.safetensors").unlink()
    path = save_pickle(folder / "pytorch_model.bin", tensors)
    with pytest.raises(ValueError, match=rf"{path.name}: is a pickle, .*: anyorder convert {folder} OUT"):
        load_model(folder)
    for number, place in enumerate((path, folder)):
        assert convert(place, tmp_path / f"ours{number}").family == "llada"
        assert same_weights(tmp_path / f"ours{number}", tmp_path / "plain")


def same_weights(a, b):
    ours, plain = (load_file(folder / "model.safetensors") for folder in (a, b))
    return ours.keys() == plain.keys() and all(torch.equal(ours[name], plain[name]) for name in plain)


def in_parts(folder):
    """The weights of a folder as pytorch_model-0000i-of-00003.bin with their index."""
    tensors = list(load_file(folder / "model.safetensors").items())
    (folder / "model.safetensors").unlink()
    names = [f"pytorch_model-{i + 1:05}-of-00003.bin" for i in range(3)]
    for i, name in enumerate(names):
        save_pickle(folder / name, dict(tensors[i::3]))
    index = {n: names[i % 3] for i, (n, _) in enumerate(tensors)}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    return names


def test_pickles_in_parts_are_converted_through_their_index(folder, tmp_path):
    convert(folder, tmp_path / "plain")
    parts = in_parts(folder)
    with pytest.raises(ValueError, match=rf"is a pickle, .*: anyorder convert {folder} OUT"):
        load_model(folder)
    convert(folder, tmp_path / "ours")
    assert same_weights(tmp_path / "ours", tmp_path / "plain")
    with pytest.raises(ValueError, match=rf"{parts[0]}: is one part of a checkpoint; name its folder, {folder}"):
        convert(folder / parts[0], tmp_path / "part")
    torch.save({WQ: Trap()}, folder / parts[1])
    with pytest.raises(ValueError, match=rf"{parts[1]}: not a file of tensors alone"):
        convert(folder, tmp_path / "trap")
    (folder / parts[1]).unlink()
    with pytest.raises(ValueError, match=rf"{parts[1]}: no such file"):
        convert(folder, tmp_path / "fewer")
    (folder / "pytorch_model.bin.index.json").unlink()
    with pytest.raises(
        ValueError, match=rf"holds 2 pickles and no pytorch_model\.bin\.index.json; .* {folder / parts[0]} OUT"
    ):
        convert(folder, tmp_path / "which")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {WQ: "../elsewhere.bin"}}))
    with pytest.raises(ValueError, match=r"not an index of tensors; get it again"):
        convert(folder, tmp_path / "outside")


def test_a_part_of_safetensors_is_no_checkpoint(folder, tmp_path):
    parts = shard(folder)
    with pytest.raises(ValueError, match=rf"{parts[0]}: is one part of a checkpoint; name its folder, {folder}"):
        convert(folder / parts[0], tmp_path / "part")


def lightning(place, config, *, average, prefix="", **more):
    """A training checkpoint: weights, buffers among them, and a moving average of the weights, which is twice them."""
    tensors = random_tensors(dit_shapes(config))
    held = {}
    for name, tensor in tensors.items():  # the classes register the rotary buffer before the blocks
        if "blocks.0.norm1" in name:
            held |= {f"{prefix}{n}": t for n, t in dit_buffers(config).items() if "inv_freq" in n}
        held[f"{prefix}{name}"] = tensor
    doubled = {f"{prefix}{n}": t * 2 for n, t in tensors.items()}
    place.mkdir()
    (place / "config.json").write_text(json.dumps(config))
    (place / "tokenizer.json").write_text(byte_tokenizer(mask=None))
    torch.save({"state_dict": held, "ema": average(doubled), "epoch": 1, **more}, place / "last.ckpt")
    return tensors


AVERAGED = {
    "listed": lambda t: {"decay": 0.9999, "num_updates": 7, "shadow_params": list(t.values())},
    "by name": lambda t: t,
    "by name, wrapped": lambda t: {"state_dict": t},
}


@pytest.mark.parametrize("average", AVERAGED)
@pytest.mark.parametrize("compiled", ["", "_orig_mod."])
def test_the_moving_average_of_a_training_checkpoint_is_taken_and_said(tmp_path, capsys, average, compiled):
    tensors = lightning(tmp_path / "run", DITS["mdlm"], average=AVERAGED[average], prefix=compiled)
    assert main(["convert", str(tmp_path / "run" / "last.ckpt"), str(tmp_path / "ours")]) == 0
    assert "tensors, the moving average 'ema'" in capsys.readouterr().out
    convert(tmp_path / "ours", tmp_path / "back", to="mdlm")
    again = load_file(tmp_path / "back" / "model.safetensors")
    assert all(torch.equal(again[name], 2 * tensor) for name, tensor in tensors.items())


NO_AVERAGES = {
    "one too few": lambda t: {"shadow_params": list(t.values())[:-1]},
    "another order": lambda t: {"shadow_params": list(t.values())[::-1]},
    "one without a name": lambda t: dict(list(t.items())[1:]),
    "of nothing": lambda t: {"decay": 0.5},
}


@pytest.mark.parametrize("average", NO_AVERAGES)
def test_an_average_that_is_none_of_these_weights_is_refused(tmp_path, average):
    tensors = lightning(tmp_path / "run", DITS["mdlm"], average=NO_AVERAGES[average])
    said = rf"last\.ckpt: ema: is no moving average of its {len(tensors)} weights one for one; save"
    with pytest.raises(ValueError, match=said):
        convert(tmp_path / "run" / "last.ckpt", tmp_path / "ours")


def test_a_training_checkpoint_without_a_configuration_is_what_is_named(tmp_path):
    lightning(tmp_path / "run", DITS["mdlm"], average=lambda t: 0.9999)  # a number is no average
    assert convert(tmp_path / "run" / "last.ckpt", tmp_path / "ours").note == ""
    (tmp_path / "run" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"last\.ckpt: no config\.json lies beside it, and shapes alone do not tell"):
        convert(tmp_path / "run" / "last.ckpt", tmp_path / "more")


class Trap:
    def __reduce__(self):
        return (print, ("the pickle ran code",))


def test_a_pickle_that_would_run_code_is_not_read(tmp_path, capsys):
    torch.save({"a": torch.zeros(1), "b": Trap()}, tmp_path / "bad.pt")
    with pytest.raises(
        ValueError, match=r"bad\.pt: not a file of tensors alone, so it is not read \(it asks for .*print"
    ):
        convert(tmp_path / "bad.pt", tmp_path / "out")
    assert "ran code" not in capsys.readouterr().out
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Trap()))
    (tmp_path / "text.pt").write_text("hello")
    save_pickle(tmp_path / "empty.pt", {"a": 1})
    for name, message in (("plain", "tensors alone"), ("text", "tensors alone"), ("empty", "holds no tensors by name")):
        with pytest.raises(ValueError, match=message):
            convert(tmp_path / f"{name}.pt", tmp_path / "out")


NOT_CONVERTED = {
    "ours again": (
        lambda f, o: convert(o, f / "x"),
        r"is a model of ours already; name the layout it .*--to",
    ),
    "published to a family": (lambda f, o: convert(f, f / "x", to="llada"), r"convert it to a folder of ours first"),
    "unknown family": (lambda f, o: convert(o, f / "x", to="lama"), r"to='lama': unknown; did you mean 'llama'\?"),
    "out is there": (lambda f, o: convert(f, o), r"ours: is there already; name a new folder"),
    "not there": (lambda f, o: convert(f / "none", f / "x", to="llama"), r"none: no such folder"),
    "no word": (
        lambda f, o: convert(o, f / "x", to="smdm"),
        r"smdm has no word for rope='float32'; choose",
    ),
}


@pytest.mark.parametrize("case", NOT_CONVERTED)
def test_what_cannot_be_converted_says_so(folder, tmp_path, case):
    run, message = NOT_CONVERTED[case]
    convert(folder, tmp_path / "ours")
    with pytest.raises(ValueError, match=message):
        run(folder, tmp_path / "ours")
    assert not (folder / "x").exists()


@pytest.mark.parametrize(("causal", "family"), [(True, "llama"), (True, "smdm"), (False, "smdm")])
def test_a_model_trained_here_goes_to_a_published_layout_and_is_read_there(tmp_path, causal, family):
    tokenizer = ByteTokenizer()
    model = Transformer(SIZES["tiny"].model_copy(update={"causal": causal, "max_length": 64}), tokenizer.vocab)
    model.init_weights(Noise.of(0))
    save_model(tmp_path / "ours", model, tokenizer)
    convert(tmp_path / "ours", tmp_path / "theirs", to=family)
    loaded = load_model(tmp_path / "theirs")
    assert loaded.kind == ("arm" if causal else "mdm")
    assert isinstance(loaded.tokenizer, ByteTokenizer)
    x = torch.tensor([[3, 4, 5 if causal else 257, 6]])
    canvas = Canvas.of(x, vocab=model.vocab)
    assert torch.equal(loaded.model(canvas, x >= 0), model(canvas, x >= 0))
    if not causal:
        with pytest.raises(ValueError, match=r"the mask, id 257, has another place in a2d-llama"):
            convert(tmp_path / "ours", tmp_path / "other", to="a2d-llama")


def test_names_of_the_hub_are_read(monkeypatch, folder, tmp_path):
    asked = []
    hub = types.SimpleNamespace(
        snapshot_download=lambda repo, *, revision, allow_patterns, ignore_patterns: (
            asked.append((repo, revision)) or str(folder)
        ),
        hf_hub_download=lambda repo, file, *, revision: asked.append((repo, file, revision)) or str(folder / file),
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert model_folder(Path("hub:org/name-1.5")) == folder
    assert model_folder(Path("hub:org/name@step-4")) == folder
    assert open_checkpoint(Path("hub:org/name/model.safetensors")).entries.keys() == shapes_of(CONFIG).keys()
    assert asked == [("org/name-1.5", None), ("org/name", "step-4"), ("org/name", "model.safetensors", None)]
    with pytest.raises(
        ValueError, match=r"^hub:org/name/model\.safetensors: is a file of weights; .* --tokenizer FOLD"
    ):
        model_folder(Path("hub:org/name/model.safetensors"))
    assert anyorder.load("hub:org/name").sample(length=4)[0].num_tokens == 4
    for wrong in ("hub:name", "hub:", "hub:org/name with space"):
        with pytest.raises(ValueError, match=r"is no name of the hub; write hub:ORG/NAME"):
            fetch.fetch(wrong)


def repository(monkeypatch, place):
    """A hub that serves the files of a folder as the library does: by patterns, into a folder of its own."""

    def snapshot_download(repo, *, revision, allow_patterns, ignore_patterns):
        there = [f for f in place.rglob("*") if f.is_file()]
        for file in there:
            name = file.relative_to(place).as_posix()
            if any(fnmatch(name, p) for p in allow_patterns) and not any(fnmatch(name, p) for p in ignore_patterns):
                (place.parent / repo).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place.parent / repo / name)
        return str(place.parent / repo)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))


def test_pickles_and_tokenizers_of_the_hub_are_fetched_where_they_are_asked_for(monkeypatch, folder, tmp_path, capsys):
    convert(folder, tmp_path / "plain")
    (folder / "tokenizer.json").rename(folder / "tokenizer")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    in_parts(folder)
    repository(monkeypatch, folder)
    assert main(["sample", "hub:org/name", "--length", "4"]) == 2
    said = "hub:org/name: has no safetensors; make a model folder of its pickles: anyorder convert hub:org/name OUT"
    assert said in capsys.readouterr().err
    assert not list((tmp_path / "org" / "name").glob("*.bin"))
    with pytest.raises(ValueError, match=r"has no tokenizer\.json; .* --tokenizer FOLDER"):
        convert(Path("hub:org/name"), tmp_path / "ours")
    (folder / "tokenizer").rename(folder / "tokenizer.json")
    convert(Path("hub:org/name"), tmp_path / "ours", tokenizer=Path("hub:some/tokenizer"))
    assert same_weights(tmp_path / "ours", tmp_path / "plain")
    assert (tmp_path / "ours" / "chat_template.jinja").exists()
    assert not list((tmp_path / "some" / "tokenizer").glob("*.bin"))


def test_a_repository_of_many_models_is_not_downloaded(monkeypatch, folder, tmp_path, capsys):
    (tmp_path / "all" / "mdm").mkdir(parents=True)
    (folder / "model.safetensors").rename(tmp_path / "all" / "mdm" / "model.safetensors")
    repository(monkeypatch, tmp_path / "all")
    (tmp_path / "many" / "models").mkdir(parents=True)
    assert main(["sample", "hub:many/models", "--length", "4"]) == 2
    assert "hub:many/models: has no config.json; name one file of weights" in capsys.readouterr().err
    assert not list((tmp_path / "many").rglob("*.safetensors"))


def test_without_the_library_or_the_network_one_sentence_says_so(monkeypatch):
    def fails(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=fails))
    with pytest.raises(ValueError, match=r"cannot be had from the hub \(ConnectionError: no route to host\); c"):
        fetch.fetch("hub:a/b")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"needs huggingface_hub; install it with: pip install 'anyorder\[hub\]'"):
        fetch.fetch("hub:a/b")


def test_what_a_published_folder_says_of_itself(folder):
    about = read_about(folder)
    assert about["kind"] == "mdm"
    assert about["vocab"] == {"size": ROWS, "mask_id": MASK, "pad_id": ROWS, "eos_id": EOS}
    assert about["tokenizer_hash"] == load_model(folder).tokenizer.hash
    before = weights_hash(about)
    change(folder, lambda t: t[WQ].add_(1))
    assert weights_hash(read_about(folder)) != before


def test_smdm_of_no_published_size_asks_for_its_heads(tmp_path):
    folder = write(tmp_path / "c", None, random_tensors(smdm_shapes(causal=False)), tokenizer=sentencepiece_tokenizer())
    with pytest.raises(ValueError, match=r"2 layers of width 24 are no published size of SMDM; .*--heads"):
        convert(folder, tmp_path / "out")


def test_configurations_refuse_heads_that_do_not_go_together():
    with pytest.raises(ValueError, match=r"model.num_kv_heads=3: must divide num_heads=4"):
        ModelConfig(num_heads=4, num_kv_heads=3)
    with pytest.raises(ValueError, match=r"model.head_width=5: must be even"):
        ModelConfig(head_width=5)
