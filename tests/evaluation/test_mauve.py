"""MAUVE: refusals, and where its library is installed, its two ends."""

import pytest
import torch

from anyorder.api import load
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
def test_the_command_sets_samples_beside_as_many_held_out_rows(tiny_runs, capsys, monkeypatch):
    pytest.importorskip("mauve")
    words = ["quality", str(tiny_runs.mdm), "--mauve", "--n", "100", "--length", "8", "--steps", "1"]
    real = torch.tensor([g.tokens for g in load(tiny_runs.arm).sample(n=100, length=8)])
    monkeypatch.setattr("anyorder.studies.quality.held_out", lambda model, writing: real[:99])
    assert main(words) == 2
    assert "as many held-out rows as samples, and here are 99" in capsys.readouterr().err
    monkeypatch.setattr("anyorder.studies.quality.held_out", lambda model, writing: real)
    assert main(words) == 0
    head, _, row, beside, *_ = capsys.readouterr().out.splitlines()
    assert head.split()[-1] == "MAUVE"
    assert 0 < float(row.split()[-1]) <= 1
    assert beside.split()[-1] == "-"
