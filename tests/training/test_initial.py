"""Training from an initial model: inherited settings and weights, new class layers, and resuming the run."""

import json

import pytest
import torch
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

import maskrcnn
from maskrcnn import Config, UserError
from maskrcnn.checkpoints.load import save
from maskrcnn.config import ModelConfig, TrainConfig
from maskrcnn.detection.boxes import to_pixels, to_units
from maskrcnn.detection.conventions import DETECTRON2, MATTERPORT, NATIVE, TORCHVISION, Conventions
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inference.runtimes.torch import TorchRuntime
from maskrcnn.model.mask_rcnn import build_model
from maskrcnn.settings import Settings
from maskrcnn.training.initial import CLASS_LAYERS, inherit_model, take_over

SMALL = ModelConfig(
    backbone="test_resnet", weights="none", image_size=64, channels=16, box_channels=32, mask_channels=16,
    proposals=40, proposals_per_level=40, anchor_sizes=(8, 16, 32, 64, 128), pixel_mean=(100, 110, 120),
)  # fmt: skip
SHORT = TrainConfig(epochs=1, epoch_images=4, roi_batch=16, rpn_batch=32, mask_batch=4)


def predictor(conventions=NATIVE, names=("a", "b")) -> Predictor:
    torch.manual_seed(3)
    model = build_model(SMALL, len(names), conventions.changed(shorter_side=48))
    return Predictor(TorchRuntime(model), Config(model=SMALL), list(range(1, len(names) + 1)), list(names))


@pytest.mark.parametrize("conventions", [NATIVE, TORCHVISION, DETECTRON2, MATTERPORT], ids=lambda c: c.name)
def test_fine_tuning_keeps_the_initial_conventions(conventions, shapes, tmp_path):
    """The run trains in the initial model's conventions, saves them and resumes with them."""
    initial = predictor(conventions)
    save(initial, tmp_path / "start.safetensors")
    config = Config(train=SHORT).changed(train={"init": str(tmp_path / "start.safetensors")})
    train, val = shapes.split(0.3)
    run = maskrcnn.train(train, val, out=tmp_path / "run", config=config)
    assert run.finished
    model = run.model
    assert model.model.conventions == initial.model.conventions
    assert model.config.model.pixel_mean == (100, 110, 120)
    assert model.class_names == train.class_names
    entries = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < entry["loss"] < 50 for entry in entries if entry["kind"] == "step")
    resumed = maskrcnn.train(train, val, out=tmp_path / "run", config=config, resume=True)
    assert resumed.model.model.conventions == initial.model.conventions


def test_class_layers_are_kept_only_for_the_same_classes():
    initial = predictor()
    before = initial.model.state_dict()
    for names, kept in ((["a", "b"], True), (["b", "c"], False)):
        torch.manual_seed(4)
        model = build_model(SMALL, 2)
        message = take_over(model, initial, predictor(names=names))
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name]) == (kept or not name.startswith(CLASS_LAYERS) or "bias" in name)
        assert ("are kept" in message) == kept


def test_class_layers_follow_the_names_of_the_classes():
    """The data lists the same classes in another order: each class keeps its rows of every class layer."""
    initial = predictor(names=("a", "b", "c"))
    with torch.no_grad():
        for name, tensor in initial.model.state_dict().items():
            if name.startswith(CLASS_LAYERS):
                tensor.copy_(torch.rand_like(tensor))
    model = build_model(SMALL, 3)
    message = take_over(model, initial, predictor(names=("c", "a", "b")))
    assert "are kept" in message
    for layer in (layer.removesuffix(".") for layer in CLASS_LAYERS):
        for part in ("weight", "bias"):
            before = initial.model.state_dict()[f"{layer}.{part}"]
            after = model.state_dict()[f"{layer}.{part}"]
            by_class = before.reshape(4, -1)
            assert torch.equal(after.reshape(4, -1), by_class[[0, 3, 1, 2]])


def test_user_settings_override_the_initial_model_and_must_fit():
    initial = predictor()

    def inherited(source, **model):
        return inherit_model(Settings.of(Config().changed(model=model)), source).config.model

    model = inherited(initial, image_size=128)
    assert (model.image_size, model.channels) == (128, 16)
    enlarging = Predictor(
        initial.runtime, initial.config.changed(model={"min_scale": 1.5}), initial.class_ids, initial.class_names
    )
    assert inherited(enlarging).min_scale == 1.5
    assert inherited(enlarging, image_size=128).min_scale == 0
    assert inherited(enlarging, image_size=128, min_scale=2).min_scale == 2
    with pytest.raises(UserError, match=r"the initial model: .* the network's is"):
        take_over(build_model(inherited(initial, channels=24), 2), initial, initial)


def test_min_scale_is_refused_with_other_resize_rules(shapes, tmp_path):
    save(predictor(TORCHVISION), tmp_path / "start.safetensors")
    config = Config(train=SHORT).changed(train={"init": str(tmp_path / "start.safetensors")}, model={"min_scale": 1})
    with pytest.raises(UserError, match="Leave --min-scale out"):
        maskrcnn.train(shapes, None, out=tmp_path / "run", config=config)


def test_run_from_a_torchvision_checkpoint_exports_to_torchvision(shapes, tmp_path):
    """New classes replace the last layers, and torchvision loads the trained weights."""
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)
    torch.save(detection.MaskRCNN(backbone, 91).state_dict(), tmp_path / "theirs.pth")
    config = Config(model=ModelConfig(image_size=64), train=SHORT).changed(
        train={"init": str(tmp_path / "theirs.pth"), "freeze": "heads"}
    )
    run = maskrcnn.train(shapes, None, out=tmp_path / "run", config=config)
    maskrcnn.export(run.model, tmp_path / "back.pth", runtime="torchvision")
    theirs = detection.MaskRCNN(backbone, len(shapes.class_ids) + 1)
    state = torch.load(tmp_path / "back.pth", weights_only=True)
    theirs.load_state_dict(state)
    class_weight = run.model.model.box_head.class_logits.weight
    assert torch.equal(theirs.roi_heads.box_predictor.cls_score.weight, class_weight)
    assert class_weight.shape[0] == len(shapes.class_ids) + 1


def test_conventions_round_trip_through_json():
    for conventions in (NATIVE, TORCHVISION, DETECTRON2, MATTERPORT):
        assert Conventions.from_dict(json.loads(json.dumps(conventions.to_dict())), "header") == conventions


def test_to_pixels_inverts_to_units():
    boxes = torch.tensor([[0.0, 0, 64, 48], [3.5, 4, 20, 31]])
    units = to_units(boxes, (48, 64), MATTERPORT)
    assert units[0].tolist() == [0, 0, 1, 1]
    assert torch.allclose(to_pixels(units, (48, 64), MATTERPORT), boxes, atol=1e-5)
