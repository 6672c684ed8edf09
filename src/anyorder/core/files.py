"""Nothing half-written, nothing written twice: atomic files and folders, and one process to a run folder.

Locks are those of `fcntl`, which die with their process; a system without it is refused in a sentence.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write under a temporary name, flush to disk, rename. Raises OSError with one sentence when the disk is full."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _clean_up(temporary, goal=path):
        with temporary.open("wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(path)


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """`fill` a temporary folder beside `path`, flush its files, rename it to `path`; an older one is replaced."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _clean_up(temporary, goal=path):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        fill(temporary)
        readers = temporary.stat().st_mode & 0o666  # safetensors makes files that only their owner may read
        for file in temporary.rglob("*"):
            if file.is_file():
                file.chmod(readers)
                with file.open("rb") as f:
                    os.fsync(f.fileno())
        _swap_in(temporary, path)


def remove_folder(path: Path) -> None:
    """Delete a folder so that it is there whole or not at all: it loses its name first."""
    gone = path.with_name(f".{path.name}.{os.getpid()}.old.tmp")
    path.replace(gone)
    shutil.rmtree(gone)


def sweep_temporaries(folder: Path) -> None:
    """Remove what a killed process left under temporary names; call it while holding the folder's lock."""
    for left in folder.glob(".*.tmp"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def read_object(path: Path, *, way_out: str = "restore it") -> dict[str, Any]:
    """The JSON object in a UTF-8 file, with or without a byte order mark.

    Args:
        way_out: what messages advise.

    Raises:
        FileNotFoundError: no such file.
        ValueError: anything but a JSON object; it names the file.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{path}: no such file; {way_out}") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, nested without end
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ValueError(f"{path}: not JSON; the file was altered, {way_out} ({reason})") from None
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else f"{value!r:.40}"
        raise ValueError(f"{path}: holds {kind}, not a JSON object; the file was altered, {way_out}")
    return value


def check_output(path: Path, *, option: str, folder: bool = False) -> None:
    """Refuse a place where no result can be written, before the work that makes it.

    Args:
        option: how the place was named.
        folder: it becomes a folder, else a file; folders above it may have to be made.
    Raises:
        ValueError: a folder where a file is to be or the other way round, or no permission to write.
    """
    if path.exists() and path.is_dir() != folder:
        raise ValueError(f"{option} {path}: is {'a file; name a folder' if folder else 'a folder; name a file in it'}")
    above = next(p for p in (path if folder else path.parent, *path.parents) if p.exists())
    if not above.is_dir():
        raise ValueError(f"{option} {path}: {above} is a file, so no folder can be there; name another place")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ValueError(f"{option} {path}: no permission to write in {above}; name another place")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run folder for this process; a second one gets a ValueError. The lock dies with the process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"{folder}: is not a folder, nor can it become one; use another --out") from None
    with (folder / ".lock").open("w") as f:
        if not lock_file(f.fileno(), wait=False):
            raise ValueError(
                f"{folder}: another process is writing in this run folder; wait for it or use another --out"
            )
        yield


def lock_file(descriptor: int, *, wait: bool) -> bool:
    """Lock an open file for this process alone; False if another holds it and this one is not to wait.

    Raises:
        RuntimeError: a system without such locks.
    """
    try:
        import fcntl
    except ImportError:
        raise RuntimeError(
            f"{sys.platform}: this system has no file locks (fcntl); anyorder runs on Linux and macOS, on Windows "
            "inside WSL"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _clean_up(temporary: Path, *, goal: Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        if _is_disk_full(error):
            raise OSError(
                errno.ENOSPC, f"disk full while writing {goal}; nothing was half-written, free some space and run again"
            ) from None
        raise


def _is_disk_full(error: BaseException) -> bool:
    """ENOSPC itself, or what safetensors makes of it: an exception of its own that only quotes the number."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOSPC
    return isinstance(error, SafetensorError) and f"os error {errno.ENOSPC}" in str(error)


def _swap_in(temporary: Path, path: Path) -> None:
    """Give the folder its name; an older one goes, but comes back if that fails or is interrupted."""
    old = path.with_name(f".{path.name}.{os.getpid()}.old.tmp")
    try:
        if path.exists():
            path.replace(old)
        temporary.replace(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.replace(path)
        raise
    shutil.rmtree(old, ignore_errors=True)
