"""Polygons of many texts at once: the numbers of JSON exactly, whatever stands beside them."""

import json

import numpy as np
import pytest

from maskrcnn.data.formats.polygon_texts import parse_polygons

TRIANGLE = b"[[1, 2.5, 30, 4, 5, 60]]"

OTHER_FORMS = {
    "no polygon": b"[]",
    "no point": b"[[]]",
    "two points": b"[[1, 2, 3, 4]]",
    "odd": b"[[1, 2, 3, 4, 5, 6, 7]]",
    "a good polygon and a point": b"[[1, 2, 3, 4, 5, 6], [7, 8]]",
    "one level": b"[1, 2, 3, 4, 5, 6]",
    "three levels": b"[[[1, 2, 3, 4, 5, 6]]]",
    "null": b"[[1, 2, null, 4, 5, 6]]",
    "true": b"[[1, 2, true, 4, 5, 6]]",
    "text": b'[[1, 2, "3", 4, 5, 6]]',
    "object": b'{"counts": "52203"}',
    "fractions": b"[[0.1, 0.2, 0.9, 0.2, 0.5, 1]]",
    "too large": b"[[1e999, 2, 3, 4, 5, 6]]",
    "no UTF-8": b'[["\xff"]]',
    "deep": b"[" * 3000 + b"]" * 3000,
}


def polygons_of(texts):
    """The polygons of each valid text, by its index."""
    table = parse_polygons([text.decode(errors="replace") for text in texts])
    polygons = np.split(table.points, table.polygon_offsets[1:-1])
    masks = [polygons[a:b] for a, b in zip(table.mask_offsets[:-1], table.mask_offsets[1:], strict=True)]
    return dict(zip(np.flatnonzero(table.valid).tolist(), masks, strict=True))


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_another_form_is_invalid_and_leaves_its_neighbours_alone(form):
    assert list(polygons_of([OTHER_FORMS[form]])) == []
    found = polygons_of([TRIANGLE, OTHER_FORMS[form], b"[[7, 8, 9, 10, 11, 12], [1, 1, 2, 2, 3, 1]]"])
    assert list(found) == [0, 2]
    assert [len(polygons) for polygons in found.values()] == [1, 2]
    np.testing.assert_array_equal(found[0][0], [[1, 2.5], [30, 4], [5, 60]])
    np.testing.assert_array_equal(found[2][1], [[1, 1], [2, 2], [3, 1]])


def test_numbers_are_those_of_json_to_the_last_bit():
    rng = np.random.default_rng(0)
    shapes = [
        [(rng.uniform(-5, 5000, 2 * rng.integers(3, 9)) * 10.0 ** rng.integers(-3, 3)).tolist() for _ in range(n)]
        for n in rng.integers(1, 4, 200)
    ]
    shapes.append([[7, -0.0, 1e2, 9007199254740993, 0.1234567890123456789, 123456789012345678901234567890]])
    found = polygons_of([json.dumps(shape).encode() for shape in shapes])
    assert len(found) == len(shapes)
    for k, shape in enumerate(shapes):
        for polygon, numbers in zip(found[k], shape, strict=True):
            np.testing.assert_array_equal(polygon.ravel(), np.array(numbers, float))


def test_no_texts():
    table = parse_polygons([])
    assert table.valid.shape == (0,)
    assert table.points.shape == (0, 2)
    assert table.mask_offsets.tolist() == [0]
