"""Batches: an endless, numbered stream of samples, prepared by threads while the model computes.

Sample n of a run shows image ``order(pass)[n % images]`` of pass ``n // images``, images being those of a pass. Nothing
else decides what it looks like: not the number of threads or processes, not where a resumed run begins.

    B images, H x W input pixels, G instances of the fullest image
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from maskrcnn.config import Config
from maskrcnn.data.dataset import generator, training_placement, training_sample
from maskrcnn.data.images import ImageError
from maskrcnn.data.table import Dataset
from maskrcnn.structures import Targets

STRIDE = 32
"""Inputs are padded, at right and bottom, to a multiple of the backbone's largest stride."""


@dataclass(frozen=True)
class Share:
    """Which images of each step are this process's: positions ``first <= position < last`` of `images`."""

    images: int
    first: int
    last: int

    @classmethod
    def of(cls, images: int, rank: int = 0, processes: int = 1) -> Share:
        """The part of process `rank`; parts differ by one image at the most."""
        return cls(images, rank * images // processes, (rank + 1) * images // processes)


@dataclass(frozen=True)
class Batch:
    """pixels (B, H, W, 3) uint8, padded; windows (B, 4) of picture in them; targets, names and the numbers that the
    images have among the samples of the run; unreadable files.
    """

    pixels: np.ndarray
    windows: np.ndarray
    targets: list[Targets]
    names: list[str]
    numbers: list[int]
    unreadable: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def parts(self, size: int) -> Iterator[Batch]:
        """The images by `size` at a time, padded as they are."""
        for first in range(0, len(self), size):
            rows = slice(first, first + size)
            yield Batch(
                self.pixels[rows], self.windows[rows], self.targets[rows], self.names[rows], self.numbers[rows], []
            )


def stack(images: Sequence[np.ndarray], least_hw: tuple[int, int] = (STRIDE, STRIDE)) -> tuple[np.ndarray, np.ndarray]:
    """Images (h, w, 3) of any sizes -> one padded (B, H, W, 3) of their type and their windows in it, (B, 4) int64.

    H and W are at least `least_hw`.
    """
    image_hw = np.array([im.shape[:2] for im in images], np.int64).reshape(-1, 2)
    h, w = (int(-(-side // STRIDE) * STRIDE) for side in np.vstack([image_hw, [least_hw]]).max(0))
    pixels = np.zeros((len(images), h, w, 3), images[0].dtype if len(images) else np.uint8)
    for canvas, image in zip(pixels, images, strict=True):
        canvas[: image.shape[0], : image.shape[1]] = image
    return pixels, np.concatenate([np.zeros_like(image_hw), image_hw[:, ::-1]], 1)


def images_per_pass(data: Dataset, config: Config) -> int:
    """All with instances, and of the others as many as ``train.empty`` lets in; all where there are no instances."""
    return len(data) - _left_out_of_a_pass(data, config)


def image_order(data: Dataset, pass_number: int, config: Config) -> np.ndarray:
    """(images_per_pass,) the images that a pass shows, in its order."""
    order = _permutation(len(data), pass_number, config.train.seed)
    left_out = _left_out_of_a_pass(data, config)
    if left_out == 0:
        return order
    empty = data.counts[order] == 0
    return order[~empty | (np.cumsum(empty) > left_out)]


def shown(data: Dataset, number: int, config: Config) -> tuple[int, int]:
    """Which image sample `number` of the run shows, and in which pass."""
    pass_number, position = divmod(number, images_per_pass(data, config))
    return int(image_order(data, pass_number, config)[position]), pass_number


@lru_cache(maxsize=2)
def _permutation(n: int, pass_number: int, seed: int) -> np.ndarray:
    return generator(seed, 0, pass_number).permutation(n)


def _left_out_of_a_pass(data: Dataset, config: Config) -> int:
    share = config.train.empty
    if share == 1:
        return 0
    with_instances = int(np.count_nonzero(data.counts))
    if with_instances == 0:
        return 0
    shown = math.ceil(with_instances * share / (1 - share))
    return max(len(data) - with_instances - shown, 0)


def make_batch(data: Dataset, step: int, config: Config, share: Share) -> Batch:
    """The images of `share` in step `step` (0-based).

    They are padded to the largest image of the whole step. Anchors lie over the padding too, and with this which of
    them are sampled does not depend on how a step is shared out.
    """
    placements = (
        training_placement(data, *shown(data, step * share.images + position, config), config)[0]
        for position in range(share.images)
    )
    heights, widths = zip(*(placement.input_hw for placement in placements), strict=True)
    images, targets, names, numbers, unreadable = [], [], [], [], []
    for position in range(share.first, share.last):
        number = step * share.images + position
        i, pass_number = shown(data, number, config)
        try:
            pixels, target = training_sample(data, i, pass_number, config)
        except ImageError as error:
            unreadable.append(str(error))
            continue
        images.append(pixels)
        targets.append(target)
        names.append(data.names[i])
        numbers.append(number)
    return Batch(*stack(images, (max(heights), max(widths))), targets, names, numbers, unreadable)


def batches(
    data: Dataset, first_step: int, last_step: int, config: Config, share: Share
) -> Generator[Batch, None, None]:
    """The images of `share` in steps ``first_step <= step < last_step``, in order, prepared ahead."""
    if config.train.workers == 0:
        yield from (make_batch(data, step, config, share) for step in range(first_step, last_step))
        return
    with ThreadPoolExecutor(config.train.workers, thread_name_prefix="maskrcnn-data") as pool:
        waiting: deque[Future[Batch]] = deque()
        step = first_step
        try:
            while step < last_step or waiting:
                while step < last_step and len(waiting) < 2 * config.train.workers:
                    waiting.append(pool.submit(make_batch, data, step, config, share))
                    step += 1
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
