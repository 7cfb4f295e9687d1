"""Kernels that run in several threads, guarded where numba's threads can serve only one caller at a time.

Numba takes its threads from TBB or OpenMP if they are installed, and otherwise from its own workqueue, which serves one
calling thread at a time (https://numba.readthedocs.io/en/stable/user/threading-layer.html).
"""

from collections.abc import Callable
from functools import cache, wraps
from threading import Lock
from typing import Any

import numba

_ENTRY = Lock()


def parallel(**options: Any) -> Callable[[Callable], Callable]:
    """Compile a function with ``prange`` loops; `options` go to `numba.njit`. Any number of threads may call it."""

    def decorate(function: Callable) -> Callable:
        return guarded(numba.njit(cache=True, nogil=True, parallel=True, **options)(function))

    return decorate


def guarded(kernel: Callable) -> Callable:
    """Let one thread at a time into a parallel kernel if numba's threads come from its workqueue."""

    @wraps(kernel)
    def call(*args: Any) -> Any:
        if not _needs_guard():
            return kernel(*args)
        with _ENTRY:
            return kernel(*args)

    return call


@cache
def _needs_guard() -> bool:
    numba.get_num_threads()  # starts the threads, and thereby chooses where they come from
    return numba.threading_layer() == "workqueue"
