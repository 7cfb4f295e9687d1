"""A trained run that commands read."""

from pathlib import Path

import pytest

import maskrcnn
from maskrcnn import Config
from maskrcnn.config import ModelConfig, PredictConfig, TrainConfig


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "run"
    config = Config(
        model=ModelConfig(backbone="test_resnet", weights="none", image_size=64, channels=16, box_channels=32, mask_channels=16),
        train=TrainConfig(epochs=1, epoch_images=4),
        predict=PredictConfig(score_threshold=0.0, detections=5),
    )  # fmt: skip
    return maskrcnn.train(*shapes.split(0.3), out=out, config=config).path
