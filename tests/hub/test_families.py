"""Published layouts: the forward pass against a second one, published totals, what a damaged checkpoint says."""

import json
import math

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
    dit_logits,
    dit_shapes,
    expected_logits,
    random_tensors,
    sentencepiece_tokenizer,
    shapes_of,
    smdm_logits,
    smdm_shapes,
    smdm_tables,
    write,
)
from safetensors.torch import load_file

import anyorder
from anyorder.core.noise import Noise
from anyorder.core.types import Canvas, Vocab
from anyorder.hub.convert import convert
from anyorder.hub.families import FAMILIES
from anyorder.hub.fields import Fields
from anyorder.hub.load import load_model
from anyorder.hub.published import published
from anyorder.hub.source import read_config
from anyorder.models import SIZES
from anyorder.models.rope import rope_tables

BYTES = byte_tokenizer()


def checkpoint(place, name="llada", *, seed=0, tokenizer=BYTES):
    config = CONFIGS[name]
    tensors = random_tensors(shapes_of(config), seed=seed)
    return write(place, config, tensors, tokenizer=tokenizer), tensors


def ids(rows, length, *, below=MASK + 1):
    return (Noise.of(3).uniform(torch.arange(rows)[:, None], 0, torch.arange(length)) * below).long()


def logits(model, x, segment=None):
    everywhere = torch.ones_like(x, dtype=torch.bool)
    return model(Canvas.of(x, vocab=model.vocab, segment=segment), everywhere).view(*x.shape, -1)


def assert_same_logits(found, expected, *, mask=None):
    """Equal to 1e-5 where a token can be written; -inf at a mask inside the vocabulary."""
    writable = [i for i in range(expected.shape[-1]) if i != mask]
    torch.testing.assert_close(found[..., writable].double(), expected[..., writable], atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.2
    assert mask is None or (found[..., mask] == -math.inf).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_forward_pass_is_the_published_one(tmp_path, name):
    folder, tensors = checkpoint(tmp_path / "c", name)
    loaded, x = load_model(folder), ids(2, 30)
    causal = CONFIGS[name]["model_type"] in ("llama", "qwen2", "qwen3")
    assert loaded.kind == ("arm" if causal else "mdm")
    assert loaded.model.vocab == (Vocab(ROWS, ROWS, ROWS + 1, EOS) if causal else Vocab(ROWS, MASK, ROWS, EOS))
    assert_same_logits(
        logits(loaded.model, x), expected_logits(CONFIGS[name], tensors, x), mask=None if causal else MASK
    )
    assert sum(p.numel() for p in loaded.model.parameters()) == sum(t.numel() for t in tensors.values())


@pytest.mark.parametrize("name", ["llama scaled", "qwen2", "qwen3"])
def test_the_transformers_library_reads_the_same_and_what_is_exported(tmp_path, name, monkeypatch):
    transformers = pytest.importorskip("transformers")
    monkeypatch.setattr(transformers.utils.logging, "_tqdm_active", False)
    folder, _ = checkpoint(tmp_path / "c", name)
    convert(folder, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "back", to=CONFIGS[name]["model_type"])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back", dtype=torch.float32)
    loaded, x = load_model(folder), ids(2, 40)
    start = torch.full_like(x[:, :1], CONFIGS[name]["bos_token_id"])
    with torch.no_grad():
        expected = theirs(torch.cat([start, x[:, :-1]], 1)).logits
    assert_same_logits(logits(loaded.model, x), expected.double())


def test_llada_rotates_in_float32_whatever_the_activations(tmp_path):
    for name, dtype in (("llada", torch.float32), ("dream", torch.bfloat16)):
        model = load_model(checkpoint(tmp_path / name, name)[0], dtype=torch.bfloat16).model
        assert model.rotation(model.rope_cos).dtype == dtype
        assert logits(model, ids(1, 5)).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["qwen3", "dream"])
def test_packed_documents_do_not_see_each_other(tmp_path, name):
    folder, _ = checkpoint(tmp_path / "c", name)
    model, x = load_model(folder).model, ids(1, 9, below=256)
    segment = torch.tensor([[1] * 4 + [2] * 5])
    found = logits(model, x, segment)
    alone = torch.cat([logits(model, x[:, :4]), logits(model, x[:, 4:])], 1)
    torch.testing.assert_close(found[..., :MASK], alone[..., :MASK], atol=1e-5, rtol=1e-5)


