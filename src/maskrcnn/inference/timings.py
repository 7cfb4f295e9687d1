"""Timings of precisions on this machine: the picture that is timed, and the seconds that the user's cache keeps."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import llvmlite.binding
import numba
import numpy as np

import maskrcnn
from maskrcnn.config import ModelConfig, Precision
from maskrcnn.detection.conventions import Conventions
from maskrcnn.detection.fit import round_up
from maskrcnn.errors import UserError
from maskrcnn.files import cache_folder, read_json, write_text


def usual_side(config: ModelConfig, conventions: Conventions) -> int:
    """Side of a square picture that a model trained here sees at its ``image_size``, and does not refuse."""
    min_scale = config.min_scale if conventions.resize == "longer" else 0
    side = int(config.image_size / max(min_scale, 1))
    return round_up(side, 64) if conventions.resize == "none" else side


def noise_picture(config: ModelConfig, conventions: Conventions) -> np.ndarray:
    """Noise (H, W, 3) uint8 of the `usual_side`."""
    side = usual_side(config, conventions)
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


def timings_file(*speed_factors: str) -> Path:
    """Where the times of a network on this processor are kept, in the user's cache folder.

    Its name is a hash of the processor, the version of this package and `speed_factors`: all else that its speed
    depends on, versions of libraries included.
    """
    parts = [
        llvmlite.binding.get_host_cpu_name(),
        llvmlite.binding.get_host_cpu_features().flatten(),
        str(numba.config.NUMBA_NUM_THREADS),  # type: ignore[attr-defined]
        maskrcnn.__version__,
        *speed_factors,
    ]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    return cache_folder() / "precision" / f"{key}.json"


def read_seconds(timings: Path, names: Sequence[Precision]) -> dict[Precision, float] | None:
    """The times in a file that `write_seconds` wrote for `names`; None if there is none, or if it is damaged."""
    try:
        seconds = read_json(timings)
    except UserError:
        return None
    fits = isinstance(seconds, dict) and list(seconds) == list(names)
    if not fits or not all(isinstance(s, float) and 0 < s < math.inf for s in seconds.values()):
        return None
    return seconds


def write_seconds(timings: Path, seconds: Mapping[Precision, float]) -> None:
    """Keep times for the next process, which measures again if the cache cannot be written."""
    with suppress(UserError):
        write_text(json.dumps(seconds), timings)
