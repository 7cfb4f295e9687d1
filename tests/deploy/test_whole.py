"""The whole graph agrees with the model for every image size, batch size and number of detections."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import maskrcnn
from lively import predictor
from maskrcnn import Detections, UserError, iou_matrix
from maskrcnn.config import ModelConfig
from maskrcnn.deploy.convert import to_onnx, traced
from maskrcnn.deploy.dialect import Fit
from maskrcnn.deploy.graphs import graphs_of
from maskrcnn.deploy.whole import METADATA, whole_graph
from maskrcnn.detection import select
from maskrcnn.detection.conventions import DETECTRON2, MATTERPORT, NATIVE, TORCHVISION
from maskrcnn.detection.finish import paste_masks
from maskrcnn.detection.fit import fit_picture
from maskrcnn.inference.predictor import Predictor

VARIANTS = {
    "native": (NATIVE, {}),
    "torchvision v2": (TORCHVISION, {"norm": "batch", "box_convs": 1, "box_layers": 1, "rpn_convs": 2}),
    "detectron2": (DETECTRON2, {}),
    "single map": (NATIVE, {"pyramid": "single"}),
}
SIZES = [(1, 9), (9, 1), (4, 300), (300, 6), (31, 33), (32, 32), (128, 128), (256, 512), (600, 128)]
SIZES += map(tuple, np.random.default_rng(5).integers(12, 400, (41, 2)).tolist())


def session_of(graph) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])


def whole_session(model: Predictor) -> onnxruntime.InferenceSession:
    return session_of(whole_graph(model, to_onnx(graphs_of(model.model)), {}))


def assert_same(outputs: list[np.ndarray], expected: Detections, model: Predictor) -> None:
    """Match one image's outputs with the model's detections, one to one; only equal scores may swap."""
    boxes, classes, scores, masks = outputs
    assert len(boxes) == len(expected)
    assert np.abs(scores - expected.scores).max(initial=0) < 1e-3
    if len(boxes) == 0:
        return
    distance = np.abs(boxes[:, None] - expected.boxes[None]).max(2)
    distance[np.array([model.class_ids[k] for k in classes])[:, None] != np.array(expected.class_ids)] = np.inf
    distance[np.abs(expected.scores[:, None] - expected.scores) > 1e-6] = np.inf
    matches = []
    for k in range(len(boxes)):
        matches.append(int(distance[k].argmin()))
        assert distance[k, matches[-1]] < 0.02
        distance[:, matches[-1]] = np.inf
    pasted = paste_masks(masks, boxes, expected.hw, model.conventions)
    for ours, k in zip(pasted, matches, strict=True):
        theirs = expected.rles[k]
        assert ours.area == theirs.area == 0 or iou_matrix([ours], [theirs])[0, 0] >= 0.99


@pytest.fixture(autouse=True)
def low_voting_iou(monkeypatch):
    """A random network has no candidates that overlap by 0.8."""
    monkeypatch.setattr(select, "VOTING_IOU", 0.3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_whole_graph_agrees_with_the_model(variant, rng):
    conventions, changes = VARIANTS[variant]
    model = predictor(conventions, **changes).changed(box_voting=variant == "native")
    session = whole_session(model)
    counts = []
    for hw in SIZES if variant == "native" else SIZES[4::4]:
        image = rng.integers(0, 256, (*hw, 3), np.uint8)
        expected = model.predict(image)
        boxes, classes, scores, index, masks = session.run(None, {"images": image[None]})
        assert not index.any()
        assert_same([boxes, classes, scores, masks], expected, model)
        counts.append(len(expected))
    assert max(counts) > 10


@pytest.mark.parametrize("scoring_and_voting", [False, True])
def test_batches_with_zero_one_and_many_detections(rng, scoring_and_voting):
    model = predictor().changed(mask_scoring=scoring_and_voting, box_voting=scoring_and_voting)
    images = rng.integers(0, 256, (3, 90, 150, 3), np.uint8)
    for settings, expected in (({"score_threshold": 1.0}, [0, 0, 0]), ({"detections": 1}, [1, 2, 3]), ({}, None)):
        limited = model.changed(**settings)
        session = whole_session(limited)
        counts = []
        for batch_size in (1, 2, 3):
            boxes, classes, scores, index, masks = session.run(None, {"images": images[:batch_size]})
            assert masks.shape == (len(boxes), 28, 28)
            assert np.all(np.diff(index) >= 0)
            for k, image in enumerate(images[:batch_size]):
                rows = index == k
                assert_same([boxes[rows], classes[rows], scores[rows], masks[rows]], limited.predict(image), limited)
            counts.append(len(boxes))
        assert counts == expected or (expected is None and 3 < counts[0] < counts[1] < counts[2])


@pytest.mark.parametrize(
    ("conventions", "min_scale"),
    [(NATIVE, 0), (NATIVE, 0.8), (NATIVE, 1), (TORCHVISION, 0), (DETECTRON2, 0)],
    ids=lambda value: getattr(value, "name", None),
)
def test_fit_in_the_graph_matches_fit_picture(conventions, min_scale, rng):
    conventions, config = conventions.changed(shorter_side=96), ModelConfig(image_size=128, min_scale=min_scale)
    graph = traced(
        Fit(conventions, config, torch.tensor([7.0, 8.0, 9.0])),
        {"images": torch.zeros(2, 90, 120, 3, dtype=torch.uint8)},
        {"images": 4},
    )
    session = session_of(graph)
    for hw in [*SIZES, (40, 2000), (3000, 1)]:
        image = rng.integers(0, 256, (*hw, 3), np.uint8)
        pixels, (h, w) = session.run(None, {"images": image[None]})
        expected = fit_picture(image, conventions, config).pixels
        assert (h, w) == expected.shape[:2]
        assert np.abs(pixels[0, :h, :w] - expected).max() <= (1e-4 if conventions.resize == "shorter" else 0)
        assert np.all(pixels[0, h:] == [7, 8, 9])
        assert np.all(pixels[0, :, w:] == [7, 8, 9])


def test_no_proposals_give_no_detections(rng):
    model = predictor()
    model.runtime.detector.conventions = NATIVE.changed(smallest_proposal=1e9)
    outputs = whole_session(model).run(None, {"images": rng.integers(0, 256, (2, 60, 80, 3), np.uint8)})
    assert [len(values) for values in outputs] == [0] * 5


def test_exported_graph_carries_the_bundles_description(tmp_path, rng):
    model = predictor()
    maskrcnn.export(model, tmp_path / "bundle", runtime="onnx", whole=True)
    path = tmp_path / "bundle" / "whole.onnx"
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    description = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
    assert description == json.loads((tmp_path / "bundle" / "model.json").read_text())
    assert description["class_names"] == model.class_names
    assert [value.name for value in session.get_outputs()] == ["boxes", "classes", "scores", "image", "masks"]
    image = rng.integers(0, 256, (50, 40, 3), np.uint8)
    assert len(maskrcnn.load(tmp_path / "bundle").predict(image)) == len(
        session.run(["boxes"], {"images": image[None]})[0]
    )


def test_documented_example_agrees_with_the_model(tmp_path, monkeypatch, rng):
    model = predictor()
    image = rng.integers(0, 256, (90, 150, 3), np.uint8)
    maskrcnn.export(model, tmp_path / "bundle", runtime="onnx", whole=True)
    Image.fromarray(image).save(tmp_path / "photo.png")
    text = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], namespace)
    expected = model.predict(image)
    assert namespace["names"] == expected.class_names
    assert len(expected) > 20
    assert np.mean(namespace["pasted"] != expected.masks) < 1e-5


def test_unsupported_exports_are_refused(tmp_path):
    with pytest.raises(UserError, match="--whole makes an ONNX graph; it needs --runtime onnx"):
        maskrcnn.export(predictor(), tmp_path / "a", whole=True)
    with pytest.raises(UserError, match="not the resizing and the box coordinates of matterport"):
        maskrcnn.export(predictor(MATTERPORT), tmp_path / "b", runtime="onnx", whole=True)
    assert list(tmp_path.iterdir()) == []
