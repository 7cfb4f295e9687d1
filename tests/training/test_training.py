"""Matching, sampling, targets, losses and their edge cases."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn import UserError, open_dataset
from maskrcnn.config import Config, ModelConfig, TrainConfig, seconds
from maskrcnn.data.batch import Share, make_batch
from maskrcnn.data.dataset import place, targets_of
from maskrcnn.data.formats import encoded_pixels
from maskrcnn.files import write_image
from maskrcnn.model.conventions import NATIVE
from maskrcnn.model.layers import norms
from maskrcnn.model.mask_rcnn import build_model
from maskrcnn.rle import RLE
from maskrcnn.structures import Placement, Proposals
from maskrcnn.training.budget import Budget, across_sizes, seconds_for_all, steps_for, validation_due
from maskrcnn.training.criterion import LOSSES, Criterion
from maskrcnn.training.matcher import NEGATIVE, NEITHER, POSITIVE, match
from maskrcnn.training.plan import fill_in
from maskrcnn.training.sampler import sample_labels
from maskrcnn.training.schedule import WeightAverage, build_optimizer, lr_factor
from maskrcnn.training.start import build
from maskrcnn.training.targets import Truth, mask_targets, sample_anchors, sample_regions

TINY = Config(
    model=ModelConfig(
        backbone="test_resnet", weights="none", image_size=96, channels=16, box_channels=32, mask_channels=16,
        proposals=60, proposals_per_level=60,
    ),
    train=TrainConfig(roi_batch=32, rpn_batch=32),
)  # fmt: skip
CPU = torch.device("cpu")
GENERATORS = [torch.Generator().manual_seed(n) for n in range(2)]


def test_matching():
    overlap = torch.tensor([[0.8, 0.5, 0.1, 0.2, 0.0], [0.1, 0.4, 0.1, 0.25, 0.0]])
    index, label = match(overlap, positive=0.7, negative=0.3, best_counts=False)
    assert index[:2].tolist() == [0, 0]
    assert label.tolist() == [POSITIVE, NEITHER, NEGATIVE, NEGATIVE, NEGATIVE]
    _, label = match(overlap, positive=0.7, negative=0.3, best_counts=True)
    assert label.tolist() == [
        POSITIVE,
        POSITIVE,
        NEGATIVE,
        NEGATIVE,
        NEGATIVE,
    ]  # the second instance's best is box 1
    _, label = match(torch.zeros(0, 5), positive=0.7, negative=0.3, best_counts=True)
    assert (label == NEGATIVE).all()
    _, label = match(torch.zeros(1, 5), positive=0.7, negative=0.3, best_counts=True)
    assert (label == NEGATIVE).all()  # an instance that no box touches has no best box


def test_sampling_is_balanced_bounded_and_repeatable():
    labels = torch.cat([torch.full((10,), POSITIVE), torch.full((50,), NEGATIVE), torch.full((5,), NEITHER)])
    positives, negatives = sample_labels(labels, 32, 0.25, torch.Generator().manual_seed(0))
    assert (len(positives), len(negatives)) == (8, 24)
    assert (labels[positives] == POSITIVE).all()
    assert (labels[negatives] == NEGATIVE).all()
    again = sample_labels(labels, 32, 0.25, torch.Generator().manual_seed(0))
    assert torch.equal(again[0], positives)
    few, many = sample_labels(labels[8:], 32, 0.25, torch.Generator().manual_seed(0))
    assert (len(few), len(many)) == (2, 30)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_mask_targets_follow_the_picture(shapes, mirrored, turns):
    """The mask drawn as a picture, placed like the image, covers each cell as the target from its runs says."""
    i = int(np.argmax(shapes.counts))
    placement = Placement((16, 0, 112, 96), (96, 96), mirrored, turns)
    targets = targets_of(shapes, i, placement)
    truth = Truth.of([targets], CPU)
    proposals = Proposals(
        truth.boxes + torch.tensor([-2.0, 1.0, 1.5, 3.0]), torch.zeros(truth.labels.shape), truth.valid
    )
    config = TrainConfig(roi_batch=64, roi_positive_fraction=1.0, roi_positive_iou=0.3)
    regions = sample_regions(proposals, truth, config, NATIVE, GENERATORS)
    positive = regions.labels.nonzero()[:, 0]
    covered = mask_targets(
        regions.boxes[positive], regions.image_index[positive], regions.instance[positive], truth, 14
    )
    assert len(positive) >= len(targets)
    for k, row in enumerate(positive.tolist()):
        mask = RLE(targets.masks[int(regions.instance[row])], targets.source_hw).to_mask()
        picture = place(np.repeat(mask[..., None] * np.uint8(255), 3, 2), placement)[:, :, 0] > 0
        x1, y1, x2, y2 = regions.boxes[row].tolist()
        fine = 40
        xs = np.clip((x1 + (np.arange(14 * fine) + 0.5) / (14 * fine) * (x2 - x1)), -1, 96).astype(int)
        ys = np.clip((y1 + (np.arange(14 * fine) + 0.5) / (14 * fine) * (y2 - y1)), -1, 96).astype(int)
        padded = np.pad(picture, ((0, 1), (0, 1)))
        dense = padded[ys[:, None], xs].reshape(14, fine, 14, fine).mean((1, 3))
        inside = (x1 >= 0) & (y1 >= 0) & (x2 <= 96) & (y2 <= 96)
        if inside:
            assert np.abs(covered[k].numpy() - dense).max() < 0.08


def test_anchor_samples_point_at_what_they_say(shapes):
    model = build_model(TINY.model, 4)
    batch = make_batch(shapes, 0, TINY, Share.of(2))
    truth = Truth.of(batch.targets, CPU)
    features = [torch.zeros(2, 16, 96 // s, 96 // s) for s in (4, 8, 16, 32)] + [torch.zeros(2, 16, 2, 2)]
    anchors = model.grid(features, (96, 96))
    sample = sample_anchors(anchors, truth, TINY.train, NATIVE, GENERATORS)
    grid = torch.cat(anchors)
    from maskrcnn.model.boxes import decode_boxes, iou

    for row in (sample.labels > 0).nonzero()[:, 0].tolist():
        b = int(sample.image_index[row])
        decoded = decode_boxes(
            sample.deltas[row : row + 1], grid[sample.anchor_index[row : row + 1]], (1, 1, 1, 1), 10.0
        )
        assert iou(decoded, truth.boxes[b, truth.valid[b]]).max() > 0.999
    assert (sample.labels > 0).any()


def losses_of(model, batch, config=TINY):
    criterion = Criterion(model.train(), config.train)
    windows = torch.from_numpy(batch.windows)
    images = model.normalize(torch.from_numpy(batch.pixels), windows)
    return criterion(images, windows, Truth.of(batch.targets, CPU), GENERATORS, 2)


def test_the_five_losses_and_their_sum(shapes):
    torch.manual_seed(0)
    config = TINY.changed(train={"mrcnn_mask_weight": 2.0, "rpn_bbox_weight": 0.0})
    losses = losses_of(build_model(TINY.model, 4), make_batch(shapes, 0, TINY, Share.of(2)), config)
    assert set(losses) == {*LOSSES, "loss"}
    expected = sum(losses[n] for n in LOSSES) + losses["mrcnn_mask_loss"] - losses["rpn_bbox_loss"]
    assert torch.allclose(losses["loss"], expected)
    assert all(losses[n].item() > 0 for n in LOSSES)


@pytest.mark.parametrize("empty", ["all", "half"])
def test_images_without_instances_train(shapes, empty):
    """Zero regression and mask losses where there is nothing to fit, finite gradients everywhere."""
    torch.manual_seed(0)
    model = build_model(TINY.model, 4)
    full = int(np.argmax(shapes.counts))
    bare = shapes.take([full, full] if empty == "all" else [full])
    import dataclasses

    keep = slice(0, 0) if empty == "all" else slice(None)
    if empty == "all":
        bare = dataclasses.replace(
            bare, image_index=bare.image_index[keep], labels=bare.labels[keep], rows=bare.rows[keep],
            masks=bare.masks.take(np.empty(0, int)),
        )  # fmt: skip
    else:
        bare = dataclasses.replace(bare, names=["a", "b"], files=bare.files * 2, sizes=np.repeat(bare.sizes, 2, 0))
    batch = make_batch(bare, 0, TINY, Share.of(2))
    losses = losses_of(model, batch)
    losses["loss"].backward()
    assert all(torch.isfinite(v) for v in losses.values())
    for parameter in model.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()
    if empty == "all":
        for name in ("rpn_bbox_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss"):
            assert losses[name].item() == 0


def test_the_learning_rate_rises_and_falls():
    config = TrainConfig()
    factors = [lr_factor(step, 1000, config) for step in range(1000)]
    assert factors[0] < 0.02
    assert max(factors) > 0.98
    assert factors[-1] < 0.001
    stepped = TrainConfig(decay="step")
    assert [round(lr_factor(s, 900, stepped), 4) for s in (500, 700, 850)] == [1.0, 0.1, 0.01]
    assert lr_factor(500, None, config) == 1.0


def test_parameter_groups(shapes):
    model = build_model(TINY.model, 1)
    model.backbone.freeze_below(4)
    optimizer = build_optimizer(model, TrainConfig(lr=0.1, backbone_lr=0.5))
    trained = {id(p) for g in optimizer.param_groups for p in g["params"]}
    assert trained == {id(p) for p in model.parameters() if p.requires_grad}
    assert {g["peak_lr"] for g in optimizer.param_groups} == {0.1, 0.05}
    for group in optimizer.param_groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])


def test_the_average_follows_the_weights():
    layer = torch.nn.Linear(2, 2)
    average = WeightAverage(layer, 0.9)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    for step in range(200):
        average.update(layer, step)
    assert torch.allclose(average.average["weight"], torch.ones(2, 2), atol=1e-3)


@pytest.mark.parametrize(("decay", "expected"), [(0.998, [0.9, 0.9 * 2 / 11]), (0.15, [0.9, 0.135]), (0.0, [1.0, 0.0])])
def test_the_average_forgets_the_beginning_first(decay, expected):
    """It keeps (1 + step) / (10 + step) of itself, up to its decay."""
    layer = torch.nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.fill_(0.0)
        average = WeightAverage(layer, decay)
        for step, (weight, value) in enumerate(zip([1.0, 0.0], expected, strict=True)):
            layer.weight.fill_(weight)
            average.update(layer, step)
            assert float(average.average["weight"]) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "expected"), [("20m", 1200), ("1h30m", 5400), ("90s", 90), ("45", 45), ("0.5h", 1800)]
)
def test_budgets(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "0m", "-5m", "5 minutes"])
def test_budgets_that_make_no_sense(text):
    with pytest.raises(UserError, match=r"train\.budget"):
        Config().changed(train={"budget": text})


def test_a_budget_buys_steps_and_their_validations():
    assert steps_for(1000, 2.0, 0.0, 100) == 500
    assert steps_for(1000, 2.0, 100.0, 50) == 250
    assert steps_for(600, 2.0, 100.0, 1000) == 250, "one validation, after the last step"
    assert steps_for(600, 2.0, 100.0, 100) == 200, "at 100 and after the last, which is 200"
    assert steps_for(600, 2.0, 100.0, 100, done=90) == 159, "at 100 and after 249: one more would ask for one at 200"
    assert steps_for(400, 2.0, 100.0, 100, done=100) == 100, "right after step 100, which is done, and after the last"
    assert steps_for(1, 2.0, 100.0, 100) == 1


@pytest.mark.parametrize(
    ("times", "elapsed", "known"),
    [([9.0, 9.0, 9.0], 99.0, False), ([9.0, 9.0, 9.0, 2.0], 16.0, True), ([1.0] * 59, 14.0, False), ([1.0] * 60, 0.0, True)],
)  # fmt: skip
def test_the_pace_is_known_after_a_warm_up_or_a_part_of_the_budget(times, elapsed, known):
    assert Budget(100.0, times).measured(elapsed) == known


def test_the_first_steps_say_nothing_about_the_pace():
    assert Budget(100.0, [9.0, 9.0, 9.0, 1.0, 3.0]).step_seconds == 2.0


def test_a_validation_is_timed_by_the_pixels_of_its_inputs():
    pixels = np.array([500, 100, 100, 900, 200])
    assert across_sizes(pixels, most=3).tolist() == [1, 4, 3]
    assert across_sizes(pixels[:2]).tolist() == [1, 0]
    # 100 takes 2 and 900 takes 10: 500 takes 6 and 200 takes 3.
    assert seconds_for_all(pixels, np.array([1, 2, 3]), [1.0, 3.0, 10.0]) == pytest.approx(6 + 2 + 2 + 10 + 3)
    assert seconds_for_all(np.array([7, 7, 7]), np.array([0, 1]), [1.0, 3.0]) == pytest.approx(6)


def test_the_plan_measures_the_data(shapes):
    config, reasons = fill_in(Config(), shapes)
    assert len(config.model.anchor_sizes) == 5
    assert config.predict.detections == 100
    assert config.model.image_size == 512
    assert config.predict.mask_scoring
    assert config.predict.box_voting
    assert config.train.epochs == 24
    assert config.augment.rotate
    assert len(reasons) == 6
    given = Config().changed(
        train={"epochs": 24, "lr": 1e-3},
        model={"anchor_sizes": (1, 2, 3, 4, 5), "image_size": 512, "mask_size": 28},
        predict={"detections": 7, "mask_scoring": False, "box_voting": False},
    )
    assert fill_in(given, shapes) == (given, [])


def circles(folder, side, radius, classes=("a",), stretch=1.0):
    """A data set of one picture with 20 discs of a radius, or of ellipses `stretch` times as high as wide."""
    y, x = np.mgrid[:side, :side]
    centers = np.random.default_rng(0).integers(radius, side - radius, (20, 2))
    discs = [RLE.from_mask(((x - a) * stretch) ** 2 + (y - b) ** 2 <= radius**2) for a, b in centers]
    write_image(Image.new("RGB", (side, side)), folder / "images" / "p.png")
    rows = [("p.png", disc, classes[k % len(classes)]) for k, disc in enumerate(discs)]
    encoded_pixels.write(folder / "train.csv", rows, with_class=True)
    return open_dataset(folder / "train.csv")


@pytest.mark.parametrize(
    ("side", "radius", "size", "crop"),
    [(1024, 20, 896, 512), (1024, 4, 1536, 512), (400, 4, 1152, 512), (512, 40, 512, None)],
    ids=["small", "tiny", "as far as the pixels go", "large enough"],
)
def test_small_objects_raise_the_working_scale(tmp_path, side, radius, size, crop):
    config, reasons = fill_in(Config(), circles(tmp_path, side, radius))
    assert (config.model.image_size, config.augment.crop) == (size, crop)
    assert any(f"image size {size}" in reason for reason in reasons) == (size != 512)


def test_large_pictures_of_small_objects_are_enlarged(tmp_path):
    def plan(radius, large=20, side=1024, **model):
        data = of_two_sizes(tmp_path / f"{radius} {large} {side}", radius, large, side)
        return fill_in(Config().changed(model=model), data)

    config, reasons = plan(5)
    assert (config.model.image_size, config.model.min_scale) == (768, 1.5), "as far as the largest input goes"
    assert any("min scale 1.5" in reason and "more than 768 px" in reason for reason in reasons)
    assert config.model.anchor_sizes[0] == 16, "measured in the input that is then seen"
    assert plan(12)[0].model.min_scale == 1.25, "as far as they need"
    assert plan(5, side=1400)[0].model.min_scale == 1, "never less than their own size"
    assert plan(50)[0].model.min_scale == 0, "large enough as they are"
    assert plan(5, large=19)[0].model.min_scale == 0, "too few to tell"
    assert plan(5, image_size=768)[0].model.min_scale == 0, "asked for"
    assert plan(5, min_scale=0)[0].model.min_scale == 0


def of_two_sizes(folder, radius, large, large_side=1024):
    """Discs of a radius, four in each of a dozen pictures of 256 x 256 and `large` in one larger picture."""
    rows = []
    for k, (side, discs, columns) in enumerate([(256, 4, 2)] * 12 + [(large_side, large, 8)]):
        write_image(Image.new("RGB", (side, side)), folder / "images" / f"{k}.png")
        y, x = np.mgrid[:side, :side]
        for n in range(discs):
            disc = (x - 60 - 120 * (n % columns)) ** 2 + (y - 60 - 120 * (n // columns)) ** 2 <= radius**2
            rows.append((f"{k}.png", RLE.from_mask(disc), 1))
    encoded_pixels.write(folder / "train.csv", rows, with_class=True)
    return open_dataset(folder / "train.csv")


def test_a_crop_that_was_asked_for_stays(tmp_path):
    config, _ = fill_in(Config().changed(augment={"crop": 256}), circles(tmp_path, 1024, 20))
    assert config.augment.crop == 256


def test_large_objects_have_finer_masks(tmp_path):
    config, _ = fill_in(Config(), circles(tmp_path, 600, 140))
    assert config.model.mask_size == 56


@pytest.mark.parametrize(
    ("classes", "stretch", "turns"), [("a", 1.0, True), ("a", 1.2, True), ("a", 2.0, False), ("abcd", 2.0, True)]
)
def test_upright_objects_are_not_turned(tmp_path, classes, stretch, turns):
    config, reasons = fill_in(Config(), circles(tmp_path, 400, 40, classes, stretch))
    assert config.augment.rotate == turns  # five of a class are too few to tell
    assert any("2.0 times as high as wide" in reason for reason in reasons) == (not turns)


def test_lying_objects_are_not_turned_unless_asked_for(tmp_path):
    data = circles(tmp_path, 400, 40, stretch=2.0)
    assert fill_in(Config().changed(augment={"rotate": True}), data)[0].augment.rotate


def test_mostly_empty_data_shows_a_part_of_its_empty_images(shapes):
    full = np.flatnonzero(shapes.counts)[:4]
    data = dataclasses.replace(
        shapes.take(full), names=list("abcdefgh"), files=shapes.files[:8], sizes=np.tile(shapes.sizes[:1], (8, 1))
    )
    config, reasons = fill_in(Config(), data)
    assert config.train.empty == 0.25
    assert any("50% of the images are without instances" in reason for reason in reasons)
    assert fill_in(Config(), data.take(range(5)))[0].train.empty == 1
    assert fill_in(Config().changed(train={"empty": 0.9}), data)[0].train.empty == 0.9


@pytest.mark.parametrize(
    ("total", "steps"), [(100, [100]), (149, [149]), (150, [100, 150]), (300, [100, 200, 300]), (30, [30])]
)
def test_validations_come_at_the_ends_of_epochs_and_of_the_run(total, steps):
    assert [step for step in range(1, total + 1) if validation_due(step, total, 100)] == steps
    assert validation_due(100, None, 100)


@pytest.mark.parametrize(("images", "epochs"), [(100, 24), (4000, 12), (100_000, 6)])
def test_large_data_sets_are_gone_through_fewer_times(shapes, images, epochs):
    data = shapes.take(np.zeros(images, int))
    config, _ = fill_in(Config(), data)
    assert config.train.epochs == epochs
    assert fill_in(Config().changed(train={"budget": "20m"}), data)[0].train.epochs == 24


def test_the_schedule_is_told(shapes):
    config, reasons = fill_in(Config().changed(train={"optimizer": "sgd", "decay": "step"}), shapes)
    assert config.train.lr is None, "it goes with the optimizer"
    assert any("learning rate 0.005: usual for sgd; after a rise it falls to a tenth" in reason for reason in reasons)


def test_going_on_from_a_model_takes_smaller_steps(shapes):
    config, reasons = fill_in(Config().changed(train={"init": "nuclei"}), shapes)
    assert (config.train.freeze, config.train.lr) == ("3+", 3e-4)
    assert any("freeze 3+, lr 0.0003" in reason for reason in reasons)
    assert config.augment.crop is None
    large, _ = fill_in(Config().changed(train={"init": "nuclei"}, model={"image_size": 768}), shapes)
    assert large.augment.crop == 512
    config, _ = fill_in(Config().changed(train={"init": "nuclei", "freeze": "all", "optimizer": "sgd"}), shapes)
    assert (config.train.freeze, config.train.lr) == ("all", 3e-3)


@pytest.mark.parametrize(
    ("weights", "train", "backbone", "heads"),
    [
        ("imagenet", {}, False, True),
        ("none", {}, True, True),
        ("none", {"freeze_norm": True}, False, True),
        ("imagenet", {"freeze_norm": False}, True, True),
        ("imagenet", {"init": "nuclei"}, False, False),
    ],
    ids=str,
)
def test_batch_norm_learns_where_it_is_new(shapes, weights, train, backbone, heads):
    given = Config().changed(model={"backbone": "test_resnet", "weights": weights, "norm": "batch"}, train=train)
    model = build(fill_in(given, shapes)[0].changed(train={"freeze": "all"}), shapes, NATIVE).train()
    assert {layer.training for layer in norms(model.backbone)} == {backbone}
    assert {layer.training for layer in norms(model.box_head)} | {m.training for m in norms(model.mask_head)} == {heads}


def test_left_and_right_trade_places(tmp_path):
    data = circles(tmp_path, 256, 20, ("Left hand", "right hand", "leftover", "hat"))
    config, reasons = fill_in(Config(), data)
    assert config.augment.swap_on_flip == ("Left hand=right hand",)
    assert any("Left hand and right hand" in reason for reason in reasons)
    assert fill_in(Config().changed(augment={"swap_on_flip": ()}), data)[0].augment.swap_on_flip == ()


def test_wrong_settings_are_named():
    with pytest.raises(UserError, match="did you mean 'backbone'"):
        Config.parse({"model": {"backbon": "x"}}, "settings")
    with pytest.raises(UserError, match=r"train\.lr = -1"):
        Config.parse({"train": {"lr": -1}}, "settings")
    with pytest.raises(UserError, match="anchor_sizes needs 5 values"):
        Config.parse({"model": {"anchor_sizes": [1, 2]}}, "settings")


def test_settings_come_back_from_yaml(tmp_path):
    config = Config().changed(augment={"swap_on_flip": ("a=b",)}, train={"budget": "5m"})
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert Config.load(tmp_path / "config.yaml") == config
