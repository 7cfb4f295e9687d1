"""Stage-by-stage and end-to-end comparison with torchvision under copied random weights.

Weights are seeded, batch-norm statistics are random, and the class layer is scaled to give confident detections.
"""

import re

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor, resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead

import maskrcnn
from maskrcnn import RLE, Config, UserError, import_checkpoint
from maskrcnn.checkpoints.torchvision import to_torchvision
from maskrcnn.config import ModelConfig
from maskrcnn.detection.fit import stack
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inference.runtimes.torch import TorchRuntime
from maskrcnn.model.mask_rcnn import build_model
from parity.comparison import compare_detections, stages_of

# backbone, version of the heads, classes, shorter side, limit of the longer side
CONFIGURATIONS = {
    "resnet50": ("resnet50", 1, 5, 256, 320),
    "resnet18": ("resnet18", 1, 3, 224, 352),
    "resnext50": ("resnext50_32x4d", 1, 2, 192, 256),
    "resnet50 v2": ("resnet50", 2, 4, 192, 288),
    "resnet101": ("resnet101", 1, 2, 224, 288),
    "resnet101 v2": ("resnet101", 2, 3, 224, 288),
}
SLOW = {"resnext50", "resnet101", "resnet101 v2"}


def build(name: str, version: int, classes: int, **settings) -> detection.MaskRCNN:
    """Build torchvision's model. Version 2 has batch norm in FPN and heads, two RPN and four box convolutions."""
    if version == 1:
        backbone = resnet_fpn_backbone(backbone_name=name, weights=None, trainable_layers=5)
        return detection.MaskRCNN(backbone, classes + 1, **settings)
    norm = torch.nn.BatchNorm2d
    backbone = _resnet_fpn_extractor(getattr(torchvision.models, name)(norm_layer=norm), 5, norm_layer=norm)
    return detection.MaskRCNN(
        backbone,
        classes + 1,
        rpn_head=RPNHead(256, 3, conv_depth=2),
        box_head=FastRCNNConvFCHead((256, 7, 7), [256] * 4, [1024], norm_layer=norm),
        mask_head=MaskRCNNHeads(256, [256] * 4, 1, norm_layer=norm),
        **settings,
    )


def reference(name: str, version: int, classes: int, min_size: int, max_size: int) -> detection.MaskRCNN:
    torch.manual_seed(11)
    model = build(name, version, classes, min_size=min_size, max_size=max_size, box_score_thresh=0.8)
    generator = torch.Generator().manual_seed(7)
    last = "bn2.weight" if name == "resnet18" else "bn3.weight"
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if key.endswith("running_mean"):
                tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
            elif key.endswith("running_var"):
                tensor.copy_(1 + 0.2 * torch.rand(tensor.shape, generator=generator))
            elif key.endswith("num_batches_tracked"):
                tensor.fill_(7)
            elif last in key:
                tensor.mul_(0.1 if name == "resnet101" else 0.3)  # keeps deep random residual networks from blowing up
        model.rpn.head.cls_logits.weight.mul_(30)
        model.rpn.head.bbox_pred.weight.mul_(3)
        model.roi_heads.mask_predictor.mask_fcn_logits.weight.mul_(3)
        scale_class_layer(model.eval())
    return model


