import gzip
import json
import os
import re
import sys
from types import SimpleNamespace

import pytest

from anyorder.data.corpus import Corpus, Document, open_corpus, place, split, standard_library


def texts(corpus):
    return [(d.name, d.text) for d in corpus]


def of(*pieces):
    return Corpus("made", lambda: (Document(f"{i}", text) for i, text in enumerate(pieces)))


def test_a_text_file_is_one_document_with_every_byte_of_it(tmp_path):
    (tmp_path / "a.txt").write_bytes("one\r\n\r\ntwo é\n".encode())
    assert texts(open_corpus(str(tmp_path / "a.txt"))) == [("a.txt", "one\r\n\r\ntwo é\n")]


def test_a_folder_gives_its_text_files_sorted_without_hidden_binary_and_empty_ones(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    for name in ("z.txt", "sub/b.md", "a.py", ".hidden", ".git/x"):
        (tmp_path / name).write_bytes(name[0].encode())
    (tmp_path / "empty").touch()
    (tmp_path / "p.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    (tmp_path / "l.jsonl").write_bytes(b'{"text": "one"}\n\n{"text": "two"}\n')
    found = texts(open_corpus(str(tmp_path)))
    assert found == [("a.py", "a"), ("l.jsonl:1", "one"), ("l.jsonl:3", "two"), ("sub/b.md", "s"), ("z.txt", "z")]


def test_a_glob_gives_its_matches_sorted(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.txt", "sub/a.txt", "c.md"):
        (tmp_path / name).write_text(name)
    assert [t for _, t in texts(open_corpus(f"{tmp_path}/**/*.txt"))] == ["b.txt", "sub/a.txt"]


def test_jsonl_takes_the_field_and_reads_again(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"body": "x\ny", "id": 1}) + "\n" + json.dumps({"body": ""}) + "\n")
    corpus = open_corpus(str(tmp_path / "a.jsonl"), field="body")
    assert texts(corpus) == texts(corpus) == [("a.jsonl:1", "x\ny")]


LINES = b'{"text": "one", "id": 1}\n\n{"text": "two"}\n'
MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.JSONL", LINES),
        ("x.ndjson", MARK + LINES),
        ("x.jsonl.gz", gzip.compress(LINES, mtime=0)),
        ("x.jsonl", LINES.decode().encode("utf-16")),
        ("x.json", LINES),
        ("x.txt", LINES),
        ("x", LINES),
        ("x.json", b'[{"text": "one"},\n {"text": "two"}]'),
    ],
)
def test_json_lines_are_documents_whatever_the_file_is_called(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    for spec in (tmp_path, tmp_path / name):
        assert [t for _, t in texts(open_corpus(str(spec)))] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("package.json", b'{\n "text": "a",\n "b": 1\n}\n'),
        ("one.json", b'{"version": 3}\n'),
        ("list.json", b'[{"version": 3}]'),
        ("numbers.json", b"[1, 2]"),
        ("server.log", b'{"level": 1}\n{"level": 2}\n'),
        ("almost.txt", b'{"text": 1}\nand so on'),
    ],
)
def test_other_json_is_text_as_it_stands(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert texts(open_corpus(str(tmp_path / name))) == [(name, data.decode())]


def test_json_lines_without_the_field_are_refused_not_read_as_text(tmp_path):
    (tmp_path / "x.json").write_bytes(b'{"body": "a"}\n{"body": "b"}\n')
    with pytest.raises(ValueError, match=r"x.json line 1: has no field 'text'; the nearest is 'body'"):
        list(open_corpus(str(tmp_path)))
    (tmp_path / "x.json").write_bytes(b'[{"text": "a"}, 3]')
    with pytest.raises(ValueError, match=r"x.json item 2: holds a number; each item is an object with the key 'text'"):
        list(open_corpus(str(tmp_path)))


def test_a_mark_before_a_text_is_none_of_it(tmp_path):
    for name, data in {"a.txt": b"one", "b.txt": MARK + b"one", "c.txt": "one".encode("utf-16")}.items():
        (tmp_path / name).write_bytes(data)
    assert texts(open_corpus(str(tmp_path))) == [("a.txt", "one"), ("b.txt", "one"), ("c.txt", "one")]


def test_a_pipe_is_refused_as_what_it_is(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(
        ValueError, match=r"pipe': is a pipe or a device, which is read once, .* write it to a file first"
    ):
        open_corpus(str(tmp_path / "pipe"))


def test_a_file_whose_name_is_no_utf8_has_a_hash_too(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("text")
    assert open_corpus(str(tmp_path)).facts.documents == 1


def test_the_standard_library_names_its_python_and_has_no_tests():
    corpus = standard_library()
    names = []
    for document in corpus:  # a few files are enough to see the order; which files is seen by path only
        names.append(document.name)
        if len(names) == 5:
            break
    assert corpus.name == "stdlib-" + ".".join(map(str, sys.version_info[:3]))
    assert names == sorted(names)
    assert all(name.endswith(".py") and "test" not in name.split("/") for name in names)


def test_the_hash_depends_on_names_texts_and_their_borders_only():
    assert of("ab", "c").hash == Corpus("other", of("ab", "c").read).hash
    assert of("ab").hash != Corpus("made", lambda: iter([Document("other", "ab")])).hash
    assert len({of("ab", "c").hash, of("a", "bc").hash, of("c", "ab").hash, of("abc").hash}) == 4
    facts = of("é", "b").facts
    assert (facts.documents, facts.bytes) == (2, 3)


def test_split_is_by_text_disjoint_complete_and_stable():
    many = [f"document {i}" for i in range(400)]
    train, valid = split(of(*many, "document 3"), validation=0.1)
    a, b = [d.text for d in train], [d.text for d in valid]
    assert sorted(a + b) == sorted([*many, "document 3"])
    assert not set(a) & set(b)  # the double is on one side
    assert 15 <= len(b) <= 70  # 40 expected
    fewer = {d.text for d in split(of(*many[:200]), validation=0.1)[1]}
    assert fewer == {d.text for d in valid} & set(many[:200])
    assert train.hash != valid.hash


@pytest.mark.parametrize("share", [1e-9, 0.5, 1 - 1e-9])
def test_split_leaves_no_side_empty(share):
    pieces = ["x", "y", "z"]
    train, valid = split(of(*pieces), validation=share)
    assert sorted(d.text for part in (train, valid) for d in part) == pieces
    assert train.facts.documents >= 1
    assert valid.facts.documents >= 1
    if share < 1e-6:
        assert [d.text for d in valid] == [min(pieces, key=lambda t: place(Document("", t)))]


def test_one_document_is_split_by_its_tail():
    train, valid = split(of("0123456789"), validation=0.2)
    assert texts(train) == [("0/head", "01234567")]
    assert texts(valid) == [("0/tail", "89")]
    assert [t for _, t in texts(split(of("ab"), validation=0.001)[1])] == ["b"]


def test_hub_data_sets_come_through_the_datasets_library(monkeypatch):
    rows = {"roneneldan/TinyStories": [{"text": "a"}, {"text": "b"}], "x/y": [{"body": "c"}]}
    asked = []

    def load_dataset(name, subset, *, split):
        asked.append((name, subset, split))
        return rows[name]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert texts(open_corpus("hub:roneneldan/TinyStories")) == [("0", "a"), ("1", "b")]
    assert texts(open_corpus("hub:x/y:small", field="body")) == [("0", "c")]
    assert asked == [("roneneldan/TinyStories", None, "train"), ("x/y", "small", "train")]
    with pytest.raises(ValueError, match=r"^data.corpus='hub:': names no data set; write hub:NAME or hub:NAME:SUBSET$"):
        open_corpus("hub:")
    with pytest.raises(ValueError, match="hub:x/y row 0: has no field 'text'; the nearest is 'body'"):
        list(open_corpus("hub:x/y"))


def test_a_missing_datasets_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"install it with: pip install 'anyorder\[hub\]'$"):
        open_corpus("hub:x/y")


FILES = {
    "latin.txt": (b"caf\xe9 noir", r"latin.txt: byte 3 \(0xe9\) is not UTF-8; convert the file"),
    "latin.jsonl": (b'{"text": "a"}\n{"text": "\xff"}\n', r"latin.jsonl: byte 24 \(0xff\) is not UTF-8"),
    "near.jsonl": (b'{"text": "a"}\n{"txt": "b", "id": 1}\n', "line 2: has no field 'text'; the nearest is 'txt', set"),
    "none.jsonl": (b"{}\n", "none.jsonl line 1: has no field 'text'; the object is empty"),
    "number.jsonl": (b'{"text": 3}\n', "number.jsonl line 1: field 'text' holds a number; it must hold text"),
    "list.jsonl": (b'["a"]\n', "list.jsonl line 1: holds a list; each line is one JSON object"),
    "bad.jsonl": (b'{"text": }\n', r"bad.jsonl line 1: not JSON \(Expecting value at column 10\)"),
    "half.jsonl": (b'{"text": "\\ud800"}\n', r"line 1: field 'text' holds half a surrogate pair \(U\+D800\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_errors_of_contents_name_file_place_and_way_out(tmp_path, name):
    data, sentence = FILES[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=sentence) as error:
        list(open_corpus(str(tmp_path / name)))
    assert not str(error.value).endswith(".")
    assert "\n" not in str(error.value)


def test_errors_of_places(tmp_path):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.bin").write_bytes(b"\0")
    for spec, sentence in {
        "nowhere.txt": "no such file or folder; data.corpus is stdlib, packages:NAME,NAME, a text file, a folder",
        "empty.txt": "the file is empty; give a file with text in it",
        "folder": "the folder holds no text file",
        "*.rst": "the glob matches no file",
    }.items():
        with pytest.raises(
            ValueError, match=f"^data.corpus='{re.escape(str(tmp_path / spec))}': {re.escape(sentence)}"
        ):
            open_corpus(str(tmp_path / spec))


def test_errors_of_splits():
    with pytest.raises(ValueError, match=r"^data.validation=1.0: must be a share between 0 and 1, both excluded$"):
        split(of("a", "b"), validation=1.0)
    with pytest.raises(ValueError, match=r"one character cannot be split in two; give a longer text$"):
        split(of("a"), validation=0.5)
    with pytest.raises(ValueError, match=r"its 2 documents are all the same; give another text$"):
        split(of("a", "a"), validation=0.5)
    with pytest.raises(ValueError, match=r"holds no text; give at least one document that is not empty$"):
        split(of("", ""), validation=0.5)
