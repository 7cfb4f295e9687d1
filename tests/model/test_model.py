"""Each part of the network on its own, and properties of all networks."""

import numpy as np
import pytest
import torch

from maskrcnn import UserError
from maskrcnn.config import Config, ModelConfig
from maskrcnn.detection.anchors import cell_anchors
from maskrcnn.detection.boxes import clip_boxes, decode_boxes, encode_boxes, iou
from maskrcnn.detection.propose import propose
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inference.runtimes.torch import TorchRuntime
from maskrcnn.model.layers import convolution
from maskrcnn.model.mask_rcnn import build_model

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def tiny(**changes) -> ModelConfig:
    values = {
        "backbone": "test_resnet",
        "weights": "none",
        "image_size": 128,
        "channels": 16,
        "box_channels": 32,
    }
    values |= {"mask_channels": 16, "proposals": 60, "proposals_per_level": 80, **changes}
    return ModelConfig(**values)


def random_boxes(n: int, generator: torch.Generator) -> torch.Tensor:
    corner = torch.rand(n, 2, generator=generator) * 100
    return torch.cat([corner, corner + torch.rand(n, 2, generator=generator) * 60 + 0.5], 1)


def test_decode_boxes_inverts_encode_boxes():
    generator = torch.Generator().manual_seed(0)
    boxes, anchors = random_boxes(200, generator), random_boxes(200, generator)
    decoded = decode_boxes(encode_boxes(boxes, anchors, WEIGHTS), anchors, WEIGHTS, clip=10.0)
    assert torch.allclose(decoded, boxes, atol=1e-3)
    at_zero = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    assert torch.isfinite(encode_boxes(boxes[:1], at_zero - 2, WEIGHTS)).all()


def test_box_coding_follows_the_paper():
    deltas = encode_boxes(
        torch.tensor([[12.0, 10.0, 32.0, 50.0]]), torch.tensor([[10.0, 10.0, 20.0, 30.0]]), (1, 1, 1, 1)
    )
    assert torch.allclose(deltas, torch.tensor([[0.7, 0.5, np.log(2), np.log(2)]], dtype=torch.float32))


def test_clip_boxes_and_iou():
    boxes = torch.tensor([[[-5.0, -5, 200, 50], [10, 10, 20, 20]]])
    assert clip_boxes(boxes, torch.tensor([0.0, 0, 100, 40]))[0, 0].tolist() == [0, 0, 100, 40]
    overlap = iou(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[5.0, 0, 15, 10], [20, 20, 30, 30]]))
    assert torch.allclose(overlap, torch.tensor([[1 / 3, 0.0]]))


@pytest.mark.parametrize("hw", [(70, 66), (8, 8)])
@pytest.mark.parametrize("norm", [False, True])
def test_convolution_gradients_match_torch(hw, norm):
    torch.manual_seed(0)
    ours = convolution(8, 12, 3, norm=norm)
    conv = ours[0] if norm else ours
    plain = torch.nn.Conv2d(8, 12, 3, padding=1, bias=not norm)
    plain.load_state_dict(conv.state_dict())
    images = torch.randn(2, 8, *hw).to(memory_format=torch.channels_last)
    gradients = []
    for layer in (conv, plain):
        x = images.clone().requires_grad_()
        (layer(x) * torch.linspace(-1, 1, hw[1])).square().sum().backward()
        gradients.append([x.grad, *(p.grad for p in layer.parameters())])
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-3)


def test_cell_anchors_have_their_area_and_ratio():
    anchors = cell_anchors((12.0, 24.0), (0.5, 1.0, 2.0), rounded=False)
    wh = anchors[:, 2:] - anchors[:, :2]
    assert np.allclose(np.sqrt(wh.prod(1)), [12.0, 24.0] * 3)
    assert np.allclose(wh[:, 1] / wh[:, 0], [0.5, 0.5, 1, 1, 2, 2])
    assert np.allclose(anchors[:, :2], -anchors[:, 2:])


