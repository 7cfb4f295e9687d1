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


def test_match_labels_boxes_by_overlap():
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
    ]  # box 1 is the best match of instance 1
    _, label = match(torch.zeros(0, 5), positive=0.7, negative=0.3, best_counts=True)
    assert (label == NEGATIVE).all()
    _, label = match(torch.zeros(1, 5), positive=0.7, negative=0.3, best_counts=True)
    assert (label == NEGATIVE).all()  # an instance without overlap has no best box


def test_sampling_is_balanced_bounded_and_repeatable():
    labels = torch.cat([torch.full((10,), POSITIVE), torch.full((50,), NEGATIVE), torch.full((5,), NEITHER)])
    positives, negatives = sample_labels(labels, 32, 0.25, torch.Generator().manual_seed(0))
    assert (len(positives), len(negatives)) == (8, 24)
    assert (labels[positives] == POSITIVE).all()
    assert (labels[negatives] == NEGATIVE).all()
    repeated = sample_labels(labels, 32, 0.25, torch.Generator().manual_seed(0))
    assert torch.equal(repeated[0], positives)
    few, many = sample_labels(labels[8:], 32, 0.25, torch.Generator().manual_seed(0))
    assert (len(few), len(many)) == (2, 30)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_mask_targets_match_the_transformed_image(shapes, mirrored, turns):
    """Targets sampled from runs agree with the mask drawn as an image and placed like the image."""
    i = int(np.argmax(shapes.counts))
    placement = Placement((16, 0, 112, 96), (96, 96), mirrored, turns)
    targets = targets_of(shapes, i, placement)
    truth = Truth.of([targets], CPU)
    jittered = (truth.boxes[0] + torch.tensor([-2.0, 1.0, 1.5, 3.0])).numpy()
    proposals = Proposals(jittered, np.zeros(len(jittered), np.float32), np.zeros(len(jittered), np.int64))
    config = TrainConfig(roi_batch=64, roi_positive_fraction=1.0, roi_positive_iou=0.3)
    regions = sample_regions(proposals, truth, config, NATIVE, GENERATORS)
    positive = regions.labels.nonzero()[:, 0]
    coverage = mask_targets(
        regions.boxes[positive], regions.image_index[positive], regions.instance[positive], truth, 14
    )
    compared = 0
    for k, row in enumerate(positive.tolist()):
        mask = RLE(targets.masks[int(regions.instance[row])], targets.source_hw).to_mask()
        placed = place(np.repeat(mask[..., None] * np.uint8(255), 3, 2), placement)[:, :, 0] > 0
        x1, y1, x2, y2 = regions.boxes[row].tolist()
        subsamples = 40
        xs = np.clip((x1 + (np.arange(14 * subsamples) + 0.5) / (14 * subsamples) * (x2 - x1)), -1, 96).astype(int)
        ys = np.clip((y1 + (np.arange(14 * subsamples) + 0.5) / (14 * subsamples) * (y2 - y1)), -1, 96).astype(int)
        padded = np.pad(placed, ((0, 1), (0, 1)))
        expected = padded[ys[:, None], xs].reshape(14, subsamples, 14, subsamples).mean((1, 3))
        inside = (x1 >= 0) & (y1 >= 0) & (x2 <= 96) & (y2 <= 96)
        if inside:  # beyond the crop, the mask goes on and the picture ends
            compared += 1
            assert np.abs(coverage[k].numpy() - expected).max() < 0.08
    assert compared >= len(targets) > 2, "at least the true boxes"


