"""A quickstart of a few steps: the files it promises, figures that add up, stopped and gone on with."""

import io
import json
import re
import sysconfig
from dataclasses import replace
from pathlib import Path

import pytest

from anyorder.core.config import load_config
from anyorder.core.log import read_records
from anyorder.core.noise import Noise
from anyorder.data.tokenizer import ByteTokenizer
from anyorder.hub.save import save_model
from anyorder.models.config import SIZES
from anyorder.models.transformer import Transformer
from anyorder.studies import quickstart as study
from anyorder.studies import quickstart_page, quickstart_starter
from anyorder.studies.puzzle import solve
from anyorder.studies.quickstart import FULL, QUICK, Scale, quickstart, recipes
from anyorder.studies.quickstart_starter import GAPS, Screen
from anyorder.train.config import RunConfig
from anyorder.train.loop import CONFIG, METRICS

FEW = Scale(
    puzzle_steps=2,
    text_steps=2,
    corpus=str(Path(sysconfig.get_paths()["stdlib"]) / "json"),
    length=32,
    times=1,
    rows=4,
    rough=True,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder, stopped in its third run and gone on with; the index; what was printed until it was stopped."""
    out = tmp_path_factory.mktemp("quickstart") / "run"
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quickstart_starter, "STARTER", untrained(out.parent / "starter"))
        train, runs = study.train, []

        def stopped(config, *args, **kwargs):
            runs.append(config)
            if len(runs) == 3:
                raise KeyboardInterrupt
            return train(config, *args, **kwargs)

        patch.setattr(study, "train", stopped)
        patch.setattr(study, "free_share", lambda: 0.3)
        patch.setattr(study, "print", lambda line, **_: lines.append(line), raising=False)
        with pytest.raises(KeyboardInterrupt):
            quickstart(out, scale=FEW)
        index = quickstart(out, scale=FEW, quiet=True)
    return out, index, "\n".join(lines)


def untrained(folder):
    """A model folder as the starter's, of a model that is small and knows nothing."""
    model = Transformer(SIZES["tiny"].model_copy(update={"max_length": 96}), ByteTokenizer().vocab)
    model.init_weights(Noise.of(0).at("weights"))
    save_model(folder, model, ByteTokenizer())
    return folder


def test_it_leaves_four_finished_runs_an_index_a_page_and_a_picture(made):
    out, index, _ = made
    assert json.loads((out / "quickstart.json").read_text()) == json.loads(json.dumps(index))
    assert index["default"] in index["runs"]
    assert len(index["runs"]) == 4
    for name in index["runs"]:
        config = load_config(RunConfig, out / name / CONFIG)
        last = read_records(out / name / METRICS)[-1]
        assert last["step"] == config.num_steps == 2
        assert (out / name / "model" / "model.safetensors").exists()
    page = (out / "report.html").read_text()
    for title in ("A model that fills gaps", "A puzzle: order matters", "Two small models learn Python source"):
        assert title in page
    assert not re.findall(r"(?:src|href)=[\"']https?:", page)
    assert (out / "trace.svg").read_text().startswith("<svg")


def test_figures_are_those_of_the_runs(made):
    out, index, _ = made
    for kind in ("mdm", "arm"):
        valid = [r for r in read_records(out / f"text-{kind}" / METRICS) if r["kind"] == "valid"][-1]
        figure = index["text"][kind]
        spread = figure["stderr"] + valid["bits_per_byte_stderr"]
        assert abs(figure["bits_per_byte"] - valid["bits_per_byte"]) < 5 * spread
        assert figure["mfu"] > 0
        assert figure["tokens"] == index["text"]["mdm"]["tokens"] > 0  # twins see the same
    assert all(0 <= s["solved"] <= 1 for s in index["puzzle"].values())
    for kind, samplers in study.PUZZLE_SAMPLERS.items():
        for record in read_records(out / f"puzzle-{kind}" / METRICS):
            shown = {key for key in record if key.startswith("solved") and not key.endswith("stderr")}
            assert shown == ({f"solved {name}" for name in samplers} if record["kind"] == "valid" else set())
    data = page_data(out)
    assert data["made_with"]["facts"] == [["Computed in", index["dtype"]]]
    assert data["made_with"]["seconds"] > sum(index["text"][kind]["seconds"] for kind in ("mdm", "arm"))
    assert "rough" in data["caveat"]


def page_data(out):
    """What the page shows, as it carries it."""
    text = (out / "report.html").read_text()
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_what_is_said_before_and_while_it_trains(made):
    _, _, said = made
    assert "this machine is busy: a thread gets about 30% of a core now" in said
    assert re.search(r"puzzle-mdm: .*\n   2 steps, \d+ s on the reference machine", said)
    assert re.search(r"puzzle-arm: .*\n   2 steps, .*, about \S+ (s|min) here at the pace so far", said)
    assert len(re.findall(r"surest cell first +[█░]{20} +\d+% solved", said)) == 2


def test_a_second_call_trains_nothing(made, monkeypatch):
    out, _, _ = made
    monkeypatch.setattr(study, "write_with_starter", lambda **_: None)
    monkeypatch.setattr(quickstart_page, "draw_page", lambda *_, **__: {})
    before = {p: p.stat().st_mtime_ns for p in out.glob("*/step_*/model.safetensors")}
    index = (out / "quickstart.json").read_text()
    quickstart(out, scale=FEW, quiet=True)
    (out / "quickstart.json").write_text(index)
    assert {p: p.stat().st_mtime_ns for p in out.glob("*/step_*/model.safetensors")} == before


def test_another_quickstart_s_folder_is_refused_before_anything_is_computed(made, monkeypatch):
    monkeypatch.setattr(study, "write_with_starter", None)
    for scale, seed in ((FEW, 1), (replace(FEW, text_steps=4), 0)):
        with pytest.raises(ValueError, match="holds a run of another quickstart"):
            quickstart(made[0], scale=scale, seed=seed, quiet=True)


def test_nothing_that_is_trained_depends_on_the_machine(monkeypatch):
    plans = []
    for share in (0.05, 1.0):
        monkeypatch.setattr("anyorder.core.device.free_share", lambda share=share: share)
        monkeypatch.setattr("anyorder.core.device.cpp_compiler", lambda share=share: None if share < 1 else "g++")
        plans.append([part.config for scale in (FULL, QUICK) for part in recipes(0, scale)])
    assert plans[0] == plans[1]


@pytest.mark.parametrize("scale", [FULL, QUICK])
def test_twins_get_as_many_rows_and_steps_of_the_same(scale):
    parts = {part.name: part.config for part in recipes(0, scale)}
    for task in ("puzzle", "text"):
        mdm, arm = parts[f"{task}-mdm"], parts[f"{task}-arm"]
        differ = {key for key in RunConfig.model_fields if getattr(mdm, key) != getattr(arm, key)}
        assert differ == {"process"} | ({"task"} if task == "puzzle" else set())


def test_an_impossible_share_of_the_peak_is_not_shown(made):
    out, _, _ = made
    models = {kind: quickstart_starter.load(out / f"text-{kind}") for kind in ("mdm", "arm")}
    last = {kind: read_records(out / f"text-{kind}" / METRICS)[-2] for kind in models}
    figures = {"mdm": {"mfu": 1.3}, "arm": {"mfu": 0.4}}
    cards = quickstart_page._costs(models, figures, last, 1e11, dtype="float32")
    shown = {card.label: card for card in cards if "MFU" in card.label}
    assert shown.keys() == {"ARM MFU"}
    assert "float32" in shown["ARM MFU"].help


def test_a_screen_ends_with_the_text_and_lets_no_control_character_through(tmp_path):
    model = quickstart_starter.load(untrained(tmp_path))
    to = io.StringIO()
    with Screen(model, quiet=False) as screen:
        screen.console.file = to
        parts = [part if isinstance(part, str) else quickstart_starter.GAP(part) for part in GAPS[0]]
        (written,) = model.infill(parts, on_step=screen.show)
    shown = "".join(map(quickstart_starter._safe, written.pieces))
    assert "".join(to.getvalue().split()) == "".join(shown.split())
    assert quickstart_starter._safe("a\x1b[31m\n") == "a�[31m\n"
    with Screen(model, quiet=True) as screen:
        screen.console.file = to = io.StringIO()
        model.infill(parts, on_step=screen.show)
    assert to.getvalue() == ""


def test_a_run_of_text_is_no_puzzle(made):
    with pytest.raises(ValueError, match="trained on text, not on a task"):
        solve(made[0] / "text-mdm", sampler="top-prob", label="", seed=0)
