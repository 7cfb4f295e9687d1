"""Memory that is used again: fresh pages for every image cost more time than the work that fills them."""

from __future__ import annotations

import math
import threading

import numpy as np


class Scratch(threading.local):
    """Arrays by name, a set for each thread."""

    def __init__(self) -> None:
        self._values: dict[str, np.ndarray] = {}

    def array(self, name: str, *shape: int) -> np.ndarray:
        """A float32 array of any content, valid until the next call for this name."""
        length = math.prod(shape)
        if name not in self._values or length > len(self._values[name]):
            self._values.pop(name, None)  # before the larger one is there
            self._values[name] = np.empty(length, np.float32)
        return self._values[name][:length].reshape(shape)