def scale_class_layer(model: detection.MaskRCNN) -> None:
    """Centre the class logits over an image's proposals and scale their standard deviation to three."""
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
    params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in CONFIGURATIONS],
)
def pair(request):
    *structure, min_size, max_size = CONFIGURATIONS[request.param]
    theirs = reference(*structure, min_size, max_size)
    ours = import_checkpoint(
        theirs.state_dict(), "torchvision", min_size=min_size, max_size=max_size, score_threshold=0.8
    )
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
def test_stages_match_torchvision(pair, image):
    ours, theirs = pair
    tensor = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    batch, _ = theirs.transform([tensor])
    pixels, windows = stack([ours.prepare(image).fitted.pixels])
    images = ours.model.normalize(torch.from_numpy(pixels), torch.from_numpy(windows))
    assert images.shape == batch.tensors.shape
    # Sample positions round differently on processors with and without fused multiply-add.
    assert torch.allclose(images, batch.tensors, atol=1e-4)

    features = theirs.backbone(batch.tensors)
    stages = stages_of(ours, batch.tensors, windows)
    for a, b in zip(stages.features, features.values(), strict=True):
        assert torch.allclose(a, b, atol=2e-4, rtol=1e-4)

    logits, deltas = theirs.rpn.head(list(features.values()))
    for level, (theirs_logits, theirs_deltas) in enumerate(zip(logits, deltas, strict=True)):
        flat = theirs_logits.permute(0, 2, 3, 1).flatten(1)
        assert torch.allclose(stages.rpn.objectness_logits[level], flat, atol=1e-4, rtol=1e-4)
        A = theirs_logits.shape[1]
        B, _, M, N = theirs_deltas.shape
        flat = theirs_deltas.view(B, A, 4, M, N).permute(0, 3, 4, 1, 2).reshape(B, -1, 4)
        assert torch.allclose(stages.rpn.anchor_deltas[level], flat, atol=1e-4, rtol=1e-4)
    anchors = theirs.rpn.anchor_generator(batch, list(features.values()))
    assert torch.equal(torch.from_numpy(stages.anchors), anchors[0])

    proposals, _ = theirs.rpn(batch, features)
    our_boxes = torch.from_numpy(stages.proposals.boxes)
    assert abs(len(our_boxes) - len(proposals[0])) <= 0.01 * len(our_boxes)
    # Rounding can swap proposals of almost equal objectness: compare each with its nearest reference proposal.
    nearest = torch.cdist(our_boxes, proposals[0], p=float("inf")).amin(1)
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
    our_masks = ours.model.segment(list(features.values()), boxes, index[:20], labels)
    assert torch.allclose(our_masks, mask_logits, atol=5e-4, rtol=1e-3)


@pytest.mark.parametrize("image", PICTURES, ids=lambda i: f"{i.shape[0]}x{i.shape[1]}")
@torch.no_grad()
def test_detections_match_torchvision(pair, image):
    ours, theirs = pair
    expected = theirs([torch.from_numpy(image).permute(2, 0, 1).float() / 255])[0]
    detections = ours.predict(image)
    assert len(detections) > 3
    rles = [RLE.from_mask(mask) for mask in expected["masks"].numpy()[:, 0] >= 0.5]
    differences = compare_detections(
        detections, *(expected[key].numpy() for key in ("boxes", "scores", "labels")), rles, skip=set()
    )
    print(differences)  # pytest -rP shows it
    assert differences["box"] < 0.01
    assert differences["score"] < 1e-5
    assert differences["mask iou"] >= 0.999


@torch.no_grad()
def test_exif_orientation_is_applied(pair, tmp_path):
    """Reading applies the orientation; callers of torchvision apply it themselves."""
    ours, theirs = pair
    image = PICTURES[1]
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise for display
    Image.fromarray(image).save(tmp_path / "turned.png", exif=exif)
    upright = np.ascontiguousarray(np.rot90(image, -1))
    expected = theirs([torch.from_numpy(upright).permute(2, 0, 1).float() / 255])[0]
    detections = ours.predict(tmp_path / "turned.png")
    assert detections.hw == upright.shape[:2]
    assert len(detections) == len(expected["boxes"]) > 3
    assert np.abs(detections.boxes - expected["boxes"].numpy()).max() < 0.01


def test_round_trip_to_torchvision_is_exact(pair):
    ours, theirs = pair
    exported, state = to_torchvision(ours), theirs.state_dict()
    assert set(exported) == set(state)
    for name, tensor in exported.items():
        assert tensor.dtype == state[name].dtype
        assert torch.equal(tensor, state[name]), name


def test_commands_import_and_export_a_checkpoint(pair, tmp_path, capsys):
    """Import and export by command keep the tensors and the image size."""
    from maskrcnn.cli import main

    ours, theirs = pair
    torch.save({"model": theirs.state_dict()}, tmp_path / "theirs.pth")
    out = tmp_path / "ours.safetensors"
    with pytest.raises(SystemExit) as exit_info:
        main(["import", str(tmp_path / "theirs.pth"), "-o", str(out), "--min-size", "256", "--max-size", "320"])
    assert not exit_info.value.code
    loaded = maskrcnn.load(out)
    assert loaded.model.conventions.shorter_side == 256
    state = loaded.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in ours.model.state_dict().items())

    with pytest.raises(SystemExit) as exit_info:
        main(["export", str(out), "-o", str(tmp_path / "back.pth"), "--runtime", "torchvision"])
    assert not exit_info.value.code
    theirs.load_state_dict(torch.load(tmp_path / "back.pth", weights_only=True))


