"""Texts of JSON -> the polygons of many masks in flat arrays, as `rasterize_polygons` takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl

POLYGONS = pl.List(pl.List(pl.Float64))

WORDS = ["true", "false", "null"]
"""What JSON has beside numbers: polars reads true as 1."""

MIN_NUMBERS = 6
"""Numbers of a triangle."""


class PolygonTable(NamedTuple):
    """Polygons of the `valid` (n,) ones of n texts. The other fields are arguments of `rasterize_polygons`."""

    valid: np.ndarray
    points: np.ndarray
    polygon_offsets: np.ndarray
    mask_offsets: np.ndarray


def parse_polygons(texts: Sequence[str]) -> PolygonTable:
    """Parse texts of the form ``[[x1, y1, x2, y2, ...], ...]`` in pixels. Each text is one JSON value.

    A text is invalid if it has another form, no polygon, a polygon of fewer than three points, or coordinates up to 1
    alone, which may be fractions of the picture.
    """
    lists = _lists(pl.Series(texts, dtype=pl.String))
    n_polygons = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
    polygons = lists.filter(n_polygons > 0).explode()
    mask_of_polygon = np.repeat(np.arange(len(texts)), n_polygons)
    lengths = polygons.list.len().to_numpy().astype(np.int64)
    maxima = np.zeros(len(texts))
    np.maximum.at(maxima, mask_of_polygon, polygons.list.max().fill_null(0).to_numpy())
    valid = maxima > 1
    valid[mask_of_polygon[(lengths < MIN_NUMBERS) | (lengths % 2 == 1)]] = False
    kept = valid[mask_of_polygon]
    numbers = polygons.filter(kept).explode().to_numpy()
    return PolygonTable(valid, numbers.reshape(-1, 2), _offsets(lengths[kept] // 2), _offsets(n_polygons[valid]))


def _lists(texts: pl.Series) -> pl.Series:
    """Decode texts; null stands for one of another form."""
    texts = texts.set(texts.str.contains_any(WORDS), None)
    try:
        return texts.str.json_decode(POLYGONS)
    except pl.exceptions.ComputeError:  # it does not say which text is to blame
        is_form = pl.Series([text is not None and _is_form(text) for text in texts], dtype=pl.Boolean)
        return texts.set(~is_form, None).str.json_decode(POLYGONS)


def _is_form(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=list[list[float]])
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)])
