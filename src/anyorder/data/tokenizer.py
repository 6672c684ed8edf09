"""Text to token ids and back without loss: bytes, byte-level BPE, or the symbols of a puzzle.

All three follow the house rule for ids: 0..size-1 can be written, the last of them is EOS; mask_id = size,
pad_id = size + 1. EOS, mask and padding are never spelt in text: no string encodes to them, so no document can
smuggle one in.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol, final, runtime_checkable

import tokenizers
import torch
from jaxtyping import Int
from tokenizers import decoders, models, pre_tokenizers, trainers
from torch import Tensor

from anyorder.core.files import read_object
from anyorder.core.interrupt import in_thread
from anyorder.core.text import check_characters
from anyorder.core.types import Vocab

FILE: Final = "tokenizer.json"
OURS: Final = "anyorder_tokenizer"  # the key that marks a file of our own
PLACEHOLDER: Final = "░"  # what a mask looks like in text
LONGEST_WORD: Final = 256  # bytes; the library's learning takes time quadratic in the length of a word


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back; `decode(encode(text)) == text` for every text it accepts."""

    @property
    def vocab(self) -> Vocab: ...

    @property
    def bytes_per_token(self) -> Int[Tensor, " num_ids"]: ...

    @property
    def hash(self) -> str: ...

    def encode(self, text: str) -> list[int]: ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]: ...

    def decode(self, ids: Iterable[int]) -> str: ...

    def num_bytes(self, ids: Iterable[int]) -> int: ...

    def save(self, folder: Path) -> Path: ...