def test_grid_anchors_are_centred_in_their_cells():
    model = build_model(tiny(), 1)
    grid = model.anchors(((32, 24), (16, 12), (8, 6), (4, 3), (2, 2)), (128, 96))
    center = (grid[:, :2] + grid[:, 2:]) / 2
    assert center[0].tolist() == pytest.approx([2, 2])
    assert center[3].tolist() == pytest.approx([6, 2])  # the next column; each cell has three anchors
    assert grid.shape == ((32 * 24 + 16 * 12 + 8 * 6 + 4 * 3 + 2 * 2) * 3, 4)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pyramid": "single"},
        {"mask_size": 56},
        {"anchor_scales": (1.0, 1.4)},
        {"norm": "batch", "rpn_convs": 2, "rpn_channels": 24, "box_convs": 2, "box_layers": 1, "mask_convs": 2},
    ],
    ids=str,
)
def test_every_variant_runs_on_any_size(changes):
    torch.manual_seed(0)
    model = build_model(tiny(**changes), 3).eval()
    windows = torch.tensor([[0, 0, 128, 100], [0, 0, 90, 64]])
    images = model.normalize(torch.randint(0, 255, (2, 128, 128, 3), dtype=torch.uint8), windows)
    with torch.no_grad():
        features, rpn = model(images)
        trunk = model.trunk(features, rpn, (128, 128))
        proposals = propose(trunk, windows.float().numpy(), model.anchors, model.config, model.conventions)
        boxes, index = torch.from_numpy(proposals.boxes), torch.from_numpy(proposals.image_index)
        class_logits, box_deltas = model.classify(features, boxes, index)
        masks = model.segment(features, boxes[:10], index[:10], torch.ones(10, dtype=torch.int64))
    assert class_logits.shape == (len(boxes), 4)
    assert box_deltas.shape == (len(boxes), 4, 4)
    assert masks.shape == (10, model.config.mask_size, model.config.mask_size)
    no_features = torch.zeros(0, model.config.channels, model.config.mask_size // 2, model.config.mask_size // 2)
    assert model.mask_head(no_features, torch.zeros(0, dtype=torch.int64)).shape == (0, *masks.shape[1:])
    assert (boxes <= windows[index][:, [2, 3, 2, 3]]).all()
    assert set(index.tolist()) == {0, 1}
    level = rpn.class_probabilities(0)
    k = model.anchors.per_cell
    assert level.shape == (2, *features[0].shape[-2:], 2 * k)
    assert torch.allclose(level.unflatten(-1, (k, 2)).sum(-1), torch.ones(1))
    assert rpn.box_deltas(0).shape == (2, *features[0].shape[-2:], 4 * k)


@pytest.mark.parametrize(
    "backbone",
    [
        "tf_efficientnet_lite0",
        "mobilenetv3_small_100",
        "convnext_atto",
        "dla34",  # numbers its maps from 1
        "swin_tiny_patch4_window7_224",  # accepts only 224 x 224 by default
    ],
)
def test_other_backbones_give_five_levels(backbone):
    model = build_model(tiny(backbone=backbone), 1).eval()
    model.backbone.require_any_size()
    with torch.no_grad():
        features = model.extract(torch.zeros(1, 3, 96, 64))
    assert [f.shape[-2:] for f in features] == [(24, 16), (12, 8), (6, 4), (3, 2), (2, 1)]


@pytest.mark.parametrize(
    ("backbone", "message"), [("hiera_tiny_224", "pictures of any size"), ("inception_v4", "cut off the border")]
)
def test_unsupported_backbones_are_refused(backbone, message):
    with pytest.raises(UserError, match=message):
        build_model(tiny(backbone=backbone), 1).backbone.require_any_size()


def test_channels_come_first_when_rows_are_as_many():
    backbone = build_model(tiny(backbone="swin_tiny_patch4_window7_224"), 1).eval().backbone
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 384, 64))
    assert [m.shape[1:] for m in maps] == [(96, 96, 16), (192, 48, 8), (384, 24, 4), (768, 12, 2)]


def test_a_misspelt_backbone_is_named():
    with pytest.raises(UserError, match="'resnet5O'"):
        build_model(tiny(backbone="resnet5O"), 1)


def test_imagenet_weights_of_the_lite_preset_ship_with_the_package():
    model = build_model(ModelConfig(), 1)
    before = model.backbone.body.state_dict()["conv_stem.weight"].clone()
    assert "installed with the package" in model.backbone.load_weights("imagenet")
    assert not torch.equal(before, model.backbone.body.state_dict()["conv_stem.weight"])


@pytest.mark.parametrize(("stage", "names"), [(3, {"layer2", "layer3", "layer4"}), (5, {"layer4"}), (6, set())])
def test_freeze_below_freezes_earlier_stages(stage, names):
    model = build_model(tiny(), 1, freeze_norm=False)
    model.backbone.freeze_below(stage)
    training = {n.partition(".")[0] for n, p in model.backbone.body.named_parameters() if p.requires_grad}
    assert training == names
    assert all(p.requires_grad for p in model.rpn.parameters())


