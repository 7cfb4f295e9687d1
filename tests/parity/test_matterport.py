"""Stage-by-stage comparison with recorded outputs of Matterport under the same weights."""

import json

import h5py
import numpy as np
import pytest
import torch

from maskrcnn import RLE, ImageError, UserError, import_checkpoint
from maskrcnn.config import ModelConfig
from maskrcnn.detection.anchors import Anchors
from maskrcnn.detection.conventions import MATTERPORT
from maskrcnn.detection.finish import paste_masks
from maskrcnn.detection.fit import fit_picture, resize_fading
from maskrcnn.detection.pool import pool
from parity.comparison import compare_detections, network_stages, relative_error
from parity.recipe import make_weights

# Detections at the edge of the map, where rounding in the reference blanks a row of the mask.
ROUNDING_CASES = {"resnet50_256_synth": {2}, "resnet50_256_astro": {43}, "resnet50_512_synth": set()}


def xy(boxes: np.ndarray) -> np.ndarray:
    """y1, x1, y2, x2 -> x1, y1, x2, y2, or dy, dx, dh, dw -> dx, dy, dw, dh."""
    return np.ascontiguousarray(boxes[..., [1, 0, 3, 2]])


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "fixtures" / "matterport"


@pytest.fixture(scope="module")
def weights(folder):
    return make_weights(folder, "weights_resnet50.json", "resnet50")


def load_case(name, folder, weights):
    expected = np.load(folder / f"{name}.npz")
    config = json.loads(str(expected["config_json"]))
    model = import_checkpoint(
        weights,
        image_size=config["IMAGE_MAX_DIM"],
        anchor_sizes=config["RPN_ANCHOR_SCALES"],
        score_threshold=config["DETECTION_MIN_CONFIDENCE"],
        nms_threshold=config["DETECTION_NMS_THRESHOLD"],
        detections_per_image=config["DETECTION_MAX_INSTANCES"],
    )
    return model, expected


@pytest.mark.shared
@pytest.mark.parametrize("name", ROUNDING_CASES)
@torch.no_grad()
def test_stages_match_matterport(name, folder, weights):
    model, expected = load_case(name, folder, weights)
    fitted = model.prepare(expected["image"]).fitted
    assert np.array_equal(fitted.pixels, expected["molded_uint8"])
    assert np.array_equal(xy(np.array(fitted.window)), expected["window"])
    stages = network_stages(model, expected["image"])
    for level, feature in enumerate(stages.features, 2):
        step = expected[f"P{level}_stride"]
        ours = feature[0].permute(1, 2, 0)[:: step[0], :: step[1], :: step[2]].numpy()
        assert relative_error(ours, expected[f"P{level}_slice"]) < 5e-4
    stride = int(expected["rpn_stride"])
    logits, deltas = (torch.cat(t, 1)[0, ::stride] for t in (stages.rpn.objectness_logits, stages.rpn.anchor_deltas))
    both_logits = expected["rpn_class_logits"]
    assert np.abs(logits.numpy() - (both_logits[:, 1] - both_logits[:, 0])).max() < 1e-3
    assert np.abs(deltas.numpy() - xy(expected["rpn_bbox"])).max() < 1e-3
    grid = stages.anchors
    assert np.abs(grid[:1000] - xy(expected["anchors_norm_first"])).max() < 1e-6
    assert np.abs(grid[-1000:] - xy(expected["anchors_norm_last"])).max() < 1e-6

    proposals = torch.from_numpy(xy(expected["rpn_rois"]))
    our_boxes = torch.from_numpy(stages.proposals.boxes)
    assert len(our_boxes) == len(proposals)
    assert (torch.cdist(our_boxes, proposals, p=float("inf")).amin(1) < 1e-4).float().mean() > 0.99
    image_index = torch.zeros(len(proposals), dtype=torch.int64)
    class_logits, box_deltas = model.model.classify(stages.features, proposals, image_index)
    assert np.abs(class_logits.numpy() - expected["mrcnn_class_logits"]).max() < 1e-3
    assert np.abs(box_deltas.numpy() - xy(expected["mrcnn_bbox"])).max() < 1e-3
    detections = expected["detections"][expected["detections"][:, 4] > 0]
    boxes, classes = torch.from_numpy(xy(detections[:, :4])), torch.from_numpy(detections[:, 4]).long()
    masks = model.model.segment(stages.features, boxes, image_index[: len(boxes)], classes).sigmoid().numpy()
    assert np.abs(masks - expected["mrcnn_mask_selected"][: len(masks)]).max() < 1e-3


