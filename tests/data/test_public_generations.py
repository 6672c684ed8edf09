"""Test T12: the stored generations of d1 (arXiv:2504.12216), read anew and scored by our tasks.

The files are public: put `eval/eval_baselines` of github.com/dllm-reasoning/d1 somewhere and name it in ANYORDER_D1.
"""

import json
import os
import re
from pathlib import Path

import pytest
import torch

from anyorder.data.tasks import Countdown, Sudoku

FOLDER = os.environ.get("ANYORDER_D1", "")
pytestmark = pytest.mark.skipif(
    not FOLDER, reason="ANYORDER_D1 names no folder with the *_generations.json of d1's eval/eval_baselines"
)
LENGTHS = [(128, 64), (256, 128), (512, 256)]
SIGNS = {r"\div": "/", r"\times": "*", r"\cdot": "*"}


def stored(kind, length, steps):
    """Everything of one setting: question, text, truth."""
    files = sorted(Path(FOLDER).glob(f"{kind}_instruct_{length}_{steps}_*_generations.json"))
    assert files, f"{FOLDER}: holds no {kind}_instruct_{length}_{steps}_*_generations.json"
    return [item for file in files for item in json.loads(file.read_text())["generations"]]


def boxed(text):
    r"""What the last \boxed{...} holds; None where there is none, or its bracket is never closed."""
    start = text.rfind(r"\boxed{")
    if start < 0:
        return None
    depth, first = 0, start + len(r"\boxed")
    for at in range(first, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if not depth:
            return text[first + 1 : at]
    return None


def expression(text):
    """What a text answers with, as d1 reads it: boxed, else all of it; without `= result` and spaces.

    Between the tags they look only if a box is left open; one right answer of 768 stands between tags without a box.
    """
    found = boxed(text) if r"\boxed" in text else text
    if found is None:
        tagged = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
        found = tagged[1].strip() if tagged else text
    for sign, ours in SIGNS.items():
        found = found.replace(sign, ours)
    equation = re.search(r"([0-9+\-*/() ]+)=[0-9. ]+", found)
    return re.sub(r"\s", "", equation[1] if equation else found)


def countdown_rows(task, items):
    """Problems, and rows with what was answered; what our symbols cannot write is no answer."""
    prompts = [f"{','.join(map(str, numbers))}={target}>" for numbers, target in (i["ground_truth"] for i in items)]
    answers = [expression(item["generations"]) for item in items]
    encode = task.tokenizer.encode
    legible = [a if len(a) <= task.layout.answer and set(a) <= set("0123456789+-*/()") else "" for a in answers]
    rows = task.layout.lists([encode(p) for p in prompts], [encode(a) for a in legible])
    return task.layout.problems(rows), rows


@pytest.mark.parametrize(("length", "steps", "published"), [(*k, v) for k, v in zip(LENGTHS, [20.70, 19.53, 16.02])])
def test_countdown(length, steps, published):
    task, items = Countdown(numbers=3, largest=99, top=999), stored("countdown", length, steps)
    assert len(items) == 256
    right = task.correct(*countdown_rows(task, items))
    assert 100 * float(right.double().mean()) == pytest.approx(published, abs=5e-3)


def digits(text):
    """The sixteen digits a text answers with, 0 where there is no more; "" where it answers nothing."""
    for pattern in (
        r"<answer>.*?```\s*([\d\s]+)```",
        r"<answer>(.*?)(?:<\|eot_id\|>|<\|endoftext\|>|</answer>)",
        r"</answer>\s*(.*?)(?:<\|eot_id\|>|<\|endoftext\|>|$)",
        r"\b(\d{16})\b",
    ):
        found = re.search(pattern, text, re.DOTALL)
        if found and found[1].strip():
            return re.sub(r"\s", "", found[1])[:16].ljust(16, "0")
    return "0" * 16


def tokens(rows):
    """Sudoku tokens: digit d is d - 1; what is no digit from 1 to 4 is a blank."""
    return torch.tensor([[int(c) - 1 if c in "1234" else 4 for c in row] for row in rows])


@pytest.mark.parametrize(
    ("length", "steps", "cells", "grids"), [(*k, *v) for k, v in zip(LENGTHS, [(11.72, 1), (6.69, 0), (5.47, 0)])]
)
def test_sudoku(length, steps, cells, grids):
    """The published figure counts empty cells; whole puzzles are solved by hardly any."""
    items = stored("sudoku", length, steps)
    assert len(items) == 256
    puzzle = tokens([re.search(r"\d{16}", item["question"])[0] for item in items])
    grid = tokens([item["ground_truth"] for item in items])
    wrote = tokens([digits(item["generations"]) for item in items])
    task, blank = Sudoku(), puzzle == 4
    assert bool(task.correct(task.problems(puzzle, grid), grid).all())
    assert 100 * float((wrote == grid)[blank].double().mean()) == pytest.approx(cells, abs=5e-3)
    assert int(task.correct(task.problems(puzzle, grid), wrote).sum()) == grids
