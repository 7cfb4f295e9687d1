"""CVAT for images 1.1: one XML file of images and their shapes, of a task or of a whole project.

Polygons, ellipses and masks are objects. Shapes of one group and one label are parts of one object, as in CVAT's own
export of masks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

from maskrcnn import shapes
from maskrcnn.data.formats.annotations import AnnotatedImage, Annotations, Draw, Instance, draw_union
from maskrcnn.data.formats.attributes import join_attributes, split_attributes
from maskrcnn.data.formats.cvat_masks import CvatMask, decode_cvat_mask, encode_cvat_mask
from maskrcnn.data.formats.source import Source
from maskrcnn.data.formats.traits import COMMON, Trait
from maskrcnn.data.formats.xml_files import children, element, head_of, tag
from maskrcnn.data.parts import part_named
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.data.table import Dataset
from maskrcnn.errors import UserError
from maskrcnn.files import atomic
from maskrcnn.rle import RLE, RLEError, shortened

NAME = "CVAT for images 1.1"
SUFFIXES = (".xml",)
HOLDS = COMMON - {Trait.CLASS_IDS, Trait.SCORES, Trait.CROWD}

WITHOUT_MASK = {
    "box": "boxes",
    "polyline": "lines",
    "points": "points",
    "cuboid": "cuboids",
    "skeleton": "skeletons",
    "tag": "tags",
}
"""Shapes that have no mask, and their plural."""

OCCLUDED = "occluded"
"""The attribute that CVAT has as a flag of every shape."""

TYPES_WITHOUT_MASK = {"rectangle", "polyline", "points", "cuboid", "skeleton", "tag"}
"""Types of labels whose shapes have no mask."""


def recognizes(source: Source) -> bool:
    """Whether the file, or some XML file of the folder, has CVAT's root and images, tracks or meta data."""
    return bool(_files(source))


def read(source: Source) -> Annotations:
    """Read one file or all of a folder. Raise `UserError`, also for videos."""
    annotations = Annotations(source.path, NAME, [], {}, row_noun="shape")
    types: dict[str, str] = {}
    files = _files(source)
    for file in files:
        types |= _read_file(annotations, file)
    used = {instance.label for image in annotations.images for instance in image.instances}
    classes = [name for name, type_ in types.items() if name in used or type_ not in TYPES_WITHOUT_MASK]
    annotations.class_names = {name: name for name in classes} or None
    return annotations


def _files(source: Source) -> list[Path]:
    """Return CVAT's files: in a folder, those at its top and those of tasks below it."""
    found = source.having_suffix(".xml")
    return [f for f in found if (f.parent == source.root or f.name == "annotations.xml") and _is_cvat(f)]


def _is_cvat(file: Path) -> bool:
    root, text = head_of(file)
    return root == "annotations" and any(f"<{name}" in text for name in ("meta", "image", "track"))


def _read_file(annotations: Annotations, file: Path) -> dict[str, str]:
    """Add the images of one file. Return the type of each label, "" if it may have any. Raise `UserError`."""
    types: dict[str, str] = {}
    subsets: list[tuple[AnnotatedImage, str]] = []
    n_tracks, first_row = 0, 1
    for child in children(file):
        if child.tag == "meta":
            for label in child.iter("label"):
                if label.find("parent") is None and (name := label.findtext("name")):
                    types[name] = label.findtext("type") or ""
        elif child.tag == "track":
            n_tracks += 1
        elif child.tag == "image":
            part = child.get("subset") or ""
            image = AnnotatedImage(child.get("name") or "", hw=_size(child), source=file)
            image.part = part_named(part or file.stem) or part
            image.instances = _instances(annotations, file, child, first_row)
            first_row += len(child)
            subsets.append((image, part))
    if n_tracks:
        raise UserError(
            f"{file} is CVAT for video: {n_tracks:,} tracks whose shapes CVAT moves between key frames. Export the job "
            'again as "CVAT for images 1.1", which has the shapes of every frame'
        )
    n_named = Counter(image.name for image, _ in subsets)
    for image, subset in subsets:
        if n_named[image.name] > 1 and subset:  # a project has the same name in several subsets
            image.name = f"{subset}/{image.name}"
    annotations.images += [image for image, _ in subsets]
    return types


def _size(image: Element) -> tuple[int | None, int | None]:
    """Return the stated (height, width), None for what is no number."""
    sides = [image.get(key, "") for key in ("height", "width")]
    height, width = (int(side) if side.isdecimal() and len(side) < 10 else None for side in sides)
    return height, width


def _instances(annotations: Annotations, file: Path, image: Element, first_row: int) -> list[Instance]:
    """Return the objects of an image. Count the shapes without a mask; a shape of another kind is a problem."""
    grouped: dict[tuple[str, str], list[tuple[int, Draw, str]]] = {}
    for row, shape in enumerate(image, first_row):
        if shape.tag in WITHOUT_MASK:
            annotations.left_out[WITHOUT_MASK[shape.tag]] += 1
            continue
        label, group = shape.get("label"), shape.get("group_id", "0")
        if shape.tag not in DRAW or not label:
            fault = "the shape has no label" if shape.tag in DRAW else f"there is no shape <{shape.tag}> in {NAME}"
            problem = Problem(Kind.BAD_ROW, f"{file}, shape {row}", f"image {image.get('name')}: {fault}")
            annotations.problems.append(problem)
            continue
        key = (label, group if group != "0" else f"shape {row}")
        draw = partial(DRAW[shape.tag], dict(shape.attrib))
        grouped.setdefault(key, []).append((row, draw, _attributes(shape)))
    annotations.n_joined += sum(len(parts) for parts in grouped.values()) - len(grouped)
    return [
        Instance(label, partial(draw_union, [draw for _, draw, _ in parts]), parts[0][0], parts[0][2])
        for (label, _), parts in grouped.items()
    ]


