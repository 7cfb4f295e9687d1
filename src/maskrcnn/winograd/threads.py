"""Run work in threads that sleep when it is done, with BLAS limited to one thread meanwhile.

Threads of OpenMP and OpenBLAS spin for up to 30 ms after their work, on cores that the next computation needs.
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


def run_in_threads(total: int, min_size: int, work: Callable[[int, int], None], threads: int | None = None) -> None:
    """Split ``range(total)`` into parts of at least `min_size` and call ``work(start, stop)`` on each in parallel.

    Use up to `threads` threads (None: one per core), including the calling one. Raise the first error of `work`.
    """
    parts = max(min(threads or THREADS, total // min_size), 1)
    *pool_ranges, last_range = pairwise(total * k // parts for k in range(parts + 1))
    futures = [_pool(os.getpid()).submit(work, *pool_range) for pool_range in pool_ranges]
    try:
        work(*last_range)
    finally:
        wait(futures)
    for future in futures:
        future.result()


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Return the pool of this process: threads do not survive a fork."""
    return ThreadPoolExecutor(THREADS, "maskrcnn-winograd")


class _OneBlasThread(ContextDecorator):
    """Context and decorator: while any thread is inside, BLAS computes in the calling thread only."""

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
