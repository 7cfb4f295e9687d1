"""Where an array lives: NumPy arrays on a CPU, which the numba kernels read, and torch tensors on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace

from maskrcnn.detection.stages import Array


def on_host(array: Array) -> Array:
    """Return a CPU tensor as a NumPy array, without gradient, and anything else unchanged.

    It has the tensor's memory, unless that holds half precision: the kernels take float32, and NumPy has no bf16.
    """
    if isinstance(array, np.ndarray) or array.device.type != "cpu":
        return array
    return _widened(array).detach().numpy()


def to_numpy(array: Array) -> np.ndarray:
    """Return a NumPy array, copied from the GPU if the values are there; of half precision as float32."""
    return array if isinstance(array, np.ndarray) else _widened(array).detach().cpu().numpy()


def _widened(tensor: Any) -> Any:
    return tensor.float() if tensor.is_floating_point() and tensor.itemsize == 2 else tensor


def beside(values: np.ndarray, array: Array) -> Array:
    """Return `values` on the device of `array`, as a tensor if it is one."""
    return values if isinstance(array, np.ndarray) else to_device(values, array.device)


def to_device(values: Array, device: Any) -> Array:
    """Return `values` as a tensor on `device`.

    A blocking copy would first wait for all work that a GPU has queued. CUDA alone copies temporary arrays safely
    without blocking: MPS may read them after they are freed (github.com/pytorch/pytorch/issues/139550).
    """
    import torch

    return torch.as_tensor(values).to(device, non_blocking=torch.device(device).type == "cuda")


def group_sizes(index: Array, n_groups: int) -> list[int]:
    """Count the elements of each group in `index` (N,). On a GPU, this waits for all queued work."""
    groups = array_namespace(index).arange(n_groups, device=index.device)
    return (index[:, None] == groups).sum(0).tolist()
