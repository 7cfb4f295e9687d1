"""The steps between network input and detections: kernels against plain NumPy, arrays against tensors."""

import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms

from lively import enliven
from maskrcnn.config import ModelConfig, PredictConfig
from maskrcnn.detection import pool as pool_module
from maskrcnn.detection import select as select_module
from maskrcnn.detection.boxes import clip_boxes, decode_boxes, suppress, top_rows, vote_boxes
from maskrcnn.detection.conventions import DETECTRON2, MATTERPORT, NATIVE, TORCHVISION, Conventions
from maskrcnn.detection.finish import finish, score_by_masks
from maskrcnn.detection.select import select
from maskrcnn.detection.stages import Proposals, RawDetections
from maskrcnn.inference.runtimes import torch as torch_runtime
from maskrcnn.inference.runtimes.torch import TorchRuntime
from maskrcnn.kernels.boxes import nms
from maskrcnn.kernels.resize import resize_bilinear
from maskrcnn.model import mask_rcnn
from maskrcnn.model.mask_rcnn import build_model


def random_boxes(rng, n, side=100.0):
    low = rng.uniform(0, side, (n, 2))
    return np.concatenate([low, low + rng.uniform(0, side / 2, (n, 2))], 1).astype(np.float32)


def plain_iou(a, b):
    intersection = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    return intersection / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - intersection)


def plain_nms(boxes, groups, threshold):
    kept = []
    for i, box in enumerate(boxes):
        for j in kept:
            if groups[i] == groups[j] and plain_iou(box, boxes[j]) > threshold:
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_nms_matches_plain_python(rng, threshold):
    boxes, groups = random_boxes(rng, 200), rng.integers(0, 3, 200)
    expected = plain_nms(boxes, groups, threshold)
    assert nms(boxes, groups, np.float32(threshold), 1000).tolist() == expected
    assert nms(boxes, groups, np.float32(threshold), 7).tolist() == expected[:7]
    assert nms(boxes[:0], groups[:0], np.float32(threshold), 7).tolist() == []


@pytest.mark.parametrize("threshold", [0.2, 0.8])
def test_voting_averages_boxes_weighted_by_score(rng, threshold):
    boxes = np.concatenate([random_boxes(rng, 100), np.tile(random_boxes(rng, 20), (5, 1))])
    boxes[100:] += rng.normal(0, 1, (100, 4)).astype(np.float32)
    boxes[7, 2:] = boxes[7, :2]  # a box without area overlaps nothing and has only its own vote
    scores, groups = rng.uniform(0.1, 1, 200).astype(np.float32), rng.integers(0, 2, 200)
    kept = np.append(rng.permutation(200)[:50], 7)
    expected = []
    for i in kept:
        same_group = [j for j in range(200) if j != i and groups[j] == groups[i]]
        votes = [i, *(j for j in same_group if plain_iou(boxes[i], boxes[j]) > threshold)]
        expected.append(np.average(boxes[votes].astype(float), axis=0, weights=scores[votes]))
    assert np.abs(np.array(expected) - boxes[kept]).max() > 0.3
    assert np.abs(vote_boxes(boxes, scores, groups, kept, threshold) - expected).max() < 1e-3
    tensors = vote_boxes(*(torch.from_numpy(v) for v in (boxes, scores, groups, kept)), threshold)
    assert np.abs(tensors.numpy() - expected).max() < 1e-3


def test_score_threshold_does_not_move_boxes(rng):
    """Candidates below the score threshold still vote."""
    boxes = np.repeat(random_boxes(rng, 10), 8, axis=0)
    logits, deltas = rng.normal(0, 2, (80, 3)).astype(np.float32), rng.normal(0, 0.3, (80, 3, 4)).astype(np.float32)
    proposals, bounds = Proposals(boxes, logits[:, 0], np.arange(80) % 2), np.float32([[0, 0, 150, 150]] * 2)

    def selected(**settings):
        predict = PredictConfig(nms_threshold=0.3, **settings)
        return select(logits, deltas, proposals, bounds, predict, NATIVE)

    many, few = (selected(box_voting=True, score_threshold=t) for t in (0.1, 0.6))
    assert 5 < len(few.boxes) < len(many.boxes)
    assert few.scores.min() > 0.6
    assert all((np.abs(many.boxes - box).max(1) < 1e-6).any() for box in few.boxes)
    assert np.abs(selected(score_threshold=0.6).boxes - few.boxes).max() > 0.1


ARRAYS_AND_TENSORS = pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["arrays", "tensors"])


