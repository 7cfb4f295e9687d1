"""Data sets as torchvision takes them: tv_tensors, transforms v2, its Mask R-CNN, and workers that are spawned."""

import dataclasses
import pickle
import sys

import numpy as np
import PIL.Image
import pytest
import torch
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes, Image, Mask

from maskrcnn import ImageError, UserError, open_dataset
from maskrcnn.data.synthetic import write_shapes
from maskrcnn.data.table import Dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    """Pictures of 60 x 90 with objects of two ids; the last has none."""
    csv = write_shapes(tmp_path_factory.mktemp("tv"), 5, seed=8, hw=(60, 90))
    PIL.Image.fromarray(np.full((40, 30), 70, np.uint8)).save(csv.parent / "images" / "zz.png")
    return open_dataset(csv, unlisted="empty", say=lambda _: None)


def dense(data: Dataset, i: int) -> np.ndarray:
    return np.array([rle.to_mask() for rle in data.rles(i)]).reshape(-1, *data.hw(i))


def test_items_hold_what_the_data_holds(data):
    items = data.to_torchvision()
    assert len(items) == len(data) == 6
    for i, (image, target) in enumerate(items):
        assert image.dtype == torch.uint8
        assert image.shape == (3, *data.hw(i))
        assert np.array_equal(image.permute(1, 2, 0), np.asarray(PIL.Image.open(data.files[i]).convert("RGB")))
        assert target["masks"].dtype == torch.uint8
        assert np.array_equal(target["masks"], dense(data, i))
        assert target["boxes"].canvas_size == data.hw(i)
        assert target["boxes"].tolist() == [list(rle.box) for rle in data.rles(i)]
        assert target["labels"].dtype == torch.int64
        assert target["labels"].tolist() == data.labels[data.instances(i)].tolist()
        assert target["area"].tolist() == [rle.area for rle in data.rles(i)]
        assert target["image_id"] == i
        assert target["iscrowd"].tolist() == [0] * data.counts[i]
    assert items[-1][1]["image_id"] == 5
    with pytest.raises(IndexError):
        items[6]


def test_crowds_are_marked(data):
    crowd = np.arange(data.n_instances) % 3 == 0
    items = dataclasses.replace(data, crowd=crowd).to_torchvision()
    assert np.array_equal(np.concatenate([target["iscrowd"] for _, target in items]), crowd)


def test_transforms_move_masks_and_boxes_with_the_image(data):
    steps = [v2.RandomHorizontalFlip(p=1), v2.SanitizeBoundingBoxes(), v2.ToDtype(torch.float32, scale=True)]
    items, plain = data.to_torchvision(v2.Compose(steps)), data.to_torchvision()
    for i in range(len(data)):
        (image, target), (upright, _) = items[i], plain[i]
        assert torch.equal((image * 255).round(), upright.flip(-1))
        assert np.array_equal(target["masks"], dense(data, i)[:, :, ::-1])
        x1, y1, x2, y2 = data.runs(i).boxes(data.hw(i)[0]).T
        w = data.hw(i)[1]
        assert np.array_equal(target["boxes"], np.stack([w - x2, y1, w - x1, y2], 1))
        assert len(target["labels"]) == data.counts[i]


def everything_per_instance(item):
    _, target = item
    return target["labels"], target["area"], target["iscrowd"]


def test_sanitizing_drops_what_a_crop_cuts_away(data):
    i = int(np.argmax(data.counts))
    left = data.rles(i)[0].box[2]
    crop = v2.Lambda(lambda x: v2.functional.crop(x, 0, 0, data.hw(i)[0], left), Image, BoundingBoxes, Mask)
    steps = v2.Compose([crop, v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes(labels_getter=everything_per_instance)])
    _, target = data.to_torchvision(steps)[i]
    kept = [k for k, rle in enumerate(data.rles(i)) if rle.box[0] < left]
    assert 0 < len(kept) < data.counts[i]
    assert np.array_equal(target["masks"], dense(data, i)[kept][:, :, :left])
    assert target["area"].tolist() == [data.rles(i)[k].area for k in kept]
    assert len(target["iscrowd"]) == len(target["labels"]) == len(kept)


def as_float(image, target):
    return v2.functional.to_dtype(image, torch.float32, scale=True), target


def tiny_mask_rcnn(n_classes: int) -> MaskRCNN:
    torch.manual_seed(0)
    backbone = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 8, stride=8), torch.nn.ReLU())
    backbone.out_channels = 8
    anchors = AnchorGenerator(((12, 24, 48),), ((1.0,),))
    return MaskRCNN(backbone, n_classes + 1, rpn_anchor_generator=anchors, min_size=64, max_size=96)


@pytest.mark.parametrize("chosen", [[0, 1], [2, 5], [5]], ids=["two", "one without objects", "no objects"])
def test_the_mask_rcnn_of_torchvision_trains_on_them(data, chosen):
    model = tiny_mask_rcnn(len(data.class_ids)).train()
    items = data.to_torchvision(as_float)
    images, targets = zip(*(items[i] for i in chosen), strict=True)
    losses = model(images, targets)
    assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}
    total = sum(losses.values())
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_spawned_workers_read_them(data):
    items = data.to_torchvision()
    loader = torch.utils.data.DataLoader(items, 2, num_workers=1, multiprocessing_context="spawn", collate_fn=list)
    read = [item for batch in loader for item in batch]
    assert len(read) == len(data)
    for (image, target), (expected_image, expected) in zip(read, items, strict=True):
        assert torch.equal(image, expected_image)
        assert torch.equal(target["masks"], expected["masks"])
    assert len(pickle.loads(pickle.dumps(data.to_torchvision(as_float)))) == len(data)


def test_a_picture_that_changed_is_named(tmp_path):
    data = open_dataset(write_shapes(tmp_path, 2, seed=1, hw=(40, 40)), say=lambda _: None)
    PIL.Image.fromarray(np.zeros((9, 9), np.uint8)).save(data.files[1])
    with pytest.raises(ImageError, match=data.files[1].name):
        data.to_torchvision()[1]


def test_missing_torchvision_is_named(data, monkeypatch):
    monkeypatch.delitem(sys.modules, "maskrcnn.data.torchvision", raising=False)
    monkeypatch.setitem(sys.modules, "torchvision.tv_tensors", None)
    with pytest.raises(UserError, match=r"to_torchvision needs torchvision.*: pip install 'maskrcnn\[train\]'"):
        data.to_torchvision()
