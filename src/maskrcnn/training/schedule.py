"""Learning-rate schedule, parameter groups and the moving average of the weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from maskrcnn.config import TrainConfig
from maskrcnn.model.mask_rcnn import MaskRCNN

WARMUP_STEPS = 60
"""Steps of linear warm-up. Under a time budget, the total is planned after them."""

LAST_STAGE = 5
"""Last stage of the backbone, C5."""

MILESTONES = (2 / 3, 8 / 9)
"""Fractions of the run at which step decay divides the rate by 10."""


def lr_factor(step: int, total: int | None, config: TrainConfig) -> float:
    """Return the factor on the peak rate at `step` (0-based) of `total`, which is None until a budget is planned."""
    warmup = min((step + 1) / warmup_steps(total), 1.0)
    if total is None or config.decay == "none":
        return warmup
    progress = min(step / max(total, 1), 1.0)
    if config.decay == "step":
        return warmup * 0.1 ** sum(progress >= milestone for milestone in MILESTONES)
    return warmup * 0.5 * (1 + math.cos(math.pi * progress))


def warmup_steps(total: int | None) -> int:
    """Return the number of steps of the warm-up: `WARMUP_STEPS`, but at most a tenth of the run."""
    return WARMUP_STEPS if total is None else max(min(WARMUP_STEPS, total // 10), 1)


def build_optimizer(model: MaskRCNN, config: TrainConfig) -> torch.optim.Optimizer:
    """Build AdamW or SGD with a rate per backbone stage and no weight decay on vectors (biases, norms)."""
    peak = config.peak_lr
    factors = {
        id(parameter): config.backbone_lr * config.layer_lr_decay ** (LAST_STAGE - stage)
        for stage, parameter in model.backbone.parameters_by_stage()
    }
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault((factors.get(id(parameter), 1.0), parameter.ndim > 1), []).append(parameter)
    settings = [
        {"params": parameters, "peak_lr": peak * factor, "weight_decay": config.weight_decay if is_matrix else 0.0}
        for (factor, is_matrix), parameters in sorted(groups.items())
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(settings, lr=peak, momentum=0.9)
    return torch.optim.AdamW(settings, lr=peak, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set the rate of each group to its peak rate times `factor`; return the highest rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return max(group["lr"] for group in optimizer.param_groups)


class WeightAverage:
    """Moving average of the weights: ``average = d * average + (1 - d) * weights``, where d rises to `decay`."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.average = {name: t.detach().clone() for name, t in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Add the weights after `step` (0-based) to the average."""
        decay = min(self.decay, (1 + step) / (10 + step))
        floats: list[tuple[Tensor, Tensor]] = []
        for name, tensor in model.state_dict().items():
            average = self.average[name]
            if average.is_floating_point():
                floats.append((average, tensor))
            else:
                average.copy_(tensor)
        averages, weights = zip(*floats, strict=True)
        get_ema_multi_avg_fn(decay)(averages, weights, None)
