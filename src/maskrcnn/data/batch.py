"""Batches: an endless, numbered stream of samples, prepared by threads while the model computes.

Sample n of a run shows image ``image_order(pass)[n % images_per_pass]`` of pass ``n // images_per_pass``. It depends on
(seed, pass, image) alone, not on the number of threads or processes, nor on where a run was resumed.

    B images, H x W input pixels
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from maskrcnn.config import Config
from maskrcnn.data.dataset import generator, training_placement, training_sample
from maskrcnn.data.table import Dataset
from maskrcnn.detection.conventions import NATIVE, Conventions
from maskrcnn.detection.fit import stack
from maskrcnn.errors import ImageError
from maskrcnn.structures import Targets


@dataclass(frozen=True)
class Shard:
    """The images of each step that one process computes: positions ``first <= position < last`` of `images`."""

    images: int
    first: int
    last: int

    @classmethod
    def of(cls, images: int, rank: int = 0, processes: int = 1) -> Shard:
        """The shard of process `rank`. Shards differ by at most one image."""
        return cls(images, rank * images // processes, (rank + 1) * images // processes)


@dataclass(frozen=True)
class Batch:
    """Padded pixels (B, H, W, 3) uint8, windows (B, 4) of the images in them, sample numbers and read errors."""

    pixels: np.ndarray
    windows: np.ndarray
    targets: list[Targets]
    names: list[str]
    numbers: list[int]
    unreadable: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def parts(self, size: int) -> Iterator[Batch]:
        """Yield the images in batches of at most `size`, with unchanged padding."""
        for first in range(0, len(self), size):
            rows = slice(first, first + size)
            yield Batch(
                self.pixels[rows], self.windows[rows], self.targets[rows], self.names[rows], self.numbers[rows], []
            )


def images_per_pass(data: Dataset, config: Config) -> int:
    """All images with instances and as many empty ones as ``train.empty`` allows; all images if none has instances."""
    return len(data) - _left_out_of_a_pass(data, config)


def image_order(data: Dataset, pass_number: int, config: Config) -> np.ndarray:
    """Indices (images_per_pass,) of the images that a pass shows, in order."""
    order = _permutation(len(data), pass_number, config.train.seed)
    left_out = _left_out_of_a_pass(data, config)
    if left_out == 0:
        return order
    empty = data.without_crowd.counts[order] == 0
    return order[~empty | (np.cumsum(empty) > left_out)]


def shown(data: Dataset, number: int, config: Config) -> tuple[int, int]:
    """Image index and pass of sample `number` of the run."""
    pass_number, position = divmod(number, images_per_pass(data, config))
    return int(image_order(data, pass_number, config)[position]), pass_number


@lru_cache(maxsize=2)
def _permutation(n: int, pass_number: int, seed: int) -> np.ndarray:
    return generator(seed, 0, pass_number).permutation(n)


def _left_out_of_a_pass(data: Dataset, config: Config) -> int:
    max_empty = config.train.empty
    counts = data.without_crowd.counts
    if max_empty == 1 or not counts.any():
        return 0
    with_instances = int(np.count_nonzero(counts))
    empty_shown = math.ceil(with_instances * max_empty / (1 - max_empty))
    return max(len(data) - with_instances - empty_shown, 0)


def make_batch(data: Dataset, step: int, config: Config, shard: Shard, conventions: Conventions = NATIVE) -> Batch:
    """Read the images of `shard` in step `step` (0-based), padded to the largest image of all shards of the step.

    Anchors cover the padding too, so the sampled anchors do not depend on how the step is divided.
    """
    placements = (
        training_placement(data, *shown(data, step * shard.images + position, config), config, conventions)[0]
        for position in range(shard.images)
    )
    heights, widths = zip(*(placement.input_hw for placement in placements), strict=True)
    images, targets, names, numbers, unreadable = [], [], [], [], []
    for position in range(shard.first, shard.last):
        number = step * shard.images + position
        i, pass_number = shown(data, number, config)
        try:
            pixels, target = training_sample(data, i, pass_number, config, conventions)
        except ImageError as error:
            unreadable.append(str(error))
            continue
        images.append(pixels)
        targets.append(target)
        names.append(data.names[i])
        numbers.append(number)
    return Batch(*stack(images, (max(heights), max(widths))), targets, names, numbers, unreadable)


def batches(
    data: Dataset,
    first_step: int,
    last_step: int,
    config: Config,
    shard: Shard,
    conventions: Conventions = NATIVE,
    finish: Callable[[Batch], Batch] = lambda batch: batch,
) -> Generator[Batch, None, None]:
    """Yield the images of `shard` in steps ``first_step <= step < last_step``, in order, prepared ahead.

    The threads that prepare a batch also `finish` it.
    """

    def make(step: int) -> Batch:
        return finish(make_batch(data, step, config, shard, conventions))

    if config.train.workers == 0:
        yield from map(make, range(first_step, last_step))
        return
    with ThreadPoolExecutor(config.train.workers, thread_name_prefix="maskrcnn-data") as pool:
        waiting: deque[Future[Batch]] = deque()
        step = first_step
        try:
            while step < last_step or waiting:
                while step < last_step and len(waiting) < 2 * config.train.workers:
                    waiting.append(pool.submit(make, step))
                    step += 1
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
