"""The starter model that comes with the package: found by name, whole, the same answers everywhere."""

import json
import shutil

import pytest

import anyorder
from anyorder import GAP
from anyorder.hub import find
from anyorder.hub.find import STARTER_PLACE, model_folder

TEXT = "import os\n\n\ndef read(path):\n    with open(path) as f:\n        return f.read()\n"


@pytest.fixture(scope="module")
def starter():
    return anyorder.load("starter", device="cpu")


def test_it_is_small_and_has_a_card():
    size = sum(f.stat().st_size for f in STARTER_PLACE.iterdir())
    assert size <= 12e6
    assert {f.name for f in STARTER_PLACE.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "CARD.md",
    }
    card = (STARTER_PLACE / "CARD.md").read_text()
    for word in ("licence", "sha256", "bits per byte", "configs/starter-mdm.yaml"):
        assert word in card


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    shutil.copytree(STARTER_PLACE, tmp_path / "starter")
    monkeypatch.chdir(tmp_path)
    assert model_folder(find.Path("starter")) == find.Path("starter")
    shutil.rmtree("starter")
    assert model_folder(find.Path("starter")) == STARTER_PLACE


def test_an_altered_file_or_an_installation_without_it_names_the_way_out(tmp_path, monkeypatch):
    copy = tmp_path / "starter"
    shutil.copytree(STARTER_PLACE, copy)
    monkeypatch.setattr(find, "STARTER_PLACE", copy)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    with pytest.raises(
        ValueError, match=r"model\.safetensors: missing, truncated or altered .* install anyorder again"
    ):
        anyorder.load("starter")
    (copy / "config.json").unlink()
    with pytest.raises(ValueError, match="the starter model is missing from this installation; install anyorder again"):
        anyorder.load("starter")


def test_its_score_of_a_text_and_its_greedy_infill_are_those_of_its_card(starter):
    expected = json.loads((STARTER_PLACE / "CARD.md").read_text().split("```json\n")[1].split("```")[0])
    s = starter.score([TEXT], draws=4, seed=0)[0]
    assert s.nats_per_token == pytest.approx(expected["nats_per_token"], abs=1e-4)
    filled = starter.infill(["def add(a, b):\n    return ", GAP(4), "\n"], sampler="top-prob", temperature=0.0)[0]
    assert filled.text == expected["infill"]
    assert filled.nfe == 4
