"""Masks of the package supervision: RLE <-> `CompactMask`, arithmetic on runs that makes no dense array.

A `CompactMask` holds each mask as COCO's counts (column-major, background first, int32) of the pixels in a crop, the
crop's (height, width) and its top left corner (x, y). Ours is the mask's box, or one pixel for an empty mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from maskrcnn.errors import UserError
from maskrcnn.rle import RLE

if TYPE_CHECKING:
    from supervision import CompactMask

EMPTY_CROP = (0, 0, 1, 1)


def import_supervision() -> ModuleType:
    """Return the package. Raise `UserError` if it is missing, or older than `CompactMask`."""
    try:
        import supervision

        supervision.CompactMask  # noqa: B018
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"this needs the package supervision, version 0.30 or newer ({error}): pip install 'maskrcnn[supervision]'"
        ) from None
    return supervision


def to_compact_mask(rles: Sequence[RLE], hw: tuple[int, int]) -> CompactMask:
    """Convert the masks of an image of size `hw` (height, width)."""
    boxes = [rle.box if rle.area else EMPTY_CROP for rle in rles]
    crops = [rle.crop(box) for rle, box in zip(rles, boxes, strict=True)]
    return import_supervision().CompactMask(
        rles=[np.array(crop.counts(), np.int32) for crop in crops],
        crop_shapes=np.array([crop.hw for crop in crops], np.int32).reshape(-1, 2),
        offsets=np.array([box[:2] for box in boxes], np.int32).reshape(-1, 2),
        image_shape=(int(hw[0]), int(hw[1])),
    )


def from_compact_mask(masks: CompactMask) -> list[RLE]:
    """Invert `to_compact_mask`, whatever the crops are."""
    # The public accessors decode; the attributes are the arguments of the constructor.
    return [
        RLE.from_coco({"size": crop_hw, "counts": counts}).shift(x, y, masks.image_shape)
        for counts, crop_hw, (x, y) in zip(masks._rles, masks._crop_shapes, masks._offsets, strict=True)
    ]


def from_masks(masks: Any, n: int, hw: tuple[int, int] | None) -> tuple[list[RLE], tuple[int, int]]:
    """Convert the n masks of a `supervision.Detections`: a `CompactMask`, an array (n, H, W), or None if n is 0.

    Also return the (height, width) of the image. Raise `UserError` if it is unknown, or not `hw`.
    """
    if masks is None and n:
        raise UserError("these supervision.Detections have boxes but no masks; set their `mask`")
    shape = hw if masks is None else masks.shape[1:]
    if shape is None:
        raise UserError("these supervision.Detections are empty, without masks; pass hw=(height, width) of the image")
    size = (int(shape[0]), int(shape[1]))
    if hw is not None and size != tuple(hw):
        raise UserError(f"the masks of these supervision.Detections are {size} (height, width), but hw is {tuple(hw)}")
    if masks is None:
        return [], size
    rles = [RLE.from_mask(mask) for mask in masks] if isinstance(masks, np.ndarray) else from_compact_mask(masks)
    return rles, size
