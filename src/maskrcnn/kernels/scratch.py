"""Reusable buffers: allocating fresh pages for every image takes longer than filling them."""

from __future__ import annotations

import math
import threading

import numpy as np


class Scratch(threading.local):
    """Named buffers, one set per thread."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, type[np.generic]], np.ndarray] = {}

    def array(self, name: str, *shape: int, dtype: type[np.generic] = np.float32) -> np.ndarray:
        """Return an uninitialised array of `shape`, valid until the next call with this name and type."""
        length = math.prod(shape)
        key = name, dtype
        if key not in self._buffers or length > len(self._buffers[key]):
            self._buffers.pop(key, None)  # free it before allocating the larger one
            self._buffers[key] = np.empty(length, dtype)
        return self._buffers[key][:length].reshape(shape)