def test_logits_are_computed_where_asked(tmp_path):
    folder, _ = checkpoint(tmp_path / "c", "dream")
    model, x = load_model(folder).model, ids(3, 9)
    at = (Noise.of(1).uniform(torch.arange(3)[:, None], 0, torch.arange(9)) < 0.4).index_fill(
        1, torch.tensor([0]), True
    )
    some = model(Canvas.of(x, vocab=model.vocab), at)
    torch.testing.assert_close(some[:, :MASK], logits(model, x)[at][:, :MASK], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "llama scaled"])
def test_sampling_with_a_cache_writes_the_same(tmp_path, name):
    model = anyorder.load(checkpoint(tmp_path / "c", name)[0])
    plain, cached = (model.sample("ab", n=3, length=30, cache=c) for c in ("none", "exact"))
    assert [g.tokens for g in plain] == [g.tokens for g in cached]


@pytest.mark.parametrize("name", ["llada", "dream", "a2d-qwen3"])
def test_a_published_checkpoint_writes_fills_and_scores(tmp_path, name):
    model = anyorder.load(checkpoint(tmp_path / "c", name)[0])
    row = model.sample("ab", length=12, sampler="low-confidence", num_steps=5)[0]
    assert MASK not in row.tokens
    assert row.nfe == 5
    assert row.tokens[:2] == model.tokenizer.encode("ab")
    filled = model.infill(["a", anyorder.GAP(3), "b"])[0]
    assert model.tokenizer.decode(filled.tokens[:1] + filled.tokens[-1:]) == "ab"
    score = model.score(["hello there"], draws=8)[0]
    assert 1 < score.nats_per_token < 9  # 5.6 for a uniform law


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("rounded", [True, False])
def test_smdm_reads_a_bare_file_or_a_folder_of_its_own(tmp_path, causal, rounded):
    tensors = random_tensors(smdm_shapes(causal=causal, size=265))
    folder = write(tmp_path / "bare", None, tensors)
    convert(
        folder / "model.safetensors",
        tmp_path / "ours",
        tokenizer=write_tokenizer(tmp_path, sentencepiece_tokenizer()),
        heads=4,
    )
    convert(tmp_path / "ours", tmp_path / "theirs", to="smdm")
    config = read_config(tmp_path / "theirs")
    assert config["rope_bfloat16"] is True
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(config | {"rope_bfloat16": rounded}))
    loaded, x = load_model(tmp_path / "theirs"), ids(2, 12, below=265)
    x[:, 3:5] = 264 if causal else 265  # the last row, which is the mask's where there is one
    assert loaded.model.vocab == Vocab(265, 265, 266, 2)
    expected = smdm_logits(tensors, x, causal=causal, start=1, rounded=rounded)  # as its evaluation: <s> first
    assert_same_logits(logits(loaded.model, x), expected)
    other = smdm_logits(tensors, x, causal=causal, start=1, rounded=not rounded)
    assert (other - expected).abs().max() > 1e-4  # the rounding shows
    if rounded:
        cos = smdm_tables(2048, 6)[0].bfloat16().float()
        assert torch.equal(loaded.model.rope_cos, torch.cat([cos, cos], 1))
        assert_same_logits(logits(load_model(tmp_path / "ours").model, x), expected)


def test_the_rotary_tables_of_smdm_are_those_of_its_code_to_the_last_bit():
    """Of float32 angles; those of float64 angles differ in some entries of the published length after rounding."""
    found = rope_tables(2048, 128, base=10_000.0, rounded=True)
    cos, sin = (table.bfloat16().float() for table in smdm_tables(2048, 128))
    assert torch.equal(found[0], torch.cat([cos, cos], 1))
    assert torch.equal(found[1], torch.cat([-sin, sin], 1))
    exact = rope_tables(2048, 128, base=10_000.0)
    differ = (found[0] != exact[0].bfloat16().float()).double().mean()
    assert 1e-3 < differ < 4e-3
    torch.testing.assert_close(exact[0], found[0], atol=5e-3, rtol=0)


def write_tokenizer(place, text):
    path = place / "tokenizer.json"
    path.write_text(text)
    return path


