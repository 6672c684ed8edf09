"""Bad input and failures: one sentence on stderr, the right exit code, no traceback, nothing half-written."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from anyorder.cli.main import main, sentence
from anyorder.core.files import locked
from anyorder.train.loop import Run
from anyorder.train.step import StepResult
from conftest import TinyRuns
from ilm_demo import make_ilm

Capture = pytest.CaptureFixture[str]


def refused(capsys: Capture, *args: str | Path, code: int = 2) -> str:
    """The one sentence of a command line that fails, without its prefix."""
    got = main([str(a) for a in args])
    out, err = capsys.readouterr()
    assert got == code, out + err
    assert out == ""
    assert err.startswith("anyorder: ")
    assert err.count("\n") == 1
    assert not err.endswith(".\n")
    return err.removeprefix("anyorder: ").strip()


@pytest.fixture
def copied(tiny_runs: TinyRuns, tmp_path: Path) -> Path:
    """A copy of the finished MDM run that a test may spoil."""
    shutil.copytree(tiny_runs.mdm, tmp_path / "run")
    return tmp_path / "run"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 255
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trian", "unknown command 'trian'; did you mean 'train'?"),
        ("train --data.corpsu x", "unknown option --data.corpsu; did you mean --data.corpus?"),
        ("train --optim.lrr=1", "unknown option --optim.lrr; did you mean --optim.lr?"),
        ("train --lr 1", "unknown option --lr; did you mean --optim.lr?"),
        ("train --num_steps -5", "train: num_steps='-5': Input should be greater than 0"),
        ("train --num_steps many", "train: num_steps='many': Input should be a valid integer"),
        ("train --size tinny", "size='tinny': unknown; did you mean 'tiny'?"),
        ("train --process.kind mdn", "process.kind='mdn': Input should be 'mdm', 'arm'"),
        ("train --process.schedule liner", "process.schedule='liner': unknown; did you mean 'linear'?"),
        ("train --task sudokku", "task='sudokku': unknown; did you mean 'sudoku'?"),
        ("train --seed", "--seed: expected one argument; see anyorder train --help"),
        ("train nothing.yaml", "nothing.yaml: no such configuration file"),
        ("train --data.corpus nothing.txt", "data.corpus='nothing.txt': no such file or folder"),
        ("data nothing.txt", "data.corpus='nothing.txt': no such file or folder"),
        ("data corpus.txt --vocab_size 3", "vocab_size='3': Input should be greater than or equal to 257"),
        ("sample nothing", "nothing: no such folder"),
        ("sample", "the following arguments are required: RUN"),
        ("sample mdm --sampler topprob", "did you mean 'top-prob'?"),
        ("sample mdm --sampler ancestral --steps -3", "sampler.num_steps=-3: must be >= 1"),
        ("sample mdm --lenght 3", "unknown option --lenght; did you mean --length?"),
        ("sample mdm --length 999", "length=999: must be between 1 and the 32 tokens"),
        ("sample mdm --prompt=" + 40 * "x", "prompt: its 40 tokens leave nothing to write in the model's length=32"),
        ("sample mdm --n two", "--n: 'two' is no whole number; see anyorder sample --help"),
        ("sample mdm --temperature -1", "sampler.temperature=-1.0: must be >= 0"),
        ("sample mdm --device cuda:99", "device='cuda:99'"),
        ("sample mdm extra", "'extra': one argument too many"),
        ("sample mdm --prompt caf\udce9", "--prompt: byte 3 (0xe9) is not UTF-8; type the text in a UTF-8 terminal"),
        ("infill mdm caf\udce9[[1]]", "TEXT: byte 3 (0xe9) is not UTF-8"),
        ("infill mdm a[[0]]", "GAP(0): a gap has at least 1 token"),
        ("infill mdm a[[-2]]", "GAP(-2): a gap has at least 1 token"),
        ("infill mdm abc", "the text has no gap"),
        ("infill mdm a[[5-2]]", "GAP(5, 2): at most 2 contradicts at least 5"),
        ("infill mdm a[[0-0]]", "GAP(0, 0): a gap has at least 0 tokens"),
        ("infill mdm a[[]]b", "only an insertion model fills a gap of any length; name its tokens"),
        ("infill mdm a[[2]] --sampler insertion", "inserts tokens, as only an insertion model (ILM) can"),
        ("infill arm a[[]]", "only an insertion model fills a gap of any length"),
        ("infill arm a[[1-3]]", "nothing by which to choose a gap's length"),
        ("infill ilm abc", "the text has no gap"),
        ("infill ilm " + 24 * "x" + "[[]]", "the row has 24 tokens of text, the model writes rows of at most 24"),
        (
            "infill ilm " + 23 * "x" + "[[2]]",
            "23 tokens of text and at least 2 in gaps, the model writes rows of at most",
        ),
        ("sample ilm --prompt=" + 30 * "x", "prompt: its 30 tokens leave nothing to write in the model's length=24"),
        ("sample ilm --sampler top-prob", "writes masks, and an insertion model has none; use 'insertion' or 'ilm'"),
        ("sample ilm --steps 4", "sampler.num_steps=4: insertion inserts tokens where it likes"),
        ("plan ilm --nfe 4", "ilm: plans are made for masked diffusion models of text"),
        ("eval ilm --tasks continuation", "answers are ranked"),
        ("infill arm a[[2]]b", "cannot see the text after a gap"),
        ("score mdm --text nothing.txt", "nothing.txt: no such file"),
        ("score mdm --text empty.txt", "empty.txt: the file is empty"),
        ("score mdm --text latin.txt", "latin.txt: byte 3 (0xff) is not UTF-8"),
        ("score mdm --text mdm", "mdm: is a folder"),
        ("score mdm --text wide.txt", "wide.txt: byte 1 is zero, which no UTF-8 text holds; if it is UTF-16, convert"),
        ("data wide.txt", "wide.txt: byte 1 is zero"),
        ("data corpus.txt --cache empty.txt", "data.cache empty.txt: is a file; name a folder"),
        ("train --data.corpus corpus.txt --out empty.txt", "--out empty.txt: is a file; name a folder"),
        ("rl mdm --task sudoku --out empty.txt", "--out empty.txt: is a file; name a folder"),
        ("convert mdm empty.txt --to llama", "OUT empty.txt: is a file; name a folder"),
        ("quickstart --out empty.txt", "--out empty.txt: is a file; name a folder"),
        ("study numerics --out empty.txt", "--out empty.txt: is a file; name a folder"),
        ("sample mdm --trace empty.txt/x.jsonl", "--trace empty.txt/x.jsonl: empty.txt is a file, so no folder can"),
        ("score mdm --text corpus.txt --draws 5", "draws=5: must be a positive multiple of 4"),
        ("inspect nothing", "nothing: no such folder"),
        ("bench nothing", "benchmark 'nothing': unknown"),
        (
            "quickstart --minutes 7",
            "--minutes 7: the quickstart trains a fixed number of steps, the same on every machine",
        ),
    ],
)
def test_one_sentence_and_exit_code_2(
    words: str, message: str, tiny_runs: TinyRuns, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("mdm", "arm", "corpus.txt"):
        (tmp_path / name).symlink_to(tiny_runs.folder / name)
    if " ilm " in words:
        make_ilm(tmp_path / "ilm")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "latin.txt").write_bytes(b"abc\xff")
    (tmp_path / "wide.txt").write_bytes("abc".encode("utf-16-le"))
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *words.split())
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"learning_rate: 3", "unknown key 'learning_rate'"),
        (b"optim: {lrr: 3}", "unknown key 'optim.lrr'; did you mean 'lr'?"),
        (b"optim: [", "c.yaml: line 1, column 9: not YAML (expected the node content, but found '<stream end>')"),
        (b"size: tiny\nseed: 1\nnum_steps:\t2\n", "line 3, column 11: not YAML"),
        (b"seed: 1\nseed: 2\n", "line 2: 'seed' is given in line 1 too; keep one"),
        (b"", "holds no keys"),
        (b"seed: \xff\xfe", "c.yaml: byte 6 (0xff) is not UTF-8"),
    ],
)
def test_bad_configuration_files(content: bytes, message: str, capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    assert message in refused(capsys, "train", tmp_path / "c.yaml", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"ab\xffcd" * 99, "byte 2 (0xff) is not UTF-8"),
        (b"too short", "the text has only 9 tokens; lower data.length to 9 or less"),
    ],
)
def test_bad_texts_to_train_on(
    content: bytes, message: str, tiny_runs: TinyRuns, capsys: Capture, tmp_path: Path
) -> None:
    (tmp_path / "t.txt").write_bytes(content)
    words = [*tiny_runs.options(), "--data.corpus", tmp_path / "t.txt", "--out", tmp_path / "run"]
    assert message in refused(capsys, "train", *words)
    assert not (tmp_path / "run").exists()


def test_another_configuration_in_the_folder(tiny_runs: TinyRuns, copied: Path, capsys: Capture) -> None:
    words = [*tiny_runs.options(), "--num_steps", "21", "--out", copied]
    assert "holds a run with another num_steps (20, asked for 21);" in refused(capsys, "train", *words)
    words = [*tiny_runs.options(), "--optim.lr", "1e-4", "--out", copied]
    assert "holds a run with another optim.lr (0.002, asked for 0.0001);" in refused(capsys, "train", *words)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": lambda p: p.write_bytes(b""),
    "zeros": lambda p: p.write_bytes(bytes(p.stat().st_size - 1) + b"\n"),
    "half": lambda p: os.truncate(p, p.stat().st_size // 2),
    "list": lambda p: p.write_bytes(b"[1]\n"),
    "object": lambda p: p.write_bytes(b"{}\n"),
}


FILES = [
    "metrics.jsonl",
    "data.json",
    "config.yaml",
    "step_000020/state.json",
    "model/config.json",
    "model/tokenizer.json",
]


@pytest.mark.parametrize(
    ("name", "damage"),
    [  # by default every second damage of a file, and every damage of every second file
        pytest.param(name, damage, marks=pytest.mark.slow if (i + j) % 2 else [])
        for i, name in enumerate(FILES)
        for j, damage in enumerate(DAMAGE)
    ],
)
def test_a_run_folder_after_a_power_cut(
    name: str, damage: str, tiny_runs: TinyRuns, copied: Path, capsys: Capture
) -> None:
    """Every command works without the file, or says in a sentence which file it is."""
    DAMAGE[damage](copied / name)
    train = ["train", *tiny_runs.options(), "--out", copied, "--quiet"]
    for words in (train, ["sample", copied, "--n", "1", "--length", "4"], ["inspect", copied]):
        code = main([str(w) for w in words])
        err = capsys.readouterr().err
        if code:
            assert code == 2
            assert err.count("\n") == 1
            assert "internal error" not in err
            assert str(copied) in err


def test_a_finished_run_without_its_metrics(tiny_runs: TinyRuns, copied: Path, capsys: Capture) -> None:
    (copied / "metrics.jsonl").unlink()
    assert main(["train", *tiny_runs.options(), "--out", str(copied), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "trained   20 steps\n" in out
    assert f"held out  no figures in {copied / 'metrics.jsonl'}" in out
    assert main(["train", *tiny_runs.options(), "--out", str(copied), "--quiet", "--json"]) == 0
    assert main(["inspect", str(copied)]) == 0


def test_one_held_out_row_leaves_no_nan_in_the_metrics(tiny_runs: TinyRuns, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "run"
    words = [*tiny_runs.options(), "--num_steps", "1", "--evaluate.rows", "1", "--out", str(out), "--quiet"]
    assert main(["train", *words]) == 0
    assert "nats/token" in capsys.readouterr().out
    records = [
        json.loads(line, parse_constant=pytest.fail) for line in (out / "metrics.jsonl").read_text().splitlines()
    ]
    assert [r["stderr"] for r in records if r["kind"] == "valid"] == [None]
    assert main(["inspect", str(out)]) == 0
    assert "nats/token" in capsys.readouterr().out


def test_two_processes_in_one_folder(copied: Path, capsys: Capture) -> None:
    with locked(copied):
        assert "another process is writing in this run folder" in refused(
            capsys, "train", copied / "config.yaml", "--out", copied
        )


@pytest.mark.parametrize("spoil", [flip, lambda p: os.truncate(p, 100), Path.unlink])
def test_spoiled_checkpoints_and_models(spoil: Callable[[Path], object], copied: Path, capsys: Capture) -> None:
    spoil(copied / "step_000020" / "model.safetensors")
    message = refused(capsys, "train", copied / "config.yaml", "--out", copied)
    assert "missing, truncated or altered" in message
    spoil(copied / "model" / "model.safetensors")
    for command in (["sample", copied], ["score", copied, "--text", copied / "config.yaml"], ["inspect", copied]):
        assert "missing, truncated or altered" in refused(capsys, *command)


def test_a_spoiled_shard(tiny_runs: TinyRuns, capsys: Capture, tmp_path: Path) -> None:
    shutil.copytree(tiny_runs.folder / "cache", tmp_path / "cache")
    for shard in (tmp_path / "cache").glob("*/train/*.bin"):
        flip(shard)
    words = [*tiny_runs.options(), "--data.cache", tmp_path / "cache", "--out", tmp_path / "run"]
    assert "the shard was altered" in refused(capsys, "train", *words)


def test_a_full_disk(tiny_runs: TinyRuns, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, flush = tmp_path / "run", os.fsync

    def no_room_for_checkpoints(descriptor: int) -> None:
        if any(p.name.startswith(".step_") for p in out.iterdir()):
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(descriptor)

    monkeypatch.setattr("os.fsync", no_room_for_checkpoints)
    message = refused(capsys, "train", *tiny_runs.options(), "--out", out, "--quiet", code=1)
    assert "disk full while writing" in message
    left = sorted(p.name for p in out.iterdir() if not p.name.startswith(".lock"))
    assert left == ["config.yaml", "data.json", "metrics.jsonl"]
    monkeypatch.undo()
    assert main(["train", *tiny_runs.options(), "--out", str(out), "--quiet"]) == 0
    assert (out / "model" / "model.safetensors").read_bytes() == (
        tiny_runs.mdm / "model" / "model.safetensors"
    ).read_bytes()


def test_ctrl_c_and_going_on(
    tiny_runs: TinyRuns, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, after = tmp_path / "run", Run.after

    def interrupted(self: Run, done: int, result: object) -> None:
        after(self, done, result)  # type: ignore[arg-type]
        if done == 13:
            raise KeyboardInterrupt

    words = [*tiny_runs.options(), "--out", str(out), "--quiet", "--save_every", "5"]
    monkeypatch.setattr(Run, "after", interrupted)
    message = refused(capsys, "train", *words, code=1)
    assert message == "stopped; run the same command to go on from the last checkpoint"
    assert "its last checkpoint is step_000010" in refused(capsys, "sample", out)
    assert main(["inspect", str(out)]) == 0
    assert "step 10/20" in capsys.readouterr().out
    monkeypatch.undo()
    assert main(["train", *words]) == 0
    assert (out / "model" / "model.safetensors").read_bytes() == (
        tiny_runs.mdm / "model" / "model.safetensors"
    ).read_bytes()


def hears_ctrl_c() -> None:
    """In the child: a parent that ignores SIGINT, as one started by nohup or with & in a script, hands this down."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_signal_in_the_middle_of_a_step(
    tiny_runs: TinyRuns, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a terminal sends it, to this process; below to one of its own."""
    step = Run.step

    def interrupted(self: Run, number: int) -> StepResult:
        if number == 2:
            signal.raise_signal(signal.SIGINT)
        return step(self, number)

    monkeypatch.setattr(Run, "step", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = main(["train", *tiny_runs.options(), "--save_every", "2", "--out", str(tmp_path / "run"), "--quiet"])
    finally:
        signal.signal(signal.SIGINT, before)
    message = "anyorder: stopped; run the same command to go on from the last checkpoint\n"
    assert (capfd.readouterr().err, code) == (message, 1)
    assert (tmp_path / "run" / "step_000002").is_dir()


@pytest.mark.slow
def test_a_real_ctrl_c(tiny_runs: TinyRuns, tmp_path: Path) -> None:
    words = [*tiny_runs.options(), "--num_steps", "100000", "--save_every", "5", "--out", str(tmp_path), "--quiet"]
    command = [sys.executable, "-m", "anyorder", "train", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=hears_ctrl_c)
    try:
        deadline = time.monotonic() + 600
        while not list(tmp_path.glob("step_*")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=600)[1]
    finally:
        process.kill()
        process.wait()
    assert (err, process.returncode) == (
        "anyorder: stopped; run the same command to go on from the last checkpoint\n",
        1,
    )


def test_a_reader_that_has_seen_enough() -> None:
    command = f"{sys.executable} -m anyorder --help | (exec 0<&-; sleep 0.3)"
    buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, env=buffered)
    assert done.stderr == ""


def test_errors_read_as_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sentence(OSError(errno.ENOSPC, "No space left on device", "a/b")) == "a/b: the disk is full"
    assert sentence(FileNotFoundError(errno.ENOENT, "No such file or directory", "x")) == "x: No such file or directory"
    assert sentence(RuntimeError("two\n  lines")) == "two lines"
    assert sentence(KeyError("k")) == "internal error: KeyError: 'k'; please report it (ANYORDER_DEBUG=1 shows where)"
    monkeypatch.setenv("ANYORDER_DEBUG", "1")
    with pytest.raises(ValueError, match="no such folder"):
        main(["sample", "nothing"])
