"""Reusable buffers: allocating fresh pages for every image takes longer than filling them."""

from __future__ import annotations

import math
import threading

import numpy as np


class Scratch(threading.local):
    """Named float32 buffers, one set per thread."""

    def __init__(self) -> None:
        self._buffers: dict[str, np.ndarray] = {}

    def array(self, name: str, *shape: int) -> np.ndarray:
        """Return an uninitialised float32 array of `shape`, valid until the next call with this name."""
        length = math.prod(shape)
        if name not in self._buffers or length > len(self._buffers[name]):
            self._buffers.pop(name, None)  # free it before allocating the larger one
            self._buffers[name] = np.empty(length, np.float32)
        return self._buffers[name][:length].reshape(shape)
