"""Published tokenizers: text comes back, special tokens cannot be spelt, what does not fit is refused."""

import json

import pytest
from checkpoints import EOS, MASK, byte_tokenizer, sentencepiece_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import models

from anyorder.core.types import Vocab
from anyorder.data.hub_tokenizer import HubTokenizer, piece_of, read_hub_tokenizer
from anyorder.data.tokenizer import PLACEHOLDER, ByteTokenizer, Tokenizer

BYTES = HubTokenizer(byte_tokenizer(), Vocab(264, MASK, 264, EOS))
PIECES = HubTokenizer(sentencepiece_tokenizer(), Vocab(265, 265, 266, 2))


@pytest.mark.parametrize("tokenizer", [BYTES, PIECES], ids=["byte-level", "sentencepiece"])
@settings(max_examples=150)
@given(text=st.text())
def test_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([text, "ab"]) == [ids, tokenizer.encode("ab")]
    space = 1 if tokenizer is PIECES and text else 0  # that is put before a text
    assert tokenizer.num_bytes(ids) == len(text.encode()) + space
    assert sum(tokenizer.bytes_per_token[i].item() for i in ids) == tokenizer.num_bytes(ids)


@pytest.mark.parametrize("tokenizer", [BYTES, PIECES], ids=["byte-level", "sentencepiece"])
def test_special_tokens_cannot_be_spelt(tokenizer):
    assert isinstance(tokenizer, Tokenizer)
    text = "a<|mask|>b<|endoftext|>c</s><s>"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not set(ids) & {tokenizer.vocab.mask_id, tokenizer.vocab.eos_id, 0 if tokenizer is PIECES else MASK}


def test_marks_of_a_row():
    a, b = BYTES.encode("ab")
    assert BYTES.decode([a, MASK, b, EOS, 264, 263]) == f"a{PLACEHOLDER}b"
    assert PIECES.decode([*PIECES.encode("a"), 265, 2]) == f"a{PLACEHOLDER}"
    assert BYTES.decode(BYTES.encode("é")[:1]) == "\ufffd"
    assert BYTES.bytes_per_token[[MASK, EOS, 264]].tolist() == [0, 0, 0]
    assert BYTES.num_bytes([a, MASK, b, EOS]) == 2
    with pytest.raises(ValueError, match=r"token id 265: the vocabulary ends at 264; was another tokenizer used\?"):
        BYTES.decode([265])


def test_a_token_inside_a_row_keeps_its_space():
    ids = PIECES.encode("a a bc")
    assert "".join(PIECES.piece(i) for i in ids) == " a a bc"
    assert "".join(piece_of(BYTES, i) for i in BYTES.encode(" a")) == " a"
    assert piece_of(ByteTokenizer(), 97) == "a"


def test_tokens_that_are_text_are_text():
    spec = json.loads(byte_tokenizer())
    spec["added_tokens"].append(spec["added_tokens"][0] | {"id": 258, "content": "<tool>", "special": False})
    tokenizer = HubTokenizer(json.dumps(spec), Vocab(264, MASK, 264, EOS))
    assert 258 in tokenizer.encode("a<tool>b")
    assert tokenizer.decode(tokenizer.encode("a<tool>b")) == "a<tool>b"


def test_templates_and_limits_of_the_file_do_not_touch_a_text():
    library = Library.from_str(byte_tokenizer())
    library.enable_truncation(4)
    library.enable_padding(length=9, pad_id=0)
    assert HubTokenizer(library.to_str(), BYTES.vocab).encode("hello") == BYTES.encode("hello")


def test_the_file_may_name_a_mask_beyond_the_head():
    tokenizer = HubTokenizer(byte_tokenizer(), Vocab(MASK, MASK, MASK + 1, EOS))
    assert tokenizer.decode([MASK]) == PLACEHOLDER


def test_the_file_is_kept_as_it_was_published(tmp_path):
    text = byte_tokenizer().replace("{", "{ ", 1)
    tokenizer = HubTokenizer(text, BYTES.vocab)
    assert tokenizer.save(tmp_path).read_text() == text
    assert tokenizer.hash == HubTokenizer(text, BYTES.vocab).hash != BYTES.hash


NOT_READ = {
    "more ids": (byte_tokenizer(), Vocab(250, 249, 250, 3), r"has ids below 258, the embedding 250 rows"),
    "far fewer": (byte_tokenizer(), Vocab(258 + 1025, 9, 1283, 3), r"has ids below 258, the embedding 1283 rows"),
    "a word where the mask is": (
        sentencepiece_tokenizer(),
        Vocab(264, 264, 265, 2),
        r"has ids below 265, the embedding",
    ),
    "another kind": (
        Library(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")).to_str(),
        Vocab(3, 2, 3, 1),
        r"is neither a byte-level nor a sentencepiece-like BPE",
    ),
}


@pytest.mark.parametrize("case", NOT_READ)
def test_what_does_not_fit_is_refused(case):
    text, vocab, message = NOT_READ[case]
    with pytest.raises(ValueError, match=message):
        HubTokenizer(text, vocab)


def test_special_ids_are_those_of_the_settings_else_of_usual_names(tmp_path):
    (tmp_path / "tokenizer.json").write_text(byte_tokenizer())
    assert read_hub_tokenizer(tmp_path) == (byte_tokenizer(), MASK, EOS)
    assert read_hub_tokenizer(tmp_path / "tokenizer.json")[1:] == (MASK, EOS)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"mask_token": "A", "eos_token": {"content": "B"}}))
    a, b = BYTES.encode("AB")
    assert read_hub_tokenizer(tmp_path)[1:] == (a, b)
    (tmp_path / "tokenizer.json").write_text(byte_tokenizer(mask="<|odd|>"))
    (tmp_path / "tokenizer_config.json").unlink()
    assert read_hub_tokenizer(tmp_path)[1:] == (None, EOS)
