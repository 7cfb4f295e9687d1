"""Counting what a data set has that not every format can hold."""

import numpy as np
import pytest

from maskrcnn import RLE
from maskrcnn.data.formats.traits import Trait, _count_overlapping, count_traits
from maskrcnn.kernels.runs import count_pieces_and_holes
from maskrcnn.rle import RunTable
from samples import write_sample


def n_regions(mask, *, corners):
    """Count the connected regions of a dense mask by flooding them."""
    left = set(zip(*(index.tolist() for index in np.nonzero(mask)), strict=True))
    steps = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if corners or not (a and b)]
    n = 0
    while left:
        n, front = n + 1, [left.pop()]
        while front:
            row, column = front.pop()
            near = left.intersection((row + a, column + b) for a, b in steps)
            left -= near
            front += near
    return n


def counted(mask):
    runs = RLE.from_mask(mask).runs
    pieces, holes = count_pieces_and_holes(runs, np.array([0, len(runs)]), np.array([mask.shape[0]]))
    return int(pieces[0]), int(holes[0])


@pytest.mark.parametrize("density", [0.1, 0.4, 0.6, 0.9])
def test_pieces_and_holes_of_random_masks(rng, density):
    for _ in range(60):
        mask = rng.uniform(size=rng.integers(1, 14, 2)) < density
        outside = np.pad(~mask, 1, constant_values=True)
        assert counted(mask) == (n_regions(mask, corners=True), n_regions(outside, corners=False) - 1)


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
    assert counts[Trait.DIVISION] == 5
    assert counts[Trait.SCORES] == 21
    assert counts[Trait.ATTRIBUTES] == counts[Trait.ATTRIBUTE_NAMES] == 14
    assert counts[Trait.FEDERATED] == 5
    assert counts[Trait.OVERLAPS] == 21  # three pictures have a mask of all their pixels above others
