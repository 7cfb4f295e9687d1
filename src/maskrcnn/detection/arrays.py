"""Where an array lives: NumPy arrays on a CPU, which the numba kernels read, and torch tensors on a GPU."""

from __future__ import annotations

import numpy as np

from maskrcnn.detection.stages import Array


def on_host(array: Array) -> Array:
    """Return a CPU tensor as a NumPy array over the same memory, without gradient, and anything else unchanged."""
    if isinstance(array, np.ndarray) or array.device.type != "cpu":
        return array
    return array.detach().numpy()


def to_numpy(array: Array) -> np.ndarray:
    """Return a NumPy array, copied from the GPU if the values are there."""
    return array if isinstance(array, np.ndarray) else array.detach().cpu().numpy()


def beside(values: np.ndarray, array: Array) -> Array:
    """Return `values` on the device of `array`, as a tensor if it is one."""
    if isinstance(array, np.ndarray):
        return values
    import torch

    return torch.as_tensor(values, device=array.device)