@pytest.mark.shared
@pytest.mark.parametrize("name", ROUNDING_CASES)
def test_detections_match_matterport(name, folder, weights):
    model, expected = load_case(name, folder, weights)
    detections = model.predict(expected["image"])
    rles = [RLE.from_coco(r) for r in json.loads(str(expected["res_masks_rle_json"]))]
    boxes = xy(expected["res_rois"])
    differences = compare_detections(
        detections, boxes, expected["res_scores"], expected["res_class_ids"], rles, skip=ROUNDING_CASES[name]
    )
    assert differences["box"] <= 1  # boxes are whole pixels; rounding can move a corner by one
    assert differences["score"] < 5e-4
    print(name, differences)  # pytest -rP shows it
    assert differences["mask iou"] >= 0.98


def write_h5(path, weights, *, extra=()):
    """Write weights as Keras does: a group per layer that holds layer/weight:0; the RPN's three layers share one."""
    with h5py.File(path, "w") as file:
        for key, value in [*weights.items(), *extra]:
            layer = key.rpartition("/")[0]
            group = "rpn_model" if layer.startswith("rpn_") else layer
            file[f"{group}/{key}:0"] = value


@pytest.mark.shared
def test_h5_file_is_imported(folder, weights, tmp_path):
    write_h5(tmp_path / "mask_rcnn.h5", weights, extra=[("anchors/Variable", np.zeros((2, 4), np.float32))])
    model = import_checkpoint(tmp_path / "mask_rcnn.h5")
    direct = import_checkpoint(weights, "matterport").model.state_dict()
    assert model.provenance["source"] == "matterport"
    assert model.provenance["unused"] == ["anchors/Variable"]
    assert model.config.model.image_size == 1024
    assert model.config.predict.score_threshold == 0.7
    assert model.class_ids == [1, 2, 3, 4, 5, 6]
    assert all(torch.equal(direct[name], tensor) for name, tensor in model.model.state_dict().items())


@pytest.mark.shared
def test_resnet101_is_recognised(folder):
    model = import_checkpoint(make_weights(folder, "weights_resnet101.json", "resnet101"))
    assert model.config.model.backbone == "resnet101"


@pytest.mark.shared
def test_invalid_checkpoints_and_options_are_named(weights, tmp_path):
    incomplete = {k: v for k, v in weights.items() if k != "mrcnn_class_bn1/gamma"}
    with pytest.raises(UserError, match="mrcnn_class_bn1"):
        import_checkpoint(incomplete)
    with pytest.raises(UserError, match=r"res2a_branch2a has an unknown tensor"):
        import_checkpoint({**weights, "res2a_branch2a/extra": np.zeros(1)})
    with pytest.raises(UserError, match="'flatten_9' has no place"):
        import_checkpoint({**weights, "flatten_9/kernel": np.zeros((1, 1))})
    with pytest.raises(UserError, match="multiple of 64; it is 300"):
        import_checkpoint(weights, image_size=300)
    with pytest.raises(UserError, match="stands for both"):
        import_checkpoint(weights, image_size=256, min_size=128)
    (tmp_path / "bad.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\x00" * 64)
    with pytest.raises(UserError, match=r"bad\.h5 is not a readable"):
        import_checkpoint(tmp_path / "bad.h5")


