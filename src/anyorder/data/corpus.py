"""Where text comes from: `stdlib`, `notes.txt`, `books/`, `logs/*.md`, `a.jsonl.gz` or `hub:NAME` names a corpus."""

import difflib
import glob
import hashlib
import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

from anyorder.core.text import (
    LINES,
    beginning,
    check_characters,
    json_object,
    json_rows,
    json_type,
    plain_suffix,
    read_text,
    text_lines,
)
from anyorder.data.packages import package_files

SPECS = "data.corpus is stdlib, packages:NAME,NAME, a text file, a folder, a glob, a file of JSON lines or hub:NAME"


@dataclass(frozen=True)
class Document:
    """One text that stands for itself: no token of it ever depends on another document."""

    name: str
    text: str

    @property
    def digest(self) -> str:
        """Sha256 of the text, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class Facts:
    """What one pass over a corpus tells; `lowest` and `highest` are the ends of its documents' `place`s."""

    sha256: str
    documents: int
    bytes: int
    lowest: float
    highest: float


@dataclass(frozen=True)
class Corpus:
    """Documents in a fixed order, read anew by every pass, so that a corpus larger than memory is one too.

    Args:
        name: the spec it came from, with what the spec leaves open (`stdlib` adds the Python version).
        read: opens the source and yields its documents; empty ones are skipped here.
    """

    name: str
    read: Callable[[], Iterator[Document]]

    def __iter__(self) -> Iterator[Document]:
        return (document for document in self.read() if document.text)

    @cached_property
    def facts(self) -> Facts:
        """Counts and the sha256 of all names and texts.

        Raises:
            ValueError: no document holds any text.
        """
        total, count, size, places = hashlib.sha256(), 0, 0, (1.0, 0.0)
        for document in self:
            here = place(document)
            total.update(f"{document.name}\0{document.digest}\n".encode(errors="surrogateescape"))  # names may be bytes
            count, size = count + 1, size + len(document.text.encode())
            places = min(places[0], here), max(places[1], here)
        if not count:
            raise ValueError(f"data.corpus={self.name!r}: holds no text; give at least one document that is not empty")
        return Facts(sha256=total.hexdigest(), documents=count, bytes=size, lowest=places[0], highest=places[1])

    @property
    def hash(self) -> str:
        return self.facts.sha256


def open_corpus(spec: str, *, field: str = "text") -> Corpus:
    """The corpus a spec names.

    Args:
        spec: `stdlib` (the running Python's own library), `packages:stdlib,numpy` (installed ones), a text file (one
            document), a folder (its text files, recursively; hidden and binary ones are left out), a glob, a file of
            JSON lines (one document per line; see `holds_lines`), `hub:NAME` or `hub:NAME:SUBSET`. Files may be
            compressed (gzip, bzip2, xz).
        field: the key of the text in a line or a hub row.
    Raises:
        ValueError: nothing there, an empty file, a pipe, bytes that are no text, a line without the field.
    """
    if spec == "stdlib":
        return standard_library()
    if spec.startswith("packages:"):
        return installed_packages(spec)
    if spec.startswith("hub:"):
        return hub_corpus(spec, field=field)
    path = Path(spec).expanduser()
    if path.is_dir():
        files = folder_files(path)
        return Corpus(spec, lambda: _read_files(files, root=path, field=field))
    if path.is_file():
        if not path.stat().st_size:
            raise ValueError(f"data.corpus={spec!r}: the file is empty; give a file with text in it")
        return Corpus(spec, lambda: _read_files([path], root=path.parent, field=field))
    if glob.has_magic(spec):
        matched = sorted(p for p in map(Path, glob.glob(str(path), recursive=True)) if p.is_file())
        if not matched:
            raise ValueError(f"data.corpus={spec!r}: the glob matches no file; ** matches folders at any depth")
        return Corpus(spec, lambda: _read_files(matched, root=Path(), field=field))
    if path.exists():
        raise ValueError(
            f"data.corpus={spec!r}: is a pipe or a device, which is read once, and a corpus is read several times; "
            "write it to a file first"
        )
    raise ValueError(f"data.corpus={spec!r}: no such file or folder; {SPECS}")


def standard_library() -> Corpus:
    """The `.py` files of the running Python's own library without its tests: 12 MB of text that every machine has."""
    name, root, files = package_files("stdlib")
    return Corpus(name, lambda: _read_files(files, root=root, field=""))


def installed_packages(spec: str) -> Corpus:
    """The `.py` files of installed packages, `packages:stdlib,numpy`; a file that is in two of them counts once."""
    names = [name for name in spec.removeprefix("packages:").split(",") if name]
    if not names:
        raise ValueError(f"data.corpus={spec!r}: names no package; write packages:stdlib,numpy")
    packages = [package_files(name) for name in names]

    def read() -> Iterator[Document]:
        seen: set[str] = set()
        for _, root, files in packages:
            for document in _read_files(files, root=root, field=""):
                if document.digest not in seen:
                    seen.add(document.digest)
                    yield document

    return Corpus("packages:" + ",".join(package[0] for package in packages), read)


