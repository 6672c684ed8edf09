"""A task made of a run's own held-out text: which of four pieces of text comes next?"""

from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from anyorder.core.config import load_config
from anyorder.core.noise import Noise
from anyorder.data.loader import in_order
from anyorder.data.tokenizer import Tokenizer
from anyorder.evaluation.judges import run_of
from anyorder.evaluation.local_tasks import Choice, LocalTask
from anyorder.train.config import RunConfig
from anyorder.train.data import run_data
from anyorder.train.loop import CONFIG

ANSWERS = 4
PROMPT, ANSWER = 32, 8  # tokens
LOST = "�"  # a character whose bytes were cut apart


def continuation(folder: Path, tokenizer: Tokenizer, *, limit: int = 100) -> LocalTask:
    """Up to `limit` questions: 32 tokens of held-out text, the 8 that follow, and 8 each from three other places.

    The places are the same for every model of one run's data, so a model and its twin answer the same questions.

    Args:
        folder: of the model; the run around it names the text.
    Raises:
        ValueError: a model without its run, a run that was not trained on text or whose text is not there any more,
            or one with too few held-out rows.
    """
    config = run_of(folder) / CONFIG
    if not config.exists():
        raise ValueError(f"{folder}: continuation asks about a run's held-out text, and here is no run ({CONFIG})")
    settings = load_config(RunConfig, config)
    if settings.task is not None:
        raise ValueError(f"{config.parent}: continuation asks about held-out text, and this run was trained on a task")
    rows = run_data(settings).valid
    if rows.length < PROMPT + ANSWER:
        raise ValueError(f"{config.parent}: its rows of {rows.length} tokens are too short; 40 are needed")
    wanted = min(rows.num_rows, 4 * limit + ANSWERS)
    tokens = next(in_order(rows, rows=wanted, limit=wanted)).tokens
    items = [item for i in range(len(tokens)) if (item := _item(tokens, i, tokenizer)) is not None][:limit]
    if not items:
        raise ValueError(f"{config.parent}: its held-out text is too short to ask about; hold out more")
    return LocalTask("continuation", tuple(items))


def _item(tokens: Int[Tensor, "R L"], row: int, tokenizer: Tokenizer) -> Choice | None:
    """The question at the beginning of a row; None if its text has gaps or two answers are the same."""
    noise = Noise.of(0).at("continuation").at(row)
    count, length = tokens.shape
    prompt = _text(tokens[row, :PROMPT], tokenizer)
    answers = [_text(tokens[row, PROMPT : PROMPT + ANSWER], tokenizer)]
    for number in range(16):  # places, until there are enough that hold whole text
        u = noise.uniform(number, 0, torch.arange(2))
        other = (row + 1 + int(u[0] * (count - 1))) % count
        begin = int(u[1] * (length - ANSWER + 1))
        answer = _text(tokens[other, begin : begin + ANSWER], tokenizer)
        if len(answers) < ANSWERS and answer and answer not in answers:
            answers.append(answer)
    if not prompt or not answers[0] or len(answers) < ANSWERS:
        return None
    gold = int(noise.at("gold").uniform(0) * ANSWERS)
    rest = answers[1:]
    return Choice(prompt, (*rest[:gold], answers[0], *rest[gold:]), gold)


def _text(ids: Int[Tensor, " N"], tokenizer: Tokenizer) -> str:
    """Their text; "" if a document ends in it, or it is no text by itself."""
    row: list[int] = ids.tolist()
    if tokenizer.vocab.eos_id in row or max(row) >= tokenizer.vocab.size:
        return ""
    text = tokenizer.decode(row)
    return "" if LOST in text or not text.strip() else text
