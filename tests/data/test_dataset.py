"""Splits, placements, samples and batches."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from maskrcnn import RLE, UserError
from maskrcnn.config import Config, ModelConfig
from maskrcnn.data.augment import draw_placement
from maskrcnn.data.batch import Shard, batches, image_order, images_per_pass, make_batch
from maskrcnn.data.dataset import swapped_labels, targets_of
from maskrcnn.data.table import Dataset
from maskrcnn.detection.conventions import NATIVE
from maskrcnn.detection.fit import fitted_hw, place
from maskrcnn.rle import RunTable
from maskrcnn.structures import Placement

SMALL = Config().changed(model={"image_size": 96})
TWO = Shard.of(2)


def test_split_covers_every_image_once_and_is_repeatable(shapes):
    train, val = shapes.split(0.25, seed=1)
    assert len(val) == 3
    assert sorted(train.names + val.names) == sorted(shapes.names)
    assert train.n_instances + val.n_instances == shapes.n_instances
    assert shapes.split(0.25, seed=1)[1].names == val.names
    assert any(shapes.split(0.25, seed=s)[1].names != val.names for s in range(2, 6))


def test_split_without_validation_keeps_all_images(shapes):
    for data in (shapes, shapes.take([0])):
        train, val = data.split(0)
        assert train.names == data.names
        assert (len(val), val.n_instances) == (0, 0)
    for share in (-0.1, 1.0, 1.5):
        with pytest.raises(UserError, match="at least 0 and below 1"):
            shapes.split(share)
    with pytest.raises(UserError, match=r"at least 2 images, not 1; .*--val 0.*--val-data"):
        shapes.take([0]).split()


def test_split_keeps_the_share_of_a_rare_class(shapes):
    """Five of 20 images hold the rare class, so a validation split of four images gets one."""
    copies = shapes.take(np.zeros(20, int))
    labels = copies.labels.copy()
    for i in range(5):
        labels[copies.instances(i)] = 4
    labels[copies.instances(5).start :] = 1
    import dataclasses

    _, val = dataclasses.replace(copies, labels=labels).split(0.2, seed=0)
    rare = [4 in val.labels[val.instances(i)] for i in range(len(val))]
    assert sum(rare) == 1


def test_split_by_names(shapes):
    train, val = shapes.split_by_names(["shapes_0003", "shapes_0001.png"])
    assert val.names == ["shapes_0001.png", "shapes_0003.png"]
    assert len(train) == 10
    with pytest.raises(UserError, match="not in"):
        shapes.split_by_names(["nothing"])
    with pytest.raises(UserError, match="no image for training"):
        shapes.split_by_names(shapes.names)


def test_dots_in_image_names_are_not_suffixes(shapes):
    import dataclasses

    named = dataclasses.replace(shapes.take([0, 1]), names=["img.v1", "img.v2"])
    assert named.named(["img.v2.png"]).names == ["img.v2"]
    with pytest.raises(UserError, match="not in"):
        named.named(["img.v3"])


def test_boxes_enclose_their_masks(shapes):
    for i in range(len(shapes)):
        for box, rle in zip(shapes.boxes[shapes.instances(i)], shapes.rles(i), strict=True):
            mask = rle.to_mask()
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_placement_moves_boxes_like_pixels(rng, mirrored, turns):
    image = np.zeros((40, 60, 3), np.uint8)
    image[12:20, 22:44] = 255
    placement = Placement((10, 4, 50, 36), (32, 40), mirrored, turns)
    placed = place(image, placement)[:, :, 0] > 0
    rows, columns = np.flatnonzero(placed.any(1)), np.flatnonzero(placed.any(0))
    box = placement.boxes_to_input(np.array([[22, 12, 44, 20]]))
    assert box[0].tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    boxes = rng.uniform(0, 30, (5, 4))
    scaled = Placement((10, 4, 50, 36), (64, 100), mirrored, turns)
    assert np.allclose(scaled.boxes_to_source(scaled.boxes_to_input(boxes)), boxes)


def dataset_of(hw, *masks):
    """One image with these (H, W) masks, of one class."""
    runs = RunTable.of(RLE.from_mask(mask).runs for mask in masks)
    n = len(masks)
    columns = {"image_index": np.zeros(n, np.int64), "labels": np.ones(n, np.int64), "rows": np.arange(n) + 2}
    image = {"names": ["a"], "files": [Path("a.png")], "sizes": np.array([hw])}
    return Dataset(source=Path("a.csv"), masks=runs, class_ids=[1], class_names=["object"], **image, **columns)


def rectangle(hw, x1, y1, x2, y2):
    mask = np.zeros(hw, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def test_targets_of_a_crop_are_the_visible_parts(shapes):
    i = int(np.argmax(shapes.counts))
    window = (20, 10, 90, 80)
    targets = targets_of(shapes, i, Placement(window, (140, 140)))
    boxes = [np.array(part.box) for part in (mask.crop(window) for mask in shapes.rles(i)) if part.area]
    assert all((box[2:] - box[:2]).min() >= 2 for box in boxes), "no sliver among them"
    assert np.allclose(targets.boxes, 2.0 * np.array(boxes))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize(("scale", "min_length"), [(4, 2), (1, 2), (0.5, 4), (0.25, 8)])
def test_slivers_that_a_crop_leaves_are_no_targets(scale, min_length, mirrored, turns):
    """Along a cut, two pixels remain of an instance, both of the source and of the input."""
    window, hw = (16, 16, 80, 80), (96, 96)
    placement = Placement(window, (int(64 * scale), int(64 * scale)), mirrored, turns)
    for visible in range(1, 12):
        cut = [
            rectangle(hw, 5, 30, 16 + visible, 60),  # at the left
            rectangle(hw, 80 - visible, 30, 90, 60),  # at the right
            rectangle(hw, 30, 5, 60, 16 + visible),  # at the top
            rectangle(hw, 30, 80 - visible, 60, 90),  # at the bottom
        ]
        kept = len(targets_of(dataset_of(hw, *cut), 0, placement))
        assert kept == (4 if visible >= min_length else 0), visible


@pytest.mark.parametrize("scale", [4, 1, 0.25])
def test_thin_instances_are_targets(scale):
    """A whole instance of one pixel counts, and so does a thin one that the crop cuts across its length."""
    hw, placement = (96, 96), Placement((16, 16, 80, 80), (int(64 * scale), int(64 * scale)))
    masks = [
        rectangle(hw, 40, 40, 41, 41),
        rectangle(hw, 16, 50, 17, 51),  # one pixel at the edge of the crop
        rectangle(hw, 50, 0, 51, 40),  # a vertical line, cut at the top
        rectangle(hw, 16, 0, 17, 96),  # a line along the edge of the crop
    ]
    targets = targets_of(dataset_of(hw, *masks), 0, placement)
    assert len(targets) == 4
    assert np.allclose(targets.boxes[0], np.array([24, 24, 25, 25]) * scale)
    assert np.allclose(targets.boxes[2], np.array([34, 0, 35, 24]) * scale)


def test_placements_stay_within_image_and_input(rng):
    for _ in range(200):
        hw = tuple(int(v) for v in rng.integers(5, 3000, 2))
        placement = draw_placement(hw, ModelConfig(min_scale=rng.choice([0, 1])), Config().augment, rng)
        x1, y1, x2, y2 = placement.window
        assert 0 <= x1 < x2 <= hw[1]
        assert 0 <= y1 < y2 <= hw[0]
        assert min(placement.hw) >= 1
        assert max(placement.hw) <= 512
    assert fitted_hw((100, 50), NATIVE, ModelConfig()) == (512, 256)


def test_crops_have_the_scale_of_prediction(rng):
    config = Config.parse({"augment": {"crop": 128, "scale": (1.0, 1.0), "rotate": False}}, "test").augment
    for model, scale in ((ModelConfig(image_size=800), 2), (ModelConfig(image_size=200, min_scale=1.5), 1.5)):
        placement = draw_placement((200, 400), model, config, rng)
        assert placement.hw == (128, 128)
        assert np.allclose(placement.scale_wh, scale, rtol=0.01)


def test_samples_depend_only_on_seed_pass_and_image(shapes):
    for step in (0, 3, 40):
        first, second = make_batch(shapes, step, SMALL, TWO), make_batch(shapes, step, SMALL, TWO)
        assert np.array_equal(first.pixels, second.pixels)
        assert all(np.array_equal(a.boxes, b.boxes) for a, b in zip(first.targets, second.targets, strict=True))
    other_seed = SMALL.changed(train={"seed": 5})
    assert not np.array_equal(make_batch(shapes, 0, SMALL, TWO).pixels, make_batch(shapes, 0, other_seed, TWO).pixels)


def test_batches_do_not_depend_on_workers_or_first_step(shapes):
    serial = list(batches(shapes, 0, 9, SMALL.changed(train={"workers": 0}), TWO))
    threaded = list(batches(shapes, 4, 9, SMALL.changed(train={"workers": 3}), TWO))
    for a, b in zip(serial[4:], threaded, strict=True):
        assert a.names == b.names
        assert np.array_equal(a.pixels, b.pixels)


def test_each_pass_shows_every_image_once(shapes):
    shown = [name for batch in batches(shapes, 0, len(shapes) // 2, SMALL, TWO) for name in batch.names]
    assert sorted(shown) == sorted(shapes.names)
    assert not np.array_equal(image_order(shapes, 0, SMALL), image_order(shapes, 1, SMALL))


def test_each_pass_shows_a_fraction_of_the_empty_images(shapes):
    with_instances = np.flatnonzero(shapes.counts)[:6]
    data = shapes.take(with_instances)
    data = dataclasses.replace(
        data,
        names=data.names + [f"empty {k}" for k in range(30)],
        files=data.files * 6,
        sizes=np.tile(data.sizes, (6, 1)),
        headers=None,
    )
    config = SMALL.changed(train={"empty": 0.25})
    passes = [image_order(data, k, config) for k in range(200)]
    assert images_per_pass(data, config) == 8
    for order in passes:
        assert len(order) == 8
        assert set(range(6)) <= set(order.tolist())
    assert set(np.concatenate(passes).tolist()) == set(range(36))
    assert images_per_pass(data, SMALL) == 36
    assert images_per_pass(data, SMALL.changed(train={"empty": 0})) == 6
    assert images_per_pass(data.take([0, *range(6, 36)]), config) == 2
    all_empty = data.take(range(6, 36))
    assert images_per_pass(all_empty, config) == 30


def test_unreadable_images_are_left_out_and_reported(shapes, tmp_path):
    files = [tmp_path / "gone.png", *shapes.files[1:]]
    data = dataclasses.replace(shapes, files=files)
    steps = list(batches(data, 0, 6, SMALL, TWO))
    assert sum(len(b) for b in steps) == 11
    assert [m for b in steps for m in b.unreadable] == [f"{tmp_path / 'gone.png'}: there is no such file"]


def test_mirroring_swaps_paired_classes():
    config = Config().augment.model_copy(update={"swap_on_flip": ("left=right",)})
    assert swapped_labels(["left", "other", "right"], config).tolist() == [0, 3, 2, 1]
    with pytest.raises(UserError, match="'left'"):
        swapped_labels(["a", "b"], config)
