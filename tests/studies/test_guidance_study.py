"""The study of guidance: its questions, its refusals, its checks."""

import pytest
import torch

from anyorder.evaluation.quality import Figures
from anyorder.studies.guidance import ANSWER, PROMPT, Accuracy, Written, findings, questions_of, study


def figures(ppl):
    return Figures(
        gen_ppl=ppl,
        gen_ppl_stderr=1.0,
        entropy=3.0,
        entropy_stderr=0.1,
        distinct=(0.1, 0.2, 0.3),
        repetition=0.0,
        rows=8,
        length=64.0,
        scored=500,
        cut=0,
        empty=0,
    )


def test_the_right_answer_stands_first_and_the_others_follow_other_prompts():
    rows = torch.arange(20 * 64).view(20, 64)
    made = questions_of(rows)
    assert len(made) == 20
    for i, question in enumerate(made):
        assert question.prompt == tuple(rows[i, :PROMPT].tolist())
        assert question.answers[0] == tuple(rows[i, PROMPT : PROMPT + ANSWER].tolist())
        assert len(set(question.answers)) == 4


def test_the_scale_is_chosen_on_one_half_and_judged_on_the_other():
    accuracies = [Accuracy(0.0, 0.5, 0.6, 100), Accuracy(1.0, 0.7, 0.55, 100), Accuracy(2.0, 0.6, 0.9, 100)]
    texts = [
        Written(0.0, 8, 8.0, figures(50.0)),
        Written(1.0, 8, 16.0, figures(40.0)),
        Written(0.0, 16, 16.0, figures(45.0)),
    ]
    made = findings(accuracies, texts, figures(15.0))
    assert made.payload["chosen"] == 1.0
    assert [check.met for check in made.checks] == [True, False, True]
    assert made.checks[1].value == pytest.approx(-0.05)
    assert made.checks[2].value == pytest.approx(40 / 45)


def test_runs_it_cannot_use_are_named(tiny_runs):
    with pytest.raises(ValueError, match="name one with --run"):
        study(quick=True, run=None, seed=0)
    with pytest.raises(ValueError, match="masked diffusion models of text"):
        study(quick=True, run=tiny_runs.arm, seed=0)
