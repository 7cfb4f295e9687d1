"""Shapes of annotation tools against their definition at each pixel's centre."""

import math

import numpy as np
import pytest

from maskrcnn import RLE, RLEError
from maskrcnn.shapes import circle, ellipse, polyline, rectangle

ROUNDING = 1e-9
"""Relative distance from an outline within which rounding may decide."""


def centers(hw):
    y, x = np.mgrid[: hw[0], : hw[1]] + 0.5
    return x, y


def assert_inside(mask, hw, measure, limit):
    """Assert that the pixels of `mask` are those whose `measure` is at most `limit`."""
    decided = np.abs(measure - limit) > ROUNDING * max(limit, 1)
    assert mask.hw == hw
    assert np.array_equal(mask.to_mask()[decided], (measure <= limit)[decided])


def draw_hw(rng):
    return tuple(rng.integers(1, 60, 2).tolist())


def test_ellipses_and_circles(rng):
    for _ in range(300):
        hw, center, radii = draw_hw(rng), rng.uniform(-20, 80, 2), rng.uniform(0.01, 40, 2)
        degrees = rng.uniform(-400, 400)
        x, y = (v - c for v, c in zip(centers(hw), center, strict=True))
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        measure = np.hypot((x * cos + y * sin) / radii[0], (-x * sin + y * cos) / radii[1])
        assert_inside(ellipse(center, radii, hw, degrees=degrees), hw, measure, 1)
        assert_inside(circle(center, radii[0], hw), hw, np.hypot(x, y), radii[0])


def test_an_ellipse_turns_clockwise_on_the_screen():
    """Turned by 45 degrees, its long axis, which lay along x, goes from the upper left to the lower right."""
    mask = ellipse((20, 20), (15, 3), (40, 40), degrees=45).to_mask()
    assert mask[28, 28]
    assert not mask[12, 28]


def distance_to_segment(x, y, start, end):
    (x1, y1), (x2, y2) = start, end
    length = (x2 - x1) ** 2 + (y2 - y1) ** 2
    share = np.clip(((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / length, 0, 1) if length else np.zeros_like(x)
    return np.hypot(x - x1 - share * (x2 - x1), y - y1 - share * (y2 - y1))


@pytest.mark.parametrize("kind", ["any", "upright", "one point", "hundreds"])
def test_lines_are_all_pixels_within_half_their_width(rng, kind):
    for _ in range(100 if kind != "hundreds" else 2):
        hw, width = draw_hw(rng), rng.uniform(0, 12)
        n = {"one point": 1, "hundreds": 600}.get(kind, int(rng.integers(2, 6)))
        points = rng.integers(-5, 60, (n, 2)) if kind == "upright" else rng.uniform(-20, 80, (n, 2))
        ends = points[1:] if n > 1 else points
        distances = [distance_to_segment(*centers(hw), a, b) for a, b in zip(points, ends, strict=False)]
        assert_inside(polyline(points, width, hw), hw, np.min(distances, 0), width / 2)


def test_upright_rectangles_follow_the_rule_of_centres(rng):
    for _ in range(300):
        hw = draw_hw(rng)
        box = rng.uniform(-20, 80, 4) if rng.random() < 0.5 else rng.integers(-10, 80, 4) / 2
        (x1, x2), (y1, y2) = np.sort(box[::2]), np.sort(box[1::2])
        x, y = centers(hw)
        assert rectangle(box, hw) == RLE.from_mask((x1 < x) & (x <= x2) & (y1 < y) & (y <= y2))
        assert rectangle(box, hw, degrees=360) == rectangle(box, hw)


def test_turned_rectangles(rng):
    """Around the centre as in CVAT, around the first corner as in Label Studio; COCO's rule rounds by 0.1 px."""
    for _ in range(200):
        hw, degrees = draw_hw(rng), rng.uniform(-400, 400)
        x1, y1, x2, y2 = box = np.concatenate([low := rng.uniform(0, 50, 2), low + rng.uniform(1, 40, 2)])
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        for pivot in (None, (x1, y1)):
            px, py = pivot or ((x1 + x2) / 2, (y1 + y2) / 2)
            x, y = (v - p for v, p in zip(centers(hw), (px, py), strict=True))
            u, v = x * cos + y * sin + px, -x * sin + y * cos + py  # turned back
            depth = np.min([u - x1, x2 - u, v - y1, y2 - v], 0)
            mask = rectangle(box, hw, degrees=degrees, pivot=pivot).to_mask()
            assert mask[depth > 0.3].all()
            assert not mask[depth < -0.3].any()


def test_shapes_without_area_are_empty():
    hw = (20, 20)
    assert circle((5, 5), 0, hw) == ellipse((5, 5), (3, 0), hw) == rectangle((3, 3, 3, 9), hw) == RLE.empty(hw)
    assert polyline([], 3, hw) == RLE.empty(hw)


def test_huge_shapes_cover_the_picture():
    hw = (20, 30)
    assert circle((0, 0), 1e9, hw).area == ellipse((9, 9), (1e9, 1e8), hw, degrees=30).area == 600
    assert polyline([(-1e9, -1e9), (1e9, 1e9)], 100, hw).area == 600


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda hw: circle((1, 2), -3, hw), "radii of an ellipse: -3 is not between 0"),
        (lambda hw: circle((1, math.nan), 3, hw), "centre of an ellipse: nan"),
        (lambda hw: circle((1, 2, 3), 3, hw), "centre of an ellipse: expected 2 numbers, not 3"),
        (lambda hw: ellipse((1, 2), (3, math.inf), hw), "radii of an ellipse: inf"),
        (lambda hw: ellipse((1, 2), (3, 3), hw, degrees=math.inf), "ellipse's angle: inf"),
        (lambda hw: rectangle((1, 2, 3, 1e12), hw), "rectangle: 1e.12"),
        (lambda hw: rectangle((1, 2, 3, "x"), hw), "rectangle: .* are not numbers"),
        (lambda hw: rectangle((1, 2, 3, 4), hw, degrees=math.nan), "rectangle's angle: nan"),
        (lambda hw: polyline([(1, 2), (math.nan, 4)], 3, hw), "point 2 of a line: nan"),
        (lambda hw: polyline([(1, 2), (3, 4)], -1, hw), "width of a line: -1"),
    ],
)
def test_malformed_shapes_are_named(draw, message):
    with pytest.raises(RLEError, match=message):
        draw((20, 20))
