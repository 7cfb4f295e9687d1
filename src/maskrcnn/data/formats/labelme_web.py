"""XML files of LabelMe's web tool: a file for each picture, whose objects have a polygon or a mask in a PNG.

Annotations/FOLDER/NAME.xml, Images/FOLDER/NAME.jpg, Masks/FOLDER/NAME_mask_3.png
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

from maskrcnn.data.formats.annotations import AnnotatedImage, Annotations, Draw, Instance, draw_union
from maskrcnn.data.formats.attributes import UNNAMED, join_attributes
from maskrcnn.data.formats.label_images import on_picture
from maskrcnn.data.formats.source import Source
from maskrcnn.data.formats.traits import COMMON, Trait
from maskrcnn.data.formats.xml_files import children, head_of
from maskrcnn.data.images import read_opaque
from maskrcnn.data.names import PathIndex
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.errors import ImageError, UserError
from maskrcnn.rle import RLE, RLEError

NAME = "LabelMe's web tool"
SUFFIXES = ()
HOLDS = COMMON - {Trait.UNUSED_CLASSES, Trait.CLASS_IDS, Trait.SCORES, Trait.CROWD, Trait.DIVISION}

MASKS, SCRIBBLES = "Masks", "Scribbles"
"""Folders of pictures that are no photographs."""

MAX_LOOKED_AT = 20
"""XML files whose heads tell whether a folder is of this format."""

Decisions = Counter[tuple[str, str]]
"""What people should know: (subject, what becomes of it), counted."""


def recognizes(source: Source) -> bool:
    """Whether one of the first XML files has an object with a polygon of points or a mask."""
    return any(_is_web_tools(file) for file in source.having_suffix(".xml")[:MAX_LOOKED_AT])


def _is_web_tools(file: Path) -> bool:
    root, text = head_of(file)
    return root == "annotation" and (("<polygon>" in text and "<pt>" in text) or "<segm>" in text)


def read(source: Source) -> Annotations:
    """Read one file, or all XML files of a folder. Raise `UserError`."""
    pictures = [file for file in source.files if {MASKS, SCRIBBLES} & set(file.relative_to(source.root).parts[:-1])]
    annotations = Annotations(source.path, NAME, [], row_noun="object", mask_files=frozenset(pictures))
    index = PathIndex([file.relative_to(source.root).as_posix() for file in pictures])
    decisions: Decisions = Counter()
    for file in source.having_suffix(".xml"):
        try:
            elements = list(children(file))
        except UserError as error:
            if source.path.is_file():
                raise
            annotations.problems.append(Problem(Kind.BAD_ROW, str(file), str(error).removeprefix(f"{file} ")))
            continue
        image = _image(elements, file, source)
        for number, element in enumerate((e for e in elements if e.tag == "object"), 1):
            _add_object(annotations, image, element, number, partial(_find_mask, index, pictures), decisions)
        annotations.images.append(image)
    annotations.notes += [f"{subject} ({n:,}) {fate}" for (subject, fate), n in decisions.items()]
    return annotations


def _image(elements: list[Element], file: Path, source: Source) -> AnnotatedImage:
    texts = {element.tag: (element.text or "").strip() for element in elements}
    size = next((element for element in elements if element.tag == "imagesize"), None)
    height, width = (_number(size, tag) if size is not None else None for tag in ("nrows", "ncols"))
    name = texts.get("filename") or file.stem
    folder = texts.get("folder", "").replace("\\", "/").strip("/")
    return AnnotatedImage(
        f"{folder}/{name}" if folder else name,
        hw=(height, width),
        source=file if source.path.is_dir() else None,
        other_names=(name, file.stem),
    )


def _number(element: Element, tag: str) -> float | None:
    """Return a number above 0, None for anything else."""
    try:
        number = float(element.findtext(tag) or 0)
    except ValueError:
        return None
    if not number > 0:
        return None
    return int(number) if number.is_integer() else number


def _add_object(
    annotations: Annotations,
    image: AnnotatedImage,
    element: Element,
    number: int,
    find_mask: partial[Path | None],
    decisions: Decisions,
) -> None:
    if _text(element, "deleted") == "1":
        decisions["objects that were deleted", "are left out"] += 1
        return
    draws: list[Draw] = [partial(_draw_polygon, polygon) for polygon in element.iterfind("polygon")]
    if draws and _text(element, "type") == "bounding_box":
        decisions["boxes", "become masks of their whole area"] += 1
    for name in (_text(segment, "mask") for segment in element.iterfind("segm")):
        mask_file = find_mask(image.name, name)
        if mask_file is None:
            place = f"{image.source or annotations.source}, object {number}"
            message = f"the mask file {name!r} is in no folder {MASKS} of {annotations.source}"
            annotations.problems.append(Problem(Kind.NO_FILE, place, message))
            return
        draws.append(partial(_draw_mask, mask_file))
    if not draws:
        annotations.left_out["objects without an outline"] += 1
        return
    if _text(element, "parts/ispartof"):
        decisions["objects that are parts of others", "are objects of their own"] += 1
    attributes = {"occluded": "yes"} if _text(element, "occluded") == "yes" else {}
    if text := _text(element, "attributes"):
        attributes[UNNAMED] = text
    label = _text(element, "name") or "object"
    image.instances.append(Instance(label, partial(draw_union, draws), number, join_attributes(attributes)))


def _find_mask(index: PathIndex, files: list[Path], image_name: str, name: str) -> Path | None:
    """Return the file of a mask of an image, None without one."""
    folder = image_name.rpartition("/")[0]
    matches = index.find("/".join(filter(None, (MASKS, folder, name)))).indices if name else []
    return files[matches[0]] if len(matches) == 1 else None


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _draw_polygon(polygon: Element, hw: tuple[int, int]) -> RLE:
    try:
        points = [(float(_text(point, "x")), float(_text(point, "y"))) for point in polygon.iterfind("pt")]
    except ValueError as error:
        raise RLEError(f"a point of the polygon is no pair of numbers ({error})") from None
    return RLE.from_polygons([[number for point in points for number in point]], hw)


def _draw_mask(file: Path, hw: tuple[int, int]) -> RLE:
    """Return the pixels of a mask file that are not wholly transparent."""
    try:
        return on_picture(RLE.from_mask(read_opaque(file)), hw)
    except ImageError as error:
        raise RLEError(str(error)) from None