@ARRAYS_AND_TENSORS
@pytest.mark.parametrize("n", [1, 300, 1500])
def test_suppress_with_shifted_groups_matches_torchvision(rng, n, kind):
    boxes, groups = random_boxes(rng, n), rng.integers(0, 4, n)
    scores, one_image = rng.permutation(n).astype(np.float32), np.zeros(n, np.int64)
    theirs = batched_nms(*(torch.from_numpy(v) for v in (boxes, scores, groups)), 0.5)
    ours = suppress(*map(kind, (boxes, scores, groups, one_image)), 1, 0.5, n, groups_shifted=True)
    assert ours.tolist() == theirs.tolist()


@ARRAYS_AND_TENSORS
def test_only_shifted_groups_round_corners(kind):
    """Two boxes whose IoU is just above the threshold: shifted by thousands of pixels, they round to one below it."""
    boxes = np.float32([[0, 0, 10, 10], [0, 0, 10, 5.0001], [0, 0, 3000, 1]])
    groups, scores, images = np.array([5, 5, 0]), np.float32([0.9, 0.8, 0.7]), np.zeros(3, np.int64)
    kept = {
        shifted: suppress(*map(kind, (boxes, scores, groups, images)), 1, 0.5, 10, groups_shifted=shifted).tolist()
        for shifted in (True, False)
    }
    assert kept == {True: [0, 1, 2], False: [0, 2]}


def test_models_of_torchvision_and_detectron2_shift_groups():
    """Also those that were saved before the convention had a name."""
    shifting = {c.name for c in (NATIVE, TORCHVISION, DETECTRON2, MATTERPORT) if c.groups_shifted}
    assert shifting == {"torchvision", "detectron2"}
    for conventions in (NATIVE, TORCHVISION, DETECTRON2, MATTERPORT):
        older = {key: value for key, value in conventions.to_dict().items() if key != "groups_shifted"}
        assert Conventions.from_dict(older, "header") == conventions


@ARRAYS_AND_TENSORS
def test_suppress_treats_each_image_separately(rng, kind):
    """The limit holds per image. Rows come image by image, best first; an image without boxes gives none."""
    boxes, groups, scores = random_boxes(rng, 200), rng.integers(0, 2, 200), rng.permutation(200).astype(np.float32)
    images = rng.integers(0, 2, 200) * 2  # image 1 has no boxes
    kept = suppress(*map(kind, (boxes, scores, groups, images)), 3, 0.3, 20, groups_shifted=False)
    expected = []
    for image in (0, 2):
        rows = np.flatnonzero(images == image)
        rows = rows[np.argsort(-scores[rows])]
        expected += rows[plain_nms(boxes[rows], groups[rows], 0.3)[:20]].tolist()
    assert kept.tolist() == expected


@ARRAYS_AND_TENSORS
@pytest.mark.parametrize("limit", [1, 7, 40, 100])
def test_top_rows_are_sorted_and_ties_keep_their_order(rng, kind, limit):
    values = rng.integers(0, 10, (3, 40)).astype(np.float32)
    expected = [sorted(range(40), key=lambda k, row=row: (-row[k], k))[:limit] for row in values]
    assert top_rows(kind(values), limit).tolist() == expected


def test_decoding_agrees_for_arrays_and_tensors(rng):
    anchors, deltas = random_boxes(rng, 500), rng.normal(0, 2, (500, 4)).astype(np.float32)
    weights, clip = (10.0, 10.0, 5.0, 5.0), 4.135
    window = np.float32([[0, 0, 120, 110]])
    ours = clip_boxes(decode_boxes(deltas, anchors, weights, clip), window)
    theirs = decode_boxes(torch.from_numpy(deltas), torch.from_numpy(anchors), weights, clip)
    assert np.abs(ours - clip_boxes(theirs, torch.from_numpy(window)).numpy()).max() < 1e-4
    assert ours.max() == 120
    assert ours.min() == 0


@pytest.mark.parametrize("hw", [(17, 23), (40, 31), (100, 90)])
def test_resize_matches_torch(rng, hw):
    image = rng.integers(0, 256, (40, 31, 3), np.uint8)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None], hw, mode="bilinear", align_corners=False
    )
    assert np.abs(resize_bilinear(image, *hw) - theirs[0].permute(1, 2, 0).numpy()).max() < 1e-3


