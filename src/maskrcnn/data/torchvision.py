"""A `Dataset` as torchvision's detection models, transforms and reference scripts take it: image i -> (image, target).

N instances, H x W pixels
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat, Image, Mask

from maskrcnn.data.dataset import read_pixels
from maskrcnn.data.table import Dataset


class TorchvisionDataset(torch.utils.data.Dataset):
    """Map-style dataset. `Dataset.to_torchvision` explains its items. Workers that are spawned can take it."""

    def __init__(self, data: Dataset, transforms: Callable[[Any, Any], Any] | None = None) -> None:
        self.data = data
        self.transforms = transforms

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        """Read image `index`, and what `transforms` makes of it. Raise `ImageError`, and `IndexError` past the end."""
        i = range(len(self))[index]
        pixels = np.ascontiguousarray(read_pixels(self.data, i).transpose(2, 0, 1))  # (H, W, 3) -> (3, H, W)
        item = Image(torch.from_numpy(pixels)), _target(self.data, i)
        return item if self.transforms is None else self.transforms(*item)


def _target(data: Dataset, i: int) -> dict[str, Any]:
    hw, runs, instances = data.hw(i), data.runs(i), data.instances(i)
    crowd = np.zeros(len(runs), bool) if data.crowd is None else data.crowd[instances]
    masks = np.zeros((len(runs), *hw), np.uint8)
    for mask, rle in zip(masks, data.rles(i), strict=True):
        mask[:] = rle.to_mask()
    boxes = torch.from_numpy(runs.boxes(hw[0]).astype(np.float32))
    return {
        "boxes": BoundingBoxes(boxes, format=BoundingBoxFormat.XYXY, canvas_size=hw),
        "masks": Mask(torch.from_numpy(masks)),
        "labels": torch.from_numpy(data.labels[instances].astype(np.int64)),
        "image_id": i,
        "area": torch.from_numpy(runs.areas.astype(np.float32)),
        "iscrowd": torch.from_numpy(crowd.astype(np.int64)),
    }
