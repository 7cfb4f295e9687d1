"""The network against torchvision's under copied random weights, stage by stage, then end to end.

Weights are seeded and their statistics randomised; class layers are scaled so that some detections are sure.
"""

import numpy as np
import pytest
import torch
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

import maskrcnn
from maskrcnn import RLE, iou_matrix
from maskrcnn.checkpoints.torchvision import from_torchvision
from maskrcnn.data.batch import stack

CONFIGURATIONS = {
    "resnet50, 5 classes": ("resnet50", 5, 256, 320),
    "resnet18, 3 classes": ("resnet18", 3, 224, 352),
    "resnet101, 2 classes": ("resnet101", 2, 224, 288),
}


def reference(name: str, classes: int, min_size: int, max_size: int) -> detection.MaskRCNN:
    torch.manual_seed(11)
    backbone = resnet_fpn_backbone(backbone_name=name, weights=None, trainable_layers=5)
    model = detection.MaskRCNN(backbone, classes + 1, min_size=min_size, max_size=max_size, box_score_thresh=0.8)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for key, buffer in model.named_buffers():
            if key.endswith("running_mean"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
            elif key.endswith("running_var"):
                buffer.copy_(1 + 0.2 * torch.rand(buffer.shape, generator=generator))
        for key, buffer in model.named_buffers():
            if "bn3.weight" in key or (name == "resnet18" and "bn2.weight" in key):
                buffer.mul_(0.1 if name == "resnet101" else 0.3)  # keeps deep random residual networks from blowing up
        model.rpn.head.cls_logits.weight.mul_(30)
        model.rpn.head.bbox_pred.weight.mul_(3)
        model.roi_heads.mask_predictor.mask_fcn_logits.weight.mul_(3)
        make_sure(model.eval())
    return model


def make_sure(model: detection.MaskRCNN) -> None:
    """Centre and scale the class layer, so that its logits differ by about three over the proposals of a picture."""
    batch, _ = model.transform([torch.from_numpy(picture((256, 256), 99)).permute(2, 0, 1).float() / 255])
    features = model.backbone(batch.tensors)
    proposals, _ = model.rpn(batch, features)
    pooled = model.roi_heads.box_roi_pool(features, proposals, batch.image_sizes)
    layer = model.roi_heads.box_predictor.cls_score
    logits = layer(model.roi_heads.box_head(pooled))
    factor = 3 / logits.std(0)
    layer.weight.mul_(factor[:, None])
    layer.bias.copy_((layer.bias - logits.mean(0)) * factor)


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] * ("101" in name)) for name in CONFIGURATIONS],
)
def pair(request):
    name, classes, min_size, max_size = CONFIGURATIONS[request.param]
    theirs = reference(name, classes, min_size, max_size)
    ours = from_torchvision(theirs.state_dict(), min_size=min_size, max_size=max_size, score_threshold=0.8)
    return ours, theirs


def picture(hw: tuple[int, int], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: hw[0], : hw[1]]
    image = rng.uniform(0, 255, 3) + 60 * np.sin(x / 9 + rng.uniform(0, 6))[..., None] * rng.uniform(-1, 1, 3)
    for _ in range(12):
        cy, cx, r = rng.uniform(0, hw[0]), rng.uniform(0, hw[1]), rng.uniform(8, 50)
        image[(y - cy) ** 2 + (x - cx) ** 2 < r**2] = rng.uniform(0, 255, 3)
    return np.clip(image + rng.normal(0, 10, image.shape), 0, 255).astype(np.uint8)


PICTURES = [picture(hw, seed) for seed, hw in enumerate([(256, 256), (180, 300), (311, 205)])]


