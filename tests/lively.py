"""Untrained networks that detect something: their class logits are normalized on a noise image."""

from __future__ import annotations

import torch

from maskrcnn.config import Config, ModelConfig
from maskrcnn.detection.conventions import NATIVE, Conventions
from maskrcnn.detection.propose import propose
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inference.runtimes.torch import TorchRuntime
from maskrcnn.model.mask_rcnn import MaskRCNN, build_model


@torch.no_grad()
def enliven(model: MaskRCNN, side: int) -> MaskRCNN:
    """Scale the objectness, delta, class and mask layers to get dozens of confident detections in noise."""
    model.eval()
    model.rpn.objectness.weight.mul_(40)
    model.rpn.deltas.weight.mul_(10)
    pixels = torch.randint(0, 256, (1, side, side, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    windows = torch.tensor([[0, 0, side, side]])
    features, rpn = model(model.normalize(pixels, windows))
    trunk = model.trunk(features, rpn, (side, side))
    proposals = propose(trunk, windows.float().numpy(), model.anchors, model.config, model.conventions)
    logits, _ = model.classify(features, *(torch.from_numpy(v) for v in (proposals.boxes, proposals.image_index)))
    layer = model.box_head.class_logits
    factor = 3 / logits.std(0).clamp(min=1e-6)
    layer.weight.mul_(factor[:, None])
    layer.bias.copy_((layer.bias - logits.mean(0)) * factor)
    model.mask_head.logits.weight.mul_(300)
    return model


def predictor(conventions: Conventions = NATIVE, **changes) -> Predictor:
    """Build a tiny predictor of four classes for inputs of 128 pixels. `changes` are model settings."""
    torch.manual_seed(2)
    tiny = {"image_size": 128, "channels": 16, "box_channels": 32, "mask_channels": 16, "proposals": 60}
    config = ModelConfig(backbone="test_resnet", weights="none", proposals_per_level=50, **{**tiny, **changes})
    model = build_model(config, 4, conventions.changed(shorter_side=96))
    enliven(model, 128)
    names = ["box", "disc", "star", "triangle"]
    settings = Config(model=config).changed(predict={"score_threshold": 0.3})
    return Predictor(TorchRuntime(model), settings, names, names)
