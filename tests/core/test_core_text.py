"""Files of text as people have them: marks, encodings, compression; and what is no text, with the way out."""

import bz2
import gzip
import lzma
import shlex
from pathlib import Path

import pytest

from anyorder.core.text import (
    beginning,
    check_characters,
    command,
    json_object,
    plain_suffix,
    read_text,
    text_lines,
)

TEXT = "déjà {1}\r\n日本語\n\nlast 🙂"
SPELT = {
    "utf-8": TEXT.encode(),
    "mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "utf-16": TEXT.encode("utf-16"),
    "utf-16-be": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "utf-32": TEXT.encode("utf-32"),
}
PACK = {"as it is": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("spelling", SPELT)
@pytest.mark.parametrize("packing", PACK)
def test_one_text_however_it_is_spelt_and_packed(tmp_path, spelling, packing):
    path = tmp_path / "any name"
    path.write_bytes(PACK[packing](SPELT[spelling]))
    assert read_text(path) == TEXT
    assert [line.rstrip("\n") for line in text_lines(path)] == TEXT.split("\n")
    assert beginning(path) == TEXT


def test_a_mark_inside_a_text_stays(tmp_path):
    (tmp_path / "a").write_bytes("a\n\ufeffb".encode())
    assert read_text(tmp_path / "a") == "".join(text_lines(tmp_path / "a")) == "a\n\ufeffb"


NO_TEXT = {
    b"PAR1\x15\x04\x15": "not a text but a Parquet table; write its texts as JSON lines",
    b"\x28\xb5\x2f\xfd\x04": "compressed by zstd; unpack it with zstd -d",
    b"PK\x03\x04\x14\0": "a zip archive",
    b"%PDF-1.7\n": "a PDF",
    b"\x89PNG\r\n\x1a\n\0\0": "byte 8 is zero, which no UTF-8 text holds",
    "text".encode("utf-16-le"): "byte 1 is zero, which no UTF-8 text holds; if it is UTF-16, convert it with iconv",
    b"caf\xe9 noir": r"byte 3 \(0xe9\) is not UTF-8; convert the file, for example with iconv -f latin1 -t utf-8",
    b"\xff\xfe\x41": "byte 2 is not UTF-16; get the file again",
    gzip.compress(b"a" * 99, mtime=0)[:-9]: "compressed, and not whole; get the file again",
    gzip.compress(b"a" * 99, mtime=0)[:-8] + b"12345678": "compressed, and not whole",
    bz2.compress(b"a" * 99)[:-9] + b"123456789": "compressed, and not whole",
    lzma.compress(b"a" * 99)[:-9]: "compressed, and not whole",
    gzip.compress(b"PAR1\x15\0", mtime=0): "a Parquet table",
}


@pytest.mark.parametrize("data", NO_TEXT)
def test_what_is_no_text_is_said_with_the_way_out(tmp_path, data):
    path = tmp_path / "x.txt"
    path.write_bytes(data)
    for read in (read_text, lambda p: list(text_lines(p))):
        with pytest.raises(ValueError, match=f"x.txt: .*{NO_TEXT[data]}") as error:
            read(path)
        assert "latin1" not in str(error.value) or data.startswith(b"caf")


def test_words_that_begin_like_something_else_are_text(tmp_path):
    for text in ("PAR1S is a city", "BZhang wrote this"):
        (tmp_path / "a").write_text(text)
        assert read_text(tmp_path / "a") == text


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"none: no such file; check the path"):
        read_text(tmp_path / "none")
    with pytest.raises(ValueError, match=r"is a folder; name the files in it"):
        read_text(tmp_path)


def test_suffixes_are_read_in_any_case_and_behind_a_compression(tmp_path):
    names = {"A.JSONL.gz": ".jsonl", "b.Json": ".json", "c.tar.XZ": ".tar", "d": "", "e.gz": "", "f.txt": ".txt"}
    assert {name: plain_suffix(tmp_path / name) for name in names} == names


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"here: not JSON \(Expecting property name enclosed in double quotes at column 2\)"),
        ("[1]", "here: holds a list; each line is one JSON object"),
        ("true", "here: holds true or false;"),
        ("null", "here: holds null;"),
        ("3.5", "here: holds a number;"),
        ("[" * 100_000, "here: JSON nested too deeply"),
    ],
)
def test_lines_that_are_no_objects(line, message):
    with pytest.raises(ValueError, match=message):
        json_object(line, where="here")


def test_command_lines_survive_a_shell():
    path = Path("my run's $x")
    assert shlex.split(command("anyorder", "inspect", path)) == ["anyorder", "inspect", str(path)]
    assert command("anyorder", "inspect", Path("-x")) == "anyorder inspect ./-x"
    assert command("anyorder", "train", "--out", Path("runs/a")) == "anyorder train --out runs/a"


def test_half_a_character_is_named():
    assert check_characters("é🙂", where="x") == "é🙂"
    with pytest.raises(ValueError, match=r"^x holds half a surrogate pair \(U\+D83D\), which no UTF-8 text can"):
        check_characters("a\ud83d", where="x")
