"""Time a training step in each precision on copies of the network, before a run on a CPU, and choose the fastest.

The times are kept in the user's cache, if it can be written: runs of one network on one machine make one choice, and
equal bytes.
"""

from __future__ import annotations

import copy
import json
import statistics
import time
from collections.abc import Callable

import torch

from maskrcnn.config import Precision, TrainConfig
from maskrcnn.data.batch import Batch, Shard, make_batch
from maskrcnn.data.table import Dataset
from maskrcnn.detection.fit import STRIDE, round_up
from maskrcnn.inference.runtimes.torch import half_precisions
from maskrcnn.inference.timings import read_seconds, timings_file, write_seconds
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.settings import Origin, Settings
from maskrcnn.training.allocator import freed_memory_kept
from maskrcnn.training.distributed import World
from maskrcnn.training.learner import Learner
from maskrcnn.training.memory import COPIES_OF_WEIGHTS, USABLE_FRACTION, free_bytes, training_bytes

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
"""Not fp16: its losses need scaling, and no processor runs it faster than bf16."""

MIN_GAIN = 1.1
"""Speed of bf16 from which it is chosen, as a multiple of fp32's."""

ROUNDS = 3
"""Timed steps of each precision. One more before them compiles kernels and allocates memory."""

MIN_STEPS = 100
"""A run of fewer steps is not timed: it could hardly gain what the timing costs."""

SPEED_SETTINGS = ("batch_size", "freeze", "freeze_norm", "optimizer", "rpn_batch", "roi_batch", "mask_batch")
"""Training settings that the time of a step depends on."""


def in_fastest_precision(
    settings: Settings, model: MaskRCNN, data: Dataset, seconds: float, steps: float, say: Callable[[str], None]
) -> Settings:
    """Replace ``precision: auto`` of a run on a CPU by the precision in which it trains fastest.

    The run has `seconds` and `steps` at most. `say` gets the reason. Settings that name a precision stay, and so does
    "auto" where the processor has no bf16, the run is too short to time, or memory is scarce.
    """
    device = next(model.parameters()).device
    config = settings.config
    if config.train.precision != "auto" or device.type != "cpu" or "bf16" not in half_precisions(device):
        return settings
    if steps < MIN_STEPS or not _has_memory(settings, model):
        return settings
    library = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    timings = timings_file("training", library, *_speed_settings(settings, model, data))
    measured = read_seconds(timings, PRECISIONS)
    if measured is None:
        shard = Shard.of(config.train.batch_size)
        batches = [make_batch(data, step, config, shard, model.conventions) for step in range(1 + ROUNDS)]
        measured = time_steps(model, config.train, batches, seconds)
        if measured is not None:
            write_seconds(timings, measured)
    if measured is None or MIN_STEPS * measured["fp32"] > seconds:
        return settings
    chosen: Precision = "bf16" if measured["fp32"] >= MIN_GAIN * measured["bf16"] else "fp32"
    say(f"precision {chosen}: a step takes {measured['fp32']:.2f} s in fp32 and {measured['bf16']:.2f} s in bf16 here")
    return settings.updated({"train": {"precision": chosen}}, Origin.PLAN)


def time_steps(
    model: MaskRCNN, config: TrainConfig, batches: list[Batch], seconds: float
) -> dict[Precision, float] | None:
    """Median seconds of a step of each of `PRECISIONS`, in turns, on copies of `model`.

    None if a batch is empty, or if `seconds` are too few for a run of `MIN_STEPS` steps.
    """
    if not all(len(batch) for batch in batches):
        return None
    times: dict[Precision, list[float]] = {name: [] for name in PRECISIONS}
    # The run draws the same random numbers with and without a timing.
    with torch.random.fork_rng(devices=[]), freed_memory_kept(torch.device("cpu")):
        learners = {
            name: Learner(copy.deepcopy(model), config.model_copy(update={"precision": name}), World())
            for name in PRECISIONS
        }
        for step, batch in enumerate(batches):
            for name, learner in learners.items():
                began = time.perf_counter()
                learner.learn(batch, step, None)
                times[name].append(time.perf_counter() - began)
                if step and MIN_STEPS * times["fp32"][-1] > seconds:
                    return None
    return {name: statistics.median(of_steps[1:]) for name, of_steps in times.items()}


def _has_memory(settings: Settings, model: MaskRCNN) -> bool:
    """Whether two copies of the network can train while the network waits."""
    device, config = next(model.parameters()).device, settings.config
    free, side = free_bytes(device), round_up(config.augment.crop or config.model.image_size, STRIDE)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    needed = training_bytes(model, config.train.batch_size, side) + COPIES_OF_WEIGHTS * weights
    return free is None or needed <= USABLE_FRACTION * free


def _speed_settings(settings: Settings, model: MaskRCNN, data: Dataset) -> list[str]:
    """What the time of a step depends on, of the settings, the network and the data."""
    config = settings.config
    train = [f"{name} {getattr(config.train, name)}" for name in SPEED_SETTINGS]
    crop, classes = f"crop {config.augment.crop}", f"classes {len(data.class_ids)}"
    return [config.model.model_dump_json(), json.dumps(model.conventions.to_dict()), crop, classes, *train]
