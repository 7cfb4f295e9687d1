"""COCO's JSON: images, annotations and categories; masks as polygons or runs.

Also as Roboflow and MMDetection lay it out, a folder with a file for each part, with the additions of LVIS and of
Fashionpedia, and panoptic segments.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

import msgspec

from maskrcnn.data.formats.annotations import AnnotatedImage, Annotations, Draw, Instance
from maskrcnn.data.formats.coco_entries import (
    NULL,
    Annotation,
    Attribute,
    ById,
    Category,
    Id,
    Picture,
    count_distinct,
    id_text,
    plain,
)
from maskrcnn.data.formats.coco_files import (
    CocoFile,
    Content,
    PictureFolders,
    coco_files,
    files_to_read,
    is_result_list,
)
from maskrcnn.data.formats.coco_masks import Segmentation, count_whole, has_mask
from maskrcnn.data.formats.coco_panoptic import PanopticFile
from maskrcnn.data.formats.coco_writer import write as write
from maskrcnn.data.formats.label_images import on_picture
from maskrcnn.data.formats.source import Source, each
from maskrcnn.data.formats.traits import Trait
from maskrcnn.data.parts import images_of_part
from maskrcnn.data.pictures import image_files
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.errors import UserError, counted
from maskrcnn.rle import RLE
from maskrcnn.structures import UNNAMED_CLASS

NAME = "COCO"
SUFFIXES = (".json",)
HOLDS = frozenset(Trait) - {Trait.DIVISION}

SEGMENT = "segment"
"""What an instance of a panoptic file is called."""

NOT_LISTED, AMBIGUOUS = "is not among the images", "belongs to several images"

Images = ById[AnnotatedImage | str]
"""The images of a file by id, or what is wrong with the id."""

NO_ENTRIES = msgspec.Raw(b"[]")
NOTHING = (b"null", b"[]", b"{}")
NUMBERS = {int, float}
MAX_ID = 2**63
"""Ids of annotations from here on are no numbers of rows; their number in the file is."""

NO_PARENT = ("", "none", "None", None)
"""What programs write for the supercategory of a category that has none."""

MIN_WHOLE = 0.9
"""Share of crowd regions in one piece from which they look like single objects: people draw crowds in many pieces."""


def recognizes(source: Source) -> bool:
    """Whether the file, or some file of the folder, has COCO's fields."""
    return bool(coco_files(source)) or (source.path.is_file() and is_result_list(source.path))


def read(source: Source) -> Annotations:
    """Read one file, or all files with masks of a folder. Raise `UserError`."""
    if source.path.is_file() and not source.fields and is_result_list(source.path):
        raise UserError(
            f"{source.path} is a list of COCO results. It has no names and sizes of pictures and no names of classes. "
            'Make it the "annotations" of an object that also has "images" and "categories": those of the file for '
            "which the results were made"
        )
    files, others = files_to_read(source)
    annotations = Annotations(source.path, NAME, [], {})
    if others:
        names = ", ".join(str(file.path) for file in others)
        annotations.notes.append(f"{source.path}: left out beside the files of masks: {names}")
    for file in (*files, *others):
        if file.content == Content.PANOPTIC and file.mask_folder != file.file.parent:
            annotations.mask_files |= set(image_files(file.mask_folder))
    reader = _Reader(source, annotations, is_divided=len(files) > 1)
    if source.part:
        parts = [file.part if reader.is_divided else "" for file in files]
        files = [files[k] for k in images_of_part(parts, source.part, source.path)]
    for file in files:
        reader.read(file)
    return reader.finished()


