"""The settings that the plan derives from the data, their reasons, and the user's settings, which it keeps."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from maskrcnn import open_dataset
from maskrcnn.config import Config
from maskrcnn.detection.conventions import NATIVE
from maskrcnn.files import write_image
from maskrcnn.model.layers import norms
from maskrcnn.rle import RLE
from maskrcnn.settings import Settings
from maskrcnn.training.plan import fill_in
from maskrcnn.training.start import build


def planned(config, data):
    """Return the planned configuration and the reasons."""
    settings, reasons = fill_in(Settings.of(config), data)
    return settings.config, reasons


def test_plan_fills_in_only_open_settings(shapes):
    config, reasons = planned(Config(), shapes)
    assert len(config.model.anchor_sizes) == 5
    assert config.predict.detections == 100
    assert config.model.image_size == 512
    assert config.predict.mask_scoring
    assert config.predict.box_voting
    assert config.train.epochs == 24
    assert config.augment.rotate
    assert len(reasons) == 6
    user_config = Config().changed(
        train={"epochs": 24, "lr": 1e-3},
        model={"anchor_sizes": (1, 2, 3, 4, 5), "image_size": 512, "mask_size": 28},
        predict={"detections": 7, "mask_scoring": False, "box_voting": False},
    )
    assert planned(user_config, shapes) == (user_config, [])


def write_discs(folder, side, radius, classes=("a",), stretch=1.0):
    """Write a data set of one image with 20 discs of `radius` px, or ellipses `stretch` times as high as wide."""
    y, x = np.mgrid[:side, :side]
    centers = np.random.default_rng(0).integers(radius, side - radius, (20, 2))
    discs = [RLE.from_mask(((x - a) * stretch) ** 2 + (y - b) ** 2 <= radius**2) for a, b in centers]
    write_image(Image.new("RGB", (side, side)), folder / "images" / "p.png")
    return write_table(folder, [("p.png", disc, classes[k % len(classes)]) for k, disc in enumerate(discs)])


def write_table(folder, rows):
    """Write a table of (image, mask, class) and open it."""
    lines = [f"{image},{mask.to_encoded_pixels()},{class_id}\n" for image, mask, class_id in rows]
    (folder / "train.csv").write_text("ImageId,EncodedPixels,ClassId\n" + "".join(lines))
    return open_dataset(folder / "train.csv")


@pytest.mark.parametrize(
    ("side", "radius", "size", "crop"),
    [(1024, 20, 896, 512), (1024, 4, 1536, 512), (400, 4, 1152, 512), (512, 40, 512, None)],
    ids=["small", "tiny", "limited by enlargement", "large"],
)
def test_small_objects_raise_image_size_and_set_a_crop(tmp_path, side, radius, size, crop):
    config, reasons = planned(Config(), write_discs(tmp_path, side, radius))
    assert (config.model.image_size, config.augment.crop) == (size, crop)
    assert any(f"image_size {size}" in reason for reason in reasons) == (size != 512)


def test_large_images_of_small_objects_get_a_min_scale(tmp_path):
    def plan(radius, n_large=20, side=1024, **model):
        data = write_two_sizes(tmp_path / f"{radius} {n_large} {side}", radius, n_large, side)
        return planned(Config().changed(model=model), data)

    config, reasons = plan(5)
    assert (config.model.image_size, config.model.min_scale) == (768, 1.5), "limited by the largest input"
    assert any("min_scale 1.5" in reason and "above 768 px" in reason for reason in reasons)
    assert config.model.anchor_sizes[0] == 16, "measured at the new scale"
    assert plan(12)[0].model.min_scale == 1.25, "no larger than the objects need"
    assert plan(5, side=1400)[0].model.min_scale == 1, "never below the original size"
    assert plan(50)[0].model.min_scale == 0, "the objects are large"
    assert plan(5, n_large=19)[0].model.min_scale == 0, "too few objects in large images"
    assert plan(5, image_size=768)[0].model.min_scale == 0, "the user set image_size"
    assert plan(5, min_scale=0)[0].model.min_scale == 0


def write_two_sizes(folder, radius, n_large, large_side=1024):
    """Write discs of `radius` px: four in each of twelve 256 x 256 images and `n_large` in one larger image."""
    rows = []
    for k, (side, discs, columns) in enumerate([(256, 4, 2)] * 12 + [(large_side, n_large, 8)]):
        write_image(Image.new("RGB", (side, side)), folder / "images" / f"{k}.png")
        y, x = np.mgrid[:side, :side]
        for n in range(discs):
            disc = (x - 60 - 120 * (n % columns)) ** 2 + (y - 60 - 120 * (n // columns)) ** 2 <= radius**2
            rows.append((f"{k}.png", RLE.from_mask(disc), 1))
    return write_table(folder, rows)


def test_plan_keeps_the_users_crop(tmp_path):
    config, _ = planned(Config().changed(augment={"crop": 256}), write_discs(tmp_path, 1024, 20))
    assert config.augment.crop == 256


def test_large_objects_get_a_larger_mask_size(tmp_path):
    config, _ = planned(Config(), write_discs(tmp_path, 600, 140))
    assert config.model.mask_size == 56


@pytest.mark.parametrize(
    ("classes", "stretch", "rotate"), [("a", 1.0, True), ("a", 1.2, True), ("a", 2.0, False), ("abcd", 2.0, True)]
)
def test_rotation_is_off_for_upright_objects(tmp_path, classes, stretch, rotate):
    config, reasons = planned(Config(), write_discs(tmp_path, 400, 40, classes, stretch))
    assert config.augment.rotate == rotate  # five instances of a class are too few to decide
    assert any("2.0 times as high as wide" in reason for reason in reasons) == (not rotate)


def test_plan_keeps_the_users_rotation(tmp_path):
    data = write_discs(tmp_path, 400, 40, stretch=2.0)
    assert planned(Config().changed(augment={"rotate": True}), data)[0].augment.rotate


def test_mostly_empty_data_uses_a_fraction_of_its_empty_images(shapes):
    non_empty = np.flatnonzero(shapes.counts)[:4]
    data = dataclasses.replace(
        shapes.take(non_empty),
        names=list("abcdefgh"),
        files=shapes.files[:8],
        sizes=np.tile(shapes.sizes[:1], (8, 1)),
        headers=None,
    )
    config, reasons = planned(Config(), data)
    assert config.train.empty == 0.25
    assert any("50% of the images have no instances" in reason for reason in reasons)
    assert planned(Config(), data.take(range(5)))[0].train.empty == 1
    assert planned(Config().changed(train={"empty": 0.9}), data)[0].train.empty == 0.9


@pytest.mark.parametrize(("images", "epochs"), [(100, 24), (4000, 12), (100_000, 6)])
def test_large_data_sets_get_fewer_epochs(shapes, images, epochs):
    data = shapes.take(np.zeros(images, int))
    config, _ = planned(Config(), data)
    assert config.train.epochs == epochs
    assert planned(Config().changed(train={"budget": "20m"}), data)[0].train.epochs == 24


def test_plan_explains_the_learning_rate(shapes):
    config, reasons = planned(Config().changed(train={"optimizer": "sgd", "decay": "step"}), shapes)
    assert config.train.lr is None, "the optimizer sets the default"
    assert any("lr 0.005: the default of sgd; after warm-up it falls to a tenth" in reason for reason in reasons)


def test_fine_tuning_freezes_stages_and_lowers_the_learning_rate(shapes):
    config, reasons = planned(Config().changed(train={"init": "nuclei"}), shapes)
    assert (config.train.freeze, config.train.lr) == ("3+", 3e-4)
    assert any("freeze 3+, lr 0.0003" in reason for reason in reasons)
    assert config.augment.crop is None
    large, _ = planned(Config().changed(train={"init": "nuclei"}, model={"image_size": 768}), shapes)
    assert large.augment.crop == 512
    config, _ = planned(Config().changed(train={"init": "nuclei", "freeze": "all", "optimizer": "sgd"}), shapes)
    assert (config.train.freeze, config.train.lr) == ("all", 3e-3)


@pytest.mark.parametrize(
    ("weights", "train", "backbone_trains", "heads_train"),
    [
        ("imagenet", {}, False, True),
        ("none", {}, True, True),
        ("none", {"freeze_norm": True}, False, True),
        ("imagenet", {"freeze_norm": False}, True, True),
        ("imagenet", {"init": "nuclei"}, False, False),
    ],
    ids=str,
)
def test_only_new_batch_norm_is_trained_by_default(shapes, weights, train, backbone_trains, heads_train):
    user_config = Config().changed(model={"backbone": "test_resnet", "weights": weights, "norm": "batch"}, train=train)
    model = build(planned(user_config, shapes)[0].changed(train={"freeze": "all"}), shapes, NATIVE).train()
    assert {layer.training for layer in norms(model.backbone)} == {backbone_trains}
    assert {m.training for m in norms(model.box_head)} | {m.training for m in norms(model.mask_head)} == {heads_train}


def test_left_and_right_classes_are_swapped_on_flip(tmp_path):
    data = write_discs(tmp_path, 256, 20, ("Left hand", "right hand", "leftover", "hat"))
    config, reasons = planned(Config(), data)
    assert config.augment.swap_on_flip == ("Left hand=right hand",)
    assert any("Left hand and right hand" in reason for reason in reasons)
    assert planned(Config().changed(augment={"swap_on_flip": ()}), data)[0].augment.swap_on_flip == ()
