"""`Dataset`: columns of images and of instances, with the runs and the source row of each instance."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from maskrcnn.config import VALIDATION_SHARE
from maskrcnn.data.federated import Federated
from maskrcnn.data.images import Header
from maskrcnn.data.names import PathIndex, safe_places
from maskrcnn.data.parts import images_of_part, part_order
from maskrcnn.data.problem import Problem
from maskrcnn.data.split import choose_validation
from maskrcnn.errors import UserError, counted
from maskrcnn.reading import BY_ITSELF, Reading
from maskrcnn.rle import RLE, RunTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from maskrcnn.data.convert import Conversion
    from maskrcnn.data.torchvision import TorchvisionDataset


@dataclass(frozen=True, repr=False)
class Dataset:
    """Images with their instance masks.

    Image i is the file ``files[i]``, has the name ``names[i]`` in the source and the (height, width) ``sizes[i]``.
    Instance k belongs to image ``image_index[k]`` (sorted), has the 1-based label ``labels[k]`` and the runs
    ``masks[k]``, and comes from row ``rows[k]`` of the source (the header of a table is row 1); other formats have
    another `row_noun` ("annotation", "shape"), and may have a file for each image, ``sources[i]``. Label j is the
    user's class id ``class_ids[j - 1]``. `is_numbered` says whether the masks number pixels in the source, in an order
    that an option sets; COCO's and mask files do not. `reading` says how the pictures are read, and so which way up
    `sizes` and masks are.

    What only some formats hold is None where nothing has it: `attributes` (N,) texts, of numbers that
    ``attribute_names`` may explain; `crowd` (N,) bool for regions of many objects that nobody outlined one by one;
    `scores` (N,) float64, NaN without one; `stated_boxes` (N, 4) float64 xyxy that the source has beside the masks, NaN
    without one; `parts`, the part of each image in the source's own division ("train",
    "val", ...), "" without one; and `federated`, the classes that were looked for, where that differs between images.
    `headers` are those of the files, where they were read.

    Crowd regions are instances, but not one object each; `without_crowd` has the objects alone.
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
    crowd: np.ndarray | None = None
    scores: np.ndarray | None = None
    stated_boxes: np.ndarray | None = None
    parts: list[str] | None = None
    federated: Federated | None = None
    attribute_names: dict[str, str] | None = None
    sources: list[Path] | None = None
    headers: list[Header] | None = None
    row_noun: str = "row"
    is_numbered: bool = True
    reading: Reading = BY_ITSELF
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"<Dataset: {self.size_text} from {self.source.name}>"

    @property
    def size_text(self) -> str:
        """How many images, objects and classes there are, in words."""
        objects = counted(self.without_crowd.n_instances, "object")
        classes = counted(len(self.class_names), "class", "classes")
        return f"{counted(len(self), 'image')} with {objects} of {classes}"

    @property
    def n_instances(self) -> int:
        """Number of instances, with crowd regions."""
        return len(self.labels)

    def instances(self, i: int) -> slice:
        """Return the slice of image i in the instance columns."""
        return slice(*np.searchsorted(self.image_index, [i, i + 1]).tolist())

    def hw(self, i: int) -> tuple[int, int]:
        """Return (height, width) of image i."""
        return int(self.sizes[i, 0]), int(self.sizes[i, 1])

    def place(self, k: int) -> str:
        """Return where instance k stands in the source: its file and row."""
        file = self.source if self.sources is None else self.sources[int(self.image_index[k])]
        return f"{file}, {self.row_noun} {self.rows[k]}"

    def rles(self, i: int) -> list[RLE]:
        """Return the masks of image i."""
        span = self.instances(i)
        return [RLE(self.masks[k], self.hw(i)) for k in range(span.start, span.stop)]

    def runs(self, i: int) -> RunTable:
        """Return the masks of image i as a table."""
        span = self.instances(i)
        offsets = self.masks.offsets[span.start : span.stop + 1]
        return RunTable(self.masks.runs[offsets[0] : offsets[-1]], offsets - offsets[0])

    @property
    def boxes(self) -> np.ndarray:
        """Box of each instance from its mask, (N, 4) int64 xyxy."""
        return self.masks.boxes(self.sizes[self.image_index, 0])

    @cached_property
    def counts(self) -> np.ndarray:
        """Number of instances per image, with crowd regions, (n_images,) int64."""
        return np.bincount(self.image_index, minlength=len(self))

    @cached_property
    def without_crowd(self) -> Dataset:
        """The same images without their crowd regions."""
        if self.crowd is None:
            return self
        return replace(self.take_instances(np.flatnonzero(~self.crowd)), crowd=None)

    @cached_property
    def places(self) -> list[PurePosixPath]:
        """Where each picture belongs in a copy of the data: a relative path that `names.safe_places` explains."""
        return safe_places(self.names, self.files)

    def take(self, images: Sequence[int] | np.ndarray) -> Dataset:
        """Return the given images, in that order, with their instances."""
        images = np.asarray(images, np.int64)
        spans = [self.instances(int(i)) for i in images]
        indices = [np.arange(s.start, s.stop) for s in spans]
        selected = np.concatenate(indices or [np.empty(0, np.int64)]).astype(np.int64)
        return replace(
            self,
            names=[self.names[i] for i in images],
            files=[self.files[i] for i in images],
            sizes=self.sizes[images],
            **self._instance_columns(selected)
            | {"image_index": np.repeat(np.arange(len(images)), [s.stop - s.start for s in spans])},
            parts=None if self.parts is None else [self.parts[i] for i in images],
            federated=None if self.federated is None else self.federated.take(images),
            sources=None if self.sources is None else [self.sources[i] for i in images],
            headers=None if self.headers is None else [self.headers[i] for i in images],
        )

    def take_instances(self, instances: np.ndarray) -> Dataset:
        """Return all images with the instances whose increasing indices are `instances` (n,)."""
        return replace(self, **self._instance_columns(instances))

    def _instance_columns(self, selected: np.ndarray) -> dict[str, Any]:
        """Return the columns of the instances with the indices `selected` (n,)."""
        columns = ("image_index", "labels", "rows", "attributes", "crowd", "scores", "stated_boxes")
        values = {name: getattr(self, name) for name in columns}
        taken = {name: None if value is None else value[selected] for name, value in values.items()}
        return {**taken, "masks": self.masks.take(selected)}

    @property
    def part_sizes(self) -> dict[str, int]:
        """Number of images of each part of the source's own division, empty if it is not divided."""
        sizes = Counter(part for part in self.parts or [] if part)
        return {name: sizes[name] for name in sorted(sizes, key=part_order)}

    def part(self, name: str) -> Dataset:
        """Return the images of one part of the source's own division. Raise `UserError` if it has no such part."""
        return self.take(images_of_part(self.parts or [], name, self.source))

    def without_parts(self, *names: str) -> Dataset:
        """Return the images that are in none of the named parts of the source's own division."""
        if not any(part in names for part in self.parts or []):
            return self
        return self.take([i for i, part in enumerate(self.parts or []) if part not in names])

    def split(self, val: float = VALIDATION_SHARE, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Split by image into (train, val), stratified by rarest class, instance count and image size.

        Where a swap allows it, every class gets a training image, and a class on two images or more a validation image.
        0 keeps all images for training: val is empty. Raise `UserError` if `val` is not in [0, 1), or for fewer than
        two images otherwise.
        """
        if not 0 <= val < 1:
            raise UserError(f"the share of validation images must be at least 0 and below 1, not {val}")
        if val == 0:
            return self, self.take([])
        if len(self) < 2:
            raise UserError(
                f"{self.source}: a split needs at least 2 images, not {len(self)}; train without validation (--val 0), "
                "or validate on other data (--val-data)"
            )
        in_val = choose_validation(self.without_crowd, val, seed)
        return self.take(np.flatnonzero(~in_val)), self.take(np.flatnonzero(in_val))

    def split_by_names(self, names: Sequence[str]) -> tuple[Dataset, Dataset]:
        """Split into (other images, images in `names`). Raise `UserError` like `named`, or if either is empty."""
        in_val = self._select(names)
        if in_val.all() or not in_val.any():
            raise UserError(f"the validation names leave no image for {'training' if in_val.all() else 'validation'}")
        return self.take(np.flatnonzero(~in_val)), self.take(np.flatnonzero(in_val))

    def named(self, names: Sequence[str]) -> Dataset:
        """Return the images in `names`, which may omit suffix and folders. Raise `UserError` for unknown or ambiguous
        names."""
        return self.take(np.flatnonzero(self._select(names)))

    def _select(self, names: Sequence[str]) -> np.ndarray:
        """Return which images are in `names`, (n_images,) bool."""
        index = PathIndex(self.names)
        selected = np.zeros(len(self), bool)
        unknown = []
        for name in names:
            matches = index.find(name).indices
            if len(matches) > 1:
                examples = ", ".join(self.names[i] for i in matches[:3])
                raise UserError(f"the name {name!r} matches several images: {examples}")
            if not matches:
                unknown.append(name)
            selected[matches] = True
        if unknown:
            raise UserError(f"{len(unknown)} of {len(names)} names are not in {self.source}: {', '.join(unknown[:3])}")
        return selected

    def to_torchvision(self, transforms: Callable[[Any, Any], Any] | None = None) -> TorchvisionDataset:
        """Return a map-style dataset of (image, target) for torchvision's models, transforms v2 and reference scripts.

        The image is an `Image` (3, H, W) uint8. The target has ``boxes``, `BoundingBoxes` (N, 4) float32 xyxy;
        ``masks``, a `Mask` (N, H, W) uint8; ``labels`` (N,) int64 and 1-based; ``image_id``, the image's index;
        ``area`` (N,) float32, in pixels of the masks; and ``iscrowd`` (N,) int64. `transforms` gets both and returns
        the item. Raise `UserError` if torchvision is missing.
        """
        try:
            from maskrcnn.data.torchvision import TorchvisionDataset
        except ModuleNotFoundError as error:
            raise UserError(f"to_torchvision needs torchvision ({error}): pip install 'maskrcnn[train]'") from None
        return TorchvisionDataset(self, transforms)

    def save(
        self,
        path: str | Path,
        format: str | None = None,
        pictures: Literal["copy", "link", "none"] | None = None,
        *,
        polygons: bool = False,
    ) -> Conversion:
        """Write the data set in a format that `open_dataset` reads. Raise `UserError`.

        `path` must not exist. `data.convert.convert` explains the rest.
        """
        from maskrcnn.data.convert import convert

        return convert(self, Path(path), format, pictures, polygons=polygons)

    def fingerprint(self) -> str:
        """Return the SHA-256 of all that training and scores depend on; it identifies a model's data."""
        digest = hashlib.sha256("\n".join(self.names).encode())
        if self.crowd is not None:
            digest.update(self.crowd.tobytes())
        if self.federated is not None:
            digest.update(self.federated.fingerprint().encode())
        if self.reading != BY_ITSELF:
            changed = {k: v for k, v in self.reading.to_dict().items() if v != getattr(BY_ITSELF, k)}
            digest.update(json.dumps(changed, sort_keys=True).encode())
        for column in (self.sizes, self.image_index, self.labels, self.masks.offsets, self.masks.runs):
            digest.update(np.ascontiguousarray(column, np.int64).tobytes())
        return digest.hexdigest()

    def plot(self) -> Figure:
        """Return some images with their masks, and charts of classes and sizes, as a figure of matplotlib.

        Raise `UserError` without matplotlib.
        """
        from maskrcnn.inspection.plots import plot_dataset

        return plot_dataset(self)

    def _repr_html_(self) -> str:
        from maskrcnn.inspection.notebook import dataset_view

        return dataset_view(self)

    def statistics(self) -> dict[str, Any]:
        """Return the counts, sizes, classes and densities that `maskrcnn check` shows, of objects without crowds."""
        objects = self.without_crowd
        boxes = objects.boxes
        side = np.sqrt(np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(1), 1))
        frequency = np.bincount(objects.labels, minlength=len(self.class_ids) + 1)[1:]
        sizes, size_counts = np.unique(self.sizes, axis=0, return_counts=True)
        common = np.argsort(-size_counts, kind="stable")[:8]
        return {
            "images": len(self),
            "images_without_instances": int((objects.counts == 0).sum()),
            "parts": self.part_sizes,
            "instances": objects.n_instances,
            "crowd_regions": self.n_instances - objects.n_instances,
            "instances_per_image": _quantiles(objects.counts),
            "sizes": [
                {"height": int(sizes[k, 0]), "width": int(sizes[k, 1]), "images": int(size_counts[k])} for k in common
            ],
            "distinct_sizes": len(sizes),
            "box_side_px": _quantiles(side),
            "mask_area_px": _quantiles(objects.masks.areas),
            "classes": [
                {"id": cid, "name": name, "instances": int(n)}
                for cid, name, n in zip(self.class_ids, self.class_names, frequency, strict=True)
            ],
        }


def _quantiles(values: np.ndarray) -> dict[str, float]:
    quantiles = np.quantile(values, [0, 0.5, 0.95, 1]).tolist() if len(values) else [0.0] * 4
    return dict(zip(("min", "median", "p95", "max"), quantiles, strict=True))