def folder_files(folder: Path) -> list[Path]:
    """Every file below a folder that is neither hidden, binary nor empty, sorted by path."""
    below = (p for p in sorted(folder.rglob("*")) if p.is_file())
    shown = [p for p in below if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    files = [p for p in shown if beginning(p) is not None]
    if not files:
        raise ValueError(f"data.corpus={str(folder)!r}: the folder holds no text file; {SPECS}")
    return files


def holds_lines(path: Path, *, field: str) -> bool:
    """Whether a text file is read as JSON lines.

    It is by its suffix (.jsonl, .ndjson, .jsonlines), or because each of its first two lines is an object: with the
    field if it is not called .json.
    """
    suffix = plain_suffix(path)
    if suffix in LINES:
        return True
    if not (beginning(path) or "").lstrip().startswith("{"):
        return False
    first = list(islice((line for line in text_lines(path) if line.strip()), 2))
    try:
        rows = [json_object(line, where="") for line in first]
    except ValueError:
        return False
    return field in rows[0] or (suffix == ".json" and len(rows) == 2)


def _read_files(files: list[Path], *, root: Path, field: str) -> Iterator[Document]:
    for path in files:
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
        if holds_lines(path, field=field):
            yield from _read_lines(path, name=name, field=field)
        elif plain_suffix(path) == ".json":
            yield from _read_list(path, name=name, field=field)
        else:
            yield Document(name, read_text(path))


def _read_lines(path: Path, *, name: str, field: str) -> Iterator[Document]:
    for number, row in json_rows(path):
        yield Document(f"{name}:{number}", field_text(row, field=field, where=f"{path} line {number}"))


def _read_list(path: Path, *, name: str, field: str) -> Iterator[Document]:
    """The objects of a JSON list, if the first has the field; any other JSON is text as it stands."""
    text = read_text(path)
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        rows = None
    if not (isinstance(rows, list) and rows and isinstance(rows[0], dict) and field in rows[0]):
        yield Document(name, text)
        return
    for number, row in enumerate(rows, start=1):
        where = f"{path} item {number}"
        if not isinstance(row, dict):
            raise ValueError(f"{where}: holds {json_type(row)}; each item is an object with the key {field!r}")
        yield Document(f"{name}:{number}", field_text(row, field=field, where=where))


def field_text(row: dict[str, object], *, field: str, where: str) -> str:
    """The text under a key of a row; errors name the row and the nearest key."""
    if field not in row:
        near = difflib.get_close_matches(field, row, n=1, cutoff=0.0)
        hint = f"the nearest is {near[0]!r}, set data.field to the one wanted" if near else "the object is empty"
        raise ValueError(f"{where}: has no field {field!r}; {hint}")
    text = row[field]
    if not isinstance(text, str):
        raise ValueError(f"{where}: field {field!r} holds {json_type(text)}; it must hold text")
    return check_characters(text, where=f"{where}: field {field!r}")


def hub_corpus(spec: str, *, field: str) -> Corpus:
    """The `train` split of a data set of the Hugging Face hub, read through the `datasets` library (extra `hub`)."""
    try:
        library = importlib.import_module("datasets")
    except ImportError:
        raise ValueError(
            f"data.corpus={spec!r}: needs the datasets library; install it with: pip install 'anyorder[hub]'"
        ) from None
    name, _, subset = spec.removeprefix("hub:").partition(":")
    if not name:
        raise ValueError(f"data.corpus={spec!r}: names no data set; write hub:NAME or hub:NAME:SUBSET")
    rows = library.load_dataset(name, subset or None, split="train")

    def read() -> Iterator[Document]:
        for number, row in enumerate(rows):
            yield Document(str(number), field_text(row, field=field, where=f"{spec} row {number}"))

    return Corpus(spec, read)


def place(document: Document) -> float:
    """Where a document falls in [0, 1), by its text alone, so that equal texts stay on one side of a split."""
    return int(document.digest[:13], 16) / 16**13


def split(corpus: Corpus, *, validation: float) -> tuple[Corpus, Corpus]:
    """Train and validation parts of a corpus: by document, or the tail of the text when there is but one.

    A document goes to validation when its `place` is below the share, so adding documents moves none. If that leaves
    one side empty, the document with the lowest (highest) place fills it.

    Raises:
        ValueError: the share is not in (0, 1), or the text cannot be cut in two.
    """
    if not 0.0 < validation < 1.0:
        raise ValueError(f"data.validation={validation}: must be a share between 0 and 1, both excluded")
    facts = corpus.facts
    if facts.documents == 1:
        return _cut_tail(corpus, validation=validation)
    if facts.lowest == facts.highest:
        raise ValueError(
            f"data.corpus={corpus.name!r}: its {facts.documents} documents are all the same; give another text"
        )
    threshold = min(max(validation, facts.lowest + 16.0**-13), facts.highest)

    def part(*, held_out: bool) -> Callable[[], Iterator[Document]]:
        return lambda: (document for document in corpus if (place(document) < threshold) == held_out)

    return Corpus(f"{corpus.name}/train", part(held_out=False)), Corpus(f"{corpus.name}/valid", part(held_out=True))


def _cut_tail(corpus: Corpus, *, validation: float) -> tuple[Corpus, Corpus]:
    (only,) = corpus
    if len(only.text) < 2:
        raise ValueError(f"data.corpus={corpus.name!r}: one character cannot be split in two; give a longer text")
    cut = min(max(round(len(only.text) * (1.0 - validation)), 1), len(only.text) - 1)
    head, tail = Document(f"{only.name}/head", only.text[:cut]), Document(f"{only.name}/tail", only.text[cut:])
    return Corpus(f"{corpus.name}/train", lambda: iter([head])), Corpus(f"{corpus.name}/valid", lambda: iter([tail]))