def test_unknown_checkpoints_are_refused():
    with pytest.raises(UserError, match="not those of a Mask R-CNN"):
        import_checkpoint({"a": torch.zeros(1)})
    with pytest.raises(UserError, match="there is no source 'mmdetection'"):
        import_checkpoint({"a": torch.zeros(1)}, "mmdetection")
    with pytest.raises(UserError, match="holds no tensors"):
        import_checkpoint({})


def test_invalid_tensors_and_options_are_named():
    state = build("resnet18", 1, 2).state_dict()
    incomplete = {name: tensor for name, tensor in state.items() if name != "rpn.head.bbox_pred.bias"}
    with pytest.raises(UserError, match=r"missing.*rpn\.deltas\.bias"):
        import_checkpoint(incomplete)
    with pytest.raises(UserError, match=r"rpn\.deltas\.bias is \(5,\), the network's is \(12,\)"):
        import_checkpoint({**state, "rpn.head.bbox_pred.bias": torch.zeros(5)})
    with pytest.raises(UserError, match=r"cls_score.bias is no array"):
        import_checkpoint({**state, "roi_heads.box_predictor.cls_score.bias": "text"})
    with pytest.raises(UserError, match="1 class name for 2 classes of the checkpoint"):
        import_checkpoint(state, class_names=["a"])
    with pytest.raises(UserError, match="3 anchors a cell, anchor_ratios gives 1"):
        import_checkpoint(state, anchor_ratios=[1.0])
    with pytest.raises(UserError, match="no option resize_mode"):
        import_checkpoint(state, resize_mode="square")
    with pytest.raises(UserError, match="did you mean 'min_size'"):
        import_checkpoint(state, minsize=3)


def test_old_and_prefixed_tensor_names_are_imported():
    """torchvision before 0.11 did not nest its blocks in sequences; DataParallel prefixes every name."""
    state = build("resnet18", 1, 2).state_dict()
    old = {
        re.sub(r"mask_head\.(\d)\.0\.", lambda m: f"mask_head.mask_fcn{int(m[1]) + 1}.", name)
        .replace("rpn.head.conv.0.0", "rpn.head.conv")
        .replace("_blocks.0.0.", "_blocks.0."): tensor
        for name, tensor in state.items()
    }
    assert set(old) != set(state)
    for renamed in (old, {f"module.{name}": tensor for name, tensor in state.items()}):
        exported = to_torchvision(import_checkpoint(renamed))
        assert all(torch.equal(exported[name], tensor) for name, tensor in state.items())


def test_model_of_the_official_tutorial_is_imported():
    """The tutorial fine-tunes with new predictors; its mask predictor sets the width of the hidden layer."""
    model = build("resnet18", 1, 90)
    model.roi_heads.box_predictor = FastRCNNPredictor(1024, 2)
    model.roi_heads.mask_predictor = MaskRCNNPredictor(256, 128, 2)
    ours = import_checkpoint(model.state_dict(), class_names=["pedestrian"])
    assert (ours.class_ids, ours.class_names) == ([1], ["pedestrian"])
    assert ours.config.model.mask_channels == 256
    assert ours.model.mask_head.deconv.out_channels == 128


def test_native_model_cannot_be_exported_to_torchvision():
    model = build_model(ModelConfig(backbone="resnet18", weights="none"), 1)
    with pytest.raises(UserError, match="conventions of native"):
        to_torchvision(Predictor(TorchRuntime(model), Config(), [1], ["a"]))


def test_unexpected_tensor_is_named():
    with pytest.raises(UserError, match=r"roi_heads\.keypoint"):
        import_checkpoint({"roi_heads.keypoint_head.0.weight": torch.zeros(1)}, "torchvision")