def test_frozen_norm_stays_in_evaluation_mode():
    model = build_model(tiny(), 1).train()
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(m.training for m in norms)
    unfrozen = build_model(tiny(), 1, freeze_norm=False).train()
    assert all(m.training for m in unfrozen.modules() if isinstance(m, torch.nn.BatchNorm2d))


@pytest.mark.parametrize("n_convs", [1, 2])
def test_rpn_at_matches_the_full_map(n_convs):
    torch.manual_seed(0)
    model = build_model(tiny(rpn_convs=n_convs), 1)
    features = [torch.randn(2, 16, 32 // 2**k, 24 // 2**k, requires_grad=True) for k in range(5)]
    full = model.rpn(features)
    n = sum(level.shape[1] for level in full.objectness_logits)
    image, anchor = torch.randint(0, 2, (200,)), torch.randint(0, n, (200,))
    dense = (
        torch.cat(full.objectness_logits, 1)[image, anchor],
        torch.cat(full.anchor_deltas, 1)[image, anchor],
    )
    sparse = model.rpn.at(features, image, anchor)
    for a, b in zip(dense, sparse, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    inputs = [*features, *model.rpn.parameters()]
    grads = [torch.autograd.grad(o[0].square().sum() + o[1].sum(), inputs) for o in (dense, sparse)]
    for a, b in zip(*grads, strict=True):
        assert torch.allclose(a, b, atol=1e-3)


def test_gradients_of_rpn_at_are_deterministic():
    """Resumed runs must match, but plain indexing adds gradients in thread order."""
    torch.manual_seed(0)
    model = build_model(tiny(channels=128), 1)
    features = [torch.randn(2, 128, 32 // 2**k, 32 // 2**k, requires_grad=True) for k in range(5)]
    n = sum(3 * f.shape[-1] ** 2 for f in features)
    image, anchor = torch.randint(0, 2, (500,)), torch.randint(0, n // 8, (500,))

    def gradient() -> torch.Tensor:
        logits, deltas = model.rpn.at(features, image, anchor)
        return torch.autograd.grad(logits.sum() + deltas.square().sum(), features[0])[0]

    first = gradient()
    assert all(torch.equal(gradient(), first) for _ in range(8))


@pytest.fixture(scope="module")
def confident_predictor() -> Predictor:
    """Return a random network with a scaled-up class layer, which gives confident detections."""
    torch.manual_seed(4)
    config = Config(model=tiny(), predict={"score_threshold": 0.2, "detections": 30})
    model = build_model(config.model, 2)
    with torch.no_grad():
        model.box_head.class_logits.weight.mul_(300)
        model.mask_head.logits.weight.normal_(std=0.3)
    return Predictor(TorchRuntime(model), config, [5, "x"], ["five", "ex"])


def test_batched_prediction_matches_single_images(confident_predictor, rng):
    pictures = [
        rng.integers(0, 255, (h, w, 3), np.uint8) for h, w in ((90, 128), (128, 60), (96, 120), (128, 128), (95, 128))
    ]
    single = [confident_predictor.predict(p) for p in pictures]
    batched = list(confident_predictor.predict_many(pictures, batch_size=4))
    assert sum(len(d) for d in single) > 5
    for a, b in zip(single, batched, strict=True):
        assert np.allclose(a.boxes, b.boxes, atol=1e-3)
        assert np.allclose(a.scores, b.scores, atol=1e-5)
        assert a.class_names == b.class_names
        assert a.hw == b.hw
    with pytest.raises(ValueError, match="batch_size is 0; it must be at least 1"):
        next(confident_predictor.predict_many(pictures, batch_size=0))


def test_detections_lie_within_the_image(confident_predictor, rng):
    for hw in ((37, 211), (300, 40), (5, 5)):
        detections = confident_predictor.predict(rng.integers(0, 255, (*hw, 3), np.uint8))
        assert (detections.boxes[:, 2:] <= np.array([hw[1], hw[0]]) + 1e-3).all()
        assert (detections.boxes[:, :2] >= 0).all()
        assert all(r.hw == hw for r in detections.rles)
        assert detections.masks.shape == (len(detections), *hw)


def test_empty_detections_convert_to_every_format(confident_predictor, rng):
    empty = confident_predictor.changed(score_threshold=1.0).predict(rng.integers(0, 255, (50, 60, 3), np.uint8))
    assert len(empty) == 0
    assert empty.masks.shape == (0, 50, 60)
    assert empty.to_coco(1) == []
    assert empty.encoded_pixels() == []
