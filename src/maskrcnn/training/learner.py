"""One optimizer step: images -> losses -> gradients -> weights and their average.

A step may be divided into batches, in sequence or over processes. Gradients and losses are those of the whole step.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from maskrcnn.config import TrainConfig
from maskrcnn.data.batch import Batch
from maskrcnn.detection.arrays import to_device
from maskrcnn.detection.stages import Observe, ignore
from maskrcnn.model.folding import fold_frozen_norms
from maskrcnn.model.layers import norms
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.rle import RunTable
from maskrcnn.structures import Placement, Targets
from maskrcnn.training.criterion import LOSSES, Criterion
from maskrcnn.training.distributed import World
from maskrcnn.training.numerics import half_type, keep_depthwise_in_float32
from maskrcnn.training.schedule import WeightAverage, build_optimizer, lr_factor, set_lr
from maskrcnn.training.targets import Truth
from maskrcnn.winograd import training as winograd

NAMES = (*LOSSES, "loss")


@dataclass(frozen=True)
class Step:
    """Result of a step: the losses, empty if it was skipped; the highest learning rate; the images of all processes."""

    losses: dict[str, float]
    lr: float
    images: int


class Learner:
    """A model on its device, with the optimizer and the average of its weights.

    Modules of `model` are replaced by faster ones for training, which share its tensors. Predict with another instance.
    """

    def __init__(self, model: MaskRCNN, config: TrainConfig, world: World) -> None:
        self.model, self.config, self.world = model, config, world
        self.device = next(model.parameters()).device
        if config.freeze_norm:
            fold_frozen_norms(model.backbone.body)
        if self.device.type == "cpu":
            winograd.accelerate(model)
        half = half_type(config.precision, self.device)
        if half is not None and self.device.type == "cpu":
            keep_depthwise_in_float32(model)
        self.criterion = world.wrap(Criterion(model, config, half))
        self.optimizer = build_optimizer(model, config)
        self.average = WeightAverage(model, config.ema)
        # The smallest float16 is 6e-8, so the loss is scaled up, and less when a gradient overflows.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half == torch.float16)

    def learn(self, batch: Batch, step: int, total: int | None) -> Step:
        """Take step `step` (0-based) of `total`; `batch` has this process's images.

        If a loss or gradient is not finite in any process, no process changes its weights, and the result has no
        losses. With float16, a gradient that overflows only lowers the loss scale, and the losses are returned.
        """
        lr = set_lr(self.optimizer, lr_factor(step, total, self.config))
        n_images = int(self.world.sum(torch.tensor(len(batch))))
        if n_images == 0:
            return Step({}, lr, 0)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        statistics = self._moving_statistics()
        before = [tensor.clone() for tensor in statistics]
        losses = self._backward(batch, n_images)
        self.scaler.unscale_(self.optimizer)
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = float(torch.nn.utils.clip_grad_norm_(trained, self.config.clip))
        if math.isfinite(norm) and math.isfinite(losses["loss"]):
            self.scaler.step(self.optimizer)
            self.world.average([tensor for tensor in statistics if tensor.is_floating_point()])
            self.average.update(self.model, step)
        else:
            for tensor, old in zip(statistics, before, strict=True):
                tensor.copy_(old)
            scaled_too_high = self.scaler.is_enabled() and self.scaler.get_scale() > 1 and math.isfinite(losses["loss"])
            losses = losses if scaled_too_high else {}
        self.scaler.update()
        return Step(losses, lr, n_images)

    def _backward(self, batch: Batch, n_images: int) -> dict[str, float]:
        """Accumulate the gradients of all batches of the step and return its losses."""
        values = torch.zeros(len(NAMES), device=self.device)
        parts = list(batch.parts(self.config.batch_size))
        for k, part in enumerate(parts):
            with nullcontext() if k == len(parts) - 1 else self.world.apart(self.criterion):
                losses = self.losses(part, n_images)
                # DistributedDataParallel averages gradients; scale by the world size to get their sum.
                self.scaler.scale(losses["loss"] * self.world.size).backward()
            values += torch.stack([losses[name].detach() for name in NAMES])
        if not parts:
            self.model.eval()  # a blank image must not update batch-norm statistics
            self.losses(_blank(batch), n_images)["loss"].mul(0).backward()
        return dict(zip(NAMES, self.world.sum(values).tolist(), strict=True))

    def losses(self, batch: Batch, n_images: int, observe: Observe = ignore) -> dict[str, Tensor]:
        """The losses of a batch of a step with `n_images` (`Criterion.forward`)."""
        windows = to_device(batch.windows, self.device)
        images = self.model.normalize(to_device(batch.pixels, self.device), windows)
        generators = [torch.Generator(self.device).manual_seed(self.config.seed * 1_000_003 + n) for n in batch.numbers]
        truth = Truth.of(batch.targets, self.device)
        return self.criterion(images, windows, truth, generators, n_images, observe)

    def _moving_statistics(self) -> list[Tensor]:
        """Running statistics of trainable batch norm, the only state that forward passes change."""
        return [tensor for layer in norms(self.model) if layer.training for tensor in layer.buffers()]


def page_locked(batch: Batch, device: torch.device) -> Batch:
    """Move the pixels of `batch` to page-locked memory, which a CUDA `device` reads while it computes."""
    if device.type != "cuda":
        return batch
    return replace(batch, pixels=torch.from_numpy(batch.pixels).pin_memory().numpy())


def _blank(batch: Batch) -> Batch:
    """A black image of the empty `batch`'s size, for a process without images: the others wait for its gradients."""
    h, w = batch.pixels.shape[1:3]
    no_instances = Targets(
        np.zeros((0, 4), np.float32), np.zeros(0, np.int64), RunTable.of([]), (h, w), Placement((0, 0, w, h), (h, w))
    )
    return Batch(np.zeros((1, h, w, 3), np.uint8), np.array([[0, 0, w, h]]), [no_instances], [""], [0], [])
