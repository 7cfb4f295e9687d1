"""One optimizer step: batch -> losses -> gradients -> weights and their average."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from maskrcnn.config import TrainConfig
from maskrcnn.data.batch import Batch
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.training.criterion import Criterion
from maskrcnn.training.schedule import WeightAverage, build_optimizer, lr_factor, set_lr
from maskrcnn.training.targets import Truth


@dataclass(frozen=True)
class Step:
    """What a step did: the losses, none where it was skipped, and the highest learning rate."""

    losses: dict[str, float]
    lr: float


class Learner:
    """`model`, on its device, with all that changes it."""

    def __init__(self, model: MaskRCNN, config: TrainConfig) -> None:
        self.model, self.config = model, config
        self.device = next(model.parameters()).device
        self.criterion = Criterion(model, config)
        self.optimizer = build_optimizer(model, config)
        self.average = WeightAverage(model, config.ema)

    def learn(self, batch: Batch, step: int, total: int | None) -> Step:
        """Take step `step` (0-based) of `total`; it is skipped where a loss or gradient is not finite."""
        lr = set_lr(self.optimizer, lr_factor(step, total, self.config))
        if len(batch) == 0:
            return Step({}, lr)
        self.model.train()
        windows = torch.from_numpy(batch.windows).to(self.device)
        images = self.model.normalize(torch.from_numpy(batch.pixels).to(self.device), windows)
        generator = torch.Generator(self.device).manual_seed(self.config.seed * 1_000_003 + step)
        losses = self.criterion(images, windows, Truth.of(batch.targets, self.device), generator)
        self.optimizer.zero_grad(set_to_none=True)
        values = {name: float(value.detach()) for name, value in losses.items()}
        if math.isfinite(values["loss"]):
            losses["loss"].backward()
            trained = [p for group in self.optimizer.param_groups for p in group["params"]]
            norm = torch.nn.utils.clip_grad_norm_(trained, self.config.clip)
            if bool(torch.isfinite(norm)):
                self.optimizer.step()
                self.average.update(self.model, step)
                return Step(values, lr)
        self._undo_forward()
        return Step({}, lr)

    def _undo_forward(self) -> None:
        """A forward pass that went wrong has also been through batch norm's running statistics, where they move."""
        average = self.average.average
        buffers = {name: average[name] for name, _ in self.model.named_buffers() if name in average}
        self.model.load_state_dict(buffers, strict=False)
