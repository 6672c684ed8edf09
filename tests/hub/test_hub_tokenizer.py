"""Published tokenizers: text comes back, special tokens cannot be spelt, what does not fit is refused."""

import json

import pytest
from checkpoints import EOS, MASK, byte_tokenizer, sentencepiece_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Library

from anyorder.core.types import Vocab
from anyorder.data.hub_tokenizer import HubTokenizer, piece_of, read_hub_tokenizer, special_ids, special_tokens
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


def word_pieces():
    """tokenizer.json in the style of BERT: lower case, ## for what continues a word."""
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[BOS]",
        "[EOS]",
        "play",
        "##ing",
        "##s",
        "a",
        ".",
        "[",
        "]",
    ]
    library = Library(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    library.normalizer, library.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    library.add_special_tokens([AddedToken(p, special=True) for p in pieces[:7]])
    return library.to_str()


def test_words_come_back_in_lower_case_with_a_space_between_them():
    tokenizer = HubTokenizer(word_pieces(), Vocab(14, 14, 15, 2))
    assert tokenizer.encode("Playing a  plays.") == [7, 8, 10, 7, 9, 11]
    assert tokenizer.decode([2, 5, 7, 8, 10, 7, 9, 11, 6]) == "playing a plays ."
    assert [tokenizer.piece(i) for i in (7, 8, 2)] == [" play", "ing", ""]
    assert tokenizer.num_bytes([7, 8]) == len(" playing")
    assert tokenizer.encode("[CLS] what") == [12, 1, 13, 1]  # no special token but that of unknown words
    assert tokenizer.decode([10, 1, 10]) == "a a"


def test_special_tokens_of_a_list_of_words_are_words():
    library = Library(models.WordLevel({"7": 0, "12": 1, "<bos>": 2, "<unk>": 3}, unk_token="<unk>"))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    library.add_special_tokens([AddedToken("<bos>", special=True)])
    tokenizer = HubTokenizer(library.to_str(), Vocab(4, 4, 5, 3))
    assert tokenizer.encode("7 12 <bos> 9") == [0, 1, 2, 3]
    assert tokenizer.decode([0, 1, 2, 0]) == "7 12 7"


def test_all_special_tokens_that_a_tokenizer_names(tmp_path):
    (tmp_path / "tokenizer.json").write_text(word_pieces())
    named = {"cls_token_id": 2, "bos_token_id": 5, "eos_token_id": 6, "pad_token_id": 0, "mask_token_id": 4}
    assert special_ids(tmp_path) == special_ids(tmp_path / "tokenizer.json") == named
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"cls_token": "[SEP]"}))
    assert special_ids(tmp_path) == named | {"cls_token_id": 3}
    assert special_ids(tmp_path / "nothing") == {}
    ByteTokenizer().save(tmp_path)
    assert special_ids(tmp_path) == {}


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


def plain_marks():
    """tokenizer.json of bytes whose mask and end are added tokens that the file does not call special."""
    spec = json.loads(byte_tokenizer())
    spec["added_tokens"] = [token | {"special": False} for token in spec["added_tokens"]]
    return json.dumps(spec)


def test_mask_and_end_cannot_be_spelt_whatever_the_file_calls_them():
    text = "a<|mask|>b<|endoftext|>c"
    assert {MASK, EOS} <= set(Library.from_str(plain_marks()).encode(text).ids)
    tokenizer = HubTokenizer(plain_marks(), BYTES.vocab)
    assert tokenizer.encode(text) == BYTES.encode(text)
    assert tokenizer.encode_batch([text]) == [BYTES.encode(text)]
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode([MASK, EOS]) == PLACEHOLDER
    assert tokenizer.num_bytes([MASK, EOS]) == 0
    assert special_tokens(tokenizer) == special_tokens(BYTES) == {"<|endoftext|>": EOS, "<|mask|>": MASK}
    assert special_tokens(ByteTokenizer()) == {}


def test_a_mask_that_is_a_text_is_refused():
    a = BYTES.encode("A")[0]
    with pytest.raises(ValueError, match=rf"the text 'A' is the mask, id {a}; name another token for it in config"):
        HubTokenizer(byte_tokenizer(), Vocab(264, a, 264, EOS))
    with pytest.raises(ValueError, match=rf"the text 'A' is the end of document, id {a}"):
        HubTokenizer(byte_tokenizer(), Vocab(264, MASK, 264, a))


def test_a_folder_may_be_called_as_a_file_is(tmp_path):
    folder = tmp_path / "tokenizer.json"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(byte_tokenizer())
    assert read_hub_tokenizer(folder) == (byte_tokenizer(), MASK, EOS)
    assert special_ids(folder) == {"eos_token_id": EOS, "mask_token_id": MASK}


BROKEN = {"{not json": "not JSON", "[]": "holds a list, not a JSON object", "": "not JSON", "[" * 100_000: "not JSON"}


@pytest.mark.parametrize("text", BROKEN, ids=["no JSON", "list", "empty", "deep"])
def test_broken_settings_are_named(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(byte_tokenizer())
    (tmp_path / "tokenizer_config.json").write_text(text)
    with pytest.raises(ValueError, match=rf"tokenizer_config\.json: {BROKEN[text]}; the file was altered, restore it"):
        read_hub_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_bytes(b'\xef\xbb\xbf{"mask_token": null}')
    assert read_hub_tokenizer(tmp_path)[1] == MASK
