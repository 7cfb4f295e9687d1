"""The dataset in memory: columns of images and of instances, their runs, and the row that each came from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from maskrcnn.data.images import SUFFIXES
from maskrcnn.errors import UserError
from maskrcnn.rle import RLE, RunTable


@dataclass(frozen=True)
class Problem:
    """Something wrong with the data: where (file and row, or image), what, and whether it was left out."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass(frozen=True)
class Dataset:
    """Images with their instance masks.

    Image i is ``files[i]``, called ``names[i]`` in the source, of height and width ``sizes[i]``. Instance k lies in
    image ``image_index[k]`` (rising), has the 1-based label ``labels[k]``, the runs ``masks[k]`` and came from row
    ``rows[k]`` of the source (1-based, the header being row 1). Label j stands for the user's id ``class_ids[j - 1]``.
    """

    source: Path
    names: list[str]
    files: list[Path]
    sizes: np.ndarray
    image_index: np.ndarray
    labels: np.ndarray
    masks: RunTable
    rows: np.ndarray
    class_ids: list[Any]
    class_names: list[str]
    attributes: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def n_instances(self) -> int:
        """Instances of all images."""
        return len(self.labels)

    def instances(self, i: int) -> slice:
        """Where the instances of image i stand in the instance columns."""
        return slice(*np.searchsorted(self.image_index, [i, i + 1]).tolist())

    def hw(self, i: int) -> tuple[int, int]:
        """Height and width of image i."""
        return int(self.sizes[i, 0]), int(self.sizes[i, 1])

    def rles(self, i: int) -> list[RLE]:
        """The masks of image i."""
        where = self.instances(i)
        return [RLE(self.masks[k], self.hw(i)) for k in range(where.start, where.stop)]

    def runs(self, i: int) -> RunTable:
        """The masks of image i as a table of their own."""
        where = self.instances(i)
        offsets = self.masks.offsets[where.start : where.stop + 1]
        return RunTable(self.masks.runs[offsets[0] : offsets[-1]], offsets - offsets[0])

    @property
    def boxes(self) -> np.ndarray:
        """(N, 4) int64 xyxy of every instance, derived from its mask."""
        return self.masks.boxes(self.sizes[self.image_index, 0])

    @cached_property
    def counts(self) -> np.ndarray:
        """Instances of each image."""
        return np.bincount(self.image_index, minlength=len(self))

    def take(self, images: Sequence[int] | np.ndarray) -> Dataset:
        """The given images, in that order, with their instances."""
        images = np.asarray(images, np.int64)
        spans = [self.instances(int(i)) for i in images]
        chosen = np.concatenate([np.arange(s.start, s.stop) for s in spans] or [np.empty(0, np.int64)]).astype(np.int64)
        return replace(
            self,
            names=[self.names[i] for i in images],
            files=[self.files[i] for i in images],
            sizes=self.sizes[images],
            image_index=np.repeat(np.arange(len(images)), [s.stop - s.start for s in spans]),
            labels=self.labels[chosen],
            masks=self.masks.take(chosen),
            rows=self.rows[chosen],
            attributes=None if self.attributes is None else self.attributes[chosen],
        )

    def split(self, val: float = 0.1, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Split by image into (train, val), stratified by rarest class, instance count and image size.

        Images of a like kind lie together in a shuffled order, of which every ``1 / val``-th goes to validation.
        """
        if not 0 < val < 1:
            raise UserError(f"the part for validation must lie between 0 and 1, not {val}")
        if len(self) < 2:
            raise UserError(f"{self.source}: {len(self)} image cannot be split in two")
        rng = np.random.default_rng(seed)
        order = np.lexsort((rng.random(len(self)), self._strata()))
        n_val = min(max(round(val * len(self)), 1), len(self) - 1)
        picks = np.floor((np.arange(n_val) + rng.random()) * len(self) / n_val).astype(np.int64)
        chosen = np.zeros(len(self), bool)
        chosen[order[picks]] = True
        return self.take(np.flatnonzero(~chosen)), self.take(np.flatnonzero(chosen))

    def _strata(self) -> np.ndarray:
        """(n_images,) int64: images of one number have the same rarest class, and about one count and size."""
        frequency = np.bincount(self.labels, minlength=len(self.class_ids) + 1)
        rarest = np.full(len(self), -1, np.int64)
        by_frequency = np.argsort(-frequency[1:], kind="stable") + 1
        rank = np.zeros(len(frequency), np.int64)
        rank[by_frequency] = np.arange(len(by_frequency))
        np.maximum.at(rarest, self.image_index, rank[self.labels])
        crowd = np.ceil(np.log2(self.counts + 1)).astype(np.int64)
        extent = np.round(np.log2(self.sizes.prod(1))).astype(np.int64)
        return (rarest * 100 + crowd) * 100 + extent

    def split_by_names(self, names: Sequence[str]) -> tuple[Dataset, Dataset]:
        """Split into (all others, the images called `names`), with or without suffix. An unknown name is an error."""
        chosen = self._find(names)
        if chosen.all() or not chosen.any():
            raise UserError(f"the validation names leave no image for {'training' if chosen.all() else 'validation'}")
        return self.take(np.flatnonzero(~chosen)), self.take(np.flatnonzero(chosen))

    def named(self, names: Sequence[str]) -> Dataset:
        """The images called `names`, with or without suffix. An unknown name is an error."""
        return self.take(np.flatnonzero(self._find(names)))

    def _find(self, names: Sequence[str]) -> np.ndarray:
        index = {name: i for i, name in enumerate(self.names)}
        stems: dict[str, list[int]] = {}
        for i, name in enumerate(self.names):
            stems.setdefault(without_suffix(name), []).append(i)
        chosen = np.zeros(len(self), bool)
        unknown = []
        for name in names:
            found = [index[name]] if name in index else stems.get(without_suffix(name), [])
            if len(found) > 1:
                raise UserError(f"the name {name!r} fits several images: {', '.join(self.names[i] for i in found[:3])}")
            if not found:
                unknown.append(name)
            chosen[found] = True
        if unknown:
            raise UserError(f"{len(unknown)} of {len(names)} names are not in {self.source}: {', '.join(unknown[:3])}")
        return chosen

    def fingerprint(self) -> str:
        """SHA-256 over names, sizes, labels and masks: what a model was trained on."""
        digest = hashlib.sha256("\n".join(self.names).encode())
        for column in (self.sizes, self.image_index, self.labels, self.masks.offsets, self.masks.runs):
            digest.update(np.ascontiguousarray(column, np.int64).tobytes())
        return digest.hexdigest()

    def statistics(self) -> dict[str, Any]:
        """Counts, sizes, classes and densities, as `maskrcnn check` shows them."""
        boxes = self.boxes
        side = np.sqrt(np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(1), 1))
        areas = self.masks.areas
        frequency = np.bincount(self.labels, minlength=len(self.class_ids) + 1)[1:]
        sizes, size_counts = np.unique(self.sizes, axis=0, return_counts=True)
        common = np.argsort(-size_counts, kind="stable")[:8]
        return {
            "images": len(self),
            "images_without_instances": int((self.counts == 0).sum()),
            "instances": self.n_instances,
            "instances_per_image": _spread(self.counts),
            "sizes": [
                {"height": int(sizes[k, 0]), "width": int(sizes[k, 1]), "images": int(size_counts[k])} for k in common
            ],
            "distinct_sizes": len(sizes),
            "box_side_px": _spread(side),
            "mask_area_px": _spread(areas),
            "classes": [
                {"id": cid, "name": name, "instances": int(n)}
                for cid, name, n in zip(self.class_ids, self.class_names, frequency, strict=True)
            ],
            "problems": len(self.problems),
        }


def without_suffix(name: str) -> str:
    """An image's name without its folder and without the suffix of a picture; other dots stay."""
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def _spread(values: np.ndarray) -> dict[str, float]:
    if len(values) == 0:
        return {"min": 0.0, "median": 0.0, "p95": 0.0, "max": 0.0}
    low, median, high, top = np.quantile(values, [0, 0.5, 0.95, 1])
    return {"min": float(low), "median": float(median), "p95": float(high), "max": float(top)}
