"""What data a run reads, as a value; and the folder of tokens that follows from it."""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, PositiveInt

from anyorder.core.files import check_output
from anyorder.core.interrupt import SAY_EVERY, in_thread
from anyorder.data.atomic import make_once
from anyorder.data.corpus import Corpus, open_corpus, split
from anyorder.data.pack import PackedRows, Packing, packed_rows
from anyorder.data.shards import Shards, write_shards
from anyorder.data.tokenizer import BpeTokenizer, ByteTokenizer, Tokenizer, load_tokenizer

TEXTS_AT_ONCE = 64  # documents handed to the tokenizer together
RECIPE = "recipe.json"
Split = Literal["train", "valid"]
Say = Callable[[str], None]


class DataConfig(BaseModel, frozen=True, extra="forbid"):
    """The text of a run and how it becomes rows.

    `corpus` to `validation` decide what is written to disk; `length`, `packing`, `random_length` only how it is read.
    """

    corpus: str = "stdlib"  # stdlib, packages:A,B, a file, a folder, a glob, FILE.jsonl or hub:NAME
    field: str = "text"  # key of the text in a JSONL line or hub row
    tokenizer: Literal["bytes", "bpe"] = "bpe"
    vocab_size: Annotated[int, Field(ge=257)] = 4096  # of the BPE, EOS included; bytes always have 257
    validation: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.05  # share of documents held out
    length: PositiveInt = 256  # tokens of a row
    packing: Packing = "stream"  # "documents": attention stays inside documents
    random_length: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0  # share of batches cut into random lengths
    cache: Path = Path("~/.cache/anyorder/data")  # prepared tokens are shared by runs


@dataclass(frozen=True)
class PreparedData:
    """A tokenizer and the token shards of both splits, open for reading."""

    config: DataConfig
    folder: Path
    tokenizer: Tokenizer
    train: Shards
    valid: Shards

    def rows(self, part: Split) -> PackedRows:
        """The rows of a split; ValueError if the training text is shorter than one (validation is padded instead)."""
        return packed_rows(
            self.train if part == "train" else self.valid,
            vocab=self.tokenizer.vocab,
            length=self.config.length,
            packing=self.config.packing,
            may_be_short=part == "valid",
        )

    @property
    def summary(self) -> dict[str, Any]:
        """What a report says about the data, as plain JSON values."""
        parts = {"train": self.train.manifest, "valid": self.valid.manifest}
        counts = {name: {"tokens": m.tokens, "documents": m.documents, "bytes": m.bytes} for name, m in parts.items()}
        return counts | {
            "folder": str(self.folder),
            "corpus": self.train.manifest.corpus.removesuffix("/train"),
            "tokenizer": self.config.tokenizer,
            "tokenizer_sha256": self.tokenizer.hash,
            "vocab_size": self.tokenizer.vocab.size,
            "bytes_per_token": round(self.train.bytes_per_token, 4),
        }


def say_nothing(text: str) -> None:
    """What `prepare` says by default."""


def say_on_stderr(text: str) -> None:
    """A line of progress, beside what a command prints."""
    print(f"  {text}", file=sys.stderr, flush=True)


def prepare(
    config: DataConfig, folder: Path | None = None, *, verify: bool = True, say: Say = say_nothing
) -> PreparedData:
    """Tokenizer and shards of a config: made once, then found again by what they are made of.

    They lie in a subfolder named after corpus, tokenizer and a hash of both, so nothing is ever overwritten and two
    runs may share a folder. The BPE is trained on the training split only.

    Args:
        folder: where prepared data lies; the config's `cache` if None.
        verify: compare the checksums of shards found.
        say: told now and then what is being done, if it takes more than seconds.
    Raises:
        ValueError: a corpus that cannot be read, or prepared data that was altered.
        OSError: the disk is full; nothing is left behind.
    """
    cache = (config.cache if folder is None else folder).expanduser()
    check_output(cache, option="data.cache", folder=True)
    corpus = open_corpus(config.corpus, field=config.field)
    recipe = _recipe(config, corpus)
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
    short = Path(corpus.name).stem if "/" in corpus.name else corpus.name
    name = "".join(c if c.isalnum() or c in ".-" else "_" for c in f"{short}-{recipe['tokenizer']}-{key}")
    place = cache / name
    make_once(place, lambda new: _write(new, config, corpus, recipe, say))
    tokenizer = load_tokenizer(place)
    train, valid = (Shards.open(place / p, tokenizer_hash=tokenizer.hash, verify=verify) for p in ("train", "valid"))
    return PreparedData(config=config, folder=place, tokenizer=tokenizer, train=train, valid=valid)


def _recipe(config: DataConfig, corpus: Corpus) -> dict[str, Any]:
    kind = config.tokenizer if config.tokenizer == "bytes" else f"bpe{config.vocab_size}"
    return {
        "version": 1,
        "corpus": corpus.name,
        "sha256": corpus.hash,
        "tokenizer": kind,
        "validation": config.validation,
    }


def _write(folder: Path, config: DataConfig, corpus: Corpus, recipe: dict[str, Any], say: Say) -> None:
    train, valid = split(corpus, validation=config.validation)
    tokenizer: Tokenizer = ByteTokenizer()
    if config.tokenizer == "bpe":
        about = f"learning a tokenizer of {config.vocab_size} tokens from {corpus.facts.bytes / 1e6:,.1f} MB of text"
        tokenizer = BpeTokenizer.train(
            (document.text for document in train),
            size=config.vocab_size,
            say=lambda seconds: say(f"{about}: {seconds:.0f} s"),
        )
    tokenizer.save(folder)
    for name, part in (("train", train), ("valid", valid)):
        ids = _encoded(tokenizer, (document.text for document in part), say)
        write_shards(folder / name, ids, tokenizer=tokenizer, corpus=part.name, corpus_sha256=part.hash)
    (folder / RECIPE).write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")


def _encoded(tokenizer: Tokenizer, texts: Iterable[str], say: Say) -> Iterator[list[int]]:
    waiting, count, said = iter(texts), 0, time.monotonic()
    while some := list(islice(waiting, TEXTS_AT_ONCE)):
        yield from in_thread(partial(tokenizer.encode_batch, some))
        count += len(some)
        if time.monotonic() - said > SAY_EVERY:
            said = time.monotonic()
            say(f"writing tokens: {count:,} documents done")