def test_links_out_of_an_h5_file_are_not_followed(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["a/kernel:0"] = np.ones(3)
    (tmp_path / "raw.bin").write_bytes(np.ones(3, np.float32).tobytes())
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["b"] = h5py.ExternalLink("secret.h5", "/a")
    with pytest.raises(UserError, match="holds no tensors"):
        import_checkpoint(tmp_path / "link.h5")
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file.create_dataset("c/kernel:0", (3,), "f4", external=[(str(tmp_path / "raw.bin"), 0, 12)])
    with pytest.raises(UserError, match="lies in another file"):
        import_checkpoint(tmp_path / "outside.h5")


@pytest.mark.shared
def test_resizing_matches_matterport(folder):
    expected = np.load(folder / "functions.npz")
    for case in json.loads(str(expected["cases_json"]))["resize_image"]:
        if "error" in case or case["mode"] == "crop":
            continue
        conventions = MATTERPORT.changed(
            resize=case["mode"], shorter_side=case["min_dim"] or 0, smallest_scale=case["min_scale"] or 0
        )
        image = np.zeros((case["h"], case["w"], 3), np.uint8)
        if case["mode"] == "none" and (case["h"] % 64 or case["w"] % 64):
            with pytest.raises(ImageError, match="multiples of 64"):
                fit_picture(image, conventions, ModelConfig())
            continue
        fitted = fit_picture(image, conventions, ModelConfig(image_size=case["max_dim"] or 512))
        assert list(fitted.pixels.shape) == case["out_shape"], case
        assert xy(np.array(fitted.window)).tolist() == case["window"], case


@pytest.mark.shared
def test_functions_match_matterport(folder):
    """Compare resizing, anchors, crop_and_resize, pyramid pooling and unmolding with functions.npz."""
    expected = np.load(folder / "functions.npz")
    for k in range(4):
        source, theirs = expected[f"resize_in_{k}"], expected[f"resize_out_{k}"]
        rows, columns = (np.flatnonzero(theirs.any((1, 2))), np.flatnonzero(theirs.any((0, 2))))
        hw = (int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1)
        crop = theirs[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        if hw != source.shape[:2]:
            assert np.array_equal(resize_fading(source, hw), crop)
    for size in ((1024, 1024), (832, 1024), (320, 448)):
        config = ModelConfig(anchor_sizes=(32, 64, 128, 256, 512), anchor_ratios=(2.0, 1.0, 0.5))
        maps_hw = tuple((size[0] // s, size[1] // s) for s in (4, 8, 16, 32, 64))
        grid = Anchors(config, MATTERPORT)(maps_hw, size)[::997]
        assert np.abs(grid - xy(expected[f"anchors_{size[0]}x{size[1]}_norm_every997"])).max() < 1e-6
    image_map = torch.from_numpy(expected["car_map"])
    boxes, index = torch.from_numpy(xy(expected["car_boxes"])), torch.from_numpy(expected["car_idx"]).long()
    for size in (7, 14):
        ours = pool([image_map], boxes, index, size, (4,), MATTERPORT)
        assert np.abs(ours.numpy() - expected[f"car_{size}x{size}"]).max() < 1e-5
    maps = [torch.from_numpy(expected[f"pra_map_p{k}"]) for k in range(2, 6)]
    boxes = torch.from_numpy(xy(expected["pra_boxes"]))
    index = torch.arange(2).repeat_interleave(boxes.shape[1])
    ours = pool(maps, boxes.flatten(0, 1), index, 7, (4, 8, 16, 32), MATTERPORT)
    theirs = expected["pra_out"].reshape(-1, 7, 7, 4)
    assert np.abs(ours.numpy() - theirs).max() < 1e-5
    shape = tuple(expected["unmold_shape"])
    masks = np.unpackbits(expected["unmold_out"])[: np.prod(shape)].reshape(shape).astype(bool)
    hw = shape[1:] if shape[0] == len(expected["unmold_in"]) else shape[:2]
    masks = masks if hw == shape[1:] else np.moveaxis(masks, -1, 0)
    pasted = paste_masks(expected["unmold_in"], xy(expected["unmold_boxes"]), hw, MATTERPORT)
    assert np.mean([rle.to_mask() != mask for rle, mask in zip(pasted, masks, strict=True)]) < 1e-4
