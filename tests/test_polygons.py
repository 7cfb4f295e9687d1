"""Polygons and outlines beyond the property tests: hostile input, huge coordinates, large masks, shapes of rings."""

import subprocess
import sys

import numpy as np
import pytest
from pycocotools import mask as oracle

from maskrcnn import RLE, RLEError
from maskrcnn.kernels.polygons import MIN_CROSSINGS
from maskrcnn.polygons import join_rings, rasterize_polygons

SQUARE = [2, 2, 8, 2, 8, 8, 2, 8]


def test_polygons_are_rasterised_as_coco_does():
    polygons = [[2.0, 2.0, 12.5, 3.0, 7.0, 14.0], [15.0, 15.0, 19.0, 15.0, 19.0, 19.0]]
    expected = oracle.merge(oracle.frPyObjects(polygons, 20, 24))
    assert RLE.from_polygons(polygons, (20, 24)).to_coco()["counts"] == expected["counts"].decode()
    assert RLE.from_polygons([], (20, 24)) == RLE.empty((20, 24))


def test_points_and_flat_lists_are_the_same_polygon():
    assert RLE.from_polygons([np.reshape(SQUARE, (4, 2))], (10, 10)) == RLE.from_polygons([SQUARE], (10, 10))


def test_a_hole_is_cut_out():
    mask = RLE.from_polygons([SQUARE], (10, 10), holes=[[4, 4, 6, 4, 6, 6, 4, 6]])
    expected = np.zeros((10, 10), bool)
    expected[2:8, 2:8], expected[4:6, 4:6] = True, False
    assert np.array_equal(mask.to_mask(), expected)


@pytest.mark.parametrize(
    ("polygon", "message"),
    [
        ([1, 2, 3, 4], "polygon 2 has 2 points; it needs at least 3"),
        ([], "polygon 2 has 0 points"),
        ([1, 2, 3, 4, 5, 6, 7], "polygon 2 has 7 numbers"),
        ([1, 2, float("nan"), 4, 5, 6], "polygon 2 has the x coordinate nan at point 2"),
        ([1, 2, 3, 4, 5, float("inf")], "polygon 2 has the y coordinate inf at point 3"),
        ([1, 2, 3, -1e12, 5, 6], "polygon 2 has the y coordinate -1e.12 at point 2"),
        ([1, 2, 3, "a", 5, 6], "polygon 2 is not a list of numbers"),
        ([[1, 2], [3, 4], [5]], "polygon 2 is not a list of numbers"),
        ([1, 2, 3, 10**400, 5, 6], "polygon 2 is not a list of numbers"),
        ({}, "polygon 2 is not a list of numbers"),
        ([[1, 2, 3], [4, 5, 6]], r"polygon 2 has the shape \(2, 3\)"),
        (7, r"polygon 2 has the shape \(\)"),
    ],
)
def test_malformed_polygons_are_named(polygon, message):
    with pytest.raises(RLEError, match=message):
        RLE.from_polygons([SQUARE, polygon], (20, 24))
    with pytest.raises(RLEError, match=message.replace("polygon 2", ".*hole.* 1")):
        RLE.from_polygons([SQUARE], (20, 24), holes=[polygon])


def test_a_table_keeps_the_masks_beside_a_malformed_one():
    square = np.reshape(SQUARE, (4, 2)).astype(float)
    points = np.concatenate([square, square[:2], square, square * np.nan, square])
    points.setflags(write=False)
    offsets = np.array([0, 4, 6, 10, 14, 18])
    table, bad = rasterize_polygons(points, offsets, np.array([0, 1, 2, 4, 5]), (10, 10))
    assert [b.index for b in bad] == [1, 2]
    assert "polygon 1 has 2 points" in bad[0].message
    assert "polygon 2 has the x coordinate nan" in bad[1].message
    areas = table.areas.tolist()
    assert areas == [36, 0, 0, 36]


def test_huge_polygons_cost_only_their_columns():
    """A diamond of a billion pixels covers the picture; another's straight side cuts it in half."""
    far = 9.9e8
    assert RLE.from_polygons([[-far, 0, 0, -far, far, 0, 0, far]], (30, 40)).area == 1200
    half = RLE.from_polygons([[20, -far, far, -far, far, far, 20, far]], (30, 40))
    assert half.box == (20, 0, 40, 30)
    diagonal = RLE.from_polygons([[-far, -far, far, far, -far, far]], (30, 30)).to_mask()
    y, x = np.mgrid[:30, :30]
    assert np.array_equal(diagonal[x != y], (y > x)[x != y])


