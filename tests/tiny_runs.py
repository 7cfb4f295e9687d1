"""The configuration of a run of seconds, and how a test interrupts it."""

import signal

from maskrcnn import Config
from maskrcnn.config import ModelConfig, TrainConfig
from maskrcnn.training import learner

TINY = Config(
    model=ModelConfig(
        backbone="test_resnet", weights="none", image_size=64, channels=16, box_channels=32, mask_channels=16,
        proposals=40, proposals_per_level=40,
    ),
    train=TrainConfig(epochs=2, epoch_images=6, roi_batch=16, rpn_batch=32, mask_batch=4),
)  # fmt: skip


def interrupt_after(monkeypatch, stop_step):
    """Make every later run receive SIGTERM after step `stop_step`."""
    learn = learner.Learner.learn

    def interrupting(self, batch, step, total):
        result = learn(self, batch, step, total)
        if step + 1 == stop_step:
            signal.raise_signal(signal.SIGTERM)
        return result

    monkeypatch.setattr(learner.Learner, "learn", interrupting)
