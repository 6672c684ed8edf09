"""A folder is made once, whole, whoever else makes it at the same time."""

import glob
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from anyorder.core.files import lock_file, write_folder


def make_once(folder: Path, fill: Callable[[Path], None]) -> bool:
    """Fills a new folder that appears only when it is whole; False if it is there already, and then nothing is done.

    Makers of one folder wait for each other (the lock falls with the process), so the second finds the work done; what
    a killed one left behind is removed. An error or Ctrl-C leaves nothing.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with waiting_lock(folder.parent / f".{folder.name}.lock"):
        if folder.exists():
            return False
        for left in folder.parent.glob(f".{glob.escape(folder.name)}.*.tmp"):
            shutil.rmtree(left, ignore_errors=True)
        write_folder(folder, fill)
        return True


@contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on a file that exists only while someone holds or awaits it."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT)  # NFS locks only what is open for writing
        try:
            lock_file(lock, wait=True)
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
