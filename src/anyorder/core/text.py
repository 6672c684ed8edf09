"""Text as people keep it in files: UTF-8 or UTF-16, with or without a byte order mark, compressed, as JSON lines.

What is something else is refused with the way to make text of it.
"""

import bz2
import gzip
import json
import lzma
import shlex
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SNIFF = 8192  # a file with a zero byte this early is binary; the rule of git
LINES = (".jsonl", ".ndjson", ".jsonlines")  # suffixes of JSON lines
PACKED: dict[bytes, Any] = {  # by how the file begins
    b"\x1f\x8b": gzip,
    b"\xfd7zXZ\0": lzma,
    **{b"BZh%d1AY&SY" % level: bz2 for level in range(1, 10)},
}
PACKED_SUFFIXES = (".gz", ".bz2", ".xz")
MARK = b"\xef\xbb\xbf"  # the byte order mark of UTF-8
WIDE = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
NO_TEXT = {  # how other files begin, what they are and what to do
    b"PAR1\x15": "a Parquet table; write its texts as JSON lines, with pandas: "
    "read_parquet(FILE).to_json(OUT, orient='records', lines=True)",
    b"ARROW1": "an Arrow table; write its texts as JSON lines",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; unpack it with zstd -d",
    b"PK\x03\x04": "a zip archive (or a document that is one inside); unpack it first",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it first",
    b"%PDF": "a PDF; take its text out, for example with pdftotext",
    b"SQLite format 3\0": "an SQLite database; write its texts as JSON lines",
}
TYPES = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}


def read_text(path: Path) -> str:
    """The whole text of a file or pipe; ValueError if there is none, and as `text_of`."""
    try:
        return text_of(path.read_bytes(), path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise ValueError(f"{path}: is a folder; name the files in it") from None


def text_of(data: bytes, source: object) -> str:
    """The bytes of a file as text: unpacked, decoded, and without a byte order mark.

    Args:
        source: what messages name.
    Raises:
        ValueError: bytes that are no text, or neither UTF-8 nor UTF-16 with a mark.
    """
    module = _by_beginning(PACKED, data)
    if module is not None:
        with _unpacking(source):
            data = module.decompress(data)
    _check_kind(data, source)
    wide = _by_beginning(WIDE, data)
    if wide is None:
        return _utf8(data, source)
    try:
        return data.decode(wide)
    except UnicodeDecodeError as error:
        raise ValueError(f"{source}: byte {error.start} is not {wide.upper()}; get the file again") from None


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a text file, not all in memory at once unless it is UTF-16; ValueError as `text_of`."""
    with path.open("rb") as file:
        module = _by_beginning(PACKED, file.peek(SNIFF))
        unpacked: Any = file if module is None else module.open(file)
        with _unpacking(path):
            head = unpacked.peek(SNIFF)
            if _by_beginning(WIDE, head) is not None:
                yield from text_of(unpacked.read(), path).split("\n")
                return
            _check_kind(head, path)
            offset = 0
            for line in unpacked:
                yield _utf8(line, path, offset=offset)
                offset += len(line)


def beginning(path: Path) -> str | None:
    """How the text of a file begins, as far as it decodes; None for a file that is empty or no text."""
    with path.open("rb") as file:
        module = _by_beginning(PACKED, file.peek(SNIFF))
        unpacked: Any = file if module is None else module.open(file)
        try:
            with _unpacking(path):
                head = unpacked.read(SNIFF)
            _check_kind(head, path)
        except ValueError:
            return None
    return head.removeprefix(MARK).decode(_by_beginning(WIDE, head) or "utf-8", errors="replace") if head else None


def plain_suffix(path: Path) -> str:
    """The suffix of a file's name in lower case, without that of a compression: .jsonl of A.JSONL.gz."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in PACKED_SUFFIXES else suffix


def json_object(line: str, *, where: str) -> dict[str, Any]:
    """A line of a file of JSON lines; ValueError, naming `where`, if it is no object."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error.msg} at column {error.colno}); each line is one object") from None
    except RecursionError:
        raise ValueError(f"{where}: JSON nested too deeply; each line is one object") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: holds {json_type(row)}; each line is one JSON object")
    return row


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines, each with the number of its line; ValueError names file and line."""
    for number, line in enumerate(text_lines(path), start=1):
        if line.strip():
            yield number, json_object(line, where=f"{path} line {number}")


def command(*words: object) -> str:
    """A command line for messages, which a shell reads as these words whatever paths hold."""
    spelt = [f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word) for word in words]
    return shlex.join(spelt)


def json_type(value: object) -> str:
    """What JSON calls a value, for messages."""
    return TYPES.get(type(value), "null")


def check_characters(text: str, *, where: str) -> str:
    """The text itself; ValueError, naming `where`, if it holds half a character, which UTF-8 cannot write."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where} holds half a surrogate pair (U+{ord(text[error.start]):04X}), which no UTF-8 text can; "
            f"write the whole character"
        ) from None
    return text


def _by_beginning(table: dict[bytes, Any], data: bytes) -> Any:
    return next((value for magic, value in table.items() if data.startswith(magic)), None)


def _check_kind(data: bytes, source: object) -> None:
    """Refuse what is no text, by how it begins."""
    kind = _by_beginning(NO_TEXT, data)
    if kind is not None:
        raise ValueError(f"{source}: not a text but {kind}")
    if b"\0" in data[:SNIFF] and _by_beginning(WIDE, data) is None:
        raise ValueError(
            f"{source}: byte {data.index(0)} is zero, which no UTF-8 text holds; if it is UTF-16, convert it with "
            f"iconv -f utf-16le -t utf-8"
        )


def _utf8(data: bytes, source: object, *, offset: int = 0) -> str:
    """Bytes that begin at `offset` of their file, as text; the mark at 0 is left out."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"byte {offset + error.start} (0x{data[error.start]:02x})"
        raise ValueError(
            f"{source}: {where} is not UTF-8; convert the file, for example with iconv -f latin1 -t utf-8"
        ) from None
    return text.removeprefix("\ufeff") if offset == 0 else text


@contextmanager
def _unpacking(source: object) -> Iterator[None]:
    """Says in a sentence that a compressed file is damaged."""
    try:
        yield
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's error, not the unpacker's
            raise
        raise ValueError(f"{source}: compressed, and not whole; get the file again") from None
