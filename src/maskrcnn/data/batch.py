"""Batches: an endless, numbered stream of samples, prepared by threads while the model computes.

Sample n of a run shows image ``order(pass)[n % images]`` of pass ``n // images``. Nothing else decides what it looks
like: not the number of threads, not where a resumed run begins.

    B images, H x W input pixels, G instances of the fullest image
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from maskrcnn.config import Config
from maskrcnn.data.dataset import generator, training_sample
from maskrcnn.data.images import ImageError
from maskrcnn.data.table import Dataset
from maskrcnn.structures import Targets

STRIDE = 32
"""Inputs are padded, at right and bottom, to a multiple of the backbone's largest stride."""


@dataclass(frozen=True)
class Batch:
    """pixels (B, H, W, 3) uint8, padded; windows (B, 4) of picture in them; targets and names; unreadable files."""

    pixels: np.ndarray
    windows: np.ndarray
    targets: list[Targets]
    names: list[str]
    unreadable: list[str]

    def __len__(self) -> int:
        return len(self.names)


def stack(images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Images (h, w, 3) of any sizes -> one padded (B, H, W, 3) of their type and their windows in it, (B, 4) int64."""
    image_hw = np.array([im.shape[:2] for im in images], np.int64).reshape(-1, 2)
    h, w = (int(-(-side // STRIDE) * STRIDE) for side in (image_hw.max(0) if len(images) else (STRIDE, STRIDE)))
    pixels = np.zeros((len(images), h, w, 3), images[0].dtype if len(images) else np.uint8)
    for canvas, image in zip(pixels, images, strict=True):
        canvas[: image.shape[0], : image.shape[1]] = image
    return pixels, np.concatenate([np.zeros_like(image_hw), image_hw[:, ::-1]], 1)


def image_order(n_images: int, pass_number: int, seed: int) -> np.ndarray:
    """(n_images,) the order in which a pass goes through the images."""
    return generator(seed, 0, pass_number).permutation(n_images)


def make_batch(data: Dataset, step: int, config: Config) -> Batch:
    """The batch of step `step` (0-based)."""
    images, targets, names, unreadable = [], [], [], []
    size = config.train.batch_size
    for n in range(step * size, (step + 1) * size):
        pass_number, position = divmod(n, len(data))
        i = int(image_order(len(data), pass_number, config.train.seed)[position])
        try:
            pixels, target = training_sample(data, i, pass_number, config)
        except ImageError as error:
            unreadable.append(str(error))
            continue
        images.append(pixels)
        targets.append(target)
        names.append(data.names[i])
    return Batch(*stack(images), targets, names, unreadable)


def batches(data: Dataset, first_step: int, last_step: int, config: Config) -> Generator[Batch, None, None]:
    """The batches of steps ``first_step <= step < last_step``, in order, prepared ahead."""
    if config.train.workers == 0:
        yield from (make_batch(data, step, config) for step in range(first_step, last_step))
        return
    with ThreadPoolExecutor(config.train.workers, thread_name_prefix="maskrcnn-data") as pool:
        waiting: deque[Future[Batch]] = deque()
        step = first_step
        try:
            while step < last_step or waiting:
                while step < last_step and len(waiting) < 2 * config.train.workers:
                    waiting.append(pool.submit(make_batch, data, step, config))
                    step += 1
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
