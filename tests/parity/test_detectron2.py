"""Stage-by-stage comparison with recorded outputs of Detectron2 under the same weights."""

import json
import pickle

import numpy as np
import pytest
import torch

from maskrcnn import RLE, UserError, import_checkpoint
from maskrcnn.detection.conventions import DETECTRON2
from maskrcnn.detection.finish import paste_masks
from maskrcnn.detection.fit import _resize_shortest_edge, resize
from maskrcnn.detection.pool import assign_levels, pool
from parity.comparison import compare_detections, network_stages, relative_error
from parity.recipe import make_weights

CASES = ["R50_256_astro", "R50_256_synth", "R50_512_synth", "R50_s3x3_256_astro", "R50_s3x3_256_synth"]
DEFAULT_CASES = ["R50_256_astro_default", "R50_256_synth_default"]
STRIDES = (4, 8, 16, 32)


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "fixtures" / "detectron2"


@pytest.fixture(scope="module")
def weights(folder):
    return make_weights(folder, "weights_R50.json", "50")


def load_case(name, folder, weights):
    size = 512 if "512" in name else 256
    model = import_checkpoint(
        weights,
        min_size=size,
        max_size=size,
        stride_in_1x1="s3x3" not in name,
        score_threshold=0.05 if "default" in name else 0.8,
    )
    return model, np.load(folder / f"{name}.npz")


@pytest.mark.shared
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_stages_match_detectron2(name, folder, weights):
    model, expected = load_case(name, folder, weights)
    fitted = model.prepare(expected["image_rgb"]).fitted
    assert np.array_equal(fitted.pixels[..., ::-1], expected["resized_bgr"])
    stages = network_stages(model, expected["image_rgb"])
    for level, feature in enumerate(stages.features, 2):
        step = expected[f"p{level}_stride"]
        ours = feature[0, :: step[0], :: step[1], :: step[2]].numpy()
        assert relative_error(ours, expected[f"p{level}_slice"]) < 5e-4
    stride = int(expected["rpn_stride"])
    logits, deltas = (torch.cat(t, 1)[0, ::stride] for t in (stages.rpn.objectness_logits, stages.rpn.anchor_deltas))
    assert np.abs(logits.numpy() - expected["rpn_logits"]).max() < 1e-3
    assert np.abs(deltas.numpy() - expected["rpn_deltas"]).max() < 1e-3
    grid = stages.anchors
    assert np.abs(grid[:1000] - expected["anchors_first"]).max() < 1e-4
    assert np.abs(grid[-1000:] - expected["anchors_last"]).max() < 1e-4

    proposals = torch.from_numpy(expected["proposals"])
    our_boxes = torch.from_numpy(stages.proposals.boxes)
    assert len(our_boxes) == len(proposals)
    assert (torch.cdist(our_boxes, proposals, p=float("inf")).amin(1) < 0.05).float().mean() > 0.99
    image_index = torch.zeros(len(proposals), dtype=torch.int64)
    class_logits, box_deltas = model.model.classify(stages.features, proposals, image_index)
    assert np.abs(class_logits.roll(-1, 1).numpy() - expected["cls_logits"]).max() < 1e-3
    assert np.abs(box_deltas[:, 1:].flatten(1).numpy() - expected["box_deltas"]).max() < 1e-3
    boxes, classes = torch.from_numpy(expected["pred_boxes"]), torch.from_numpy(expected["classes"])
    masks = model.model.segment(stages.features, boxes, image_index[: len(boxes)], classes + 1).sigmoid()
    assert np.abs(masks.numpy() - expected["mask_probs"]).max() < 1e-3


@pytest.mark.shared
@pytest.mark.parametrize("name", CASES + DEFAULT_CASES)
def test_detections_match_detectron2(name, folder, weights):
    model, expected = load_case(name, folder, weights)
    detections = model.predict(expected["image_rgb"])
    rles = [RLE.from_coco(r) for r in json.loads(str(expected["res_masks_rle_json"]))]
    differences = compare_detections(
        detections, expected["res_boxes"], expected["res_scores"], expected["res_classes"], rles, skip=set()
    )
    assert differences["box"] < 0.05
    assert differences["score"] < 5e-4
    print(name, differences)  # pytest -rP shows it
    assert differences["mask iou"] >= 0.98


