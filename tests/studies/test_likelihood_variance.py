"""The study of estimators: its ratio by hand, its checks, its refusal of a run without text."""

import math

import pytest

from anyorder.core.noise import Noise
from anyorder.studies.likelihood_variance import FORMS, Spread, chain_cases, findings, passes_ratio, spread, study


def made(case, form, draws, deviation, bias=0.0):
    return Spread(case, form, draws, deviation, deviation, bias, 0.1)


def test_passes_are_a_ratio_of_variances():
    spreads = [
        made("a", "SMDM", 32, 4.0),
        made("a", "SMDM", 64, 3.0),
        made("a", "count", 32, 1.0),
        made("a", "count", 64, 1.0),
    ]
    assert passes_ratio(spreads, "a", "SMDM") == pytest.approx(math.sqrt(16 * 9))


def test_a_biased_or_dishonest_estimator_misses_its_aim():
    good = [made("a", form, draws, 4.0 if form == "SMDM" else 1.0) for form in FORMS for draws in (32, 64)]
    assert all(check.met for check in findings(good).checks)
    biased = [*good[:-1], made("a", "count", 64, 1.0, bias=0.9)]
    assert [c.met for c in findings(biased).checks] == [True, False, True]
    proud = [*good[:-1], Spread("a", "count", 64, 1.0, 0.5, 0.0, 0.1)]
    assert [c.met for c in findings(proud).checks] == [True, True, False]


def test_lladas_rounding_shows_where_its_group_does_not_fit():
    (case,) = chain_cases(Noise.of(0).at("likelihood-variance"), quick=True)
    found = {f: spread(case, f, FORMS[f], 128, times=60, noise=Noise.of(1)) for f in ("LLaDA", "count")}
    assert found["LLaDA"].bias > 5 * found["LLaDA"].bias_stderr
    assert abs(found["count"].bias) < 4 * found["count"].bias_stderr


def test_only_a_masked_model_of_text_will_do(tiny_runs):
    with pytest.raises(ValueError, match="masked diffusion models of text"):
        study(quick=True, run=tiny_runs.arm, seed=0)
