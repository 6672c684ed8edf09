"""The `tokenizer.json` of a published checkpoint as a tokenizer of ours: BPE (byte-level, sentencepiece-like) or words.

Special tokens are never spelt in text: what looks like one is encoded letter by letter, so that no document can smuggle
a mask or an end in; those of mask and end are special here even where the file says otherwise. Only a list of whole
words (`WordLevel`) has no letters; there a special token is a word.

Words (`WordPiece`, `WordLevel`) lose what is between them: a text comes back with one space between any two, in lower
case if the tokenizer says so, and without words that it does not know.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, final

import tokenizers
import torch
from jaxtyping import Int
from torch import Tensor

from anyorder.core.files import read_object
from anyorder.core.text import check_characters
from anyorder.core.types import Vocab
from anyorder.data.tokenizer import FILE, PLACEHOLDER, Tokenizer, byte_of_letter, is_ours

SPECIAL_IDS: Final = {  # fields of a configuration, and the usual names of what they are
    "cls_token_id": ("[CLS]", "<cls>"),
    "bos_token_id": ("[BOS]", "<bos>", "<s>"),
    "eos_token_id": ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "[EOS]"),
    "pad_token_id": ("[PAD]", "<pad>"),
    "mask_token_id": ("<|mask|>", "<|mdm_mask|>", "[MASK]", "<mask>", "<|MASK|>"),
}
SPARE_ROWS: Final = 1024  # rows that an embedding may have beyond the tokenizer's ids, to round its size up
SPACE: Final = "▁"  # how sentencepiece spells a space
WORDS: Final = ("WordPiece", "WordLevel")
BYTE: Final = re.compile(r"<0x([0-9A-F]{2})>")


@final
@dataclass(frozen=True)
class HubTokenizer:
    """A published tokenizer; `vocab` comes from the checkpoint's configuration.

    Args:
        text: the file, as published.
        vocab: ids as the network reads them. An id without a token stands for no text.
    Raises:
        ValueError: not a tokenizer of these kinds, one with more ids or many fewer than the vocabulary, or one whose
            texts can hold the mask or the end of document.
    """

    text: str
    vocab: Vocab

    def __post_init__(self) -> None:
        rows = self.vocab.size + (
            self.vocab.mask_id == self.vocab.size and self.vocab.mask_id in self.specials.values()
        )
        known = self.num_known
        if not self.vocab.size - SPARE_ROWS <= known <= rows:
            raise ValueError(
                f"{FILE}: has ids below {known}, the embedding {self.vocab.size} rows; "
                "name the checkpoint's own tokenizer"
            )
        kinds = set(re.findall(r'"type":\s*"(\w+)"', json.dumps(_parts(self.text))))
        bpe = self._spec["model"].get("type", "BPE") == "BPE" and kinds & {"ByteLevel", "Metaspace", "ByteFallback"}
        if not bpe and not self._words:
            raise ValueError(
                f"{FILE}: is neither a byte-level nor a sentencepiece-like BPE nor words; no other kind is read"
            )
        self._check_marks()

    def _check_marks(self) -> None:
        """No text may hold the mask or the end: what is in a prompt would be written over, or cut there."""
        for what, mark in () if self._words else (("mask", self.vocab.mask_id), ("end of document", self.vocab.eos_id)):
            name = None if mark is None else self._library.id_to_token(mark)
            text = name if name is None or name in self.specials else self._spelt(name).decode(errors="replace")
            if text and mark in self.encode(text):
                raise ValueError(
                    f"{FILE}: the text {text!r} is the {what}, id {mark}; name another token for it in config.json"
                )

    @cached_property
    def _spec(self) -> dict[str, Any]:
        """The file, in which tokens that have a special token's work or usual name are special."""
        spec: dict[str, Any] = json.loads(self.text)
        marks, usual = (self.vocab.mask_id, self.vocab.eos_id), {n for names in SPECIAL_IDS.values() for n in names}
        added = [
            t | {"special": bool(t.get("special")) or t["id"] in marks or t["content"] in usual}
            for t in spec.get("added_tokens") or []
        ]
        return spec | {"added_tokens": added}

    @cached_property
    def specials(self) -> dict[str, int]:
        """Texts that are one special token each, with their ids."""
        return {t["content"]: t["id"] for t in self._spec["added_tokens"] if t["special"]}

    @cached_property
    def _library(self) -> tokenizers.Tokenizer:
        library = tokenizers.Tokenizer.from_str(json.dumps(self._spec))
        library.no_truncation()
        library.no_padding()
        library.encode_special_tokens = True
        return library

    @property
    def _words(self) -> bool:
        return self._spec["model"].get("type") in WORDS and self._spec.get("pre_tokenizer") is not None

    @property
    def num_known(self) -> int:
        """One more than the last id that the file knows."""
        return 1 + max(self._library.get_vocab(with_added_tokens=True).values())

    @cached_property
    def _begins_with_space(self) -> bool:
        """Whether the tokenizer puts a space before a text."""
        return self._words or self._library.encode("a", add_special_tokens=False).tokens[0].startswith(SPACE)

    @cached_property
    def _pieces(self) -> tuple[bytes, ...]:
        """The bytes of every id that an input can hold."""
        added = {t["id"]: b"" if t["special"] else t["content"].encode() for t in self._spec["added_tokens"]}
        pieces = [b""] * self.vocab.num_ids
        for name, i in self._library.get_vocab(with_added_tokens=True).items():
            pieces[i] = added[i] if i in added else self._spelt(name)
        pieces[self.vocab.mask_id] = PLACEHOLDER.encode()
        return tuple(pieces)

    def _spelt(self, name: str) -> bytes:
        """The bytes that a token of this name, which is not an added one, stands for."""
        if self._words:
            inner = self._spec["model"].get("continuing_subword_prefix") or "\0"
            name = name.removeprefix(inner) if name.startswith(inner) else SPACE + name
        return _bytes_of(name, self._letters)

    @cached_property
    def _letters(self) -> dict[str, int] | None:
        return byte_of_letter() if '"ByteLevel"' in json.dumps(_parts(self.text)) else None

    @cached_property
    def bytes_per_token(self) -> Int[Tensor, " num_ids"]:
        """UTF-8 bytes of every id; 0 for special tokens, mask and padding."""
        return torch.tensor([0 if i == self.vocab.mask_id else len(p) for i, p in enumerate(self._pieces)])

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without the special tokens that some tokenizers put around one."""
        return list(self._library.encode(check_characters(text, where="the text"), add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each."""
        whole = [check_characters(text, where="the text") for text in texts]
        return [list(e.ids) for e in self._library.encode_batch(whole, add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids: a mask is ░, other special tokens nothing, bytes that are not UTF-8 become U+FFFD.

        Raises:
            ValueError: an id beyond the vocabulary.
        """
        known = list(ids)
        wrong = next((i for i in known if not 0 <= i < len(self._pieces)), None)
        if wrong is not None:
            raise ValueError(
                f"token id {wrong}: the vocabulary ends at {len(self._pieces) - 1}; was another tokenizer used?"
            )
        text = b"".join(self._pieces[i] for i in known).decode("utf-8", errors="replace")
        return text.removeprefix(" ") if self._begins_with_space else text

    def piece(self, token: int) -> str:
        """The text of one token inside a row: as `decode`, but a space it begins with stays."""
        return self._pieces[token].decode("utf-8", errors="replace")

    def num_bytes(self, ids: Iterable[int]) -> int:
        """UTF-8 bytes of the ids."""
        sizes = self.bytes_per_token.tolist()
        return sum(sizes[i] for i in ids if 0 <= i < len(sizes))

    def save(self, folder: Path) -> Path:
        """Write the file as it was published."""
        path = Path(folder) / FILE
        path.write_text(self.text, encoding="utf-8")
        return path


def special_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    """Texts that are one token each in a published tokenizer, with their ids; one of ours has none."""
    return tokenizer.specials if isinstance(tokenizer, HubTokenizer) else {}


def special_id(tokenizer: Tokenizer, name: str) -> int:
    """The id of the special token of this name.

    Raises:
        ValueError: the tokenizer has no such token.
    """
    known = special_tokens(tokenizer)
    if name not in known:
        there = f"it has {', '.join(list(known)[:10])}" if known else "it has none"
        raise ValueError(f"bos={name!r}: no special token of the model's tokenizer; {there}")
    return known[name]


def piece_of(tokenizer: Tokenizer, token: int) -> str:
    """The text of one token inside a row."""
    return tokenizer.piece(token) if isinstance(tokenizer, HubTokenizer) else tokenizer.decode([token])


def _parts(text: str) -> list[Any]:
    """What says of which kind a tokenizer is."""
    spec = json.loads(text)
    return [spec.get(key) for key in ("pre_tokenizer", "decoder")]


def _bytes_of(name: str, letters: Mapping[str, int] | None) -> bytes:
    """The bytes a token stands for: spelt in letters, or without them as text, ▁ for a space, <0x0A> for a byte."""
    if letters is not None:
        return bytes(letters[c] for c in name if c in letters)
    byte = BYTE.fullmatch(name)
    return bytes([int(byte[1], 16)]) if byte else name.replace(SPACE, " ").encode()


def tokenizer_file(place: Path) -> Path:
    """The file of a tokenizer that is named by itself or by its folder, whatever the folder's name ends in."""
    return place if place.suffix == ".json" and not place.is_dir() else place / FILE


def read_hub_tokenizer(place: Path) -> tuple[str, int | None, int | None]:
    """The text of a tokenizer file, and the ids of mask and end of document that it or its settings name.

    Args:
        place: the file, or the folder it is in.
    Raises:
        ValueError: no `tokenizer.json` there, or one that the library does not read.
    """
    path = tokenizer_file(place)
    text, ids = _vocabulary(path)
    return text, _named(ids, path, "mask_token_id"), _named(ids, path, "eos_token_id")


def special_ids(place: Path) -> dict[str, int]:
    """The special tokens that a tokenizer names, as fields of a configuration; none where no published tokenizer is.

    Args:
        place: as in `read_hub_tokenizer`.
    Raises:
        ValueError: a file that the library does not read.
    """
    path = tokenizer_file(place)
    if not path.is_file() or is_ours(path):
        return {}
    _, ids = _vocabulary(path)
    return {key: i for key in SPECIAL_IDS if (i := _named(ids, path, key)) is not None}


def _vocabulary(path: Path) -> tuple[str, dict[str, int]]:
    """The text of a tokenizer file, and the id of every token."""
    try:
        text = path.read_text(encoding="utf-8")
        return text, tokenizers.Tokenizer.from_str(text).get_vocab(with_added_tokens=True)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; put the checkpoint's {FILE} there") from None
    except Exception as error:  # the library raises plain Exceptions
        raise ValueError(f"{path}: not a tokenizer ({error}); get it again") from None


def _named(ids: Mapping[str, int], path: Path, key: str) -> int | None:
    """The id of a special token: of what tokenizer_config.json names, else of the only one with a usual name."""
    beside = path.with_name("tokenizer_config.json")
    settings = read_object(beside) if beside.exists() else {}
    named = settings.get(key.removesuffix("_id"))
    content = named.get("content") if isinstance(named, dict) else named
    if isinstance(content, str) and content in ids:
        return ids[content]
    found = [ids[name] for name in SPECIAL_IDS[key] if name in ids]
    return found[0] if len(found) == 1 else None