@pytest.mark.parametrize("causal", [False, True])
def test_every_published_size_of_smdm_is_known_by_its_shapes(tmp_path, causal):
    from anyorder.hub.source import Entry, Source

    for name, size in list(SIZES.items())[4:]:
        s = {"layers": size.num_layers, "width": size.d_model, "ffn": size.d_ff}
        shapes = smdm_shapes(s, causal=causal, size=32_000)
        entries = {n: Entry(shape, torch.float32, lambda: torch.zeros(0)) for n, shape in shapes.items()}
        found = published(Source(tmp_path, tmp_path, {}, entries))
        assert found.plan.config.num_heads == size.num_heads, name
        assert found.num_params == size.num_block_params + (64_000 if causal else 64_001) * size.d_model
        assert found.kind == ("arm" if causal else "mdm")


@pytest.mark.parametrize("name", DITS)
def test_the_forward_pass_of_mdlm_and_bd3lm_is_the_published_one(tmp_path, name):
    config, buffers = DITS[name], dit_buffers(DITS[name])
    if "sampling_eps_min" in buffers:
        buffers["sampling_eps_min"] = torch.tensor(0.3)  # training moves it away from what config.json says
    shapes = dit_shapes(config) | {n: tuple(t.shape) for n, t in buffers.items()}
    tensors = random_tensors(dit_shapes(config)) | buffers
    folder = write(tmp_path / "c", config | {"vocab_size": ROWS}, tensors, tokenizer=byte_tokenizer(mask=None))
    loaded, x = load_model(folder), ids(2, 14, below=257)
    x[:, 5:9] = ROWS - 1  # the mask is the last id
    assert loaded.model.vocab == Vocab(ROWS, ROWS - 1, ROWS, EOS)
    assert (loaded.model.config.block is None) == (name in ("mdlm", "bd3lm, full attention"))
    assert_same_logits(logits(loaded.model, x), dit_logits(config, tensors, x), mask=ROWS - 1)
    convert(folder, tmp_path / "ours")
    assert torch.equal(logits(load_model(tmp_path / "ours").model, x), logits(loaded.model, x))
    convert(tmp_path / "ours", tmp_path / "back", to=config["model_type"])
    again = load_file(tmp_path / "back" / "model.safetensors")
    assert {n: tuple(t.shape) for n, t in again.items()} == shapes
    assert all(torch.equal(again[n], tensors[n]) for n in tensors)
    assert read_config(tmp_path / "back") == config
    total = sum(again[n].numel() for n in again if n not in buffers)
    assert loaded.model.config.num_params(vocab_size=ROWS, num_ids=ROWS) == total
    with pytest.raises(ValueError, match=r"llada has no word for this network"):
        convert(tmp_path / "ours", tmp_path / "llada", to="llada")


@pytest.mark.parametrize("more", [{}, {"sampling_eps_min": 0.25}, {"var_min": False}])
def test_exports_of_bd3lm_hold_what_its_strict_load_wants_even_if_the_file_did_not(tmp_path, more):
    config = DITS["bd3lm"] | more
    tensors = random_tensors(dit_shapes(config))
    folder = write(tmp_path / "c", config, tensors, tokenizer=byte_tokenizer(mask=None))
    convert(folder, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "back", to="bd3lm")
    again = load_file(tmp_path / "back" / "model.safetensors")
    expected = dit_buffers(config)
    assert again.keys() == tensors.keys() | expected.keys()
    for name, value in expected.items():
        low = torch.tensor(more.get("sampling_eps_min", 1e-3))
        assert torch.equal(again[name], low if name == "sampling_eps_min" else value), name


def test_a_block_of_bd3lm_sees_nothing_after_it_and_padding_is_not_seen(tmp_path):
    config = DITS["bd3lm"]
    folder = write(tmp_path / "c", config, random_tensors(dit_shapes(config)), tokenizer=byte_tokenizer(mask=None))
    model, x = load_model(folder).model, ids(1, 12, below=256)
    before, later = logits(model, x), x.clone()
    later[:, 8:] += 1
    assert torch.equal(logits(model, later)[:, :8], before[:, :8])
    assert not torch.allclose(logits(model, later)[:, 8:], before[:, 8:])
    padded = torch.cat([torch.full((1, 4), model.vocab.pad_id), x], 1)
    segment = torch.tensor([[0] * 4 + [1] * 12])
    other = padded.clone()
    other[:, :4] = 7
    torch.testing.assert_close(logits(model, padded, segment)[:, 4:], logits(model, other, segment)[:, 4:])


