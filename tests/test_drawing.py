"""Labels of an overlay: inside the picture, clear of each other, the first instances first."""

from itertools import combinations

import numpy as np
import pytest

from maskrcnn import RLE
from maskrcnn.drawing import draw_instances, place_labels

WH = (640, 480)
LABEL = (61, 16)


def crowd(n: int, seed: int, wh: tuple[int, int] = WH) -> tuple[np.ndarray, np.ndarray]:
    """Random boxes (n, 4) and label sizes (n, 2) in a picture of `wh`."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, np.array(wh) - 10, (n, 2))
    high = np.minimum(low + rng.integers(5, 120, (n, 2)), wh)
    return np.concatenate([low, high], 1), rng.integers(10, 90, (n, 2)) // [1, 4]


def share_pixels(a: tuple, b: tuple) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@pytest.mark.parametrize("n", [0, 1, 5, 40, 400])
@pytest.mark.parametrize("seed", range(3))
def test_labels_are_disjoint_and_inside_the_picture(n, seed):
    boxes, sizes = crowd(n, seed)
    plates = place_labels(boxes, sizes, WH)
    assert plates == place_labels(boxes, sizes, WH)
    shown = [plate for plate in plates if plate is not None]
    assert not any(share_pixels(a, b) for a, b in combinations(shown, 2))
    for plate, size in zip(plates, sizes, strict=True):
        if plate is not None:
            x1, y1, x2, y2 = plate
            assert (x2 - x1, y2 - y1) == tuple(size)
            assert 0 <= x1 < x2 <= WH[0]
            assert 0 <= y1 < y2 <= WH[1]
    if 0 < n <= 5:
        assert len(shown) == n


@pytest.mark.parametrize(
    ("box", "corner"),
    [
        ((100, 200, 180, 260), (100, 185)),  # on the box's upper edge
        ((100, 5, 180, 60), (100, 5)),  # no space above: inside
        ((620, 200, 640, 260), (640 - LABEL[0], 185)),  # moved left into the picture
    ],
)
def test_a_lone_label_lies_above_its_box(box, corner):
    (plate,) = place_labels(np.array([box]), np.array([LABEL]), WH)
    assert plate is not None
    assert plate[:2] == corner


def test_each_label_touches_its_box():
    boxes, sizes = crowd(60, 4)
    for (x1, y1, x2, y2), plate in zip(boxes, place_labels(boxes, sizes, WH), strict=True):
        assert plate is None or share_pixels((x1 - 1, y1 - 1, x2 + 1, y2 + 1), plate)


def test_the_first_instances_keep_their_labels():
    boxes, sizes = crowd(100, 5, (150, 120))
    all_plates = place_labels(boxes, sizes, (150, 120))
    assert all_plates[0] is not None
    assert None in all_plates
    for n in (1, 10, 50):
        assert place_labels(boxes[:n], sizes[:n], (150, 120)) == all_plates[:n]


def test_a_label_larger_than_the_picture_is_skipped():
    boxes, sizes = np.array([[0, 0, 9, 9]] * 2), np.array([[11, 5], [5, 11]])
    assert place_labels(boxes, sizes, (10, 10)) == [None, None]


def test_overlays_of_near_instances_show_every_label():
    """Three instances in one place: the labels used to cover each other, so the last one alone could be read."""
    image = np.zeros((640, 640, 3), np.uint8)
    mask = np.zeros((640, 640), bool)
    mask[300:340, 300:340] = True
    masks, colors = [RLE.from_mask(mask)] * 3, np.array([0, 1, 3])
    plain = np.asarray(draw_instances(image, masks, None, None, colors))
    labelled = np.asarray(draw_instances(image, masks, None, ["cell 0.9", "cell 0.8", "cell 0.7"], colors))
    changed = labelled[(plain != labelled).any(2)]
    areas = [(changed == color).all(1).sum() for color in ((230, 159, 0), (86, 180, 233), (240, 228, 66))]
    assert min(areas) > 0.8 * max(areas) > 0
