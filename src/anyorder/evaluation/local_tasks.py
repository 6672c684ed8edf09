"""Tasks in files of one's own: JSON lines with a prompt and its answers, or with a prompt and what is to be written."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyorder.core.text import LINES, check_characters, json_object, plain_suffix, read_text

CHOICE = ("prompt", "answers", "gold")
COMPLETION = ("prompt", "target")
OPTIONAL = ("until", "max_gen_toks")


@dataclass(frozen=True)
class Choice:
    """A question with possible answers; `gold` is the number of the right one, from 0."""

    prompt: str
    answers: tuple[str, ...]
    gold: int


@dataclass(frozen=True)
class Completion:
    """A prompt and the text that should follow it; `until` and `max_gen_toks` as in `Writing`."""

    prompt: str
    target: str
    until: tuple[str, ...] = ("\n",)
    max_gen_toks: int | None = None


@dataclass(frozen=True)
class LocalTask:
    """A name and items of one kind."""

    name: str
    items: tuple[Choice | Completion, ...]

    @property
    def chance(self) -> float | None:
        """Accuracy of guessing; None for text that is to be written."""
        shares = [1 / len(item.answers) for item in self.items if isinstance(item, Choice)]
        return sum(shares) / len(shares) if shares else None


def is_dev(item: Choice | Completion, *, share: float = 0.25) -> bool:
    """Whether an item belongs to the development split: by its content alone, whatever else is in the file."""
    answers = list(item.answers) if isinstance(item, Choice) else [item.target]
    return of_share(json.dumps([item.prompt, answers]), share=share)


def of_share(content: str, *, share: float) -> bool:
    """True for this share of texts, by their hash."""
    digest = hashlib.blake2b(content.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2.0**64


def read_task(path: Path) -> LocalTask:
    """The task of a JSONL file.

    Raises:
        ValueError: no file, an empty one, or a line that is no item, with its number.
    """
    if not path.exists():
        raise ValueError(f"{path}: no such file; a task is a .jsonl file or a folder of them")
    items: list[Any] = []
    text = read_text(path)
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            items.append(_item(line, f"{path}: line {number}"))
            if type(items[-1]) is not type(items[0]):
                raise ValueError(f"{path}: line {number}: mixes answers with a target; keep both kinds in two files")
    if not items:
        raise ValueError(f"{path}: holds no items; write one JSON object per line")
    return LocalTask(path.stem, tuple(items))


def read_tasks(path: Path) -> list[LocalTask]:
    """The task of a file, or those of all files of JSON lines (.jsonl, .ndjson, ...) of a folder by name.

    Raises:
        ValueError: as `read_task`, or a folder without such files.
    """
    if not path.is_dir():
        return [read_task(path)]
    files = sorted(file for file in path.iterdir() if plain_suffix(file) in LINES)
    if not files:
        raise ValueError(f"{path}: holds no .jsonl file; a task is one")
    return [read_task(file) for file in files]


def _item(line: str, where: str) -> Choice | Completion:
    row = json_object(line, where=where)
    check_characters(json.dumps(row, ensure_ascii=False), where=where)
    keys = CHOICE if "answers" in row or "gold" in row else COMPLETION
    for key in keys:
        if key not in row:
            raise ValueError(f"{where}: {key!r} is missing; an item has {', '.join(keys)}")
    for key in row:
        if key not in (*keys, *(OPTIONAL if keys is COMPLETION else ())):
            raise ValueError(f"{where}: {key!r} is not known; an item has {', '.join(keys)}")
    if not isinstance(row["prompt"], str):
        raise ValueError(f"{where}: 'prompt' must be a text")
    return _choice(row, where) if keys is CHOICE else _completion(row, where)


def _choice(row: dict[str, Any], where: str) -> Choice:
    answers, gold = row["answers"], row["gold"]
    if not isinstance(answers, list) or len(answers) < 2 or not all(isinstance(a, str) for a in answers):
        raise ValueError(f"{where}: 'answers' must be a list of at least two texts")
    for index, answer in enumerate(answers):
        if not answer:
            raise ValueError(f"{where}: answers[{index}] is empty, so there is nothing to score; leave it out")
    if isinstance(gold, bool) or not isinstance(gold, int) or not 0 <= gold < len(answers):
        raise ValueError(f"{where}: 'gold' must be the number of the right answer, 0 to {len(answers) - 1}")
    return Choice(row["prompt"], tuple(answers), gold)


def _completion(row: dict[str, Any], where: str) -> Completion:
    until, length = row.get("until", ["\n"]), row.get("max_gen_toks")
    if not isinstance(row["target"], str) or not row["target"].strip():
        raise ValueError(f"{where}: 'target' must be a text that is not empty")
    if not isinstance(until, list) or not all(isinstance(s, str) and s for s in until):
        raise ValueError(f"{where}: 'until' must be a list of texts that are not empty")
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
        raise ValueError(f"{where}: 'max_gen_toks' must be a number of tokens >= 1")
    return Completion(row["prompt"], row["target"], tuple(until), length)
