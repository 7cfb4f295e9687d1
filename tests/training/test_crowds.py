"""Crowd regions in training: no targets, and no background."""

import dataclasses

import numpy as np
import pytest
import torch

from maskrcnn.config import Config, ModelConfig, TrainConfig
from maskrcnn.data.batch import Shard, image_order, images_per_pass, make_batch
from maskrcnn.data.dataset import targets_of
from maskrcnn.data.split import absent_classes
from maskrcnn.detection.boxes import share_inside
from maskrcnn.detection.conventions import MATTERPORT, NATIVE
from maskrcnn.detection.stages import Proposals
from maskrcnn.model.mask_rcnn import build_model
from maskrcnn.settings import Settings
from maskrcnn.structures import Placement, Targets
from maskrcnn.training.criterion import Criterion
from maskrcnn.training.plan import fill_in
from maskrcnn.training.targets import MIN_SHARE_IN_CROWD, Truth, sample_anchors, sample_regions

CPU = torch.device("cpu")
TINY = Config(
    model=ModelConfig(
        backbone="test_resnet", weights="none", image_size=96, channels=16, box_channels=32, mask_channels=16,
        proposals=60, proposals_per_level=60,
    ),
    train=TrainConfig(roi_batch=32, rpn_batch=32),
)  # fmt: skip
WHOLE = Placement((0, 0, 128, 96), (96, 128))


@pytest.fixture
def crowded(shapes):
    """Every third instance is a crowd region."""
    return dataclasses.replace(shapes, crowd=np.arange(len(shapes.labels)) % 3 == 0)


def with_crowd(targets, crowd_boxes):
    return dataclasses.replace(targets, crowd_boxes=np.array(crowd_boxes, np.float32))


def generators(n):
    return [torch.Generator().manual_seed(k) for k in range(n)]


def test_targets_leave_crowds_out_and_keep_their_boxes(shapes, crowded):
    mirrored = dataclasses.replace(WHOLE, mirrored=True)
    for placement in (WHOLE, mirrored, Placement((30, 10, 90, 70), (60, 60), turns=1)):
        for i in range(len(shapes)):
            every, targets = targets_of(shapes, i, placement), targets_of(crowded, i, placement)
            together = np.concatenate([targets.boxes, targets.crowd_boxes])
            assert len(targets) + len(targets.crowd_boxes) == len(every)
            assert sorted(together.tolist()) == sorted(every.boxes.tolist())
    counts = [(len(t := targets_of(crowded, i, WHOLE)), len(t.crowd_boxes)) for i in range(len(shapes))]
    assert np.sum(counts, 0).tolist() == [int((~crowded.crowd).sum()), int(crowded.crowd.sum())]


def test_share_inside_is_of_the_first_box():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30.0]])
    crowds = np.array([[0, 0, 10, 100], [0, 0, 0, 0.0]])
    assert share_inside(boxes, crowds).tolist() == [[1, 0], [0.5, 0], [0, 0]]


def test_nothing_inside_a_crowd_is_background(shapes):
    crowd = [20.0, 10.0, 90.0, 80.0]
    targets = with_crowd(targets_of(shapes, int(np.argmax(shapes.counts)), WHOLE), [crowd])
    anchors = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([120.0, 88.0])
    anchors = torch.cat([anchors, anchors + 12], 1)
    config = TrainConfig(rpn_batch=256, roi_batch=256)

    def shares(targets):
        truth = Truth.of([targets], CPU)
        sample = sample_anchors(anchors, truth, config, NATIVE, generators(1))
        proposals = Proposals(anchors.numpy(), np.zeros(4000, np.float32), np.zeros(4000, np.int64))
        regions = sample_regions(proposals, truth, config, NATIVE, generators(1))
        of_anchors = share_inside(anchors[sample.anchor_index[sample.labels == 0]], torch.tensor([crowd]))
        of_regions = share_inside(regions.boxes[regions.labels == 0], torch.tensor([crowd]))
        return of_anchors.numpy(), of_regions.numpy()

    for inside, without in zip(shares(targets), shares(with_crowd(targets, np.zeros((0, 4)))), strict=True):
        assert len(inside) > 50
        assert inside.max() < MIN_SHARE_IN_CROWD < 0.9 < without.max()


@pytest.mark.parametrize("conventions", [NATIVE, MATTERPORT], ids=lambda c: c.name)
def test_a_batch_of_images_with_and_without_crowds_trains(shapes, conventions):
    """An image that a crowd fills has no sample at all beside its objects; one without objects has none."""
    torch.manual_seed(0)
    batch = make_batch(shapes, 0, TINY, Shard.of(2))
    filled = [with_crowd(batch.targets[0], np.zeros((0, 4))), with_crowd(batch.targets[1], [[0, 0, 128, 128]])]
    empty = Targets(
        np.zeros((0, 4), np.float32), np.zeros(0, np.int64), batch.targets[0].masks.take([]), (96, 128), WHOLE
    )
    for targets in (filled, [with_crowd(empty, [[-2000, -2000, 2000, 2000]])] * 2):
        model = build_model(TINY.model, 4, conventions).train()
        windows = torch.from_numpy(batch.windows)
        images = model.normalize(torch.from_numpy(batch.pixels), windows)
        losses = Criterion(model, TINY.train)(images, windows, Truth.of(targets, CPU), generators(2), 2)
        losses["loss"].backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert gradients
        assert all(bool(g.isfinite().all()) for g in gradients)
        assert (losses["loss"].item() > 0) == (targets is filled)


def test_the_plan_and_the_passes_count_objects_alone(shapes):
    only_crowds = dataclasses.replace(shapes, crowd=np.ones(len(shapes.labels), bool))
    assert only_crowds.n_instances == shapes.n_instances
    assert only_crowds.without_crowd.counts.tolist() == [0] * len(shapes)
    assert len(image_order(only_crowds, 0, TINY)) == len(shapes)
    one_object = dataclasses.replace(shapes, crowd=np.arange(shapes.n_instances) > 0)
    few_empty = TINY.changed(train={"empty": 0.5})
    assert images_per_pass(one_object, few_empty) == 2
    assert 0 in image_order(one_object, 0, few_empty)
    a_few = dataclasses.replace(shapes, crowd=shapes.image_index > 2)
    settings = Settings.of(TINY)
    planned = [fill_in(settings, data.without_crowd)[0].config for data in (a_few, a_few.take([0, 1, 2]))]
    assert planned[0].model.anchor_sizes == planned[1].model.anchor_sizes


def test_classes_of_crowds_alone_are_absent(crowded):
    labels = np.where(crowded.crowd, 1, np.maximum(crowded.labels, 2))
    assert "box" in absent_classes(dataclasses.replace(crowded, labels=labels))


def test_crowds_change_the_fingerprint(shapes, crowded):
    assert shapes.fingerprint() != crowded.fingerprint()
    assert crowded.take(range(len(crowded))).fingerprint() == crowded.fingerprint()


def test_without_crowd_keeps_images_and_columns(shapes, crowded):
    objects = crowded.without_crowd
    assert objects.names == shapes.names
    assert objects.crowd is None
    assert objects.rows.tolist() == shapes.rows[~crowded.crowd].tolist()
    assert [runs_of(objects, k) for k in range(3)] == [runs_of(shapes, k) for k in np.flatnonzero(~crowded.crowd)[:3]]
    assert shapes.without_crowd is shapes


def runs_of(data, k):
    return data.masks[k].tolist()
