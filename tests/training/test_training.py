"""Matching, sampling, targets, losses and their edge cases."""

import dataclasses

import numpy as np
import pytest
import torch

from maskrcnn import UserError
from maskrcnn.config import Config, ModelConfig, TrainConfig, seconds
from maskrcnn.data.batch import Shard, make_batch
from maskrcnn.data.dataset import place, targets_of
from maskrcnn.detection.conventions import NATIVE
from maskrcnn.detection.stages import Proposals
from maskrcnn.model.mask_rcnn import build_model
from maskrcnn.rle import RLE
from maskrcnn.structures import Placement
from maskrcnn.training.budget import Budget, across_sizes, seconds_for_all, steps_for, validation_due
from maskrcnn.training.criterion import LOSSES, Criterion
from maskrcnn.training.matcher import NEGATIVE, NEITHER, POSITIVE, match
from maskrcnn.training.sampler import sample_labels
from maskrcnn.training.schedule import WeightAverage, build_optimizer, lr_factor
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
    moved = (truth.boxes[0] + torch.tensor([-2.0, 1.0, 1.5, 3.0])).numpy()
    proposals = Proposals(moved, np.zeros(len(moved), np.float32), np.zeros(len(moved), np.int64))
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
    batch = make_batch(shapes, 0, TINY, Shard.of(2))
    truth = Truth.of(batch.targets, CPU)
    maps_hw = ((24, 24), (12, 12), (6, 6), (3, 3), (2, 2))
    grid = torch.from_numpy(model.anchors(maps_hw, (96, 96)))
    sample = sample_anchors(grid, truth, TINY.train, NATIVE, GENERATORS)
    from maskrcnn.detection.boxes import decode_boxes, iou

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
    losses = losses_of(build_model(TINY.model, 4), make_batch(shapes, 0, TINY, Shard.of(2)), config)
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

    keep = slice(0, 0) if empty == "all" else slice(None)
    if empty == "all":
        bare = dataclasses.replace(
            bare, image_index=bare.image_index[keep], labels=bare.labels[keep], rows=bare.rows[keep],
            masks=bare.masks.take(np.empty(0, int)),
        )  # fmt: skip
    else:
        bare = dataclasses.replace(bare, names=["a", "b"], files=bare.files * 2, sizes=np.repeat(bare.sizes, 2, 0))
    batch = make_batch(bare, 0, TINY, Shard.of(2))
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


@pytest.mark.parametrize(
    ("total", "steps"), [(100, [100]), (149, [149]), (150, [100, 150]), (300, [100, 200, 300]), (30, [30])]
)
def test_validations_come_at_the_ends_of_epochs_and_of_the_run(total, steps):
    assert [step for step in range(1, total + 1) if validation_due(step, total, 100)] == steps
    assert validation_due(100, None, 100)


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