@pytest.mark.parametrize("image", PICTURES, ids=lambda i: f"{i.shape[0]}x{i.shape[1]}")
@torch.no_grad()
def test_stages(pair, image):
    ours, theirs = pair
    tensor = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    batch, _ = theirs.transform([tensor])
    pixels, image_hw = stack([ours._prepare(image).pixels])
    images = ours.model.normalize(torch.from_numpy(pixels), torch.from_numpy(image_hw))
    assert images.shape == batch.tensors.shape
    assert torch.allclose(images, batch.tensors, atol=2e-5)

    features = theirs.backbone(batch.tensors)
    stages = ours.model(batch.tensors, torch.tensor(batch.image_sizes))
    for a, b in zip(stages.features, features.values(), strict=True):
        assert torch.allclose(a, b, atol=1e-4, rtol=1e-4)

    logits, deltas = theirs.rpn.head(list(features.values()))
    for level, (theirs_logits, theirs_deltas) in enumerate(zip(logits, deltas, strict=True)):
        flat = theirs_logits.permute(0, 2, 3, 1).flatten(1)
        assert torch.allclose(stages.rpn.objectness_logits[level], flat, atol=1e-4, rtol=1e-4)
        A = theirs_logits.shape[1]
        B, _, M, N = theirs_deltas.shape
        flat = theirs_deltas.view(B, A, 4, M, N).permute(0, 3, 4, 1, 2).reshape(B, -1, 4)
        assert torch.allclose(stages.rpn.anchor_deltas[level], flat, atol=1e-4, rtol=1e-4)
    anchors = theirs.rpn.anchor_generator(batch, list(features.values()))
    assert torch.equal(torch.cat(stages.anchors), anchors[0])

    proposals, _ = theirs.rpn(batch, features)
    mine = stages.proposals.boxes[0][stages.proposals.valid[0]]
    assert abs(len(mine) - len(proposals[0])) <= 0.01 * len(mine)
    # Rounding can swap neighbours of almost equal objectness, so each proposal is looked for among all of theirs.
    nearest = torch.cdist(mine, proposals[0], p=float("inf")).amin(1)
    assert (nearest < 5e-3).float().mean() >= 0.99

    pooled = theirs.roi_heads.box_roi_pool(features, proposals, batch.image_sizes)
    class_logits, box_deltas = theirs.roi_heads.box_predictor(theirs.roi_heads.box_head(pooled))
    index = torch.zeros(len(proposals[0]), dtype=torch.int64)
    ours_logits, ours_deltas = ours.model.classify(list(features.values()), proposals[0], index)
    assert torch.allclose(ours_logits, class_logits, atol=2e-4, rtol=1e-4)
    assert torch.allclose(ours_deltas.flatten(1), box_deltas, atol=2e-4, rtol=1e-4)

    boxes, labels = proposals[0][:20], torch.arange(20) % len(ours.class_ids) + 1
    pooled = theirs.roi_heads.mask_roi_pool(features, [boxes], batch.image_sizes)
    mask_logits = theirs.roi_heads.mask_predictor(theirs.roi_heads.mask_head(pooled))[torch.arange(20), labels]
    mine = ours.model.segment(list(features.values()), boxes, index[:20], labels)
    assert torch.allclose(mine, mask_logits, atol=5e-4, rtol=1e-3)


@pytest.mark.parametrize("image", PICTURES, ids=lambda i: f"{i.shape[0]}x{i.shape[1]}")
@torch.no_grad()
def test_detections(pair, image):
    ours, theirs = pair
    expected = theirs([torch.from_numpy(image).permute(2, 0, 1).float() / 255])[0]
    found = ours.predict(image)
    assert len(found) == len(expected["boxes"]) > 3
    # Neighbours of equal score can swap by rounding: match by box and class, each of ours once.
    distance = np.abs(found.boxes[:, None] - expected["boxes"].numpy()[None]).max(2)
    distance[found.class_ids[:, None] != expected["labels"].numpy()[None]] = np.inf
    partner = distance.argmin(1)
    assert len(set(partner.tolist())) == len(found)
    assert distance.min(1).max() < 0.01
    assert np.abs(found.scores - expected["scores"].numpy()[partner]).max() < 1e-5
    masks = expected["masks"].numpy()[partner, 0] >= 0.5
    for rle, mask in zip(found.rles, masks, strict=True):
        if mask.any() or rle.area:
            assert iou_matrix([rle], [RLE.from_mask(mask)])[0, 0] >= 0.999


def test_a_file_becomes_a_model_file(pair, tmp_path, capsys):
    """Through the command line and back: the same tensors, the same settings."""
    from maskrcnn.cli import main

    ours, theirs = pair
    torch.save({"model": theirs.state_dict()}, tmp_path / "theirs.pth")
    out = tmp_path / "ours.safetensors"
    with pytest.raises(SystemExit) as left:
        main(["import", str(tmp_path / "theirs.pth"), "-o", str(out), "--min-size", "256", "--max-size", "320"])
    assert not left.value.code
    loaded = maskrcnn.load(out)
    assert loaded.model.conventions.shorter_side == 256
    state = loaded.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in ours.model.state_dict().items())


def test_what_is_no_known_checkpoint_is_refused():
    from maskrcnn import UserError, import_checkpoint

    with pytest.raises(UserError, match="not those of a Mask R-CNN"):
        import_checkpoint({"a": torch.zeros(1)})
    with pytest.raises(UserError, match="detectron2 cannot be read yet"):
        import_checkpoint({"model": {"proposal_generator.rpn_head.conv.weight": torch.zeros(1)}})
    with pytest.raises(UserError, match=r"mask_fcn_logits\.weight|missing"):
        import_checkpoint({"roi_heads.box_predictor.cls_score.weight": torch.zeros(3, 4)})


def test_a_tensor_without_a_place_is_named():
    from maskrcnn import UserError

    with pytest.raises(UserError, match=r"roi_heads\.keypoint"):
        from_torchvision({"roi_heads.keypoint_head.0.weight": torch.zeros(1)})