def test_a_polygon_outside_the_picture_has_no_pixels():
    for dx, dy in ((-100, 0), (100, 0), (0, -100), (0, 100), (-100, 100)):
        moved = np.reshape(SQUARE, (4, 2)) + np.array([dx, dy])
        assert RLE.from_polygons([moved], (20, 24)).area == 0


@pytest.mark.parametrize("hw", [(-1, 5), (5, 10**10)])
def test_absurd_pictures_are_refused(hw):
    with pytest.raises(RLEError, match=f"the picture is {hw[0]}x{hw[1]}"):
        RLE.from_polygons([SQUARE], hw)


@pytest.mark.parametrize("hw", [(0, 0), (0, 5), (5, 0)])
def test_a_picture_without_pixels_has_no_mask(hw):
    assert RLE.from_polygons([SQUARE], hw) == RLE.empty(hw)


def test_an_outline_that_crosses_every_pixel_many_times_is_refused():
    zigzag = np.zeros((2 * MIN_CROSSINGS // 100, 2))
    zigzag[::2, 0] = 200.0
    with pytest.raises(RLEError, match="cross the columns of a 10x200"):
        RLE.from_polygons([zigzag], (10, 200))


def test_a_polygon_may_go_beyond_32_bits():
    """pycocotools' numbers overflow at 2**31 fifths of a pixel."""
    far = 2.0**31
    with pytest.raises(RLEError, match="at most 1,000,000,000 pixels"):
        RLE.from_polygons([[0, 0, far, 0, 0, far]], (10, 10))
    assert RLE.from_polygons([[0, 0, 5e8, 0, 0, 5e8]], (10, 10)).area == 100


def test_diagonal_pixels_are_parts_and_diagonal_gaps_are_not_closed():
    mask = np.eye(3, dtype=bool)
    assert len(RLE.from_mask(mask).to_polygons()) == 3
    assert [len(p.holes) for p in RLE.from_mask(~np.eye(4, dtype=bool)[:, :3]).to_polygons()] == [0, 0]


def test_parts_within_holes_within_parts():
    mask = np.zeros((11, 11), bool)
    for k, inside in enumerate((True, False, True, False, True)):
        mask[k : 11 - k, k : 11 - k] = inside
    parts = RLE.from_mask(mask).to_polygons()
    assert [(p.outer.tolist()[0], len(p.holes)) for p in parts] == [([11, 0], 1), ([9, 2], 1), ([7, 4], 0)]
    assert parts[0].outer.dtype == np.int64


def test_a_hole_belongs_to_the_part_around_it():
    """The lower part begins between the first column of the upper one and that of the upper one's hole."""
    mask = np.zeros((12, 8), bool)
    mask[0:5, 0:6], mask[2, 3] = True, False
    mask[7:12, 1:7], mask[9, 4] = True, False
    upper, lower = RLE.from_mask(mask).to_polygons()
    assert upper.holes[0].min(0).tolist() == [3, 2]
    assert lower.holes[0].min(0).tolist() == [4, 9]


def test_an_empty_mask_has_no_outline():
    assert RLE.empty((5, 5)).to_polygons() == []
    with pytest.raises(RLEError, match="at least one point"):
        join_rings([])


def test_bridges_are_short_and_their_search_is_bounded():
    """Alternating pixels of one column: all points share two values of x."""
    mask = np.zeros((60_001, 1), bool)
    mask[::2] = True
    rle = RLE.from_mask(mask)
    polygon = join_rings([part.outer for part in rle.to_polygons()])
    assert np.abs(np.diff(polygon, axis=0)).sum(1).max() <= 2
    assert RLE.from_polygons([polygon], mask.shape) == rle


def test_rings_with_fractions_are_joined_exactly(rng):
    for _ in range(50):
        rings = [rng.uniform(-10, 50, (1, 2)) + rng.uniform(0, 12, (5, 2)) for _ in range(6)]
        layers = sum(RLE.from_polygons([ring], (40, 44)).to_mask().astype(int) for ring in rings)
        assert np.array_equal(RLE.from_polygons([join_rings(rings)], (40, 44)).to_mask(), layers % 2 == 1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_million_polygons_fit_in_one_gigabyte():
    code = (
        "import numpy as np\n"
        "from maskrcnn.polygons import rasterize_polygons\n"
        "n = 1_000_000\n"
        "corners = np.array([[0, 0], [9, 1], [8, 9], [1, 8.0]]) + np.random.default_rng(0).uniform(0, 500, (n, 1, 2))\n"
        "table, bad = rasterize_polygons(corners.reshape(-1, 2), 4 * np.arange(n + 1), np.arange(n + 1), (512, 512))\n"
        "assert not bad and len(table) == n\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"  # peak memory of the process, in kB
    )
    peak = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert peak * 1024 < 1e9
