"""Guidance as a denoiser: its law by enumeration, its invariances, its price."""

import dataclasses

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.guidance.classifier_free import ClassifierFree
from anyorder.likelihood.bound import count_form
from anyorder.samplers.base import generate
from anyorder.samplers.presets import make_sampler
from anyorder.testing.contracts import CountingDenoiser, check_denoiser, check_sampler
from anyorder.testing.oracle import MarkovOracle, RandomTable

NOISE = Noise.of(7)
TABLE = RandomTable(3, Noise.of(2), scale=1.5)
CHAIN = MarkovOracle.random(3, noise=Noise.of(3))
M = TABLE.vocab.mask_id


def prompted(*rows):
    return Canvas.of(torch.tensor(rows), vocab=TABLE.vocab)


ROWS = prompted([0, M, M, M, 1], [2, 1, M, M, M], [M, M, M, M, M], [1, M, 0, M, 2])


def test_the_law_is_the_quotient_of_powers():
    at, w = ROWS.x == M, 0.7
    guided = ClassifierFree(CHAIN, w)(ROWS, at)
    blind = dataclasses.replace(ROWS, x=torch.full_like(ROWS.x, M))
    law = CHAIN(ROWS, at).exp() ** (1 + w) / CHAIN(blind, at).exp() ** w
    row = at.nonzero()[:, 0]
    expected = torch.where((row == 2)[:, None], CHAIN(ROWS, at).exp(), law / law.sum(-1, keepdim=True))
    torch.testing.assert_close(guided.softmax(-1), expected)
    assert float((expected - CHAIN(ROWS, at).exp()).abs().max()) > 0.02


def test_written_tokens_stay_in_the_blind_pass():
    canvas = dataclasses.replace(ROWS, x=ROWS.x.clone())
    canvas.x[0, 2] = 2  # written, not prompt
    seen = []

    class Watched:
        nfe, vocab = 1, TABLE.vocab

        def __call__(self, canvas, at):
            seen.append(canvas.x.tolist())
            return TABLE(canvas, at)

    ClassifierFree(Watched(), 1.0)(canvas, canvas.x == M)
    assert seen[1][0] == [M, M, 2, M, M]
    assert len(seen[1]) == 3, "a row without a prompt needs no second pass"


def test_a_prompt_that_is_absent_is_not_attended():
    at = ROWS.x == M
    guided = ClassifierFree(CHAIN, 1.0, without="absent")(ROWS, at)
    segment = (~ROWS.fixed).long()
    blind = CHAIN(dataclasses.replace(ROWS, segment=segment), at)
    told = CHAIN(ROWS, at)
    torch.testing.assert_close(guided.log_softmax(-1), (2 * told - blind).log_softmax(-1))


def test_scale_0_is_the_model_itself():
    at = ROWS.x == M
    assert torch.equal(ClassifierFree(TABLE, 0.0)(ROWS, at), TABLE(ROWS, at))
    canvas = dataclasses.replace(ROWS, row_id=torch.arange(4) + 5)
    sampler = make_sampler("margin")
    assert torch.equal(
        generate(sampler, ClassifierFree(TABLE, 0.0), canvas, noise=NOISE).canvas.x,
        generate(sampler, TABLE, canvas, noise=NOISE).canvas.x,
    )


def test_constants_of_a_position_cancel():
    class Shifted:
        nfe, vocab = 1, TABLE.vocab

        def __call__(self, canvas, at):
            return TABLE(canvas, at) + canvas.x.sum() + at.nonzero()[:, 1:]

    at = ROWS.x == M
    ours, theirs = ClassifierFree(TABLE, 1.3)(ROWS, at), ClassifierFree(Shifted(), 1.3)(ROWS, at)
    torch.testing.assert_close(ours.log_softmax(-1), theirs.log_softmax(-1))


def test_impossible_tokens_stay_impossible_and_make_no_nan():
    sparse = MarkovOracle(
        torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64),
        torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 1.0, 0.0]], dtype=torch.float64),
    )
    at = ROWS.x == M
    guided = ClassifierFree(sparse, 2.0)(ROWS, at)
    assert not guided.isnan().any()
    assert not (guided == torch.inf).any()
    assert torch.equal(guided == -torch.inf, sparse(ROWS, at) == -torch.inf)


@pytest.mark.parametrize("curve", ["constant", "rising", "falling"])
def test_the_scale_follows_the_interval_and_the_curve(curve):
    guided = ClassifierFree(TABLE, 2.0, low=0.3, high=0.9, curve=curve)
    canvas = dataclasses.replace(prompted([0, M, M, M, M]), x=torch.tensor([[0, M, M, M, M]]))
    found = []
    for written in range(5):
        x = canvas.x.clone()
        x[0, 1 : 1 + written] = 1
        found.append(float(guided.scales(dataclasses.replace(canvas, x=x))))
    factor = {"constant": [1, 1, 1], "rising": [0.25, 0.5, 0.75], "falling": [0.75, 0.5, 0.25]}[curve]
    assert found == pytest.approx([0.0, 2 * factor[0], 2 * factor[1], 0.0, 0.0])


def test_rows_pay_for_the_passes_they_need():
    counter = CountingDenoiser(TABLE)
    guided = ClassifierFree(counter, 1.0, low=0.5)
    canvas = prompted([0, M, M, M, M], [M, M, M, M, M])
    sample = generate(make_sampler("first-hitting"), guided, canvas, noise=NOISE)
    assert sample.nfe.tolist() == [6, 5]  # the first two of four tokens are guided; no prompt, no guidance
    assert sum(counter.passes.values()) == 11


def test_contracts():
    guided = ClassifierFree(TABLE, 0.8)
    check_denoiser(guided, ROWS, atol=1e-9)
    many = prompted(*ROWS.x.tolist(), [M, 2, M, M, 0], [1, 1, M, M, M], [M, M, M, 0, 0])
    for name in ("first-hitting", "margin", "low-confidence"):
        check_sampler(lambda n=name: make_sampler(n), guided, many, generate=generate, noise=NOISE)


def test_scores_keep_the_answer_in_the_blind_pass():
    """With one target the guided score is one number, by hand."""
    tokens = torch.tensor([[0, 2, 1]])
    target = torch.tensor([[False, False, True]])
    got = count_form(ClassifierFree(CHAIN, 1.0), tokens, target=target, row_id=torch.tensor([0]), draws=4, noise=NOISE)
    told = CHAIN(prompted([0, 2, M]), target)[0]
    blind = CHAIN(prompted([M, M, M]), target)[0]
    assert float(got.nats) == pytest.approx(-float((2 * told - blind).log_softmax(-1)[1]))
    assert got.nfe == 8


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale": -1.0}, "guidance.scale=-1.0: must be >= 0"),
        ({"scale": 1.0, "low": 0.5, "high": 0.5}, "must be 0 <= low < high <= 1"),
        ({"scale": 1.0, "without": "gone"}, "must be 'masked' or 'absent'"),
        ({"scale": 1.0, "curve": "wild"}, "guidance.curve='wild': must be one of constant, rising, falling"),
    ],
)
def test_bad_values_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        ClassifierFree(TABLE, **values)
