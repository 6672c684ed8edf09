"""Files and folders appear whole or not at all, whatever interrupts the writing."""

import errno
import json
import os
import subprocess
import sys

import pytest
from safetensors import SafetensorError

from anyorder.core import files
from anyorder.core.files import (
    check_output,
    locked,
    read_object,
    remove_folder,
    sha256_of,
    sweep_temporaries,
    write_atomic,
    write_folder,
)
from anyorder.data.atomic import make_once


def full(*args):
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupted(*args):
    raise KeyboardInterrupt


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_write_atomic_writes_text_and_bytes(tmp_path):
    write_atomic(tmp_path / "a", "grüß\n")
    write_atomic(tmp_path / "b", b"\x00\xff")
    write_atomic(tmp_path / "b", b"\x01")
    assert contents(tmp_path) == {"a": "grüß\n".encode(), "b": b"\x01"}


@pytest.mark.parametrize(("fault", "kind"), [(full, OSError), (interrupted, KeyboardInterrupt)])
@pytest.mark.parametrize("where", ["os.fsync", "pathlib.Path.replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, fault, kind, where):
    write_atomic(tmp_path / "a", "old")
    monkeypatch.setattr(where, fault)
    with pytest.raises(kind) as caught:
        write_atomic(tmp_path / "a", "new")
    if kind is OSError:
        assert caught.value.errno == errno.ENOSPC
        assert f"disk full while writing {tmp_path / 'a'}; nothing was half-written" in str(caught.value)
    assert contents(tmp_path) == {"a": b"old"}


def two_files(text):
    def fill(folder):
        (folder / "sub").mkdir()
        (folder / "one").write_text(text)
        (folder / "sub" / "two").write_text(text)

    return fill


def test_files_of_a_folder_may_be_read_by_those_who_may_enter_it(tmp_path):
    write_folder(tmp_path / "model", lambda folder: (folder / "model.safetensors").touch(mode=0o600))
    folder, file = (p.stat().st_mode & 0o666 for p in (tmp_path / "model", tmp_path / "model" / "model.safetensors"))
    assert folder == file


def test_write_folder_replaces_whole_folders(tmp_path):
    write_folder(tmp_path / "f", two_files("1"))
    assert contents(tmp_path) == {"f/one": b"1", "f/sub/two": b"1"}
    write_folder(tmp_path / "f", lambda place: (place / "three").write_text("2"))
    assert contents(tmp_path) == {"f/three": b"2"}
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize(("fault", "kind"), [(full, OSError), (interrupted, KeyboardInterrupt)])
@pytest.mark.parametrize("where", ["fill", "fsync", "first rename", "second rename"])
def test_a_failed_folder_leaves_the_old_one_and_nothing_else(tmp_path, monkeypatch, fault, kind, where):
    write_folder(tmp_path / "f", two_files("old"))
    fill, renames, replace = two_files("new"), [], type(tmp_path).replace

    def failing_replace(self, target):
        renames.append(target)
        if len(renames) == (1 if where == "first rename" else 2):
            fault()
        return replace(self, target)

    if where == "fill":
        fill = fault
    elif where == "fsync":
        monkeypatch.setattr(os, "fsync", fault)
    else:
        monkeypatch.setattr(type(tmp_path), "replace", failing_replace)
    with pytest.raises(kind):
        write_folder(tmp_path / "f", fill)
    assert contents(tmp_path) == {"f/one": b"old", "f/sub/two": b"old"}
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_the_full_disk_of_safetensors_is_a_full_disk(tmp_path):
    def fill(folder):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(OSError, match=r"disk full while writing .*f; nothing was half-written") as caught:
        write_folder(tmp_path / "f", fill)
    assert caught.value.errno == errno.ENOSPC
    assert not any(tmp_path.iterdir())

    def other(folder):
        raise SafetensorError("invalid")

    with pytest.raises(SafetensorError):
        write_folder(tmp_path / "f", other)


def test_other_errors_pass_unchanged(tmp_path, monkeypatch):
    def denied(*args):
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(os, "fsync", denied)
    with pytest.raises(PermissionError, match="denied"):
        write_atomic(tmp_path / "a", "new")
    assert not any(tmp_path.iterdir())


def test_sweeping_takes_only_temporaries(tmp_path):
    (tmp_path / ".step_000001.77.tmp").mkdir()
    (tmp_path / ".step_000001.77.tmp" / "x").write_text("x")
    (tmp_path / ".config.yaml.77.tmp").write_text("half")
    (tmp_path / ".lock").write_text("")
    write_folder(tmp_path / "step_000001", two_files("1"))
    sweep_temporaries(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "step_000001"]


def test_a_folder_is_removed_whole(tmp_path, monkeypatch):
    write_folder(tmp_path / "f", two_files("1"))
    monkeypatch.setattr(files.shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        remove_folder(tmp_path / "f")
    assert not (tmp_path / "f").exists()
    monkeypatch.undo()
    sweep_temporaries(tmp_path)
    assert not any(tmp_path.iterdir())


def test_sha256_of_known_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


HOLD = "import sys\nfrom pathlib import Path\nfrom anyorder.core.files import locked\n"
HOLD += "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"


def test_one_process_to_a_folder_and_the_lock_dies_with_it(tmp_path):
    folder = tmp_path / "run"
    with (
        locked(folder),
        pytest.raises(ValueError, match="another process is writing in this run folder"),
        locked(folder),
    ):
        pass
    other = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match=r"wait for it or use another --out"), locked(folder):
            pass
        other.kill()
    with locked(folder):
        pass


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with (
            pytest.raises(ValueError, match="is not a folder, nor can it become one; use another --out"),
            locked(place),
        ):
            pass


def test_our_own_json_files_are_whole_or_named(tmp_path):
    path = tmp_path / "state.json"
    with pytest.raises(FileNotFoundError, match=r"state.json: no such file; start again"):
        read_object(path, way_out="start again")
    for damage in (b"", b"\0\0\0\0", b'{"a": ', b"\xff", json.dumps({"a": 1}).encode()[:-1]):
        path.write_bytes(damage)
        with pytest.raises(ValueError, match=r"state.json: not JSON; the file was altered, start again"):
            read_object(path, way_out="start again")
    path.write_bytes(b"[1]")
    with pytest.raises(ValueError, match=r"state.json: holds a list, not a JSON object; .*start again"):
        read_object(path, way_out="start again")
    path.write_bytes(b'{"a": 1}')
    assert read_object(path, way_out="") == {"a": 1}


def test_places_for_results_are_looked_at_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for good, folder in (("new.json", False), ("file", False), ("a/b/new.json", False), ("", True), ("a/b", True)):
        check_output(tmp_path / good, option="--out", folder=folder)
    bad = {
        ("", False): "is a folder; name a file in it",
        ("file", True): "is a file; name a folder",
        ("file/x", False): "file is a file, so no folder can be there; name another place",
        ("file/x/y", True): "file is a file, so no folder can be there; name another place",
    }
    for (place, folder), said in bad.items():
        with pytest.raises(ValueError, match=rf"^--out {tmp_path / place}: .*{said}$"):
            check_output(tmp_path / place, option="--out", folder=folder)
    monkeypatch.setattr(os, "access", lambda place, mode: place != tmp_path)
    with pytest.raises(ValueError, match=rf"^--out .*x: no permission to write in {tmp_path}; name another place$"):
        check_output(tmp_path / "x", option="--out")


def test_a_system_without_file_locks_is_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    sentence = r"this system has no file locks \(fcntl\); anyorder runs on Linux and macOS, on Windows inside WSL$"
    with pytest.raises(RuntimeError, match=sentence), locked(tmp_path / "run"):
        pass
    with pytest.raises(RuntimeError, match=sentence):
        make_once(tmp_path / "data", lambda folder: None)