LLADA_8B = CONFIGS["llada"] | {
    "d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "mlp_hidden_size": 12288, "vocab_size": 126464,
    "embedding_size": 126464, "max_sequence_length": 4096, "mask_token_id": 126336, "eos_token_id": 126081,
}  # fmt: skip
LLADA_100M = LLADA_8B | {"d_model": 448, "n_layers": 6, "n_heads": 7, "n_kv_heads": 7, "mlp_hidden_size": 768}
QWEN2_7B = {
    "model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064, "rope_theta": 1e6, "rms_norm_eps": 1e-6,
    "max_position_embeddings": 131072, "tie_word_embeddings": False, "hidden_act": "silu", "eos_token_id": 151643,
}  # fmt: skip
QWEN3_06B = QWEN2_7B | {
    "model_type": "qwen3", "hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
    "intermediate_size": 3072, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip
LLAMA_8B = QWEN2_7B | {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "rms_norm_eps": 1e-5,
}  # fmt: skip
TINY_LLAMA = LLAMA_8B | {
    "hidden_size": 2048, "num_hidden_layers": 22, "num_key_value_heads": 4, "intermediate_size": 5632,
    "vocab_size": 32000,
}  # fmt: skip
MDLM_OWT = DITS["mdlm"] | {
    "hidden_dim": 768, "cond_dim": 128, "n_blocks": 12, "n_heads": 12, "model_length": 1024, "vocab_size": 50258,
}  # fmt: skip
TOTALS = [
    ("llada", LLADA_8B, 8_015_581_184, 32 * 9 + 3),  # LLaDA-8B
    ("llada", LLADA_100M, 124_327_616, 6 * 9 + 3),
    ("qwen2", QWEN2_7B, 7_615_616_512, 28 * 12 + 3),  # Qwen2.5-7B
    ("dream", QWEN2_7B | {"model_type": "Dream", "mask_token_id": 151666}, 7_615_616_512, 339),  # Dream-7B
    ("qwen3", QWEN3_06B, 596_049_920, 28 * 11 + 2),
    ("llama", LLAMA_8B, 8_030_261_248, 32 * 9 + 3),  # Llama-3.1-8B
    ("llama", TINY_LLAMA, 1_100_048_384, 22 * 9 + 3),
    ("mdlm", MDLM_OWT, 169_627_218, 12 * 10 + 10),  # its file of 679 MB holds float32
]


@pytest.mark.parametrize(("name", "config", "total", "count"), TOTALS)
def test_published_totals(name, config, total, count):
    plan = FAMILIES[name].read(Fields(config, "config.json"))
    shapes = [part.shape for _, part in FAMILIES[name].parts(plan)]
    assert sum(map(math.prod, shapes)) == total
    assert len(shapes) == count
    assert plan.config.num_params(vocab_size=plan.size, num_ids=plan.size) == total


@pytest.mark.parametrize("name", CONFIGS)
def test_a_checkpoint_goes_to_our_layout_and_back_bit_for_bit(tmp_path, name):
    folder, tensors = checkpoint(tmp_path / "c", name)
    kept = convert(folder, tmp_path / "ours")
    family = kept.family
    assert load_model(tmp_path / "ours").tokenizer.hash == load_model(folder).tokenizer.hash
    assert torch.equal(
        logits(load_model(tmp_path / "ours").model, ids(2, 9)), logits(load_model(folder).model, ids(2, 9))
    )
    made = convert(tmp_path / "ours", tmp_path / "back", to=family)
    again = load_file(tmp_path / "back" / "model.safetensors")
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[n], tensors[n]) for n in tensors)
    assert read_config(tmp_path / "back") == CONFIGS[name]
    assert (tmp_path / "back" / "tokenizer.json").read_text() == BYTES
    assert made.num_params == sum(t.numel() for t in tensors.values()) == kept.num_params


def test_every_family_is_documented_and_listed(capsys):
    from pathlib import Path

    from anyorder.cli.main import main

    text = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text()
    listed = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert set(listed) == {*FAMILIES, "ilm"}
    assert main(["methods", "--json"]) == 0
    out = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [f["name"] for f in out["families"]] == list(FAMILIES)
    for family in FAMILIES.values():
        assert len(set(family.names.values())) == len(family.names)
