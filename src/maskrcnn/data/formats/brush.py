"""Label Studio's brush masks: the list of bytes under "rle" <-> RLE. `kernels.brush` describes the bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskrcnn.kernels import brush as kernel
from maskrcnn.kernels.runs import transpose_runs
from maskrcnn.rle import RLE, RLEError, shortened

MAX_PIXELS = (2**32 - 1) // 4
"""The format counts four values a pixel in 32 bits."""


def decode_brush(data: Sequence[int] | bytes, hw: tuple[int, int]) -> RLE:
    """Decode the bytes of a picture of size `hw` ("original_height", "original_width"). Alpha above 0 is the mask.

    Raise `RLEError` if they are no bytes, end too early, belong to another size or go beyond the picture.
    """
    h, w = int(hw[0]), int(hw[1])
    if isinstance(data, bytes):
        numbers = np.frombuffer(data, np.uint8)
    else:
        try:
            numbers = np.asarray(data)
        except (ValueError, OverflowError):
            numbers = np.empty((), object)
        if numbers.size == 0:
            numbers = np.empty(0, np.uint8)
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or (numbers.astype(np.uint8) != numbers).any():
            raise RLEError(f"brush mask: expected a list of bytes, integers of 0 to 255, not {shortened(str(data))}")
        numbers = numbers.astype(np.uint8)
    runs, code, value = kernel.decode(numbers, 4 * h * w)
    if code != kernel.OK:
        fault = {
            kernel.TRUNCATED: f"its {len(numbers):,} bytes end at value {value + 1:,} of {4 * h * w:,}",
            kernel.WRONG_COUNT: (
                f"it has {value:,} values; a picture of {h}x{w} (height x width) needs {4 * h * w:,}, four a pixel"
            ),
            kernel.PAST_END: f"the packet at value {value + 1:,} ends beyond the last of {4 * h * w:,} values",
        }[code]
        raise RLEError(f"brush mask: {fault}")
    return RLE(transpose_runs(runs, h, w), (h, w))


def encode_brush(mask: RLE) -> list[int]:
    """Encode a mask as label-studio-converter's ``mask2rle`` does for values of 255: the same bytes."""
    h, w = mask.hw
    if h * w > MAX_PIXELS:
        raise RLEError(f"brush mask: {h}x{w} (height x width) pixels exceed the format's limit of {MAX_PIXELS:,}")
    return kernel.encode(transpose_runs(mask.runs, w, h), h * w).tolist()
