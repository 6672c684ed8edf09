"""Tokens on disk: memory-mapped shards, an index of document starts, and a manifest that can prove them unaltered."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from anyorder.core.files import sha256_of
from anyorder.data.atomic import make_once
from anyorder.data.tokenizer import Tokenizer

MANIFEST = "manifest.json"
TOKENS_PER_SHARD = 2**27  # 256 MiB of 16-bit tokens
AGAIN = "delete the folder and prepare the data again"


class ShardEntry(BaseModel, frozen=True, extra="forbid"):
    """One `.bin` of tokens and one `.idx` of int64 document starts, the end included, both little-endian."""

    name: str
    tokens: int
    documents: int
    tokens_sha256: str
    index_sha256: str


class Manifest(BaseModel, frozen=True, extra="forbid"):
    """What a folder of shards holds and how to prove it."""

    format: Literal["anyorder-shards"] = "anyorder-shards"
    version: Literal[1] = 1
    dtype: Literal["uint16", "uint32"]
    vocab_size: int
    eos_id: int
    eos: Literal["after every document"] = "after every document"
    bos: Literal["never"] = "never"
    tokenizer_sha256: str
    corpus: str
    corpus_sha256: str
    tokens: int  # EOS of every document included
    documents: int
    bytes: int  # UTF-8 bytes the tokens stand for
    shards: tuple[ShardEntry, ...]


def write_shards(
    folder: Path,
    documents: Iterable[list[int]],
    *,
    tokenizer: Tokenizer,
    corpus: str,
    corpus_sha256: str,
    tokens_per_shard: int = TOKENS_PER_SHARD,
) -> Manifest:
    """Writes documents, each followed by EOS, into a new folder that appears only when it is complete.

    A shard ends with the document that reaches `tokens_per_shard`; a document never spans two.

    Raises:
        ValueError: the folder exists, a token id outside the vocabulary, no document.
        OSError: the disk is full; nothing is left behind.
    """
    if not make_once(folder, lambda new: _write(new, documents, tokenizer, corpus, corpus_sha256, tokens_per_shard)):
        raise ValueError(f"{folder}: already exists; delete it or choose another folder")
    return read_manifest(folder)


def _write(
    folder: Path, documents: Iterable[list[int]], tokenizer: Tokenizer, corpus: str, sha256: str, tokens_per_shard: int
) -> None:
    vocab, lengths = tokenizer.vocab, tokenizer.bytes_per_token.numpy()
    assert vocab.eos_id is not None, "our tokenizers have an EOS"
    dtype: Literal["uint16", "uint32"] = "uint16" if vocab.size < 2**16 else "uint32"
    entries: list[ShardEntry] = []
    num_bytes = 0
    for shard in _groups(_with_eos(documents, vocab.size, vocab.eos_id, np.dtype(dtype)), tokens_per_shard):
        entries.append(_write_shard(folder, f"shard_{len(entries):05d}", shard))
        num_bytes += sum(int(lengths[document].sum()) for document in shard)
    if not entries:
        raise ValueError(f"{corpus}: holds no document; give at least one that is not empty")
    manifest = Manifest(
        dtype=dtype,
        vocab_size=vocab.size,
        eos_id=vocab.eos_id,
        tokenizer_sha256=tokenizer.hash,
        corpus=corpus,
        corpus_sha256=sha256,
        tokens=sum(entry.tokens for entry in entries),
        documents=sum(entry.documents for entry in entries),
        bytes=num_bytes,
        shards=tuple(entries),
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _with_eos(
    documents: Iterable[list[int]], size: int, eos_id: int, dtype: np.dtype[np.unsignedinteger]
) -> Iterator[NDArray[np.unsignedinteger]]:
    for number, document in enumerate(documents):
        ids = np.array([*document, eos_id], dtype=np.int64)
        if ids.min() < 0 or ids.max() >= size:
            raise ValueError(f"document {number}: holds a token id outside 0..{size - 1}; was another tokenizer used?")
        yield ids.astype(dtype.newbyteorder("<"))


def _groups(
    documents: Iterable[NDArray[np.unsignedinteger]], tokens: int
) -> Iterator[list[NDArray[np.unsignedinteger]]]:
    group: list[NDArray[np.unsignedinteger]] = []
    held = 0
    for document in documents:
        group.append(document)
        held += len(document)
        if held >= tokens:
            yield group
            group, held = [], 0
    if group:
        yield group


def _write_shard(folder: Path, name: str, documents: list[NDArray[np.unsignedinteger]]) -> ShardEntry:
    tokens = np.concatenate(documents).tobytes()
    starts = np.cumsum([0, *(len(document) for document in documents)], dtype="<i8")
    (folder / f"{name}.bin").write_bytes(tokens)
    (folder / f"{name}.idx").write_bytes(starts.tobytes())
    return ShardEntry(
        name=name,
        tokens=int(starts[-1]),
        documents=len(documents),
        tokens_sha256=hashlib.sha256(tokens).hexdigest(),
        index_sha256=hashlib.sha256(starts.tobytes()).hexdigest(),
    )


@dataclass(frozen=True)
class Shards:
    """A folder of shards opened for reading: one long stream of tokens, `starts` marking where documents begin.

    Args:
        parts: the memory-mapped tokens of each shard.
        part_starts: the place of each shard in the stream, its end included.
        starts: the place of each document in the stream, the end of the last included.
    """

    folder: Path
    manifest: Manifest
    parts: tuple[NDArray[np.unsignedinteger], ...]
    part_starts: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def open(cls, folder: Path, *, tokenizer_hash: str | None = None, verify: bool = True) -> "Shards":
        """Maps a folder of shards; sizes are always compared with the manifest.

        Args:
            tokenizer_hash: what the shards must have been made with.
            verify: also compare every checksum, which reads all of it once (about a second per GB).
        Raises:
            ValueError: no or a damaged manifest, a missing, truncated or altered shard, another tokenizer.
        """
        manifest = read_manifest(folder)
        if tokenizer_hash is not None and tokenizer_hash != manifest.tokenizer_sha256:
            raise ValueError(
                f"{folder}: made with tokenizer {manifest.tokenizer_sha256[:12]}, not {tokenizer_hash[:12]}; "
                f"use the tokenizer saved beside it or prepare the data again"
            )
        width = np.dtype(manifest.dtype).itemsize
        for entry in manifest.shards:
            _check(folder / f"{entry.name}.bin", entry.tokens * width, entry.tokens_sha256, verify)
            _check(folder / f"{entry.name}.idx", (entry.documents + 1) * 8, entry.index_sha256, verify)
        dtype = np.dtype(manifest.dtype).newbyteorder("<")
        part_starts = np.cumsum([0, *(entry.tokens for entry in manifest.shards)], dtype=np.int64)
        indices = [np.fromfile(folder / f"{entry.name}.idx", dtype="<i8") for entry in manifest.shards]
        starts = [index[:-1] + start for index, start in zip(indices, part_starts[:-1], strict=True)]
        return cls(
            folder=folder,
            manifest=manifest,
            parts=tuple(np.memmap(folder / f"{entry.name}.bin", dtype=dtype, mode="r") for entry in manifest.shards),
            part_starts=part_starts,
            starts=np.concatenate([*starts, part_starts[-1:]]),
        )

    @property
    def num_tokens(self) -> int:
        return self.manifest.tokens

    @property
    def num_documents(self) -> int:
        return self.manifest.documents

    @cached_property
    def bytes_per_token(self) -> float:
        """Mean UTF-8 bytes a token stands for, EOS counted as a token of 0 bytes."""
        return self.manifest.bytes / self.manifest.tokens

    def read(self, start: int, *, length: int) -> NDArray[np.int64]:
        """A stretch of the stream, wherever its shards' borders lie."""
        first = int(np.searchsorted(self.part_starts, start, side="right")) - 1
        pieces, at, end = [], start, start + length
        while at < end:
            begin = int(self.part_starts[first])
            piece = self.parts[first][at - begin : end - begin]
            pieces.append(np.asarray(piece, dtype=np.int64))
            at, first = at + len(piece), first + 1
        return np.concatenate(pieces)

    def document(self, number: int) -> NDArray[np.int64]:
        """The tokens of one document, its EOS included."""
        start, end = int(self.starts[number]), int(self.starts[number + 1])
        return self.read(start, length=end - start)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder of shards; ValueError if there is none or it is not one."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(f"{path}: no such file; {folder} is not a folder of token shards, make one with anyorder data")
    try:
        return Manifest.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{path}: {where or 'the manifest'}: {first['msg'].lower()}; {AGAIN}") from None
    except ValueError:
        raise ValueError(f"{path}: not a JSON text; {AGAIN}") from None


def _check(path: Path, size: int, sha256: str, verify: bool) -> None:
    if not path.is_file():
        raise ValueError(f"{path}: the shard is missing; {AGAIN}")
    found = path.stat().st_size
    if found != size:
        word = "truncated" if found < size else "too long"
        raise ValueError(f"{path}: the shard is {word}, {found} bytes and not {size}; {AGAIN}")
    if verify and sha256_of(path) != sha256:
        raise ValueError(f"{path}: the shard was altered, its checksum is not the manifest's; {AGAIN}")
