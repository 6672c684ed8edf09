"""SMDM's scores as its published evaluation computes them: a forward pass written from the paper behind each."""

import json

import pytest
import torch
from checkpoints import random_tensors, sentencepiece_tokenizer, smdm_logits, smdm_shapes, write

from anyorder.cli.main import main
from anyorder.core.types import Vocab
from anyorder.data.hub_tokenizer import HubTokenizer
from anyorder.hub.convert import convert


def test_smdm_s_chain_rule_is_that_of_its_published_code(tmp_path, capsys):
    """Rows of <s>, prompt and answer with masks from each token on, through a forward pass written from the paper."""
    tensors = random_tensors(smdm_shapes(causal=False, size=265))
    source = write(tmp_path / "bare", None, tensors) / "model.safetensors"
    (tmp_path / "t.json").write_text(sentencepiece_tokenizer())
    convert(source, tmp_path / "smdm", tokenizer=tmp_path / "t.json", heads=4)
    prompt, answers = "a bc", [" abc", " cb"]
    (tmp_path / "q.jsonl").write_text(json.dumps({"prompt": prompt, "answers": answers, "gold": 0}) + "\n")
    words = ["eval", str(tmp_path / "smdm"), "--tasks", str(tmp_path / "q.jsonl"), "--estimator", "chain", "--quiet"]
    for number, bos in enumerate(([], ["--bos", "<s>"])):
        cache = tmp_path / f"kept{number}"
        assert main([*words, *bos, "--cache", str(cache)]) == 0
        kept = json.loads((cache / "q.jsonl").read_text())["value"]["nats"]
        expected = [published_chain(tensors, [1] * bool(bos), prompt, answer) for answer in answers]
        assert kept == pytest.approx(expected, rel=1e-4)
    assert main([*words, "--bos", "<bos>"]) == 2
    assert "bos='<bos>': no special token of" in capsys.readouterr().err


def published_chain(tensors, start, prompt, answer):
    """Negative log-likelihood from left to right; <s> is 1 and the mask 265 in a vocabulary of 265."""
    tokenizer = HubTokenizer(sentencepiece_tokenizer(), Vocab(265, 265, 266, 2))
    head, whole = tokenizer.encode(prompt), tokenizer.encode(prompt + answer)
    assert whole[: len(head)] == head
    ids, nats = [*start, *whole], 0.0
    for at in range(len(start) + len(head), len(ids)):
        row = torch.tensor([[*ids[:at], *[265] * (len(ids) - at)]])
        nats -= float(smdm_logits(tensors, row, causal=False, start=None)[0, at].log_softmax(-1)[ids[at]])
    return nats
