import os

import pytest
import torch
from pydantic import ValidationError

from anyorder.data import config as config_file
from anyorder.data.config import DataConfig, prepare
from anyorder.data.corpus import open_corpus, split
from anyorder.data.tokenizer import BpeTokenizer, load_tokenizer


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(12):
        (folder / f"{i:02d}.txt").write_text(f"text {i}: " + f"the cat sat on the mat. é {chr(97 + i) * 4}\n" * (1 + i))
    return folder


def given(texts, **more):
    return DataConfig(**{"corpus": str(texts), "length": 16, "vocab_size": 270, "validation": 0.2} | more)


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_prepared_shards_hold_the_split_corpus(texts, tmp_path, kind):
    data = prepare(given(texts, tokenizer=kind), tmp_path / "out")
    parts = split(open_corpus(str(texts)), validation=0.2)
    for shards, part in zip((data.train, data.valid), parts, strict=True):
        found = [data.tokenizer.decode(shards.document(i).tolist()) for i in range(shards.num_documents)]
        assert found == [d.text for d in part]
        assert shards.manifest.bytes == sum(len(t.encode()) for t in found) == part.facts.bytes
        assert shards.manifest.corpus_sha256 == part.hash
    assert load_tokenizer(data.folder) == data.tokenizer
    assert data.tokenizer.vocab.size == (257 if kind == "bytes" else 270)
    assert (
        data.summary["train"]["tokens"] + data.summary["valid"]["tokens"]
        == data.train.num_tokens + data.valid.num_tokens
    )
    assert data.summary["corpus"] == str(texts)


def test_bpe_is_trained_on_the_training_split_only(texts, tmp_path):
    data = prepare(given(texts, vocab_size=400), tmp_path / "out")
    train, _ = split(open_corpus(str(texts)), validation=0.2)
    assert data.tokenizer.hash == BpeTokenizer.train([d.text for d in train], size=400).hash
    assert data.tokenizer.hash != BpeTokenizer.train([d.text for d in open_corpus(str(texts))], size=400).hash


def test_the_same_data_is_made_once_and_other_data_beside_it(texts, tmp_path, monkeypatch):
    made = []
    real = config_file.write_shards
    monkeypatch.setattr(config_file, "write_shards", lambda *a, **k: made.append(a[0]) or real(*a, **k))
    first = prepare(given(texts), tmp_path / "out")
    assert len(made) == 2
    again = prepare(given(texts, length=8, packing="documents", random_length=0.5), tmp_path / "out")
    assert (len(made), again.folder) == (2, first.folder)
    others = [given(texts, tokenizer="bytes"), given(texts, vocab_size=280), given(texts, validation=0.4)]
    folders = {prepare(c, tmp_path / "out").folder for c in others} | {first.folder}
    assert len(folders) == 4
    (texts / "00.txt").write_text("changed text that is long enough")
    assert prepare(given(texts), tmp_path / "out").folder not in folders
    assert prepare(given(texts, cache=tmp_path / "cache")).folder.parent == tmp_path / "cache"
    assert not [p for p in (tmp_path / "out").iterdir() if p.name.startswith(".")]


def test_rows_follow_length_and_packing(texts, tmp_path):
    for packing in ("stream", "documents"):
        data = prepare(given(texts, packing=packing), tmp_path / "out")
        rows = data.rows("train")
        block = rows.take(torch.arange(rows.num_rows))
        assert block.tokens.shape == (rows.num_rows, 16)
        assert int(block.target.sum()) == data.train.num_tokens
        assert (int(block.segment.max()) > 1) == (packing == "documents")


def test_short_texts(tmp_path):
    (tmp_path / "a.txt").write_text("0123456789" * 3)
    config = DataConfig(corpus=str(tmp_path / "a.txt"), tokenizer="bytes", length=20, validation=0.1)
    data = prepare(config, tmp_path / "out")
    assert data.rows("train").num_rows == 2
    assert data.rows("valid").take(torch.tensor([0])).target.sum() == 4  # three characters and EOS, padded
    long = prepare(config.model_copy(update={"length": 99}), tmp_path / "out")
    with pytest.raises(
        ValueError, match=r"^data.length=99: the text has only 28 tokens; lower data.length to 28 or less"
    ):
        long.rows("train")


def test_altered_data_is_refused(texts, tmp_path):
    folder = prepare(given(texts), tmp_path / "out").folder
    path = folder / "valid" / "shard_00000.bin"
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"valid/shard_00000.bin: the shard was altered"):
        prepare(given(texts), tmp_path / "out")
    BpeTokenizer.train(["other text"], size=257).save(folder)
    with pytest.raises(ValueError, match="train: made with tokenizer"):
        prepare(given(texts), tmp_path / "out")


def test_an_unreadable_corpus_leaves_nothing(texts, tmp_path):
    (texts / "11.txt").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"11.txt: byte 0 \(0xff\) is not UTF-8"):
        prepare(given(texts), tmp_path / "out")
    assert not (tmp_path / "out").exists() or not os.listdir(tmp_path / "out")


def test_the_config_is_strict_and_frozen():
    config = DataConfig()
    assert config.corpus == "stdlib"
    assert DataConfig.model_validate(config.model_dump(mode="json")) == config
    for wrong in ({"corpsu": "x"}, {"vocab_size": 256}, {"validation": 0.0}, {"length": 0}, {"packing": "x"},
                  {"random_length": 2.0}, {"tokenizer": "words"}):  # fmt: skip
        with pytest.raises(ValidationError):
            DataConfig(**wrong)
    with pytest.raises(ValidationError):
        config.length = 3