@pytest.mark.parametrize("conventions", [NATIVE, TORCHVISION, DETECTRON2, MATTERPORT], ids=lambda c: c.name)
@pytest.mark.parametrize(("floor", "voting"), [(-np.inf, False), (0.0, False), (-np.inf, True)])
def test_tensor_path_matches_array_path(conventions, floor, voting, monkeypatch):
    """Run the GPU's path, which uses tensors in every step, on the CPU."""
    monkeypatch.setattr(select_module, "VOTING_IOU", 0.3)  # a random network has no candidates that overlap by 0.8
    torch.manual_seed(1)
    config = ModelConfig(
        backbone="test_resnet", weights="none", image_size=128, channels=16, box_channels=32, mask_channels=16,
        proposals=60, proposals_per_level=50,
    )  # fmt: skip
    model = build_model(config, 3, conventions.changed(objectness_floor=floor))
    enliven(model, 128)
    runtime = TorchRuntime(model)
    pixels = np.random.default_rng(2).integers(0, 256, (2, 128, 128, 3), np.uint8)
    windows = np.array([[0, 0, 128, 128], [0, 0, 100, 64]])
    predict = PredictConfig(score_threshold=0.3, detections=30, box_voting=voting)
    arrays = runtime.detect(pixels, windows, predict)
    plain = runtime.detect(pixels, windows, predict.model_copy(update={"box_voting": False}))
    assert (np.abs(arrays.boxes - plain.boxes).max() > 0.01) == voting

    for module in (mask_rcnn, torch_runtime, pool_module):
        monkeypatch.setattr(module, "on_host", lambda array: array.detach())
    raw = runtime.detector.detect(runtime.network(), pixels, windows, predict)
    assert isinstance(raw.boxes, torch.Tensor)
    assert len(raw.boxes) == len(arrays.boxes) > 5
    assert np.array_equal(arrays.labels, raw.labels.numpy())
    assert np.array_equal(arrays.image_index, raw.image_index.numpy())
    assert np.abs(arrays.boxes - raw.boxes.numpy()).max() < 1e-3
    assert np.abs(arrays.scores - raw.scores.numpy()).max() < 1e-5
    assert np.abs(arrays.masks - raw.masks.numpy()).max() < 1e-4


def test_mask_scoring_multiplies_scores_by_mask_confidence():
    masks = np.zeros((4, 4, 4), np.float32)
    masks[0, :2], masks[0, 2:] = 0.6, 0.4  # mean probability 0.6 inside the mask
    masks[1, 1:3] = 1.0
    masks[2] = 0.49  # below 0.5 everywhere: an empty mask
    masks[3] = 0.5
    raw = RawDetections(
        boxes=np.arange(16, dtype=np.float32).reshape(4, 4),
        scores=np.array([0.9, 0.7, 1.0, 0.6], np.float32),
        labels=np.array([1, 2, 3, 4]),
        image_index=np.array([0, 0, 0, 1]),
        masks=masks,
    )
    scored = score_by_masks(raw, 0.2)
    assert scored.labels.tolist() == [2, 1, 4]
    assert scored.image_index.tolist() == [0, 0, 1]
    assert scored.scores.tolist() == pytest.approx([0.7, 0.54, 0.3])
    assert np.array_equal(scored.boxes, raw.boxes[[1, 0, 3]])
    assert np.array_equal(scored.masks, masks[[1, 0, 3]])
    assert score_by_masks(raw, 0.6).labels.tolist() == [2]
    empty = RawDetections(*(a[:0] for a in (raw.boxes, raw.scores, raw.labels, raw.image_index, masks)))
    assert len(score_by_masks(empty, 0.5).scores) == 0


@pytest.mark.parametrize("class_ids", [[1, 2], [0, 70_000], ["a", "bcd"]])
def test_types_do_not_depend_on_the_number_of_detections(class_ids):
    def finished(n):
        boxes, scores, labels = (
            np.tile(np.float32([2, 3, 20, 30]), (n, 1)),
            np.ones(n, np.float32),
            np.ones(n, np.int64),
        )
        raw = RawDetections(boxes, scores, labels, np.zeros(n, np.int64), np.ones((n, 28, 28), np.float32))
        settings = PredictConfig(), NATIVE, class_ids, [str(c) for c in class_ids]
        return next(finish(raw, np.array([[0, 0, 64, 64]]), (64, 64), [(64, 64)], *settings))

    none, one = finished(0), finished(1)
    assert (len(none), len(one)) == (0, 1)
    for detections in (none, one[:0], one[one.scores > 2]):
        assert len(detections) == 0
        for name in ("boxes", "scores", "class_ids"):
            assert getattr(detections, name).dtype == getattr(one, name).dtype
        assert detections.boxes.shape == (0, 4)
        assert detections.masks.shape == (0, 64, 64)
        assert detections.masks.dtype == one.masks.dtype
    assert none.class_ids.dtype.kind == ("U" if isinstance(class_ids[0], str) else "i")
