"""Work shared out among threads that sleep when it is done, and BLAS kept out of their way.

Those of OpenMP and OpenBLAS keep their cores busy for up to 30 ms more, which whoever computes next would need.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ContextDecorator
from functools import cache
from itertools import pairwise
from threading import Lock
from typing import Any

import numba
from threadpoolctl import ThreadpoolController

THREADS: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]


def share(total: int, least: int, work: Callable[[int, int], None], threads: int | None = None) -> None:
    """Call `work` with ranges that make up `total`, of `least` or more, the last of them in this thread, at most
    `threads` at once; None: as many as there are cores.
    """
    parts = max(min(threads or THREADS, total // least), 1)
    *others, own = pairwise(total * k // parts for k in range(parts + 1))
    waiting = [_pool(os.getpid()).submit(work, *some) for some in others]
    try:
        work(*own)
    finally:
        wait(waiting)
    for done in waiting:
        done.result()


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """A forked process needs its own."""
    return ThreadPoolExecutor(THREADS, "maskrcnn-share")


class _OneBlasThread(ContextDecorator):
    """While any thread is inside, products of matrices stay in the thread that asks for them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limit = _blas().limit(limits=1, user_api="blas")
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limit.restore_original_limits()


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


one_blas_thread = _OneBlasThread()
