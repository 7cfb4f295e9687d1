"""What the comparisons with torchvision share: pictures, weights, both sides' predictions, and turns in alternation."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from alone import CLASSES, SIZE
from torchvision.models import detection

from maskrcnn import RLE, iou_matrix
from maskrcnn.inference.predictor import Predictor


def picture(seed: int, hw: tuple[int, int] = (SIZE, SIZE)) -> np.ndarray:
    """Return an image (H, W, 3) of blobs, stripes and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: hw[0], : hw[1]]
    image = rng.uniform(0, 255, 3) + 60 * np.sin(x / 9 + rng.uniform(0, 6))[..., None] * rng.uniform(-1, 1, 3)
    for _ in range(40):
        cy, cx, r = rng.uniform(0, hw[0]), rng.uniform(0, hw[1]), rng.uniform(8, 90)
        image[(y - cy) ** 2 + (x - cx) ** 2 < r**2] = rng.uniform(0, 255, 3)
    return np.clip(image + rng.normal(0, 10, image.shape), 0, 255).astype(np.uint8)


@torch.no_grad()
def torchvision_model(seed: int, hw: tuple[int, int] = (SIZE, SIZE)) -> detection.MaskRCNN:
    """Return a model with random weights that finds 1000 proposals and 100 detections in an image of `hw`."""
    torch.manual_seed(seed)
    model = detection.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=CLASSES + 1, min_size=min(hw), max_size=max(hw)
    ).eval()
    for name, tensor in model.state_dict().items():
        if name.endswith("running_mean"):
            tensor.copy_(0.1 * torch.randn(tensor.shape))
        elif name.endswith("running_var"):
            tensor.copy_(1 + 0.2 * torch.rand(tensor.shape))
        elif "bn3.weight" in name:
            tensor.mul_(0.3)
    for layer in model.backbone.fpn.layer_blocks:
        layer[0].bias.normal_(0, 0.1)  # without any bias, OpenVINO 2026.4 feeds zeros to the int8 RPN behind it
    model.rpn.head.cls_logits.weight.mul_(30)
    model.rpn.head.bbox_pred.weight.mul_(3)
    model.roi_heads.mask_predictor.mask_fcn_logits.weight.mul_(3)
    batch, _ = model.transform([torch.from_numpy(picture(99, hw)).permute(2, 0, 1).float() / 255])
    features = model.backbone(batch.tensors)
    proposals, _ = model.rpn(batch, features)
    pooled = model.roi_heads.box_roi_pool(features, proposals, batch.image_sizes)
    layer = model.roi_heads.box_predictor.cls_score
    logits = layer(model.roi_heads.box_head(pooled))
    factor = 3 / logits.std(0)
    layer.weight.mul_(factor[:, None])
    layer.bias.copy_((layer.bias - logits.mean(0)) * factor)
    return model


def ours_detect(model: Predictor, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, list]:
    """Return boxes, class ids, scores and COCO run lengths of an image, as `theirs_detect` does."""
    dets = model.predict(image, keep_pixels=False)
    return dets.boxes, dets.class_ids, dets.scores, [rle.to_coco() for rle in dets.rles]


def compare(ours: tuple, theirs: tuple) -> dict[str, float]:
    """Return the largest differences between our detections and the nearest of theirs in the same class."""
    assert len(ours[0]) == len(theirs[0]), f"{len(ours[0])} detections against {len(theirs[0])}"
    distance = np.abs(ours[0][:, None] - theirs[0][None]).max(2).astype(float)
    distance[ours[1][:, None] != theirs[1][None]] = np.inf
    partner = distance.argmin(1)
    a = [RLE.from_coco(r) for r in ours[3]]
    b = [RLE.from_coco({"size": r["size"], "counts": r["counts"].decode()}) for r in theirs[3]]
    ious = [float(iou_matrix([x], [b[k]])[0, 0]) for x, k in zip(a, partner, strict=True) if x.area or b[k].area]
    return {
        "detections": len(ours[0]),
        "box_px": float(distance.min(1).max()),
        "score": float(np.abs(ours[2] - theirs[2][partner]).max()),
        "mask_iou": min(ious),
    }


def alternate(
    sides: Mapping[str, Callable[[int], Any]], warm_up: int, rounds: int, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """Median seconds of each side over `rounds`, in turns. A side gets the number of its turn, `warm_up` included."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for k in range(warm_up + rounds):
        for name, work in sides.items():
            synchronize(device)
            began = time.perf_counter()
            work(k)
            synchronize(device)
            if k >= warm_up:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def synchronize(device: torch.device | str) -> None:
    """Wait until a GPU has finished. A CPU has."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
