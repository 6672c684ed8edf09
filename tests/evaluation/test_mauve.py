"""MAUVE: refusals, and where its library is installed, its two ends."""

import json

import pytest
import torch

from anyorder.cli.main import main
from anyorder.core.noise import Noise
from anyorder.evaluation.mauve_score import check_mauve, mauve


def test_too_few_texts_are_refused_before_anything_is_imported():
    with pytest.raises(ValueError, match="n=99: MAUVE needs at least 100 samples"):
        check_mauve(99)


def test_the_missing_library_is_named(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr("anyorder.evaluation.mauve_score.importlib.import_module", missing)
    with pytest.raises(ValueError, match=r"pip install 'anyorder\[mauve\]'"):
        check_mauve(100)


@pytest.mark.filterwarnings("default")
def test_one_law_scores_high_and_two_far_ones_low():
    pytest.importorskip("mauve")
    x = Noise.of(0).normal(torch.arange(400)[:, None], 0, torch.arange(8))
    same = mauve(x[:200], x[200:])
    apart = mauve(x[:200], x[200:] + 5)
    assert same > 0.8
    assert apart < 0.2


@pytest.mark.filterwarnings("default")
def test_the_command_sets_samples_beside_held_out_text(tiny_runs, capsys):
    pytest.importorskip("mauve")
    words = ["--mauve", "--n", "100", "--length", "8", "--steps", "1"]
    code = main(["quality", str(tiny_runs.mdm), *words, "--json"])
    out, err = capsys.readouterr()
    if code:  # the tiny run has fewer rows than that
        assert "MAUVE compares with as many held-out rows as samples" in err
    else:
        assert 0 < json.loads(out.splitlines()[-1])["quality"][0]["mauve"] <= 1
