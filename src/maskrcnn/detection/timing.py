"""Time of each stage of a prediction: `stage` wraps the work, `collect` gathers the seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_collected: ContextVar[dict[str, list[float]] | None] = ContextVar("maskrcnn_stage_seconds", default=None)


@contextmanager
def collect() -> Iterator[dict[str, list[float]]]:
    """Seconds of every stage that runs inside, by name."""
    seconds: dict[str, list[float]] = {}
    before = _collected.set(seconds)
    try:
        yield seconds
    finally:
        _collected.reset(before)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """The work of one stage."""
    seconds = _collected.get()
    if seconds is None:
        yield
        return
    began = time.perf_counter()
    yield
    seconds.setdefault(name, []).append(time.perf_counter() - began)