def test_samples_list_their_positives_by_image(shapes):
    """The rows are known without a look at the labels. The mask head trains on the first few of each image."""
    batch = make_batch(shapes, 1, TINY, Shard.of(3))
    truth = Truth.of(batch.targets, CPU)
    config = TINY.train.model_copy(update={"roi_batch": 40, "mask_batch": 2})
    boxes = np.concatenate([np.repeat(t.boxes, 2, 0) + np.float32([0, 0, 1, 2]) for t in batch.targets])
    images = np.repeat(np.arange(3), [2 * len(t) for t in batch.targets])
    generators = [torch.Generator().manual_seed(n) for n in range(3)]
    regions = sample_regions(Proposals(boxes, boxes[:, 0], images), truth, config, NATIVE, generators)
    positive = regions.labels.nonzero()[:, 0]
    assert torch.equal(regions.positive, positive)
    in_image = [positive[regions.image_index[positive] == b] for b in range(3)]
    assert max(map(len, in_image)) > 2
    assert torch.equal(regions.masked, torch.cat([rows[:2] for rows in in_image]))
    grid = torch.rand(500, 4) * 60
    anchors = sample_anchors(grid + torch.tensor([0, 0, 30, 30]), truth, config, NATIVE, generators)
    assert torch.equal(anchors.positive, (anchors.labels > 0).nonzero()[:, 0])


def test_anchor_samples_decode_to_the_ground_truth(shapes):
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
        assert iou(decoded, truth.boxes_of(b)).max() > 0.999
    assert (sample.labels > 0).any()


def losses_of(model, batch, config=TINY):
    criterion = Criterion(model.train(), config.train)
    windows = torch.from_numpy(batch.windows)
    images = model.normalize(torch.from_numpy(batch.pixels), windows)
    return criterion(images, windows, Truth.of(batch.targets, CPU), GENERATORS, 2)


def test_loss_is_the_weighted_sum_of_the_five_losses(shapes):
    torch.manual_seed(0)
    config = TINY.changed(train={"mrcnn_mask_weight": 2.0, "rpn_bbox_weight": 0.0})
    losses = losses_of(build_model(TINY.model, 4), make_batch(shapes, 0, TINY, Shard.of(2)), config)
    assert set(losses) == {*LOSSES, "loss"}
    expected = sum(losses[n] for n in LOSSES) + losses["mrcnn_mask_loss"] - losses["rpn_bbox_loss"]
    assert torch.allclose(losses["loss"], expected)
    assert all(losses[n].item() > 0 for n in LOSSES)


@pytest.mark.parametrize("empty", ["all", "half"])
def test_images_without_instances_train(shapes, empty):
    """Losses and gradients are finite; regression and mask losses are zero without instances."""
    torch.manual_seed(0)
    model = build_model(TINY.model, 4)
    most_instances = int(np.argmax(shapes.counts))
    data = shapes.take([most_instances, most_instances] if empty == "all" else [most_instances])

    keep = slice(0, 0) if empty == "all" else slice(None)
    if empty == "all":
        data = dataclasses.replace(
            data, image_index=data.image_index[keep], labels=data.labels[keep], rows=data.rows[keep],
            masks=data.masks.take(np.empty(0, int)),
        )  # fmt: skip
    else:
        data = dataclasses.replace(data, names=["a", "b"], files=data.files * 2, sizes=np.repeat(data.sizes, 2, 0))
    batch = make_batch(data, 0, TINY, Shard.of(2))
    losses = losses_of(model, batch)
    losses["loss"].backward()
    assert all(torch.isfinite(v) for v in losses.values())
    for parameter in model.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()
    if empty == "all":
        for name in ("rpn_bbox_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss"):
            assert losses[name].item() == 0


def test_learning_rate_warms_up_and_decays():
    config = TrainConfig()
    factors = [lr_factor(step, 1000, config) for step in range(1000)]
    assert factors[0] < 0.02
    assert max(factors) > 0.98
    assert factors[-1] < 0.001
    stepped = TrainConfig(decay="step")
    assert [round(lr_factor(s, 900, stepped), 4) for s in (500, 700, 850)] == [1.0, 0.1, 0.01]
    assert lr_factor(500, None, config) == 1.0


def test_parameter_groups_set_learning_rate_and_weight_decay(shapes):
    model = build_model(TINY.model, 1)
    model.backbone.freeze_below(4)
    optimizer = build_optimizer(model, TrainConfig(lr=0.1, backbone_lr=0.5))
    trained = {id(p) for g in optimizer.param_groups for p in g["params"]}
    assert trained == {id(p) for p in model.parameters() if p.requires_grad}
    assert {g["peak_lr"] for g in optimizer.param_groups} == {0.1, 0.05}
    for group in optimizer.param_groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])


