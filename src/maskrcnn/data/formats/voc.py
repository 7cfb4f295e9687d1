"""Pascal VOC: pictures whose palette numbers objects, pictures whose palette numbers classes, and XML with boxes.

SegmentationObject -> objects; SegmentationClass under each -> its class; Annotations/*.xml, object n -> attributes
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from maskrcnn.data.formats.annotations import AnnotatedImage, Annotations, Instance
from maskrcnn.data.formats.attributes import join_attributes
from maskrcnn.data.formats.label_images import on_picture
from maskrcnn.data.formats.source import Source, read_bytes
from maskrcnn.data.formats.traits import Trait
from maskrcnn.data.formats.voc_classes import BACKGROUND, VOID, Classes, packed, palette, read_classes
from maskrcnn.data.formats.voc_writer import painted_together, picture_path, write
from maskrcnn.data.formats.xml_files import children, head_of
from maskrcnn.data.images import read_each, read_labels
from maskrcnn.data.names import unquoted, without_suffix
from maskrcnn.data.parts import part_named
from maskrcnn.data.pictures import image_files
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.errors import ImageError, UserError
from maskrcnn.labels import label_masks, pack_colors
from maskrcnn.rle import RLE

__all__ = ["HOLDS", "NAME", "SUFFIXES", "painted_together", "picture_path", "read", "recognizes", "write"]

NAME = "Pascal VOC"
SUFFIXES = ()
HOLDS = frozenset(
    {
        Trait.HOLES,
        Trait.SEVERAL_PARTS,
        Trait.CLASSES,
        Trait.UNUSED_CLASSES,
        Trait.ATTRIBUTES,
        Trait.DIVISION,
        Trait.EMPTY_IMAGES,
    }
)

OBJECTS, CLASSES, PICTURES, XML = "SegmentationObject", "SegmentationClass", "JPEGImages", "Annotations"

FLAGS = ("truncated", "difficult", "occluded")
"""Properties of an object in the XML that are attributes if they are 1."""

MAX_LOOKED_AT = 20
"""XML files whose heads tell whether a folder is VOC's."""

COLOR = 256
"""Added to a packed colour that is not in VOC's palette, so that it is no number of the palette."""


def recognizes(source: Source) -> bool:
    """Whether there is a folder SegmentationObject, or XML files of VOC, which have boxes alone."""
    return bool(_homes(source)) or any(_is_voc(file) for file in source.having_suffix(".xml")[:MAX_LOOKED_AT])


def _homes(source: Source) -> list[Path]:
    """Return the folders that have a folder SegmentationObject with files."""
    if source.path.is_file():
        return []
    return sorted({folder.parent for file in source.files for folder in file.parents if folder.name == OBJECTS})


def _is_voc(file: Path) -> bool:
    root, text = head_of(file)
    return root == "annotation" and ("<bndbox>" in text or "<segmented>" in text) and "<pt>" not in text


def read(source: Source) -> Annotations:
    """Read the layout that has SegmentationObject. Raise `UserError` if there is none, or if there are several."""
    homes = _homes(source)
    if not homes:
        n = len(source.having_suffix(".xml"))
        found = (
            f"these are boxes of {NAME} (XML files: {n:,}) without masks" if n else f"there is no data set of {NAME}"
        )
        raise UserError(f"{source.path}: {found}. Masks would be in a folder {OBJECTS}")
    if len(homes) > 1:
        names = ", ".join(map(str, homes))
        raise UserError(f"{source.path} has several data sets of {NAME}: {names}. Give one of them")
    home = homes[0]
    annotations = Annotations(source.path, NAME, [], row_noun="object")
    annotations.mask_files = frozenset([*image_files(home / OBJECTS), *image_files(home / CLASSES)])
    classes = read_classes(home)
    part_of = _parts(home)
    pictures = {_stem(file, home / PICTURES): file for file in image_files(home / PICTURES)}
    object_files = {_stem(file, home / OBJECTS): file for file in image_files(home / OBJECTS)}
    for stem, numbers in zip(object_files, read_each(_numbers, list(object_files.values())), strict=True):
        file = pictures.get(stem)
        image = AnnotatedImage(_name(file, home) if file else stem, file=file, part=part_of.get(stem, ""))
        image.source = object_files[stem]
        annotations.images.append(image)
        if isinstance(numbers, ImageError):
            annotations.problems.append(Problem(Kind.UNREADABLE, str(image.source), str(numbers)))
            continue
        image.hw = numbers.shape[0], numbers.shape[1]
        _add_instances(annotations, image, numbers, home, stem, classes)
    used = {instance.label for image in annotations.images for instance in image.instances}
    annotations.class_names = {i: name for i, name in classes.names.items() if not classes.are_vocs or i in used}
    without = sorted(set(part_of) - set(object_files))
    if without:
        example = f"({len(without):,}), such as {without[0]}, are left out"
        annotations.notes.append(f"{home}: images of ImageSets without a picture in {OBJECTS} {example}")
    boxes = {file.stem for file in (home / XML).glob("*.xml")} - set(object_files) - set(part_of)
    if boxes:
        annotations.notes.append(f"{home}: images with boxes in {XML} and no masks ({len(boxes):,}) are left out")
    return annotations


