"""Every configuration in configs/ parses and says what it trains; every example runs and is short."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from anyorder.core.config import dump_config, load_config, parse_config
from anyorder.data.tasks import make_task
from anyorder.train.config import RunConfig
from conftest import TinyRuns

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_configuration(path: Path) -> None:
    config = load_config(RunConfig, path)
    assert config.process.kind in path.stem
    config.process.build(group=config.batch.rows)
    if config.task:
        assert make_task(config.task).length > 0
    path_again = parse_config(RunConfig, config.model_dump(mode="json"), source="again")
    assert dump_config(path_again) == dump_config(config)


def test_the_twins_differ_in_their_process_only() -> None:
    mdm, arm = (load_config(RunConfig, ROOT / "configs" / f"stdlib-{k}-1M.yaml") for k in ("mdm", "arm"))
    same = {"process": None, "evaluate": None}
    assert mdm.model_dump() | same == arm.model_dump() | same


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_examples_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 40


def test_example_train(tmp_path: Path, tiny_runs: TinyRuns) -> None:
    folder = example("train").main(str(tiny_runs.corpus), str(tmp_path / "run"), 2)
    assert (folder / "model.safetensors").exists()


def test_example_write(tiny_runs: TinyRuns, capsys: pytest.CaptureFixture[str]) -> None:
    example("write").main(str(tiny_runs.mdm))
    out = capsys.readouterr().out
    assert "0 'def add(a, b):░░░░░░a + b\\n'" in out
    assert out.splitlines()[-1].startswith("6 ")


def test_example_score(tiny_runs: TinyRuns, capsys: pytest.CaptureFixture[str]) -> None:
    example("score").main(str(tiny_runs.mdm))
    assert capsys.readouterr().out.count("bits/byte") == 2
