"""Reusable buffers: allocating fresh pages for every image takes longer than filling them."""

from __future__ import annotations

import math
import threading

import numpy as np


class Scratch(threading.local):
    """Named buffers, one set per thread."""

    def __init__(self) -> None:
        self._buffers: dict[str, np.ndarray] = {}

    def array(self, name: str, *shape: int, dtype: type[np.generic] = np.float32) -> np.ndarray:
        """Return an uninitialised array of `shape`, valid until the next call with this name."""
        length = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.dtype != dtype or length > len(buffer):
            self._buffers.pop(name, None)  # free it before allocating the larger one
            buffer = self._buffers[name] = np.empty(length, dtype)
        return buffer[:length].reshape(shape)
