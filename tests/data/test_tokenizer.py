import json
import os
import random
import signal
import threading
import time

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
@settings(max_examples=60, deadline=None)
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
        "{": "not JSON; the file was altered, delete its folder and prepare the data again",
        "[]": "holds a list, not a JSON object",
        '{"anyorder_tokenizer": "symbols"}': "not a tokenizer made here",
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


def test_words_of_any_length_are_learned_from_in_linear_time():
    """A word of 40,000 letters took 100 times as long as one of 4,000; ratio of CPU time, so that it holds anywhere."""

    def seconds(n):
        letters = "".join(random.Random(0).choices("ACGT", k=n))
        began = time.process_time()
        BpeTokenizer.train([letters], size=400)
        return time.process_time() - began

    assert seconds(40_000) < 30 * max(seconds(4_000), 0.01)


def test_the_words_of_usual_text_are_learned_as_before():
    """A golden value of the library on whole words of up to 256 bytes: prepared data and models depend on it."""
    words = ["abc " * 9, "é" * 128, "=" * 255, "x" * 256, " " * 256 + "a", *TEXTS]
    assert BpeTokenizer.train(words, size=400).hash[:16] == "f308232c3e07cf4a"


@pytest.fixture
def hears_ctrl_c():
    """A parent that ignores SIGINT, as one started by nohup, hands this down."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_learning_hears_ctrl_c_and_errors_of_its_texts(hears_ctrl_c):
    started, end = threading.Event(), threading.Event()

    def endless():
        started.set()
        yield "a"
        end.wait(60)

    threading.Thread(target=lambda: (started.wait(60), os.kill(os.getpid(), signal.SIGINT))).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        BpeTokenizer.train(endless(), size=300)
    assert time.monotonic() - began < 30
    end.set()

    def broken():
        yield "a"
        raise ValueError("line 2: not JSON")

    with pytest.raises(ValueError, match=r"^line 2: not JSON$"):
        BpeTokenizer.train(broken(), size=300)


@pytest.mark.parametrize("name", ALL)
def test_half_a_character_is_refused_in_a_sentence(name):
    for encode in (ALL[name].encode, lambda text: ALL[name].encode_batch(["1", text])):
        with pytest.raises(ValueError, match=r"half a surrogate pair \(U\+D83D\)|not one of the symbols") as error:
            encode("1\ud83d")
        assert "codec" not in str(error.value)
