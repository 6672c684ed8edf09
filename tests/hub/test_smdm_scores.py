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


@pytest.mark.parametrize(("bos", "start"), [(None, 1), ("<s>", 1), ("</s>", 2)])
def test_smdm_s_autoregressive_model_begins_rows_as_its_evaluation_or_as_it_is_told(tmp_path, capsys, bos, start):
    tensors = random_tensors(smdm_shapes(causal=True, size=265))
    source = write(tmp_path / "bare", None, tensors) / "model.safetensors"
    (tmp_path / "t.json").write_text(sentencepiece_tokenizer())
    convert(source, tmp_path / "arm", tokenizer=tmp_path / "t.json", heads=4)
    convert(tmp_path / "arm", tmp_path / "theirs", to="smdm")
    tokenizer = HubTokenizer(sentencepiece_tokenizer(), Vocab(265, 265, 266, 2))
    prompt, answer = "a bc", " abc cb"
    row = torch.tensor([tokenizer.encode(prompt + answer)])
    nats = -smdm_logits(tensors, row, causal=True, start=start)[0].log_softmax(-1).gather(-1, row[0][:, None])[:, 0]
    told = [] if bos is None else ["--bos", bos]
    (tmp_path / "text.txt").write_text(prompt + answer)
    for folder in ("arm", "theirs"):
        words = ["score", str(tmp_path / folder), "--text", str(tmp_path / "text.txt"), "--json", *told]
        assert main(words) == 0
        kept = json.loads(capsys.readouterr().out.splitlines()[-1])["scores"][0]
        assert kept["nats_per_token"] == pytest.approx(float(nats.mean()), rel=1e-5)
    (tmp_path / "q.jsonl").write_text(json.dumps({"prompt": prompt, "answers": [answer, "a"], "gold": 0}) + "\n")
    words = ["eval", str(tmp_path / "arm"), "--tasks", str(tmp_path / "q.jsonl"), "--quiet", *told]
    assert main([*words, "--cache", str(tmp_path / "kept")]) == 0
    found = json.loads((tmp_path / "kept" / "q.jsonl").read_text())["value"]["nats"][0]
    assert found == pytest.approx(float(nats[len(tokenizer.encode(prompt)) :].sum()), rel=1e-5)


def test_bos_is_of_autoregressive_models_and_stays_with_a_trace(tmp_path, capsys):
    for causal in (True, False):
        tensors = random_tensors(smdm_shapes(causal=causal, size=265))
        source = write(tmp_path / f"bare{causal}", None, tensors) / "model.safetensors"
        (tmp_path / "t.json").write_text(sentencepiece_tokenizer())
        convert(source, tmp_path / str(causal), tokenizer=tmp_path / "t.json", heads=4)
    trace = tmp_path / "t.jsonl"
    words = ["sample", str(tmp_path / "True"), "--length", "9", "--bos", "</s>", "--trace", str(trace)]
    assert main(words) == 0
    assert main(["replay", str(trace)]) == 0
    trace.write_text(trace.read_text().replace('"bos": "</s>"', '"bos": null').replace('"bos":"</s>"', '"bos":null'))
    assert main(["replay", str(trace)]) != 0  # another network
    capsys.readouterr()
    for bos, said in (("</s>", "only an autoregressive model reads a token before every row"), ("<x>", "only an")):
        assert main(["sample", str(tmp_path / "False"), "--length", "4", "--bos", bos]) == 2
        assert said in capsys.readouterr().err
    assert main(["sample", str(tmp_path / "True"), "--length", "4", "--bos", "<x>"]) == 2
    assert "bos='<x>': no special token of the model's tokenizer; it has <unk>, <s>, </s>" in capsys.readouterr().err


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
