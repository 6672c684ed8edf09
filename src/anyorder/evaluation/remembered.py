"""Evaluation of many questions a few at a time, keeping each result as soon as it is there."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

from anyorder.evaluation.answers import Answers, Scoring, answer_questions, answers_key, key_of
from anyorder.evaluation.documents import document_key, score_documents
from anyorder.evaluation.ledger import Ledger
from anyorder.evaluation.subject import Subject
from anyorder.evaluation.writing import Writing, Written, write_until
from anyorder.likelihood.rolling import Rolled

AT_ONCE = 64  # questions, or windows of documents, between two lines of the ledger; results do not depend on it
Asked = tuple[str, Sequence[str]]
OnDone = Callable[[int, int], None]


def nobody(done: int, total: int) -> None:
    """Told of progress, does nothing."""


def answered(
    subject: Subject, asked: Sequence[Asked], scoring: Scoring, *, ledger: Ledger, on_done: OnDone = nobody
) -> list[Answers]:
    """`answer_questions`, but what the ledger holds is not computed again, and what is new is kept.

    Args:
        on_done: called with how many questions are done, of how many.
    Raises:
        ValueError: as `answer_questions`.
    """
    keys = [answers_key(subject, prompt, answers, scoring) for prompt, answers in asked]
    todo = {key: a for key, a in zip(keys, asked) if ledger.get(key) is None}
    names = sorted(todo, key=lambda key: (len(todo[key][0]), key))  # of about one length together
    on_done(len(keys) - len(names), len(keys))
    for start in range(0, len(names), AT_ONCE):
        part = names[start : start + AT_ONCE]
        made = answer_questions(subject, [todo[key] for key in part], scoring)
        ledger.put({key: dataclasses.asdict(a) for key, a in zip(part, made)})
        on_done(len(keys) - len(names) + start + len(part), len(keys))
    return [Answers.from_json(ledger.get(key) or {}) for key in keys]


def rolled(
    subject: Subject,
    texts: Sequence[str],
    scoring: Scoring,
    *,
    context: int,
    ledger: Ledger,
    on_done: OnDone = nobody,
) -> list[Rolled]:
    """`score_documents`, through the ledger.

    Raises:
        ValueError: as `score_documents`.
    """
    keys = [document_key(subject, text, scoring, context=context) for text in texts]
    todo = {key: text for key, text in zip(keys, texts) if ledger.get(key) is None}
    done = len(keys) - len(todo)
    on_done(done, len(keys))
    for part in _portions(subject, sorted(todo, key=lambda key: (len(todo[key]), key)), todo):
        made = score_documents(subject, [todo[key] for key in part], scoring, context=context)
        ledger.put({key: dataclasses.asdict(r) for key, r in zip(part, made)})
        done += len(part)
        on_done(done, len(keys))
    return [Rolled(**(ledger.get(key) or {})) for key in keys]


def _portions(subject: Subject, keys: Sequence[str], texts: Mapping[str, str]) -> Iterator[list[str]]:
    """Documents in the order given, with about `AT_ONCE` windows together."""
    part: list[str] = []
    size = 0
    for key in keys:
        part.append(key)
        size += 1 + len(subject.encode(texts[key])) // subject.max_length
        if size >= AT_ONCE:
            yield part
            part, size = [], 0
    if part:
        yield part


def written(
    subject: Subject,
    prompts: Sequence[str],
    writings: Sequence[Writing],
    *,
    ledger: Ledger,
    on_done: OnDone = nobody,
) -> list[Written]:
    """`write_until` for each prompt with its settings, through the ledger.

    A prompt that is asked again with the same settings is another copy, with noise of its own.

    Raises:
        ValueError: as `write_until`.
    """
    seen: dict[tuple[str, Writing], int] = {}
    copies = []
    for asked in zip(prompts, writings):
        copies.append(seen.get(asked, 0))
        seen[asked] = copies[-1] + 1
    keys = [
        key_of(subject, "write", prompt, sorted(dataclasses.asdict(w).items()), copy)
        for prompt, w, copy in zip(prompts, writings, copies)
    ]
    todo = [i for i, key in enumerate(keys) if ledger.get(key) is None]
    todo.sort(key=lambda i: (str(writings[i]), len(prompts[i])))
    on_done(len(keys) - len(todo), len(keys))
    done = len(keys) - len(todo)
    while todo:
        part = [i for i in todo[:AT_ONCE] if writings[i] == writings[todo[0]]]
        todo = todo[len(part) :]
        made = write_until(subject, [prompts[i] for i in part], writings[part[0]], copies=[copies[i] for i in part])
        ledger.put({keys[i]: dataclasses.asdict(w) for i, w in zip(part, made)})
        done += len(part)
        on_done(done, len(keys))
    return [Written(**(ledger.get(key) or {})) for key in keys]