def _parts(home: Path) -> dict[str, str]:
    """Return the part of each image that ImageSets/Segmentation lists, "" for one that only trainval.txt lists."""
    part_of: dict[str, str] = {}
    files = sorted((home / "ImageSets" / "Segmentation").glob("*.txt"), key=lambda file: file.stem == "trainval")
    for file in files:
        part = "" if file.stem == "trainval" else part_named(file.stem) or unquoted(file.stem)
        for line in read_bytes(file).decode("utf-8", "replace").splitlines():
            if line.strip():
                part_of.setdefault(line.strip(), part)
    return part_of


def _stem(file: Path, folder: Path) -> str:
    return without_suffix(file.relative_to(folder).as_posix())


def _name(file: Path, home: Path) -> str:
    return file.relative_to(home / PICTURES).as_posix()


def _numbers(file: Path) -> np.ndarray:
    """Return the numbers of objects or classes, (H, W) int64. Colours are those of VOC's palette, or ``COLOR`` more."""
    values = read_labels(file, gray_is_number=False)
    if values.ndim == 2:
        return values.astype(np.int64)
    colors = pack_colors(values).astype(np.int64)
    unique, index = np.unique(colors, return_inverse=True)
    known = {packed((r, g, b)): number for number, (r, g, b) in enumerate(palette().tolist())}
    return np.array([known.get(color, COLOR + color) for color in unique.tolist()])[index].reshape(colors.shape)


def _class_numbers(file: Path, classes: Classes) -> np.ndarray:
    """Return the class of each pixel, (H, W) int64; a colour that no class has is background."""
    values = read_labels(file, gray_is_number=False)
    if values.ndim == 2:
        return values.astype(np.int64)
    colors = pack_colors(values).astype(np.int64)
    unique, index = np.unique(colors, return_inverse=True)
    return np.array([classes.numbers.get(color, BACKGROUND) for color in unique.tolist()])[index].reshape(colors.shape)


def _add_instances(
    annotations: Annotations, image: AnnotatedImage, numbers: np.ndarray, home: Path, stem: str, classes: Classes
) -> None:
    """Add the objects of an image, each with its class and attributes."""
    objects, table = label_masks(numbers)
    described = _described_objects(home / XML / f"{stem}.xml", annotations.problems)
    class_of = _majorities(annotations, image, numbers, home / CLASSES, stem, classes)
    for k, number in enumerate(objects.tolist()):
        if number == VOID:
            continue
        element = described[number - 1] if 0 < number <= len(described) else None
        name = (element.findtext("name") or "").strip() if element is not None else ""
        label = class_of.get(number)
        if label is None and name:
            label = classes.number_of(name)
        if label is None:
            message = f"image {image.name}: neither {CLASSES} nor {XML} has a class for the object {number}"
            annotations.problems.append(Problem(Kind.BAD_ROW, f"{image.source}, object {number}", message))
            continue
        attributes = _attributes(element) if element is not None and classes.names.get(label) == name else ""
        shape = numbers.shape[0], numbers.shape[1]
        image.instances.append(Instance(label, partial(on_picture, RLE(table[k], shape)), number, attributes))


def _majorities(
    annotations: Annotations, image: AnnotatedImage, numbers: np.ndarray, folder: Path, stem: str, classes: Classes
) -> dict[int, int]:
    """Return the class that most pixels of each object have, of those that have one."""
    files = [file for suffix in (".png", ".PNG", ".bmp", ".tif") if (file := folder / f"{stem}{suffix}").is_file()]
    if not files:
        return {}
    try:
        class_numbers = _class_numbers(files[0], classes)
    except ImageError as error:
        annotations.problems.append(Problem(Kind.UNREADABLE, str(files[0]), str(error)))
        return {}
    if class_numbers.shape != numbers.shape:
        sizes = " and ".join(f"{h} x {w}" for h, w in (class_numbers.shape, numbers.shape))
        message = f"image {image.name}: the pictures of classes and of objects have different sizes: {sizes} (h x w)"
        annotations.problems.append(Problem(Kind.SIZE, str(files[0]), message))
        return {}
    has_class = (class_numbers != BACKGROUND) & (class_numbers != VOID)
    pairs, counts = np.unique(np.stack([numbers[has_class], class_numbers[has_class]], 1), axis=0, return_counts=True)
    largest_last = np.argsort(counts, kind="stable")
    return {int(number): int(label) for number, label in pairs[largest_last].tolist()}


def _described_objects(file: Path, problems: list[Problem]) -> list[Element]:
    """Return the objects of an XML file in their order. A damaged file is a problem."""
    if not file.is_file():
        return []
    try:
        return [child for child in children(file) if child.tag == "object"]
    except UserError as error:
        problems.append(Problem(Kind.BAD_ROW, str(file), str(error).removeprefix(f"{file} ")))
        return []


def _attributes(element: Element) -> str:
    """Return the flags, the pose and Datumaro's further attributes of an object."""
    attributes = {flag: "1" for flag in FLAGS if (element.findtext(flag) or "").strip() == "1"}
    pose = (element.findtext("pose") or "").strip()
    if pose and pose.lower() != "unspecified":
        attributes["pose"] = pose
    for attribute in element.iterfind("attributes/attribute"):
        if name := attribute.findtext("name"):
            attributes[name] = attribute.findtext("value") or ""
    return join_attributes(attributes)
