"""The entries of COCO's JSON as programs write them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec

Value = TypeVar("Value")

Id = int | float | str
"""Programs write 7, 7.0 and "7" for the same id."""

NULL = msgspec.Raw(b"null")


def plain(value: Id | None) -> Any:
    """Return an id or a number as an integer if it is a whole number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def id_text(value: Id | None) -> str:
    """Return one text for all ways to write an id."""
    return str(plain(value))


class ById(dict[Id | None, Value], Generic[Value]):
    """Remembers what `find` returns for each way to write an id, as a file has a few ids a million times."""

    def __init__(self, find: Callable[[Id | None], Value]) -> None:
        self._find = find

    def __missing__(self, key: Id | None) -> Value:
        value = self[key] = self._find(key)
        return value


def count_distinct(ids: list[Id]) -> int:
    """Count the ids that differ however they are written."""
    return len(set(ids) if {*map(type, ids)} == {int} else set(map(id_text, ids)))


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
        if "://" in text:
            with suppress(ValueError):  # it may be no address after all
                return unquote(urlsplit(text).path).lstrip("/")
        return text.replace("\\", "/")

    def side(self, name: Literal["height", "width"]) -> float | None:
        """Return the height or width, None if the file does not know it: null, 0, -1 or no number."""
        try:
            side = float(getattr(self, name) or 0)
        except ValueError:
            return None
        return plain(side) if side > 0 else None


class Category(msgspec.Struct):
    """An entry of ``categories``. `frequency` is LVIS's; panoptic files have `isthing`, 0 for stuff such as sky."""

    id: Id
    name: Id | None = None
    supercategory: Id | None = None
    frequency: str | None = None
    isthing: bool | float | None = None

    @property
    def text(self) -> str:
        """The name, or the id without one."""
        return id_text(self.id if self.name is None else self.name)


class Attribute(msgspec.Struct):
    """An entry of Fashionpedia's ``attributes``."""

    id: Id
    name: str


class Annotation(msgspec.Struct):
    """An entry of ``annotations``. The segmentation is decoded when it is drawn."""

    image_id: Id
    category_id: Id | None = None
    id: Id | None = None
    segmentation: msgspec.Raw = NULL
    bbox: Any = None
    keypoints: msgspec.Raw = NULL
    iscrowd: bool | float | None = None
    score: float | None = None
    attribute_ids: list[Id] | None = None
    attributes: msgspec.Raw = NULL
