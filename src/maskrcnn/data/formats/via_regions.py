"""Regions of the VGG Image Annotator: their shapes -> masks, and which of their attributes is the class."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from maskrcnn import shapes
from maskrcnn.data.problem import Problem
from maskrcnn.errors import UserError
from maskrcnn.rle import RLE, RLEError

CLASS_NAMES = ("class", "classname", "category", "categoryname", "label", "labelname", "name", "object", "type", "kind")
"""Names of attributes, lower-case and without separators, that say they are the class; the first wins."""


class ShapeAttributes(msgspec.Struct):
    """Where a region is, in pixels; `theta` is in radians. Each shape has some of the numbers."""

    name: str = ""
    x: float | None = None
    y: float | None = None
    width: float | None = None
    height: float | None = None
    cx: float | None = None
    cy: float | None = None
    r: float | None = None
    rx: float | None = None
    ry: float | None = None
    theta: float | None = None
    all_points_x: list[float] | None = None
    all_points_y: list[float] | None = None


class Region(msgspec.Struct):
    """A region of an image: its shape and what people said of it."""

    shape_attributes: ShapeAttributes
    region_attributes: dict[str, Any] = {}


@dataclass
class Listing:
    """What one file lists: images with their regions and the numbers of these, and the options of attributes."""

    images: list[tuple[str, list[tuple[int, Region]]]] = field(default_factory=list)
    options: dict[str, dict[str, str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


# ---- shapes -> masks ----------------------------------------------------------------------------------------------

NO_OUTLINE = {"point", "polyline", "line"}
"""Shapes without an area."""


def draw(shape: ShapeAttributes, hw: tuple[int, int]) -> RLE:
    """Draw a region on a picture of (height, width). Raise `RLEError`."""
    if shape.name not in DRAWINGS:
        raise RLEError(f"the shape {shape.name!r} is unknown; the known ones are {', '.join(DRAWINGS)}")
    return DRAWINGS[shape.name](shape, hw)


def _numbers(shape: ShapeAttributes, *keys: str) -> list[float]:
    values = [getattr(shape, key) for key in keys]
    if None in values:
        raise RLEError(f"a {shape.name} needs {', '.join(keys)}; {keys[values.index(None)]} is missing")
    return values


def _polygon(shape: ShapeAttributes, hw: tuple[int, int]) -> RLE:
    x, y = shape.all_points_x or [], shape.all_points_y or []
    if len(x) != len(y):
        raise RLEError(f"a polygon has {len(x)} numbers in all_points_x and {len(y)} in all_points_y")
    return RLE.from_polygons([np.array([x, y], np.float64).T], hw)


def _rectangle(shape: ShapeAttributes, hw: tuple[int, int]) -> RLE:
    x, y, width, height = _numbers(shape, "x", "y", "width", "height")
    return shapes.rectangle([x, y, x + width, y + height], hw)


def _circle(shape: ShapeAttributes, hw: tuple[int, int]) -> RLE:
    cx, cy, r = _numbers(shape, "cx", "cy", "r")
    return shapes.circle([cx, cy], r, hw)


def _ellipse(shape: ShapeAttributes, hw: tuple[int, int]) -> RLE:
    cx, cy, rx, ry = _numbers(shape, "cx", "cy", "rx", "ry")
    return shapes.ellipse([cx, cy], [rx, ry], hw, degrees=math.degrees(shape.theta or 0))


DRAWINGS: dict[str, Callable[[ShapeAttributes, tuple[int, int]], RLE]] = {
    "polygon": _polygon,
    "rect": _rectangle,
    "circle": _circle,
    "ellipse": _ellipse,
}
"""What draws the regions of each shape."""


# ---- attributes -> classes ----------------------------------------------------------------------------------------

Options = Mapping[str, Mapping[str, str]]
"""Name of each option of an attribute by its id, as a project lists them."""


@dataclass(frozen=True)
class Classifier:
    """Says the class of a region by its attributes. `attribute` is None for data without classes."""

    attribute: str | None
    options: Options = field(default_factory=dict)
    why: str = ""

    def __str__(self) -> str:
        if self.attribute is None:
            return "regions have no attribute that is a class, so all are of one"
        return f"classes from the attribute {self.attribute!r}{self.why}"

    def class_of(self, attributes: Mapping[str, Any]) -> str | None:
        """Return the class that the attributes name, None without a classifying attribute. Raise `UserError`."""
        if self.attribute is None:
            return None
        chosen = self._values(self.attribute, attributes)
        if len(chosen) != 1:
            fault = f"has several classes ({', '.join(chosen)})" if chosen else "has no class"
            raise UserError(f"the region {fault} in the attribute {self.attribute!r}")
        return chosen[0]

    def others(self, attributes: Mapping[str, Any]) -> str:
        """Return the other attributes as a text; one named "attributes" is such a text."""
        texts = []
        for name in attributes:
            if name != self.attribute:
                values = self._values(name, attributes)
                texts += values if name == "attributes" else [f"{name}={value}" for value in values]
        return " ".join(texts)

    def _values(self, name: str, attributes: Mapping[str, Any]) -> list[str]:
        options = self.options.get(name, {})
        return [options.get(value) or value for value in _texts(attributes.get(name))]


def _texts(value: Any) -> list[str]:
    """Return the texts of a value: itself, the ticked ones of check boxes (a dict), or none if it is empty."""
    if isinstance(value, dict):
        return [str(option) for option, is_ticked in value.items() if is_ticked in (True, "true", 1)]
    text = "" if value is None else str(value).strip()
    return [text] if text else []


def choose_attribute(
    regions: Sequence[Mapping[str, Any]], options: Options, chosen: str | None, source: str
) -> Classifier:
    """Decide over the attributes of all regions which one is the class. `chosen` is the one that the user named.

    Raise `UserError` if several may be it, or if no region has the chosen one.
    """
    n_regions = Counter(name for attributes in regions for name in attributes if _texts(attributes[name]))
    names = list(n_regions)
    listing = ", ".join(map(repr, names)) or "none"
    if chosen is not None:
        if chosen not in n_regions:
            raise UserError(f"{source}: no region has the attribute {chosen!r}; the attributes are {listing}")
        return Classifier(chosen, options)
    if not names:
        return Classifier(None)
    if len(names) == 1:
        return Classifier(names[0], options, ", the only one")
    plain = {re.sub(r"[^a-z]", "", name.lower()): name for name in reversed(names)}
    named_so = next((plain[name] for name in CLASS_NAMES if name in plain), None)
    if named_so is None:
        raise UserError(
            f"{source}: regions have several attributes ({listing}), and which one is the class cannot be told; "
            "name it with --column class=NAME"
        )
    return Classifier(named_so, options, f"; the attributes are {listing}")
