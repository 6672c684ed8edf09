"""The quickstart in twenty seconds: the files it promises, figures that add up, a second call that trains nothing."""

import json
import re

import pytest

from anyorder.core.config import load_config
from anyorder.core.log import read_records
from anyorder.studies.puzzle import solve
from anyorder.studies.quickstart import quickstart, recipes
from anyorder.train.config import RunConfig
from anyorder.train.loop import CONFIG, METRICS


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("quickstart") / "run"
    return out, quickstart(out, minutes=20 / 60, quiet=True)


def test_it_leaves_four_finished_runs_an_index_a_page_and_a_picture(made):
    out, index = made
    assert json.loads((out / "quickstart.json").read_text()) == json.loads(json.dumps(index))
    assert index["default"] in index["runs"]
    assert len(index["runs"]) == 4
    for name in index["runs"]:
        config = load_config(RunConfig, out / name / CONFIG)
        last = read_records(out / name / METRICS)[-1]
        assert last["step"] == config.num_steps
        assert (out / name / "model" / "model.safetensors").exists()
    page = (out / "report.html").read_text()
    assert "Puzzle: order matters" in page
    assert not re.findall(r"(?:src|href)=[\"']https?:", page)
    assert (out / "trace.svg").read_text().startswith("<svg")


def test_figures_are_those_of_the_runs(made):
    out, index = made
    for kind in ("mdm", "arm"):
        records = [r for r in read_records(out / f"text-{kind}" / METRICS) if r["kind"] == "valid"]
        figure = index["text"][kind]
        spread = figure["stderr"] + records[-1]["bits_per_byte_stderr"]
        assert abs(figure["bits_per_byte"] - records[-1]["bits_per_byte"]) < 5 * spread
        assert 0 < figure["mfu"] < 1
    assert all(0 <= s["solved"] <= 1 for s in index["puzzle"].values())


def test_a_second_call_trains_nothing_and_finds_the_same(made):
    out, index = made
    before = {p: p.stat().st_mtime_ns for p in out.glob("*/step_*/model.safetensors")}
    again = quickstart(out, minutes=20 / 60, quiet=True)
    assert {p: p.stat().st_mtime_ns for p in out.glob("*/step_*/model.safetensors")} == before
    assert again["puzzle"] == index["puzzle"]
    assert again["text"]["mdm"]["bits_per_byte"] == index["text"]["mdm"]["bits_per_byte"]


def test_shares_of_the_time_add_up_to_one():
    assert sum(part.share for part in recipes(0, short=False)) == pytest.approx(1.0)


def test_wrong_minutes_and_wrong_runs_are_refused(made, tmp_path):
    with pytest.raises(ValueError, match=r"minutes=0\.0: must be > 0"):
        quickstart(tmp_path, minutes=0.0)
    with pytest.raises(ValueError, match="trained on text, not on a task"):
        solve(made[0] / "text-mdm", sampler="top-prob", label="", seed=0)