@pytest.mark.shared
def test_model_zoo_pickle_is_imported(folder, weights, tmp_path):
    """Old files of the model zoo also contain constants: anchors and the pixel mean."""
    anchors = {f"proposal_generator.anchor_generator.cell_anchors.{k}": np.zeros((3, 4), np.float32) for k in range(5)}
    content = {"model": {**weights, **anchors, "pixel_mean": np.zeros((3, 1, 1), np.float32)}, "__author__": "zoo"}
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps(content))
    model = import_checkpoint(tmp_path / "zoo.pkl")
    assert model.provenance["source"] == "detectron2"
    assert model.provenance["unused"] == sorted([*anchors, "pixel_mean"])
    assert model.class_ids == list(range(6))
    torch.save({"model": {k: torch.from_numpy(v) for k, v in weights.items()}, "iteration": 3}, tmp_path / "own.pth")
    weights_of_pth = import_checkpoint(tmp_path / "own.pth").model.state_dict()
    assert all(torch.equal(weights_of_pth[name], tensor) for name, tensor in model.model.state_dict().items())
    with pytest.raises(UserError, match=r"rpn_head\.conv2"):
        import_checkpoint({**weights, "proposal_generator.rpn_head.conv2.weight": np.zeros(1)})


@pytest.mark.shared
def test_resnet101_is_recognised(folder):
    deep = make_weights(folder, "weights_R101.json", "101")
    model = import_checkpoint(deep)
    assert model.config.model.backbone == "resnet101"
    assert len(deep) == sum(not name.endswith("num_batches_tracked") for name in model.model.state_dict())


@pytest.mark.shared
def test_functions_match_detectron2(folder):
    """Compare resizing, level assignment, pooling and pasting with functions.npz."""
    expected = np.load(folder / "functions.npz")
    for case in json.loads(str(expected["cases_json"]))["resize_shortest_edge"]:
        assert _resize_shortest_edge((case["h"], case["w"]), case["min"], case["max"]) == tuple(case["out"])
    for hw in ((64, 90), (23, 33)):
        assert np.array_equal(resize(expected["resize_in"], hw), expected[f"resize_out_{hw[0]}_{hw[1]}"])
    levels = assign_levels(expected["level_boxes"], [(0, 0)] * 4, 4, DETECTRON2)
    assert np.array_equal(levels + 2, expected["levels"])
    boxes = torch.from_numpy(expected["pool_boxes"])
    maps = [torch.from_numpy(expected[f"pool_p{k}"]).permute(0, 2, 3, 1) for k in range(2, 6)]
    index = torch.arange(2).repeat_interleave(boxes.shape[1])
    pooled = pool(maps, boxes.flatten(0, 1), index, 7, STRIDES, DETECTRON2).permute(0, 3, 1, 2)
    assert np.abs(pooled.numpy() - expected["pool_out7"]).max() < 1e-5
    for aligned, kind in ((1, "aligned"), (0, "shifted")):
        for samples in (0, 2):
            conventions = DETECTRON2.changed(pooling=kind, roi_samples=samples)
            rois = torch.from_numpy(expected["ra_rois"])
            feature_map = torch.from_numpy(expected["ra_map"]).permute(0, 2, 3, 1)
            ours = pool([feature_map], rois[:, 1:], rois[:, 0].long(), 7, (8,), conventions).permute(0, 3, 1, 2)
            theirs = expected[f"ra_aligned{aligned}_sr{samples}"]
            assert np.abs(ours.numpy() - theirs).max() < 1e-5
    shape = tuple(expected["paste_shape"])
    masks = np.unpackbits(expected["paste_out"])[: np.prod(shape)].reshape(shape).astype(bool)
    pasted = paste_masks(expected["paste_masks"], expected["paste_boxes"], shape[1:], DETECTRON2)
    assert np.mean([rle.to_mask() != mask for rle, mask in zip(pasted, masks, strict=True)]) < 1e-4