@final
@dataclass(frozen=True)
class TokenTable:
    """The bytes each token stands for, in the order of ids; EOS follows them and stands for none."""

    pieces: tuple[bytes, ...]

    @cached_property
    def vocab(self) -> Vocab:
        size = len(self.pieces) + 1
        return Vocab(size=size, mask_id=size, pad_id=size + 1, eos_id=size - 1)

    @cached_property
    def bytes_per_token(self) -> Int[Tensor, " num_ids"]:
        """UTF-8 bytes of every id an input can hold; 0 for EOS, mask and padding."""
        return torch.tensor([len(p) for p in self.pieces] + [0, 0, 0])

    @cached_property
    def _shown(self) -> tuple[bytes, ...]:
        return (*self.pieces, b"", PLACEHOLDER.encode(), b"")

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids: a mask is ░, EOS and padding are nothing, bytes that are not UTF-8 become U+FFFD.

        Raises:
            ValueError: an id that is neither of the vocabulary nor its mask or padding.
        """
        known = list(ids)
        if known and (min(known) < 0 or max(known) >= len(self._shown)):
            wrong = next(i for i in known if not 0 <= i < len(self._shown))
            raise ValueError(
                f"token id {wrong}: the vocabulary ends at {self.vocab.size - 1}; was another tokenizer used?"
            )
        return b"".join(self._shown[i] for i in known).decode("utf-8", errors="replace")

    def num_bytes(self, ids: Iterable[int]) -> int:
        return sum(len(self.pieces[i]) for i in ids if 0 <= i < len(self.pieces))


@final
@dataclass(frozen=True)
class ByteTokenizer:
    """UTF-8 bytes as tokens: 256 of them and EOS."""

    @cached_property
    def table(self) -> TokenTable:
        return TokenTable(tuple(bytes([i]) for i in range(256)))

    @property
    def vocab(self) -> Vocab:
        return self.table.vocab

    @property
    def bytes_per_token(self) -> Int[Tensor, " num_ids"]:
        return self.table.bytes_per_token

    @property
    def hash(self) -> str:
        return _hash(self._spec)

    @property
    def _spec(self) -> dict[str, Any]:
        return {OURS: "bytes"}

    def encode(self, text: str) -> list[int]:
        return list(check_characters(text, where="the text").encode("utf-8"))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        return self.table.decode(ids)

    def num_bytes(self, ids: Iterable[int]) -> int:
        return self.table.num_bytes(ids)

    def save(self, folder: Path) -> Path:
        return _save(self._spec, folder)


@final
@dataclass(frozen=True)
class SymbolTokenizer:
    """One token per character of a fixed alphabet, for tasks: `SymbolTokenizer("1234.")`."""

    symbols: str

    def __post_init__(self) -> None:
        if not self.symbols or len(set(self.symbols)) != len(self.symbols):
            raise ValueError(f"symbols={self.symbols!r}: must be at least one character and each only once")

    @cached_property
    def table(self) -> TokenTable:
        return TokenTable(tuple(symbol.encode() for symbol in self.symbols))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {symbol: i for i, symbol in enumerate(self.symbols)}

    @property
    def vocab(self) -> Vocab:
        return self.table.vocab

    @property
    def bytes_per_token(self) -> Int[Tensor, " num_ids"]:
        return self.table.bytes_per_token

    @property
    def hash(self) -> str:
        return _hash(self._spec)

    @property
    def _spec(self) -> dict[str, Any]:
        return {OURS: "symbols", "symbols": self.symbols}

    def encode(self, text: str) -> list[int]:
        """Raises ValueError for a character outside the alphabet."""
        wrong = next(((i, c) for i, c in enumerate(text) if c not in self._ids), None)
        if wrong:
            raise ValueError(f"character {wrong[1]!r} at {wrong[0]}: not one of the symbols {self.symbols!r}")
        return [self._ids[c] for c in text]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        return self.table.decode(ids)

    def num_bytes(self, ids: Iterable[int]) -> int:
        return self.table.num_bytes(ids)

    def save(self, folder: Path) -> Path:
        return _save(self._spec, folder)


@final
@dataclass(frozen=True)
class BpeTokenizer:
    """Byte-level byte-pair encoding of the `tokenizers` library; its EOS lies outside the library's vocabulary.

    Args:
        canonical: the library's JSON with sorted keys and no spaces; equal tokenizers have equal text.
    Source:
        Sennrich et al. 2016 (arXiv:1508.07909); the byte alphabet and word pattern of GPT-2.
    """

    canonical: str

    @classmethod
    def train(cls, texts: Iterable[str], *, size: int, say: Callable[[float], None] | None = None) -> "BpeTokenizer":
        """Learns merges until the vocabulary, EOS included, has `size` ids, or no pair occurs twice any more.

        The same texts give the same tokenizer, in any order. A word of more than `LONGEST_WORD` bytes (DNA, digits,
        writing without spaces) is cut into pieces to learn from.

        Args:
            say: as in `in_thread`.
        Raises:
            ValueError: size below 257, the bytes and EOS.
        """
        if size < 257:
            raise ValueError(
                f"data.vocab_size={size}: must be >= 257, the 256 bytes and EOS; or set data.tokenizer to bytes"
            )
        library = tokenizers.Tokenizer(models.BPE())
        words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        pieces = pre_tokenizers.Split(tokenizers.Regex(f".{{1,{LONGEST_WORD}}}"), "isolated")
        library.pre_tokenizer = pre_tokenizers.Sequence([words, pieces])  # type: ignore[assignment]
        library.decoder = decoders.ByteLevel()  # type: ignore[assignment]
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=size - 1, min_frequency=2, initial_alphabet=alphabet, special_tokens=[], show_progress=False
        )
        in_thread(lambda: library.train_from_iterator(iter(texts), trainer=trainer), say=say)
        library.pre_tokenizer = words  # type: ignore[assignment]
        return cls(_canonical(json.loads(library.to_str())))

    @cached_property
    def _library(self) -> tokenizers.Tokenizer:
        return tokenizers.Tokenizer.from_str(self.canonical)

    @cached_property
    def table(self) -> TokenTable:
        byte_of = byte_of_letter()
        names = sorted(self._library.get_vocab(with_added_tokens=False).items(), key=lambda item: item[1])
        return TokenTable(tuple(bytes(byte_of[letter] for letter in name) for name, _ in names))

    @property
    def vocab(self) -> Vocab:
        return self.table.vocab

    @property
    def bytes_per_token(self) -> Int[Tensor, " num_ids"]:
        return self.table.bytes_per_token

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.canonical.encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        return list(self._library.encode(check_characters(text, where="the text"), add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        whole = [check_characters(text, where="the text") for text in texts]
        return [list(e.ids) for e in self._library.encode_batch(whole, add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        return self.table.decode(ids)

    def num_bytes(self, ids: Iterable[int]) -> int:
        return self.table.num_bytes(ids)

    def save(self, folder: Path) -> Path:
        return _save(json.loads(self.canonical), folder)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer saved in a folder.

    Raises:
        ValueError: no `tokenizer.json` there, or one that is neither ours nor a byte-level BPE without added tokens.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise ValueError(f"{path}: no such file; a tokenizer is saved there by anyorder data and anyorder train")
    spec = read_object(path, way_out="delete its folder and prepare the data again, or restore the file")
    if spec.get(OURS) == "bytes":
        return ByteTokenizer()
    if spec.get(OURS) == "symbols" and isinstance(spec.get("symbols"), str):
        return SymbolTokenizer(spec["symbols"])
    if _is_byte_level_bpe(spec):
        return BpeTokenizer(_canonical(spec))
    raise ValueError(
        f"{path}: not a tokenizer made here; it must be bytes, symbols or a byte-level BPE without added tokens"
    )


def is_ours(path: Path) -> bool:
    """Whether a tokenizer.json was made here (`load_tokenizer` reads it) rather than published elsewhere."""
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(spec, dict) and (OURS in spec or _is_byte_level_bpe(spec))


def _is_byte_level_bpe(spec: dict[str, Any]) -> bool:
    parts = [spec.get(key) for key in ("model", "pre_tokenizer", "decoder")]
    types = [part.get("type") if isinstance(part, dict) else None for part in parts]
    return types == ["BPE", "ByteLevel", "ByteLevel"] and not spec.get("normalizer") and not spec.get("added_tokens")


def byte_of_letter() -> dict[str, int]:
    """GPT-2's spelling of bytes as letters: printable Latin-1 stands for itself, the other 68 follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in set(printable)]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


def _canonical(spec: dict[str, Any]) -> str:
    return json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _hash(spec: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(spec).encode()).hexdigest()


def _save(spec: dict[str, Any], folder: Path) -> Path:
    path = Path(folder) / FILE
    path.write_text(json.dumps(spec, sort_keys=True, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
