"""Run one side of `inference.py` in a separate process: predict a few images and print the peak memory in MB (Linux).

python benchmarks/alone.py ours BUNDLE PICTURES.npy PRECISION
python benchmarks/alone.py torchvision STATE.pth PICTURES.npy
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

SIZE = 512
CLASSES = 80


def theirs_detect(model: Any, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, list]:
    """Predict as a user of torchvision does: array -> boxes, labels, scores and COCO run lengths."""
    return theirs_detect_batch(model, [image])[0]


def theirs_detect_batch(model: Any, images: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, list]]:
    """Do so with several images at once, on the device of `model`."""
    import torch

    device = next(model.parameters()).device
    results = []
    with torch.no_grad():
        for output in model([torch.from_numpy(image).to(device).permute(2, 0, 1).float() / 255 for image in images]):
            masks = (output["masks"][:, 0] >= 0.5).permute(1, 2, 0).to(torch.uint8)
            runs = coco_encode()(np.asfortranarray(masks.cpu().numpy()))
            boxes, labels, scores = (output[name].cpu() for name in ("boxes", "labels", "scores"))
            results.append((boxes.float().numpy(), labels.numpy(), scores.float().numpy(), runs))
    return results


def coco_encode() -> Any:
    """Return pycocotools' encoder of masks (H, W, N), or the same one of our dependency faster-coco-eval."""
    try:
        from pycocotools.mask import encode
    except ImportError:
        from faster_coco_eval.core.mask import encode
    return encode


def ours(bundle: str, pictures: np.ndarray, precision: Any) -> None:
    """Predict as a user of a bundle does."""
    import maskrcnn

    model = maskrcnn.load(bundle, precision=precision)
    for picture in pictures:
        detections = model.predict(picture, keep_pixels=False)
        assert len([rle.to_coco() for rle in detections.rles]) > 0


def torchvision(state: str, pictures: np.ndarray) -> None:
    """Predict as a user of torchvision does."""
    import torch
    from torchvision.models import detection

    model = detection.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=CLASSES + 1, min_size=SIZE, max_size=SIZE
    )
    model.load_state_dict(torch.load(state, weights_only=True, mmap=True), assign=True)
    model.eval()
    for picture in pictures:
        assert len(theirs_detect(model, picture)[0]) > 0


if __name__ == "__main__":
    side, model_path, pictures_path, *precision = sys.argv[1:]
    {"ours": ours, "torchvision": torchvision}[side](model_path, np.load(pictures_path), *precision)
    # Not getrusage: its maximum includes the parent process.
    print(int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
