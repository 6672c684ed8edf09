"""`anyorder quality` on tiny runs: what it prints, its JSON, its refusals."""

import json
import math

import pytest
import torch

from anyorder.api import load
from anyorder.cli.main import main
from anyorder.evaluation.diversity import unigram_entropy
from anyorder.evaluation.gen_ppl import documents

SHORT = ["--n", "4", "--length", "12"]


def test_table_shows_both_figures_beside_held_out_text(tiny_runs, capsys):
    assert main(["quality", str(tiny_runs.mdm), *SHORT, "--steps", "3", "--temperatures", "0.7,1"]) == 0
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["text", "gen-PPL", "entropy"]
    assert [r.split("  ")[0] for r in rows[:3]] == ["temperature 0.7", "temperature 1", "held-out text"]
    text = "\n".join(rows)
    for part in (
        f"judge: {tiny_runs.arm};",
        "first-hitting, steps 3; float64",
        "float32 network",
        "8 scored, 0 rejected",
    ):
        assert part in text


def test_json_holds_the_figures_of_the_samples(tiny_runs, capsys):
    assert main(["quality", str(tiny_runs.mdm), *SHORT, "--steps", "3", "--seed", "5", "--json"]) == 0
    (got,) = json.loads(capsys.readouterr().out.splitlines()[-1])["quality"]
    made = load(tiny_runs.mdm).sample(n=4, length=12, num_steps=3, seed=5)
    entropy = unigram_entropy(torch.tensor([g.tokens for g in made]))
    assert got["figures"]["entropy"] == pytest.approx(float(entropy.mean()))
    assert got["sampling"]["nfe"] == pytest.approx(sum(g.nfe for g in made) / 4)
    assert got["sampling"]["rejected"] == 0
    assert 1 < got["figures"]["gen_ppl"] < 1e6
    assert got["reference"]["length"] == 12
    assert got["reference"]["gen_ppl"] < got["figures"]["gen_ppl"]
    assert got["mauve"] is None


def test_an_autoregressive_run_judges_itself_as_score_does(tiny_runs, capsys):
    assert main(["quality", str(tiny_runs.arm), "--n", "6", "--length", "8", "--json"]) == 0
    (got,) = json.loads(capsys.readouterr().out.splitlines()[-1])["quality"]
    assert got["judge"] == got["sampling"]["model"] == str(tiny_runs.arm)
    model = load(tiny_runs.arm)
    made = [documents(g.tokens, eos_id=model.model.vocab.eos_id) for g in model.sample(n=6, length=8)]
    scores = model.score([model.tokenizer.decode(part) for parts in made for part in parts])
    assert max(s.windows for s in scores) == 1
    nats, tokens = sum(s.nats for s in scores), sum(s.num_tokens for s in scores)
    assert got["figures"]["scored"] == tokens
    assert got["figures"]["gen_ppl"] == pytest.approx(math.exp(nats / tokens), rel=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--n", "1"], "at least 2 samples"),
        (["--temperatures", "1,x"], "divided by commas"),
        (["--judge", "nowhere"], "hub:NAME"),
        (["--mauve"], "at least 100 samples"),
        (["--judg", "x"], "did you mean --judge"),
    ],
)
def test_mistakes_are_one_sentence(words, said, tiny_runs, capsys):
    assert main(["quality", str(tiny_runs.mdm), *SHORT, *words]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""


def test_a_masked_judge_and_no_twin_are_refused(tiny_runs, tmp_path, capsys):
    assert main(["quality", str(tiny_runs.mdm), *SHORT, "--judge", str(tiny_runs.mdm)]) == 2
    assert "does not read from left to right" in capsys.readouterr().err
    alone = tmp_path / "alone"
    alone.symlink_to(tiny_runs.mdm)
    assert main(["quality", str(alone), *SHORT]) == 2
    assert "name a judge with --judge" in capsys.readouterr().err


def test_without_held_out_text_it_says_so(tiny_runs, capsys):
    assert main(["quality", str(tiny_runs.mdm), *SHORT, "--steps", "2", "--no-reference"]) == 0
    out = capsys.readouterr().out
    assert "held-out text  " not in out
    assert "no held-out text beside" in out