@dataclass
class _Reader:
    """Adds files to `annotations`.

    `categories` are by `id_text`, `labels` by id. `file_of_name` are the files by the pictures that they list.
    `n_extras` counts the annotations with something that is not read beside their mask.
    """

    source: Source
    annotations: Annotations
    is_divided: bool
    categories: dict[str, Category] = field(default_factory=dict)
    attribute_names: dict[str, str] = field(default_factory=dict)
    file_of_name: dict[str, Path] = field(default_factory=dict)
    n_extras: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.folders = PictureFolders(self.source)
        self.labels = ById(partial(_label, self.categories))

    def read(self, file: CocoFile) -> None:
        """Add one file."""
        problems = self.annotations.problems
        categories, attributes = (file.fields.get(key, NO_ENTRIES) for key in ("categories", "attributes"))
        for _, category in each(categories, Category, file.file, "category", problems):
            self._add_category(category, file.file)
        self.labels.clear()
        for _, attribute in each(attributes, Attribute, file.file, "attribute", problems):
            self.attribute_names[id_text(attribute.id)] = attribute.name
        if file.content == Content.PANOPTIC:
            panoptic = PanopticFile(file, problems)
            self.annotations.mask_files |= panoptic.entries.keys()
            self._add_segments(panoptic, self._read_images(file), file.file)
        else:
            self._add_annotations(file, self._read_images(file))

    def _add_annotations(self, file: CocoFile, images: Images) -> None:
        ids: list[Id] = []
        for number, entry in each(file.entries, Annotation, file.file, "annotation", self.annotations.problems):
            if entry.id is not None:
                ids.append(entry.id)
            self._add_annotation(entry, number, images, file.file)
        if n_repeated := len(ids) - count_distinct(ids):
            self._note(f"{file.file}: annotations with the id of an earlier one, all kept: {n_repeated:,}")

    def finished(self) -> Annotations:
        """Return the annotations with their classes and notes."""
        annotations = self.annotations
        for what, n in (+self.n_extras).items():
            self._note(f"{self.source.path}: annotations with {what}, of which the masks alone are read: {n:,}")
        self._leave_out_stuff()
        instances = [instance for image in annotations.images for instance in image.instances]
        self._doubt_crowds(instances)
        self._leave_out_common_parent({instance.label for instance in instances})
        kinds = list(self.categories.values())
        repeated = {name for name, n in Counter(kind.text for kind in kinds).items() if n > 1}
        if repeated:
            self._note(f"several categories are called {', '.join(sorted(repeated))}; their ids tell them apart")
        annotations.class_names = {
            plain(kind.id): f"{kind.text} (id {id_text(kind.id)})" if kind.text in repeated else kind.text
            for kind in kinds
        } or None
        if not kinds and instances:
            self._note(f"{self.source.path} has no categories: classes are called by their ids")
        annotations.frequencies = {plain(kind.id): kind.frequency for kind in kinds if kind.frequency}
        annotations.attribute_names = self.attribute_names
        return annotations

    def _doubt_crowds(self, instances: list[Instance]) -> None:
        """Warn if all runs are crowd regions and nearly all are whole: CVAT marks each mask of a brush as a crowd."""
        crowds = [i.draw for i in instances if i.is_crowd and _is_of_runs(i.draw)]
        n_runs = sum(_is_of_runs(i.draw) for i in instances) if crowds else 0
        if not crowds or len(crowds) < n_runs or count_whole(crowds) < MIN_WHOLE * len(crowds):
            return
        self._note(
            f"warning: {self.source.path}: all masks of runs ({len(crowds):,}) are crowd regions (iscrowd 1), which no "
            "model is trained to find, and nearly all are in one piece. CVAT marks every brush mask so. If they are "
            'single objects, export "CVAT for images", or set iscrowd to 0 in the file'
        )

    def _note(self, line: str) -> None:
        self.annotations.notes.append(line)

    def _add_category(self, category: Category, file: Path) -> None:
        known = self.categories.setdefault(id_text(category.id), category)
        if known.text != category.text:
            raise UserError(
                f"{file}: the category id {id_text(category.id)} is {category.text!r} here and {known.text!r} before. "
                "Give each category one id in all files"
            )

    def _read_images(self, file: CocoFile) -> Images:
        """Return the images of a file, and add them to the annotations."""
        problems = self.annotations.problems
        pictures = list(each(file.fields["images"], Picture, file.file, "image", problems))
        folder = self._picture_folder(file, [picture.name for _, picture in pictures])
        images: dict[str, AnnotatedImage | str] = {}
        image_of_name: dict[str, AnnotatedImage] = {}
        n_joined = 0
        for number, picture in pictures:
            image = AnnotatedImage(
                f"{folder}/{picture.name}" if folder and picture.name else picture.name,
                hw=(picture.side("height"), picture.side("width")),
                source=file.file if self.source.path.is_dir() else None,
                part=file.part if self.is_divided else "",
                absent=list(map(plain, picture.neg_category_ids)),
                incomplete=list(map(plain, picture.not_exhaustive_category_ids)),
            )
            same = image_of_name.setdefault(image.name, image)
            if image.name and same is not image and same.hw == image.hw:
                n_joined += 1
                image = same
            key = id_text(picture.id)
            if images.setdefault(key, image) is not image:
                message = f"the id {key} is that of another image too, so whose its annotations are is unknown"
                problems.append(Problem(Kind.BAD_ROW, f"{file.file}, image {number} ({image.name})", message))
                images[key] = AMBIGUOUS
        if n_joined:
            self._note(f"{file.file}: images that repeat the name of another, and are joined with it: {n_joined:,}")
        distinct = {id(image): image for image in images.values() if isinstance(image, AnnotatedImage)}
        self.annotations.images += self._not_listed_before(file, list(distinct.values()))
        return ById(lambda image_id: images.get(id_text(image_id), NOT_LISTED))

    def _picture_folder(self, file: CocoFile, names: list[str]) -> str:
        """Return the folder that the names of pictures lack. Those of a file that was given alone stay as they are."""
        if self.source.path.is_dir():
            return self.folders.folder_of(file, names, self.annotations.mask_files)
        self.annotations.folder_hint = file.part_word
        return ""

    def _not_listed_before(self, file: CocoFile, images: list[AnnotatedImage]) -> list[AnnotatedImage]:
        """Return the images of a file that no file before it lists.

        Raise `UserError` if an earlier file lists some, and this one has annotations.
        """
        listed = [image.name for image in images if image.name in self.file_of_name]
        if listed:
            other = self.file_of_name[listed[0]]
            if file.entries:
                raise UserError(
                    f"{file.file} lists {counted(len(listed), 'image')} that {other} lists too, such as {listed[0]}. "
                    "Give one of the two files, or a folder with one of them"
                )
            self._note(
                f"{file.file}: left out {counted(len(listed), 'image')} without annotations, which {other} lists"
            )
        images = [image for image in images if image.name not in self.file_of_name]
        self.file_of_name |= {image.name: file.file for image in images if image.name}
        return images

    def _add_annotation(self, entry: Annotation, number: int, images: Images, file: Path) -> None:
        row = int(entry.id) if isinstance(entry.id, int | float) and abs(entry.id) < MAX_ID else number
        image = images[entry.image_id]
        if isinstance(image, str):
            self._add_problem(f"{file}, annotation {row}", entry.image_id, image)
            return
        if not has_mask(entry.segmentation):
            self.annotations.left_out["boxes" if entry.bbox else "annotations without a mask or a box"] += 1
            return
        for key, value in (("keypoints", entry.keypoints), ("attributes", entry.attributes)):
            if value is not NULL and bytes(value) not in NOTHING:
                self.n_extras[key] += 1
        image.instances.append(
            Instance(
                self.labels[entry.category_id],
                Segmentation(entry.segmentation, file),
                row,
                " ".join(map(id_text, entry.attribute_ids)) if entry.attribute_ids else "",
                bool(entry.iscrowd),
                entry.score,
                _corners(entry.bbox),
            )
        )

    def _add_segments(self, panoptic: PanopticFile, images: Images, file: Path) -> None:
        """Add the segments of a panoptic file. One without a pixel has an empty mask."""
        self.annotations.row_noun = SEGMENT
        n_unlisted = 0
        for place, entry, masks in panoptic.images():
            image = images[entry.image_id]
            if isinstance(image, str):
                self._add_problem(place, entry.image_id, image)
                continue
            n_unlisted += len(masks.keys() - {segment.id for segment in entry.segments_info})
            for segment in entry.segments_info:
                mask = masks.get(segment.id)
                draw_segment = RLE.empty if mask is None else partial(on_picture, mask)
                label = self.labels[segment.category_id]
                image.instances.append(Instance(label, draw_segment, segment.id, is_crowd=bool(segment.iscrowd)))
        if n_unlisted:
            self._note(f"{file}: left out {counted(n_unlisted, 'segment')} of the PNG files that segments_info lacks")

    def _add_problem(self, place: str, image_id: Id, fault: str) -> None:
        self.annotations.problems.append(Problem(Kind.BAD_ROW, place, f"image_id {image_id!r} {fault}"))

    def _leave_out_stuff(self) -> None:
        """Leave out panoptic segments of stuff (sky, road), which are no objects, unless all categories are stuff."""
        stuff = {key: category for key, category in self.categories.items() if category.isthing == 0}
        if self.annotations.row_noun != SEGMENT or not stuff or len(stuff) == len(self.categories):
            return
        ids = {plain(category.id) for category in stuff.values()}
        n_segments = 0
        for image in self.annotations.images:
            objects = [instance for instance in image.instances if instance.label not in ids]
            n_segments += len(image.instances) - len(objects)
            image.instances = objects
        for key in stuff:
            del self.categories[key]
        names = ", ".join(category.text for category in list(stuff.values())[:3])
        self._note(
            f"left out {counted(n_segments, 'segment')} of stuff (isthing is 0): "
            f"{counted(len(stuff), 'category', 'categories')}, such as {names}"
        )

    def _leave_out_common_parent(self, used: set[Any]) -> None:
        """Leave out a category without objects that is the supercategory of all others: Roboflow adds one."""
        for key, category in self.categories.items():
            others = [other for other in self.categories.values() if other is not category]
            is_parent = bool(others) and all(str(other.supercategory) == category.text for other in others)
            if is_parent and category.supercategory in NO_PARENT and plain(category.id) not in used:
                del self.categories[key]
                self._note(f"left out the category {category.text}, the supercategory of all others, without objects")
                return


def _label(categories: dict[str, Category], category_id: Id | None) -> Any:
    """Return the class of an annotation."""
    category = categories.get(id_text(category_id))
    label = plain(category_id if category is None else category.id)
    return UNNAMED_CLASS if label is None and not categories else label


def _is_of_runs(draw: Draw) -> TypeGuard[Segmentation]:
    return isinstance(draw, Segmentation) and draw.is_runs


def _corners(bbox: Any) -> tuple[float, float, float, float] | None:
    """Return x1, y1, x2, y2 of COCO's x, y, width, height, None for anything else."""
    if not (isinstance(bbox, list) and len(bbox) == 4 and {*map(type, bbox)} <= NUMBERS):
        return None
    try:
        x, y, width, height = map(float, bbox)
    except OverflowError:
        return None
    return x, y, x + width, y + height
