"""Writing Pascal VOC's layout: palette pictures of objects and classes, XML, lists of the parts, and labelmap.txt."""

from __future__ import annotations

from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from maskrcnn.data.formats.attributes import split_attributes
from maskrcnn.data.formats.voc_classes import MAX_NUMBER, palette
from maskrcnn.data.formats.writable import paint_instances
from maskrcnn.data.formats.xml_files import element
from maskrcnn.data.names import quoted
from maskrcnn.data.table import Dataset
from maskrcnn.errors import UserError
from maskrcnn.files import write_image, write_text

FLAGS = ("pose", "truncated", "difficult", "occluded")
"""Attributes that the XML has an element for."""


def picture_path(data: Dataset, i: int) -> PurePath:
    """Return the place of picture i in the folder that `write` makes."""
    return PurePath("JPEGImages", data.places[i])


def painted_together(data: Dataset, i: int) -> list[np.ndarray]:
    """Return the instances of image i, which all share a picture."""
    span = data.instances(i)
    return [np.arange(span.start, span.stop)]


def write(data: Dataset, target: Path) -> None:
    """Write the layout. `paint_instances` chooses one of overlapping masks.

    Raise `UserError` for more than 254 objects or classes.
    """
    if len(data.class_names) > MAX_NUMBER:
        raise UserError(f"Pascal VOC holds {MAX_NUMBER} classes, not {len(data.class_names)}; choose another format")
    if len(data) and data.counts.max() > MAX_NUMBER:
        i = int(data.counts.argmax())
        raise UserError(
            f"Pascal VOC holds {MAX_NUMBER} objects an image, and {data.names[i]} has {data.counts[i]}; "
            "choose another format"
        )
    colors = palette()
    lines = [f"{name}:{','.join(map(str, colors[k]))}::" for k, name in enumerate(["background", *data.class_names])]
    write_text("".join(f"{line}\n" for line in ["# label:color_rgb:parts:actions", *lines]), target / "labelmap.txt")
    lists: dict[str, list[str]] = {}
    for i in range(len(data)):
        place = data.places[i].with_suffix("")
        (instances,) = painted_together(data, i)
        for folder, numbers in (
            ("SegmentationObject", np.arange(1, len(instances) + 1, dtype=np.uint8)),
            ("SegmentationClass", data.labels[instances].astype(np.uint8)),
        ):
            picture = Image.fromarray(paint_instances(data, i, instances, numbers))
            picture.putpalette(colors.tobytes())
            write_image(picture, target / folder / f"{place}.png")
        write_text(_xml(data, i), target / "Annotations" / f"{place}.xml")
        lists.setdefault((data.parts[i] if data.parts else "") or "trainval", []).append(str(place))
    for part, places in lists.items():
        text = "".join(f"{place}\n" for place in places)
        write_text(text, target / "ImageSets" / "Segmentation" / f"{quoted(part)}.txt")


def _xml(data: Dataset, i: int) -> str:
    """Return the XML file of image i. Its objects are in the order of their numbers; VOC counts pixels from 1."""
    h, w = data.hw(i)
    size = f"<size>{element('width', w)}{element('height', h)}<depth>3</depth></size>"
    lines = ["<annotation>", element("filename", data.places[i].name), size, "<segmented>1</segmented>"]
    span = data.instances(i)
    boxes = data.runs(i).boxes(h).tolist()
    for k, (x1, y1, x2, y2) in zip(range(span.start, span.stop), boxes, strict=True):
        attributes = split_attributes(data.attributes[k]) if data.attributes is not None else {}
        flags = {"pose": "Unspecified", "truncated": "0", "difficult": "0"} | {
            name: attributes.pop(name) for name in FLAGS if name in attributes
        }
        box = {"xmin": x1 + 1, "ymin": y1 + 1, "xmax": x2, "ymax": y2}
        others = "".join(
            f"<attribute>{element('name', name)}{element('value', value)}</attribute>"
            for name, value in attributes.items()
        )
        lines += [
            "<object>",
            element("name", data.class_names[data.labels[k] - 1]),
            *(element(name, value) for name, value in flags.items()),
            f"<bndbox>{''.join(element(name, value) for name, value in box.items())}</bndbox>",
            f"<attributes>{others}</attributes>",
            "</object>",
        ]
    return "".join(f"{line}\n" for line in [*lines, "</annotation>"])
