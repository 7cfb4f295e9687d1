"""Compile with OpenVINO away from the main thread, which otherwise may die at its next signal.

On processors with AVX-512, OpenVINO (2026.4) gives the thread that compiles a graph a signal stack, and takes it back
when the last graph is gone. Of two plugins, the one that ends last restores the stack of the other, which is freed
memory by then. Python's handlers run on that stack, so a SIGTERM or Ctrl-C ends the process with a segmentation fault.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def in_own_thread(work: Callable[[], T]) -> Future[T]:
    """Start `work` in a thread of its own. The thread does not keep the process alive."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future
