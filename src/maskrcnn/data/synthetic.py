"""Synthetic dataset for the demo and for tests: overlapping shapes of four classes on texture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from maskrcnn.data.dataset import generator
from maskrcnn.data.table import Dataset
from maskrcnn.files import write_image
from maskrcnn.rle import RLE, RunTable

CLASSES = ("disc", "box", "triangle", "star")
MIN_VISIBLE_AREA = 40
"""In pixels. Shapes with a smaller visible part are drawn but not annotated."""


def write_shapes(folder: Path, n_images: int, seed: int, *, hw: tuple[int, int] = (256, 256)) -> Path:
    """Write ``images/*.png`` and ``train.csv`` to `folder`. Return the path of the CSV."""
    from maskrcnn.data.formats import encoded_pixels  # loads polars, which scenes do without

    csv = folder / "train.csv"
    encoded_pixels.write(make_shapes(folder / "images", n_images, seed, hw=hw), csv)
    return csv


def make_shapes(folder: Path, n_images: int, seed: int, *, hw: tuple[int, int] = (256, 256)) -> Dataset:
    """Write images to `folder` and return them with their instances, without a CSV."""
    names = [f"shapes_{i:04d}.png" for i in range(n_images)]
    masks: list[RLE] = []
    labels: list[str] = []
    counts = []
    for i, name in enumerate(names):
        image, masks_of_image, labels_of_image = draw_scene(hw, generator(seed, i))
        write_image(Image.fromarray(image), folder / name)
        masks += masks_of_image
        labels += labels_of_image
        counts.append(len(masks_of_image))
    return Dataset(
        source=folder,
        names=names,
        files=[folder / name for name in names],
        sizes=np.tile(np.array(hw, np.int64), (n_images, 1)),
        image_index=np.repeat(np.arange(n_images), counts),
        labels=np.array([1 + CLASSES.index(label) for label in labels], np.int64),
        masks=RunTable.of([mask.runs for mask in masks]),
        rows=np.arange(2, 2 + len(masks)),
        class_ids=list(CLASSES),
        class_names=list(CLASSES),
    )


def draw_scene(hw: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, list[RLE], list[str]]:
    """Return an image (H, W, 3) uint8, the visible masks of its shapes and their classes. One in 20 has no shapes."""
    h, w = hw
    image = _texture(hw, rng, contrast=25)
    top_shape = np.zeros(hw, np.int32)
    labels = []
    n_shapes = 0 if rng.random() < 0.05 else int(rng.integers(2, 8))
    for number in range(1, n_shapes + 1):
        label = int(rng.integers(len(CLASSES)))
        radius = float(rng.uniform(0.06, 0.16)) * min(h, w)
        center = rng.uniform([0, 0], [w, h])
        inside = _rasterise(hw, _outline(CLASSES[label], rng) * radius + center)
        image[inside] = _texture(hw, rng, contrast=15)[inside]
        top_shape[inside] = number
        labels.append(CLASSES[label])
    image = np.clip(image + rng.normal(0, 5, image.shape), 0, 255).astype(np.uint8)
    masks = [RLE.from_mask(top_shape == number) for number in range(1, n_shapes + 1)]
    annotated = [k for k, mask in enumerate(masks) if mask.area >= MIN_VISIBLE_AREA]
    return image, [masks[k] for k in annotated], [labels[k] for k in annotated]


def _outline(label: str, rng: np.random.Generator) -> np.ndarray:
    """Return the corners (P, 2) of a shape of about unit radius, rotated at random."""
    angle = rng.uniform(0, 2 * np.pi)
    if label == "box":
        aspect = rng.uniform(0.6, 1.0)
        points = np.array([(-1, -aspect), (1, -aspect), (1, aspect), (-1, aspect)]) * 0.85
    else:
        corners = {"disc": 48, "triangle": 3, "star": 10}[label]
        angles = np.arange(corners) * 2 * np.pi / corners
        radii = np.where(np.arange(corners) % 2, 0.42, 1.1) if label == "star" else np.ones(corners)
        points = np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ rotation.T


def _rasterise(hw: tuple[int, int], points: np.ndarray) -> np.ndarray:
    canvas = Image.new("1", (hw[1], hw[0]))
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in points], fill=1)
    return np.array(canvas)


def _texture(hw: tuple[int, int], rng: np.random.Generator, contrast: float) -> np.ndarray:
    """Return a random colour with soft stripes and blotches, (H, W, 3) float64."""
    y, x = np.mgrid[: hw[0], : hw[1]]
    angle, wavelength, phase = rng.uniform(0, np.pi), rng.uniform(6, 30), rng.uniform(0, 2 * np.pi)
    stripes = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / wavelength + phase)
    coarse = Image.fromarray(rng.uniform(-1, 1, (9, 9)).astype(np.float32))
    blotches = np.asarray(coarse.resize((hw[1], hw[0]), Image.Resampling.BICUBIC))
    return rng.uniform(40, 215, 3) + contrast * (0.5 * stripes + blotches)[..., None]
