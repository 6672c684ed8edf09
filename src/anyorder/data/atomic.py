"""A folder appears whole or not at all, whatever happens while it is being written."""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_folder(folder: Path) -> Iterator[Path | None]:
    """A hidden folder beside `folder` to write into, renamed to it at the end; None if `folder` is there already.

    Writers of one folder wait for each other (the lock falls with the process), so a second one finds the work done,
    and what a killed one left behind is removed first. An error or Ctrl-C removes the partial folder.

    Raises:
        OSError: as the body did; a full disk is told in one sentence.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.parent / f".{folder.name}.lock"):
        if folder.exists():
            yield None
            return
        partial = folder.parent / f".{folder.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            yield partial
            _sync(partial)
            partial.rename(folder)
        except BaseException as error:
            shutil.rmtree(partial, ignore_errors=True)
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise disk_full(folder) from error
            raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on a file that exists only while someone holds or awaits it."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT)  # NFS locks only what is open for writing
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_open_at(path, lock):
                continue  # the holder we waited for removed the file: take the lock that counts now
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return
        finally:
            os.close(lock)


def _is_open_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _sync(folder: Path) -> None:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            os.fsync(file.fileno())


def disk_full(folder: Path) -> OSError:
    """What to raise when the disk ran full and the partial folder is gone."""
    return OSError(errno.ENOSPC, f"the disk is full and nothing of {folder} was kept; free space or use another folder")
