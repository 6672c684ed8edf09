"""Ctrl-C, heard while a library computes.

Python hears signals between two steps of its own, so minutes inside a library are spent in another thread. A file of
its own because what calls it lies in several folders and it is about none of them.
"""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

SAY_FIRST, SAY_EVERY = 2.0, 15.0  # seconds
Result = TypeVar("Result")


def in_thread(work: Callable[[], Result], *, say: Callable[[float], None] | None = None) -> Result:
    """What `work` returns or raises; after Ctrl-C its thread ends with the process.

    Args:
        say: called with the seconds so far, after 2 and then every 15.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # raised again below, where the caller can catch it
            errors.append(error)

    thread, began, wait = threading.Thread(target=run, daemon=True), time.monotonic(), SAY_FIRST
    thread.start()
    while thread.is_alive():
        thread.join(wait)
        if thread.is_alive() and say is not None:
            say(time.monotonic() - began)
        wait = SAY_EVERY
    if errors:
        raise errors[0]
    return results[0]