def test_weight_average_converges_to_the_weights():
    layer = torch.nn.Linear(2, 2)
    average = WeightAverage(layer, 0.9)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    for step in range(200):
        average.update(layer, step)
    assert torch.allclose(average.average["weight"], torch.ones(2, 2), atol=1e-3)


@pytest.mark.parametrize(("decay", "expected"), [(0.998, [0.9, 0.9 * 2 / 11]), (0.15, [0.9, 0.135]), (0.0, [1.0, 0.0])])
def test_weight_average_decays_faster_at_the_start(decay, expected):
    """The average keeps min(decay, (1 + step) / (10 + step)) of its value."""
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
def test_budget_is_parsed_to_seconds(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "0m", "-5m", "5 minutes"])
def test_invalid_budgets_are_refused(text):
    with pytest.raises(UserError, match=r"train\.budget"):
        Config().changed(train={"budget": text})


def test_budget_covers_steps_and_validations():
    assert steps_for(1000, 2.0, 0.0, 100) == 500
    assert steps_for(1000, 2.0, 100.0, 50) == 250
    assert steps_for(600, 2.0, 100.0, 1000) == 250, "one validation after the last step"
    assert steps_for(600, 2.0, 100.0, 100) == 200, "validations after steps 100 and 200"
    assert steps_for(600, 2.0, 100.0, 100, done=90) == 159, "validations after steps 100 and 249, not 200"
    assert steps_for(400, 2.0, 100.0, 100, done=100) == 100, "validations after step 100, which is done, and step 200"
    assert steps_for(1, 2.0, 100.0, 100) == 1


@pytest.mark.parametrize(
    ("times", "elapsed", "known"),
    [([9.0, 9.0, 9.0], 99.0, False), ([9.0, 9.0, 9.0, 2.0], 16.0, True), ([1.0] * 59, 14.0, False), ([1.0] * 60, 0.0, True)],
)  # fmt: skip
def test_step_time_is_known_after_the_warmup_or_part_of_the_budget(times, elapsed, known):
    assert Budget(100.0, times).measured(elapsed) == known


def test_first_steps_do_not_count_towards_the_step_time():
    assert Budget(100.0, [9.0, 9.0, 9.0, 1.0, 3.0]).step_seconds == 2.0


def test_validation_time_is_interpolated_over_input_pixels():
    pixels = np.array([500, 100, 100, 900, 200])
    assert across_sizes(pixels, max_images=3).tolist() == [1, 4, 3]
    assert across_sizes(pixels[:2]).tolist() == [1, 0]
    # 100 pixels take 2 s and 900 take 10 s, so 500 take 6 s and 200 take 3 s.
    assert seconds_for_all(pixels, np.array([1, 2, 3]), [1.0, 3.0, 10.0]) == pytest.approx(6 + 2 + 2 + 10 + 3)
    assert seconds_for_all(np.array([7, 7, 7]), np.array([0, 1]), [1.0, 3.0]) == pytest.approx(6)


@pytest.mark.parametrize(
    ("total", "steps"), [(100, [100]), (149, [149]), (150, [100, 150]), (300, [100, 200, 300]), (30, [30])]
)
def test_validations_follow_each_epoch_and_the_last_step(total, steps):
    assert [step for step in range(1, total + 1) if validation_due(step, total, 100)] == steps
    assert validation_due(100, None, 100)


def test_invalid_settings_are_named():
    with pytest.raises(UserError, match="did you mean 'backbone'"):
        Config.parse({"model": {"backbon": "x"}}, "settings")
    with pytest.raises(UserError, match=r"train\.lr must be above 0, not -1"):
        Config.parse({"train": {"lr": -1}}, "settings")
    with pytest.raises(UserError, match="anchor_sizes needs 5 values"):
        Config.parse({"model": {"anchor_sizes": [1, 2]}}, "settings")


def test_settings_round_trip_through_yaml(tmp_path):
    config = Config().changed(augment={"swap_on_flip": ("a=b",)}, train={"budget": "5m"})
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert Config.load(tmp_path / "config.yaml") == config
