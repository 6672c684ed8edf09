"""Each command on tiny runs: what it prints, its JSON line, its help."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

import anyorder
from anyorder.cli.main import COMMANDS, main
from anyorder.cli.use import parts_of, typed
from anyorder.core.config import load_config
from anyorder.models.config import ModelConfig
from anyorder.train.config import RunConfig
from conftest import TinyRuns

Capture = pytest.CaptureFixture[str]


def printed(capsys: Capture, *args: str | Path) -> str:
    """What a command line that succeeds prints."""
    code = main([str(a) for a in args])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def json_of(capsys: Capture, *args: str | Path) -> Any:
    return json.loads(printed(capsys, *args, "--json").splitlines()[-1])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_shows_an_example(command: str, capsys: Capture) -> None:
    text = printed(capsys, command, "--help")
    assert f"example:\n  anyorder {command}" in text
    assert "--json" in text
    assert max(map(len, text.splitlines())) <= 120


def test_train_help_lists_every_key_with_default_and_comment(capsys: Capture) -> None:
    text = " ".join(printed(capsys, "train", "--help").split())
    assert "--optim.lr V peak (default 0.002)" in text
    assert "--data.tokenizer V bytes, bpe (default bpe)" in text
    assert "--model.d_ff V width inside SwiGLU (default that of the size)" in text
    assert "--evaluate.draws" in text


def test_no_command_shows_the_commands(capsys: Capture) -> None:
    assert main([]) == 2
    assert "quickstart" in capsys.readouterr().out
    assert printed(capsys, "--version").strip() == anyorder.__version__


def test_train_by_file_and_options(tmp_path: Path, tiny_runs: TinyRuns, capsys: Capture) -> None:
    file = tmp_path / "small.yaml"
    file.write_text("num_steps: 3\nbatch: {rows: 4}\noptim: {lr: 0.5}\n")
    options = tiny_runs.options()
    out = json_of(capsys, "train", file, *options, "--optim.lr", "1e-3", "--save-every=1", "--out", tmp_path / "run")
    config = load_config(RunConfig, tmp_path / "run" / "config.yaml")
    assert (config.num_steps, config.batch.rows, config.optim.lr, config.save_every) == (20, 8, 1e-3, 1)
    assert out["train"]["step"] == out["valid"]["step"] == out["steps"] == 20
    assert anyorder.load(out["run"]).kind == "mdm"


def test_train_again_goes_on_and_changes_nothing(tiny_runs: TinyRuns, capsys: Capture) -> None:
    before = (tiny_runs.mdm / "model" / "model.safetensors").read_bytes()
    text = printed(capsys, "train", tiny_runs.mdm / "config.yaml", "--out", tiny_runs.mdm, "--quiet")
    assert "20 steps" in text
    assert "bits/byte" in text
    assert (tiny_runs.mdm / "model" / "model.safetensors").read_bytes() == before


def test_train_names_its_folder(
    tmp_path: Path, tiny_runs: TinyRuns, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed(capsys, "train", *tiny_runs.options(), "--num_steps", "1", "--process.kind", "arm", "--quiet")
    assert (tmp_path / "runs" / "corpus-arm-tiny" / "model").is_dir()


def test_train_on_a_task_and_fill_a_puzzle(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "s.yaml").write_text("task: sudoku\nsize: tiny\ndtype: float32\nnum_steps: 2\nevaluate: {rows: 8}\n")
    out = json_of(capsys, "train", tmp_path / "s.yaml", "--out", tmp_path / "run", "--quiet")
    assert out["valid"]["num_tokens"] == 8 * 10  # 16 cells, 6 clues: the answers only
    made = json_of(capsys, "infill", tmp_path / "run", "12[[13]]4", "--sampler", "top-prob")["samples"][0]
    assert made["pieces"][:2] == ["1", "2"]
    assert made["pieces"][-1] == "4"


def test_model_options_begin_with_the_named_size(tmp_path: Path, tiny_runs: TinyRuns, capsys: Capture) -> None:
    options = [*tiny_runs.options(), "--num_steps", "1", "--quiet"]
    printed(capsys, "train", *options, "--model.d_ff", "48", "--out", tmp_path)
    expected = ModelConfig(num_layers=2, num_heads=2, d_model=32, d_ff=48, max_length=32)
    assert load_config(RunConfig, tmp_path / "config.yaml").model == expected
    assert anyorder.load(tmp_path).model.config == expected


def test_data(tiny_runs: TinyRuns, tmp_path: Path, capsys: Capture) -> None:
    words = ("data", tiny_runs.corpus, "--cache", tmp_path, "--vocab-size", "300", "--length", "16")
    out = json_of(capsys, *words)
    assert out["train"]["bytes"] + out["valid"]["bytes"] == tiny_runs.corpus.stat().st_size
    assert out["rows"]["train"] == -(-out["train"]["tokens"] // 16)
    assert "bytes_per_token" in printed(capsys, *words)


def test_sample_is_the_api(tiny_runs: TinyRuns, capsys: Capture) -> None:
    out = json_of(capsys, "sample", tiny_runs.mdm, "--prompt", "def\\n", "--n", "2", "--seed", "3", "--length", "9")
    expected = anyorder.load(tiny_runs.mdm).sample("def\n", n=2, seed=3, length=9)
    assert [s["tokens"] for s in out["samples"]] == [g.tokens for g in expected]
    assert out["samples"][1]["logp"] == expected[1].logp
    assert out["samples"][0]["nfe"] == 5


def test_every_sampling_option_arrives(tiny_runs: TinyRuns, capsys: Capture) -> None:
    options = ["--sampler=top-prob", "--steps=2", "--temperature=0.5", "--top-k=3", "--top-p=0.9", "--block=4"]
    out = json_of(capsys, "sample", tiny_runs.mdm, "--length", "8", *options)["samples"][0]
    expected = anyorder.load(tiny_runs.mdm).sample(
        length=8, sampler="top-prob", num_steps=2, temperature=0.5, top_k=3, top_p=0.9, block=4
    )[0]
    assert (out["tokens"], out["logp"], out["sampler"]) == (expected.tokens, expected.logp, "top-prob")
    assert out["tokens"] != json_of(capsys, "sample", tiny_runs.mdm, "--length", "8")["samples"][0]["tokens"]


def test_samples_cannot_upset_a_terminal(tiny_runs: TinyRuns, capsys: Capture) -> None:
    text = printed(capsys, "sample", tiny_runs.mdm, "--n", "3")
    assert text.count(" MDM first-hitting: 32 tokens, 32 passes, log p -") == 3
    assert all(c.isprintable() or c in "\n\t" for c in text)


def test_infill(tiny_runs: TinyRuns, capsys: Capture) -> None:
    out = json_of(capsys, "infill", tiny_runs.mdm, "def add(a, b):\\n    return [[4]]")["samples"][0]
    assert out["text"].startswith("def add(a, b):\n    return ")
    assert out["num_tokens"] == 4


def test_gaps_are_read_from_text() -> None:
    assert parts_of("a[[2]]b[[1]]") == ["a", anyorder.GAP(2), "b", anyorder.GAP(1)]
    assert parts_of("[[3]]") == [anyorder.GAP(3)]
    assert parts_of("x[[i]] [[1]]") == ["x[[i]] ", anyorder.GAP(1)]
    assert parts_of("a[[]]b[[2-5]][[0-1]]") == ["a", anyorder.GAP(), "b", anyorder.GAP(2, 5), anyorder.GAP(0, 1)]
    assert parts_of("[[-]][[]]") == ["[[-]]", anyorder.GAP()]
    assert typed(r"a\nb\tc\\n" + "\n", option="--prompt") == "a\nb\tc\\n\n"


def test_a_mark_behind_a_backslash_is_text() -> None:
    assert parts_of(r"b = \[[1]] + [[2]]") == ["b = [[1]] + ", anyorder.GAP(2)]
    assert parts_of(r"\[[]]\[[1-2]][[3]]") == ["[[]][[1-2]]", anyorder.GAP(3)]
    assert parts_of(r"\\[[1]]") == ["\\", anyorder.GAP(1)]  # a backslash, then a gap
    assert parts_of(r"\\\[[1]][[2]]") == [r"\[[1]]", anyorder.GAP(2)]
    assert parts_of(r"re.compile('\[[a-z]\]') [[1]]") == [r"re.compile('\[[a-z]\]') ", anyorder.GAP(1)]
    assert parts_of(r"\n[[1]]\t") == ["\n", anyorder.GAP(1), "\t"]
    with pytest.raises(ValueError, match="the text has no gap"):
        parts_of(r"\[[1]]")


def test_hints_can_be_pasted_into_a_shell(tiny_runs: TinyRuns, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "my  run's $HOME"
    text = printed(capsys, "train", *tiny_runs.options(), "--num_steps", "1", "--quiet", "--out", out)
    hints = [shlex.split(line) for line in text.splitlines() if line.startswith("  anyorder ")]
    assert hints == [["anyorder", "sample", str(out)], ["anyorder", "inspect", str(out)]]
    shutil.rmtree(out / "model")
    assert main(["sample", str(out)]) == 2
    hint = shlex.split(capsys.readouterr().err.split("finish it with: ")[1])
    assert hint == ["anyorder", "train", str(out / "config.yaml"), "--out", str(out)]
    trace = tmp_path / "a b.jsonl"
    text = printed(capsys, "sample", tiny_runs.mdm, "--length", "2", "--trace", trace)
    assert shlex.split(text.splitlines()[-1].split("check it with ")[1]) == ["anyorder", "replay", str(trace)]


def test_score(tiny_runs: TinyRuns, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "a.txt").write_text("def ada_bob(x, y):\n    return x + y\n")
    words = ("score", tiny_runs.arm, "--text", tmp_path / "a.txt", tiny_runs.corpus)
    out = json_of(capsys, *words)
    expected = anyorder.load(tiny_runs.arm).score([(tmp_path / "a.txt").read_text()])[0]
    assert out["scores"][0]["bits_per_byte"] == expected.bits_per_byte
    assert out["scores"][0]["windows"] == 2
    text = printed(capsys, *words)
    assert f"{expected.bits_per_byte:.4f} exact" in text
    assert "exact_causal" in text
    bound = json_of(capsys, "score", tiny_runs.mdm, "--text", tmp_path / "a.txt", "--draws", "8")["scores"][0]
    assert bound["nats_per_token_stderr"] > 0


def test_inspect(tiny_runs: TinyRuns, capsys: Capture) -> None:
    out = json_of(capsys, "inspect", tiny_runs.mdm)
    model = anyorder.load(tiny_runs.mdm).model
    total = sum(p.numel() for p in model.parameters())
    parts = out["model"]["parameters"]
    assert parts["total"] == total == sum(n for name, n in parts.items() if name != "total")
    assert parts["head"] == 257 * 32
    assert out["run"]["checkpoints"] == {"step_000020": "ok"}
    assert out["run"]["last"]["train"]["step"] == 20
    text = printed(capsys, "inspect", tiny_runs.mdm)
    assert f"{total:,}" in text
    assert "checksums ok" in text
    assert "num_steps: 20" in text
    assert "run" not in json_of(capsys, "inspect", tiny_runs.arm / "model")["model"]


def test_methods_lists_everything(capsys: Capture) -> None:
    from anyorder.processes import PROCESSES
    from anyorder.samplers.presets import EVERY_PRESET

    out, text = json_of(capsys, "methods"), printed(capsys, "methods")
    assert [s["name"] for s in out["samplers"]] == list(EVERY_PRESET)
    assert [p["name"] for p in out["processes"]] == list(PROCESSES)
    assert all(name in text for name in [*EVERY_PRESET, *PROCESSES])
    assert next(s for s in out["samplers"] if s["name"] == "ancestral")["exact"] is False


def test_bench_runs_a_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "common.py").write_text("")
    (folder / "training.py").write_text("import sys\nprint(sys.argv[1:])\nsys.exit(3)\n")
    monkeypatch.setattr(anyorder, "__file__", str(tmp_path / "src" / "anyorder" / "__init__.py"))
    assert main(["bench", "training", "--quick", "-x"]) == 3
    assert capfd.readouterr().out.strip() == "['--quick', '-x']"
    assert main(["bench", "trainign"]) == 2
    assert "did you mean 'training'" in capfd.readouterr().err
    monkeypatch.setattr(anyorder, "__file__", str(tmp_path / "a" / "b" / "c" / "__init__.py"))
    assert main(["bench", "training"]) == 2
    assert "come with a clone" in capfd.readouterr().err


def test_quickstart_is_the_study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture) -> None:
    from anyorder.studies.quickstart import FULL, QUICK, Scale

    asked: list[Any] = []

    def study(out: Path, *, scale: Scale, seed: int, quiet: bool) -> dict[str, Any]:
        asked.append((str(out), scale, seed, quiet))
        return {"default": "text-mdm", "nothing": float("nan")}

    monkeypatch.setattr("anyorder.studies.quickstart.quickstart", study)
    words = ("quickstart", "--quick", "--out", tmp_path, "--seed", "4", "--quiet")
    assert json_of(capsys, *words) == {"default": "text-mdm", "nothing": None}
    assert "report.html" in printed(capsys, *words)
    printed(capsys, "quickstart", "--quick")
    printed(capsys, "quickstart")
    quick = ("runs/quickstart-quick", QUICK, 0, False)
    assert asked == [(str(tmp_path), QUICK, 4, True)] * 2 + [quick, ("runs/quickstart", FULL, 0, False)]
