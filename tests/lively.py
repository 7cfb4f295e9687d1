"""Random networks that find something: their class layer is centred and scaled on what it sees in noise."""

from __future__ import annotations

import torch

from maskrcnn.config import Config, ModelConfig
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inference.runtimes.torch import TorchRuntime
from maskrcnn.model.conventions import NATIVE, Conventions
from maskrcnn.model.mask_rcnn import MaskRCNN, build_model


@torch.no_grad()
def enliven(model: MaskRCNN, side: int) -> MaskRCNN:
    """Scale objectness, deltas, class and mask layers so that a noisy input has dozens of sure detections."""
    model.eval()
    model.rpn.objectness.weight.mul_(40)
    model.rpn.deltas.weight.mul_(10)
    pixels = torch.randint(0, 256, (1, side, side, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    windows = torch.tensor([[0, 0, side, side]])
    stages = model(model.normalize(pixels, windows), windows)
    logits = stages.class_logits[0]
    layer = model.box_head.class_logits
    factor = 3 / logits.std(0).clamp(min=1e-6)
    layer.weight.mul_(factor[:, None])
    layer.bias.copy_((layer.bias - logits.mean(0)) * factor)
    model.mask_head.logits.weight.mul_(300)
    return model


def predictor(conventions: Conventions = NATIVE, **changes) -> Predictor:
    """A tiny lively network of four classes for inputs of 128 pixels; `changes` are model settings."""
    torch.manual_seed(2)
    small = {"image_size": 128, "channels": 16, "box_channels": 32, "mask_channels": 16, "proposals": 60}
    config = ModelConfig(backbone="test_resnet", weights="none", proposals_per_level=50, **{**small, **changes})
    model = build_model(config, 4, conventions.changed(shorter_side=96))
    enliven(model, 128)
    names = ["box", "disc", "star", "triangle"]
    settings = Config(model=config).changed(predict={"score_threshold": 0.3})
    return Predictor(TorchRuntime(model), settings, names, names)
