"""Caches from Python and from the command line, in records and their replay."""

import json

import pytest

import anyorder
from anyorder.cli.main import main
from anyorder.trace.replay import replay


@pytest.fixture(scope="module")
def models(tiny_runs):
    return {"mdm": anyorder.load(tiny_runs.mdm), "arm": anyorder.load(tiny_runs.arm)}


def written(model, **settings):
    """The tokens of some rows, their record, and the meter if there is one."""
    records, meters = [], []
    if settings.pop("metered", False):
        settings["on_cache_error"] = meters.append
    rows = model.sample("def a", n=3, length=24, on_record=records.append, **settings)
    return [g.tokens for g in rows], [g.logp for g in rows], records[0], meters


def test_an_arm_is_cached_unless_told_otherwise(models):
    tokens, logp, record, _ = written(models["arm"])
    plain, plain_logp, plain_record, _ = written(models["arm"], cache="none")
    assert (record.header.sampler.cache, plain_record.header.sampler.cache) == ("exact", "none")
    assert tokens == plain
    assert logp == pytest.approx(plain_logp, abs=1e-4)
    assert [row.nfe for row in record.end.rows] == [19] * 3


@pytest.mark.parametrize("kind", ["prefix", "dual"])
def test_a_record_names_its_cache_and_replay_uses_it(models, kind):
    model = models["mdm"]
    tokens, logp, record, (meter,) = written(model, cache=kind, block=6, metered=True)
    assert record.header.sampler.cache == kind
    again = replay(record, model.model)
    assert again.difference is None
    assert again.largest == 0.0
    sampler = record.header.sampler.model_copy(update={"cache": "none"})
    other = record.model_copy(update={"header": record.header.model_copy(update={"sampler": sampler})})
    assert replay(other, model.model).largest > 1e-7
    assert 0 < meter.mean < meter.max
    assert 50 < meter.positions <= 3 * 19  # rows that are still equal are asked once
    assert written(model, cache=kind, block=6)[:2] == (tokens, logp)


def test_gaps_and_guidance_with_a_cache(models):
    model = models["mdm"]
    gap = anyorder.GAP(6)
    parts = ["def ", gap, "(x):", gap]
    told = model.infill(parts, n=2, cache="dual", block=4, guidance=1.0)
    free = model.infill(parts, n=2, block=4, guidance=1.0)
    assert [g.nfe for g in told] == [g.nfe for g in free]
    assert [g.logp for g in told] != [g.logp for g in free]


def test_the_command_prints_the_error(tiny_runs, capsys):
    command = ["sample", str(tiny_runs.mdm), "--length", "16", "--cache", "dual", "--block", "4", "--cache-error"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "--- cache error: KL(without || with) " in out
    assert "over 16 predictions in 16 passes" in out
    assert main(["sample", str(tiny_runs.arm), "--length", "16", "--cache-error", "--json"]) == 0
    (error,) = json.loads(capsys.readouterr().out)["cache_error"]
    assert (error["positions"], error["changed"]) == (16, 0)
    assert error["max"] < 1e-6


@pytest.mark.parametrize(
    ("run", "options", "said"),
    [
        ("mdm", "--cache exact", "cache='exact': this model sees both sides"),
        ("mdm", "--cache dual", "cache='dual': keeps what stands outside of a block; name the block's size"),
        ("mdm", "--cache duel --block 4", "cache='duel': unknown; did you mean 'dual'?"),
        ("mdm", "--cache-error", "cache='none': there is no cache to measure"),
        ("arm", "--cache prefix --block 4", "cache='prefix': an autoregressive model has an exact cache"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(tiny_runs, run, options, said, capsys):
    assert main(["sample", str(getattr(tiny_runs, run)), "--length", "16", *options.split()]) == 2
    assert said in capsys.readouterr().err
