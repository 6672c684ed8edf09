import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anyorder.core.types import Vocab
from anyorder.data.tokenizer import BpeTokenizer, ByteTokenizer, SymbolTokenizer, Tokenizer, load_tokenizer

TEXTS = [
    "def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    return a - b\n",
    "déjà vu, déjà vu; 日本語 日本語 日本語 🙂🙂\n\t\tfor i in range(10):\r\n        print(i)\n" * 3,
]
BPE = BpeTokenizer.train(TEXTS, size=300)
ALL = {"bytes": ByteTokenizer(), "bpe": BPE, "symbols": SymbolTokenizer("1234.é")}


@given(st.text())
@settings(max_examples=150, deadline=None)
def test_any_text_comes_back(text):
    for tokenizer in (ALL["bytes"], BPE):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.num_bytes(ids) == len(text.encode())
        assert all(0 <= i < tokenizer.vocab.size - 1 for i in ids)  # never EOS


@given(st.text(alphabet="1234.é"))
@settings(max_examples=50, deadline=None)
def test_any_text_of_symbols_comes_back_one_token_each(text):
    ids = ALL["symbols"].encode(text)
    assert ALL["symbols"].decode(ids) == text
    assert len(ids) == len(text)


@given(st.lists(st.integers(0, 301)))
@settings(max_examples=100, deadline=None)
def test_any_ids_decode_and_bytes_add_up(ids):
    assert isinstance(BPE.decode(ids), str)
    assert BPE.num_bytes(ids) == int(BPE.bytes_per_token[torch.tensor(ids, dtype=torch.int64)].sum())


@pytest.mark.parametrize("name", ALL)
def test_ids_follow_the_house_rule(name, tmp_path):
    tokenizer = ALL[name]
    size = {"bytes": 257, "bpe": 300, "symbols": 7}[name]
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.vocab == Vocab(size=size, mask_id=size, pad_id=size + 1, eos_id=size - 1)
    assert len(tokenizer.bytes_per_token) == tokenizer.vocab.num_ids
    assert tokenizer.bytes_per_token[-3:].tolist() == [0, 0, 0]  # EOS, mask, padding
    assert int(tokenizer.bytes_per_token[:-3].min()) >= 1
    assert tokenizer.encode_batch(["12", "3"]) == [tokenizer.encode("12"), tokenizer.encode("3")]
    one = tokenizer.encode("1")
    assert tokenizer.decode([size, *one, size - 1, size + 1, size]) == "░1░"
    assert tokenizer.save(tmp_path) == tmp_path / "tokenizer.json"
    again = load_tokenizer(tmp_path)
    assert again == tokenizer
    assert again.hash == tokenizer.hash
    assert again.encode("12.") == tokenizer.encode("12.")


def test_hashes_tell_tokenizers_apart():
    others = [BpeTokenizer.train(TEXTS, size=290), SymbolTokenizer("1234")]
    assert len({t.hash for t in [*ALL.values(), *others]}) == 5


def test_bpe_joins_pairs_and_is_the_same_in_any_order():
    text = "".join(TEXTS)
    assert len(BPE.encode(text)) < 0.7 * len(text.encode())
    assert BpeTokenizer.train(TEXTS[::-1], size=300).hash == BPE.hash
    assert BpeTokenizer.train(iter(TEXTS), size=300).canonical == BPE.canonical


def test_bpe_pieces_are_the_bytes_the_library_itself_decodes():
    for i in range(BPE.vocab.size - 1):
        assert BPE._library.decode([i]) == BPE.decode([i])
    single = sorted(piece for piece in BPE.table.pieces if len(piece) == 1)
    assert single == [bytes([b]) for b in range(256)]


def test_bpe_keeps_words_apart():
    tokenizer = BpeTokenizer.train(["the cat is the cat is the cat"], size=400)
    assert b" cat" in tokenizer.table.pieces
    assert not [p for p in tokenizer.table.pieces if b" " in p[1:]]


def test_bpe_stops_when_no_pair_occurs_twice():
    small = BpeTokenizer.train(["abab"], size=1000)
    assert small.vocab.size == 258  # the bytes, "ab" and EOS
    assert small.decode(small.encode("abab")) == "abab"


def test_no_text_spells_a_special_token():
    for text in ("<eos>", "<|endoftext|>", "[MASK]", "░", "\x00"):
        assert BPE.decode(BPE.encode(text)) == text
        assert max(BPE.encode(text)) < BPE.vocab.size - 1


def test_a_character_cut_in_half_shows_and_does_not_crash():
    half = ByteTokenizer().encode("é")[:1]
    assert ByteTokenizer().decode([*half, 257, *ByteTokenizer().encode("a")]) == "\ufffd░a"


def test_errors(tmp_path):
    with pytest.raises(ValueError, match=r"^data.vocab_size=256: must be >= 257, the 256 bytes and EOS"):
        BpeTokenizer.train(TEXTS, size=256)
    with pytest.raises(ValueError, match=r"^character 'x' at 2: not one of the symbols '1234.é'$"):
        ALL["symbols"].encode("12x")
    with pytest.raises(ValueError, match=r"^symbols='11': must be at least one character and each only once$"):
        SymbolTokenizer("11")
    for wrong in (-1, 259):
        with pytest.raises(
            ValueError, match=f"^token id {wrong}: the vocabulary ends at 256; was another tokenizer used"
        ):
            ByteTokenizer().decode([3, wrong])
    with pytest.raises(ValueError, match=r"tokenizer.json: no such file; a tokenizer is saved there by"):
        load_tokenizer(tmp_path)
    for text, sentence in {
        "{": "not a JSON text",
        "[]": "not a tokenizer made here",
        '{"a": 1}': "not a tokenizer",
    }.items():
        (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(ValueError, match=sentence):
            load_tokenizer(tmp_path)


def test_a_foreign_bpe_is_refused_rather_than_read_wrongly(tmp_path):
    path = BPE.save(tmp_path)
    spec = json.loads(path.read_text())
    path.write_text(json.dumps(spec | {"added_tokens": [{"id": 299, "content": "<s>"}]}))
    with pytest.raises(ValueError, match="a byte-level BPE without added tokens"):
        load_tokenizer(tmp_path)
    path.write_text(json.dumps(spec | {"normalizer": {"type": "Lowercase"}}))
    with pytest.raises(ValueError, match="a byte-level BPE without added tokens"):
        load_tokenizer(tmp_path)
