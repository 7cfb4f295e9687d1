"""Counting what a data set has that not every format can hold."""

import numpy as np
import pytest
from scipy import ndimage

from maskrcnn import RLE
from maskrcnn.data.formats.traits import Trait, _count_overlapping, count_traits
from maskrcnn.kernels.runs import count_pieces_and_holes
from maskrcnn.rle import RunTable
from samples import write_sample

CORNERS = np.ones((3, 3), int)


def counted(mask):
    runs = RLE.from_mask(mask).runs
    pieces, holes = count_pieces_and_holes(runs, np.array([0, len(runs)]), np.array([mask.shape[0]]))
    return int(pieces[0]), int(holes[0])


@pytest.mark.parametrize("density", [0.1, 0.4, 0.6, 0.9])
def test_pieces_and_holes_of_random_masks_are_scipys(rng, density):
    for _ in range(60):
        mask = rng.uniform(size=rng.integers(1, 14, 2)) < density
        outside = np.pad(~mask, 1, constant_values=True)
        assert counted(mask) == (ndimage.label(mask, CORNERS)[1], ndimage.label(outside)[1] - 1)


def test_a_ring_has_a_hole_also_where_its_pixels_touch_at_corners_alone():
    ring = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    assert counted(ring) == (1, 1)
    assert counted(np.pad(ring, 2)) == (1, 1)


def test_overlapping_masks_are_those_that_share_a_pixel(rng):
    for n in (1, 2, 3, 8):
        for _ in range(40):
            masks = rng.uniform(size=(n, 9, 11)) < rng.uniform(0.01, 0.3)
            shared = masks.sum(0) > 1
            expected = sum(bool((mask & shared).any()) for mask in masks)
            assert _count_overlapping(RunTable.of([RLE.from_mask(mask).runs for mask in masks])) == expected


def test_every_trait_of_the_sample_is_counted(tmp_path):
    counts = count_traits(write_sample(tmp_path))
    assert set(counts) == set(Trait)
    assert all(counts.values())
    assert counts[Trait.HOLES] == 3
    assert counts[Trait.CROWD] == 3
    assert counts[Trait.EMPTY_IMAGES] == 1
    assert counts[Trait.DIVISION] == 4
    assert counts[Trait.SCORES] == 20
    assert counts[Trait.OVERLAPS] == 21  # each picture has a mask of all its pixels
