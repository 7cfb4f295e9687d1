"""COCO's JSON: images, annotations and categories; masks as polygons or runs.

Also as Roboflow and MMDetection lay it out, a folder with a file for each part, and with the additions of LVIS and of
Fashionpedia.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from maskrcnn.data.formats.annotations import AnnotatedImage, Annotations, Instance
from maskrcnn.data.formats.coco_files import CocoFile, PictureFolders, coco_files, files_to_read, is_result_list
from maskrcnn.data.formats.coco_masks import draw, has_mask
from maskrcnn.data.formats.coco_writer import write as write
from maskrcnn.data.formats.source import Source, each
from maskrcnn.data.formats.traits import Trait
from maskrcnn.data.parts import images_of_part
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.data.table import UNNAMED_CLASS
from maskrcnn.errors import UserError

NAME = "COCO"
SUFFIXES = (".json",)
HOLDS = frozenset(Trait) - {Trait.DIVISION}

NO_ENTRIES = msgspec.Raw(b"[]")
NOTHING = (b"null", b"[]", b"{}")
NO_PARENT = ("", "none", "None", None)
"""What programs write for the supercategory of a category that has none."""

Id = int | float | str
"""Programs write 7, 7.0 and "7" for the same id."""


class Picture(msgspec.Struct):
    """An entry of ``images``. LVIS adds the last two fields."""

    id: Id
    file_name: str | None = None
    height: float | str | None = None
    width: float | str | None = None
    coco_url: str | None = None
    neg_category_ids: list[Id] = []
    not_exhaustive_category_ids: list[Id] = []

    @property
    def name(self) -> str:
        """The file name, or the path of the address, with slashes."""
        text = self.file_name or self.coco_url or ""
        return unquote(urlsplit(text).path).lstrip("/") if "://" in text else text.replace("\\", "/")


class Category(msgspec.Struct):
    """An entry of ``categories``. `frequency` is LVIS's."""

    id: Id
    name: Id | None = None
    supercategory: Id | None = None
    frequency: str | None = None


class Attribute(msgspec.Struct):
    """An entry of Fashionpedia's ``attributes``."""

    id: Id
    name: str


class Annotation(msgspec.Struct):
    """An entry of ``annotations``. The segmentation is decoded when it is drawn."""

    image_id: Id
    category_id: Id | None = None
    id: Id | None = None
    segmentation: msgspec.Raw = msgspec.Raw(b"null")
    bbox: msgspec.Raw = msgspec.Raw(b"null")
    keypoints: msgspec.Raw = msgspec.Raw(b"null")
    iscrowd: bool | float | None = None
    score: float | None = None
    attribute_ids: list[Id] | None = None
    attributes: msgspec.Raw = msgspec.Raw(b"null")


def recognizes(source: Source) -> bool:
    """Whether the file, or some file of the folder, has COCO's fields."""
    return bool(coco_files(source)) or (source.path.is_file() and is_result_list(source.path))


def read(source: Source) -> Annotations:
    """Read one file, or all files with masks of a folder. Raise `UserError`."""
    if source.path.is_file() and is_result_list(source.path):
        raise UserError(
            f"{source.path} is a list of COCO results. It has no names and sizes of pictures and no names of classes. "
            'Make it the "annotations" of an object that also has "images" and "categories": those of the file for '
            "which the results were made"
        )
    files, notes = files_to_read(source)
    reader = _Reader(source, Annotations(source.path, NAME, [], {}, notes=notes), is_divided=len(files) > 1)
    if source.part:
        parts = [file.part if reader.is_divided else "" for file in files]
        files = [files[k] for k in images_of_part(parts, source.part, source.path)]
    for file in files:
        reader.read(file)
    return reader.finished()


