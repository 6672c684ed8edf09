"""Checkpoints that are not right, as a user meets them: every command says so in one sentence and writes nothing."""

import json
import re

import pytest
from checkpoints import CONFIGS, byte_tokenizer, random_tensors, shapes_of, write
from test_checkpoints import FAULTS

from anyorder.cli.main import main

SHOWN = (
    "missing tensor",
    "unknown tensor",
    "wrong shape",
    "many faults",
    "NaN",
    "no field",
    "pickle",
    "tokenizer with more ids",
)
COMMANDS = {
    "sample": ["--length", "4"],
    "score": ["--text", "text.txt", "--draws", "4"],
    "eval": ["--tasks", "task.jsonl"],
    "convert": ["out"],
}


@pytest.fixture
def folder(tmp_path):
    tensors = random_tensors(shapes_of(CONFIGS["llada"]))
    return write(tmp_path / "c", CONFIGS["llada"], tensors, tokenizer=byte_tokenizer())


@pytest.mark.parametrize("fault", SHOWN)
def test_every_command_says_what_is_wrong(folder, tmp_path, monkeypatch, capsys, fault):
    (tmp_path / "task.jsonl").write_text(json.dumps({"prompt": "a", "answers": ["b", "c"], "gold": 0}))
    (tmp_path / "text.txt").write_text("hello")
    damage, message = FAULTS[fault]
    damage(folder)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for command, options in COMMANDS.items():
        assert main([command, "c", *options]) == 2, command
        out, said = capsys.readouterr()
        assert out == ""
        assert said.startswith("anyorder: c")
        assert said.count("\n") == 1
        assert re.search(message, said), said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (["b", ""], "task.jsonl: line 1: answers[1] is empty, so there is nothing to score"),
        (["b", "c" * 70], "answers[1] after the prompt 'a': has 70 tokens, the model reads 64; shorten it"),
    ],
)
def test_answers_that_cannot_be_scored(folder, tmp_path, capsys, answers, said):
    task = tmp_path / "task.jsonl"
    task.write_text(json.dumps({"prompt": "a", "answers": answers, "gold": 0}))
    assert main(["eval", str(folder), "--tasks", str(task)]) == 2
    assert said in capsys.readouterr().err