def _attributes(shape: Element) -> str:
    """Return the attributes of a shape as a text, with "occluded" as one of them."""
    attributes = {a.get("name") or "": a.text or "" for a in shape.iter("attribute")}
    if shape.get("occluded") == "1":
        attributes[OCCLUDED] = "1"
    return join_attributes(attributes)


# ---- drawing ----------------------------------------------------------------------------------------------------


def _draw_polygon(shape: dict[str, str], hw: tuple[int, int]) -> RLE:
    """Draw ``points="x,y;x,y;..."``."""
    text = shape.get("points", "")
    try:
        points = [float(v) for pair in text.split(";") for v in _pair(pair)]
    except ValueError:
        raise RLEError(f'expected points such as "1.5,2;3,4;5,6", not {shortened(text)!r}') from None
    return RLE.from_polygons([points], hw)


def _pair(text: str) -> list[str]:
    x, y = text.split(",")
    return [x, y]


def _draw_ellipse(shape: dict[str, str], hw: tuple[int, int]) -> RLE:
    """Draw ``cx cy rx ry``, turned by ``rotation`` degrees."""
    cx, cy, rx, ry = (_number(shape, key) for key in ("cx", "cy", "rx", "ry"))
    return shapes.ellipse((cx, cy), (rx, ry), hw, degrees=_number(shape, "rotation", "0"))


def _draw_mask(shape: dict[str, str], hw: tuple[int, int]) -> RLE:
    """Draw ``rle`` in the box ``left top width height``."""
    left, top, width, height = (int(_number(shape, key)) for key in ("left", "top", "width", "height"))
    return decode_cvat_mask(CvatMask(shape.get("rle", ""), left, top, width, height), hw)


def _number(shape: dict[str, str], key: str, default: str = "") -> float:
    text = shape.get(key, default)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise RLEError(f"{key} is {shortened(text)!r}, not a number" if key in shape else f"{key} is missing")
    return number


DRAW = {"polygon": _draw_polygon, "ellipse": _draw_ellipse, "mask": _draw_mask}


# ---- writing ----------------------------------------------------------------------------------------------------


def write(data: Dataset, target: Path) -> None:
    """Write one XML file, image by image, with every mask as ``<mask>``. A CVAT task of the pictures imports it."""
    with atomic(target) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
        file.write(f"<meta><task>{element('size', len(data))}<mode>annotation</mode><labels>\n")
        file.writelines(f"{_label(name, attributes)}\n" for name, attributes in _attribute_names(data).items())
        file.write("</labels></task></meta>\n")
        for i, name in enumerate(data.names):
            h, w = data.hw(i)
            subset = {"subset": data.parts[i]} if data.parts and data.parts[i] else {}
            file.write(f"{tag('image', id=i, name=name, **subset, width=w, height=h)}\n")
            file.writelines(f"{shape}\n" for shape in _shapes(data, i))
            file.write("</image>\n")
        file.write("</annotations>\n")


def _attribute_names(data: Dataset) -> dict[str, list[str]]:
    """Return the names of the attributes that instances of each class have: CVAT keeps only those that a label has."""
    names: dict[str, dict[str, None]] = {name: {} for name in data.class_names}
    if data.attributes is not None:
        for label, text in zip(data.labels.tolist(), data.attributes, strict=True):
            names[data.class_names[label - 1]].update(dict.fromkeys(split_attributes(text)))
    return {
        name: [attribute for attribute in attributes if attribute != OCCLUDED] for name, attributes in names.items()
    }


def _label(name: str, attributes: list[str]) -> str:
    text = "".join(
        f"<attribute>{element('name', attribute)}<mutable>False</mutable><input_type>text</input_type>"
        "<default_value></default_value><values></values></attribute>"
        for attribute in attributes
    )
    return f"<label>{element('name', name)}<type>any</type><attributes>{text}</attributes></label>"


def _shapes(data: Dataset, i: int) -> Iterator[str]:
    """Yield the ``<mask>`` of each instance of image i."""
    first = data.instances(i).start
    for k, mask in enumerate(data.rles(i), first):
        coded = encode_cvat_mask(mask)
        attributes = split_attributes(data.attributes[k]) if data.attributes is not None else {}
        occluded = attributes.pop(OCCLUDED, "0")
        opening = tag(
            "mask",
            label=data.class_names[data.labels[k] - 1],
            source="manual",
            occluded=int(occluded == "1"),
            **asdict(coded),
            z_order=0,
        )
        yield opening + "".join(element("attribute", v, name=name) for name, v in attributes.items()) + "</mask>"