@dataclass
class _Reader:
    """Adds files to `annotations`. Ids are keys of one form, in `_key`.

    `file_of_name` are the files by the pictures that they list. `n_maskless` counts the annotations without a mask by
    what they have, `n_extras` those with something that is not read beside their mask.
    """

    source: Source
    annotations: Annotations
    is_divided: bool
    categories: dict[str, Category] = field(default_factory=dict)
    attribute_names: dict[str, str] = field(default_factory=dict)
    file_of_name: dict[str, Path] = field(default_factory=dict)
    n_maskless: Counter[str] = field(default_factory=Counter)
    n_extras: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.folders = PictureFolders(self.source)

    def read(self, file: CocoFile) -> None:
        """Add one file."""
        problems = self.annotations.problems
        for _, category in each(file.fields.get("categories", NO_ENTRIES), Category, file.file, "category", problems):
            self._add_category(category, file.file)
        for _, attribute in each(
            file.fields.get("attributes", NO_ENTRIES), Attribute, file.file, "attribute", problems
        ):
            self.attribute_names[_key(attribute.id)] = attribute.name
        images = self._read_images(file)
        ids: set[str] = set()
        n_repeated = 0
        for number, entry in each(file.entries, Annotation, file.file, "annotation", problems):
            if entry.id is not None:
                n_repeated += _key(entry.id) in ids
                ids.add(_key(entry.id))
            self._add_annotation(entry, number, images, file.file)
        if n_repeated:
            self._note(f"{file.file}: {n_repeated:,} annotations have the id of an earlier one; all are kept")

    def finished(self) -> Annotations:
        """Return the annotations with their classes and notes. Raise `UserError` if annotations have no mask at all."""
        annotations = self.annotations
        instances = [instance for image in annotations.images for instance in image.instances]
        if not instances and self.n_maskless:
            counts = ", ".join(f"{n:,} have {what}" for what, n in self.n_maskless.items())
            raise UserError(
                f"{self.source.path} is COCO's, but no annotation has a mask: {counts}. Mask R-CNN learns from masks, "
                'which are polygons or runs under "segmentation"'
            )
        for what, n in self.n_maskless.items():
            self._note(f"{self.source.path}: {n:,} annotations have {what}; they are left out")
        for what, n in (+self.n_extras).items():
            self._note(f"{self.source.path}: {n:,} annotations have {what}; of these, the masks alone are read")
        self._leave_out_common_parent({instance.label for instance in instances})
        kinds = list(self.categories.values())
        repeated = {name for name, n in Counter(map(_name, kinds)).items() if n > 1}
        if repeated:
            self._note(f"several categories are called {', '.join(sorted(repeated))}; their ids tell them apart")
        annotations.class_names = {
            _plain(kind.id): f"{_name(kind)} (id {_key(kind.id)})" if _name(kind) in repeated else _name(kind)
            for kind in kinds
        } or None
        if not kinds and instances:
            self._note(f"{self.source.path} has no categories: classes are called by their ids")
        annotations.frequencies = {_plain(kind.id): kind.frequency for kind in kinds if kind.frequency}
        annotations.attribute_names = self.attribute_names
        return annotations

    def _note(self, line: str) -> None:
        self.annotations.notes.append(line)

    def _add_category(self, category: Category, file: Path) -> None:
        known = self.categories.setdefault(_key(category.id), category)
        if _name(known) != _name(category):
            raise UserError(
                f"{file}: the category id {_key(category.id)} is {_name(category)!r} here and {_name(known)!r} before. "
                "Give each category one id in all files"
            )

    def _read_images(self, file: CocoFile) -> dict[str, AnnotatedImage | None]:
        """Return the images of a file by id, None for an id of several images, and add them to the annotations."""
        problems = self.annotations.problems
        pictures = list(each(file.fields["images"], Picture, file.file, "image", problems))
        folder = self._picture_folder(file, [picture.name for _, picture in pictures])
        images: dict[str, AnnotatedImage | None] = {}
        image_of_name: dict[str, AnnotatedImage] = {}
        n_joined = 0
        for number, picture in pictures:
            image = AnnotatedImage(
                f"{folder}/{picture.name}" if folder and picture.name else picture.name,
                hw=(_side(picture.height), _side(picture.width)),
                source=file.file if self.source.path.is_dir() else None,
                part=file.part if self.is_divided else "",
                absent=list(map(_plain, picture.neg_category_ids)),
                incomplete=list(map(_plain, picture.not_exhaustive_category_ids)),
            )
            same = image_of_name.setdefault(image.name, image)
            if same is not image and same.hw == image.hw and image.name:  # one entry for each annotation of a picture
                n_joined += 1
                image = same
            key = _key(picture.id)
            if images.setdefault(key, image) is not image:
                message = f"the id {key} is that of another image too, so whose its annotations are is unknown"
                problems.append(Problem(Kind.BAD_ROW, f"{file.file}, image {number} ({image.name})", message))
                images[key] = None
        if n_joined:
            self._note(
                f"{file.file}: {n_joined:,} entries of images name a picture that another names; they are joined"
            )
        self._check_listed(file, image_of_name)
        with_id = {id(image) for image in images.values()}
        self.annotations.images += [image for image in image_of_name.values() if id(image) in with_id]
        return images

    def _picture_folder(self, file: CocoFile, names: list[str]) -> str:
        """Return the folder that the names of pictures lack. Those of a file that was given alone stay as they are."""
        if self.source.path.is_dir():
            return self.folders.folder_of(file, names)
        self.annotations.folder_hint = file.part_word
        return ""

    def _check_listed(self, file: CocoFile, images: dict[str, AnnotatedImage]) -> None:
        """Raise `UserError` for pictures that an earlier file lists. Drop them if this file has no annotations."""
        listed = [name for name in images if name in self.file_of_name]
        if listed and file.entries:
            raise UserError(
                f"{file.file} lists {len(listed):,} images that {self.file_of_name[listed[0]]} lists too, such as "
                f"{listed[0]}. Give one of the two files, or a folder with one of them"
            )
        if listed:
            other = self.file_of_name[listed[0]]
            self._note(f"{file.file}: {len(listed):,} images without annotations are left out; {other} lists them")
        for name in listed:
            del images[name]
        self.file_of_name |= dict.fromkeys(images, file.file)

    def _add_annotation(
        self, entry: Annotation, number: int, images: dict[str, AnnotatedImage | None], file: Path
    ) -> None:
        row = int(entry.id) if isinstance(entry.id, int | float) else number
        image = images.get(_key(entry.image_id))
        if image is None:
            fault = "belongs to several images" if _key(entry.image_id) in images else "is not among the images"
            message = f"image_id {entry.image_id!r} {fault}"
            self.annotations.problems.append(Problem(Kind.BAD_ROW, f"{file}, annotation {row}", message))
            return
        if not has_mask(entry.segmentation):
            has_box = bytes(entry.bbox) not in NOTHING
            self.n_maskless["a box and no mask" if has_box else "neither mask nor box"] += 1
            return
        for key in ("keypoints", "attributes"):
            self.n_extras[key] += bytes(getattr(entry, key)) not in NOTHING
        category = self.categories.get(_key(entry.category_id))
        label = _plain(entry.category_id if category is None else category.id)
        image.instances.append(
            Instance(
                UNNAMED_CLASS if label is None and not self.categories else label,
                partial(draw, entry.segmentation, file),
                row,
                " ".join(map(_key, entry.attribute_ids or ())),
                bool(entry.iscrowd),
                entry.score,
            )
        )

    def _leave_out_common_parent(self, used: set[Any]) -> None:
        """Leave out a category without objects that is the supercategory of all others: Roboflow adds one."""
        for key, category in self.categories.items():
            others = [other for other in self.categories.values() if other is not category]
            is_parent = bool(others) and all(str(other.supercategory) == _name(category) for other in others)
            if is_parent and category.supercategory in NO_PARENT and _plain(category.id) not in used:
                del self.categories[key]
                self._note(f"the category {_name(category)} has no objects and is that of all others: it is left out")
                return


def _key(value: Id | None) -> str:
    """Return one text for all ways to write an id."""
    return str(_plain(value))


def _plain(value: Id | None) -> Any:
    """Return an id as an integer if it is a whole number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _name(category: Category) -> str:
    return str(category.id if category.name is None else _plain(category.name))


def _side(value: float | str | None) -> float | None:
    """Return a height or width, None if the file does not know it: null, 0, -1 or no number."""
    try:
        side = float(value or 0)
    except ValueError:
        return None
    return _plain(side) if side > 0 else None
