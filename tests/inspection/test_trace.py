"""A trace shows the stages of the prediction itself, and leads from a detection back to its anchor."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import maskrcnn
from lively import predictor
from maskrcnn.detection import select as select_module
from maskrcnn.detection.boxes import decode_boxes, iou, suppress
from maskrcnn.detection.conventions import DETECTRON2, MATTERPORT, NATIVE, TORCHVISION
from maskrcnn.detection.fit import stack
from maskrcnn.inspection.inspect_truth import truth_section
from maskrcnn.inspection.suppression import explain_suppression
from maskrcnn.inspection.trace import CUT, KEPT, SUPPRESSED, TOO_SMALL
from maskrcnn.inspection.tracer import true_objects

VARIANTS = {
    "native": (NATIVE, {}),
    "native, small limits": (NATIVE.changed(smallest_proposal=12.0), {"proposals": 7}),
    "torchvision": (TORCHVISION, {"norm": "batch", "box_convs": 2, "box_layers": 1, "rpn_convs": 2}),
    "detectron2": (DETECTRON2, {}),
    "matterport": (MATTERPORT, {"mask_deconv_channels": 24}),
    "single map": (NATIVE, {"pyramid": "single"}),
}
EVERY_VARIANT = pytest.mark.parametrize("variant", VARIANTS)


def traced(variant, rng, hw=(100, 128), **predict):
    conventions, changes = VARIANTS[variant]
    model = predictor(conventions, **changes).changed(nms_threshold=0.2, **predict)
    image = rng.integers(0, 256, (*hw, 3), np.uint8)
    return model, image, model.trace(image)


@EVERY_VARIANT
@pytest.mark.parametrize("settings", [{}, {"box_voting": True}, {"mask_scoring": True}])
def test_detections_are_those_of_predict(variant, settings, rng):
    model, image, trace = traced(variant, rng, **settings)
    found = model.predict(image)
    assert len(found) > 0
    for name in ("boxes", "scores", "class_ids"):
        assert np.array_equal(getattr(trace.detections, name), getattr(found, name))
    assert [rle.to_coco() for rle in trace.detections.rles] == [rle.to_coco() for rle in found.rles]
    assert np.array_equal(trace.picture, found.pixels)


@EVERY_VARIANT
def test_maps_and_rpn_are_those_of_the_network(variant, rng):
    model, image, trace = traced(variant, rng)
    fitted = model.prepare(image).fitted
    pixels, _ = stack([fitted.pixels])
    with torch.no_grad():
        images = model.model.normalize(torch.from_numpy(pixels), torch.tensor([fitted.window]))
        images = images.contiguous() if model.conventions.planar else images
        backbone_maps = model.model.backbone(images)
        features, rpn = model.model(images)
    assert np.array_equal(trace.network_input, pixels)
    assert tuple(trace.window) == fitted.window
    for ours, theirs in ((trace.backbone_maps, backbone_maps), (trace.pyramid_maps, features)):
        assert len(ours) == len(theirs)
        assert all(np.array_equal(a, b.permute(0, 2, 3, 1).numpy()) for a, b in zip(ours, theirs, strict=True))
    for level in range(len(features)):
        assert np.allclose(trace.rpn_class_probabilities[level], rpn.class_probabilities(level).numpy(), atol=1e-6)
        assert trace.rpn_class_probabilities[level].shape == tuple(rpn.class_probabilities(level).shape)
        assert np.array_equal(trace.rpn_deltas[level], rpn.box_deltas(level).numpy())
        k = rpn.box_deltas(level).shape[-1] // 4
        assert trace.anchors[level].shape == (features[level].shape[2] * features[level].shape[3] * k, 4)


@EVERY_VARIANT
@pytest.mark.parametrize("voting", [False, True])
def test_a_detection_leads_back_to_its_anchor(variant, voting, rng, monkeypatch):
    monkeypatch.setattr(select_module, "VOTING_IOU", 0.3)  # a random network has no candidates that overlap by 0.8
    monkeypatch.setattr("maskrcnn.inspection.tracer.VOTING_IOU", 0.3)
    model, _, trace = traced(variant, rng, box_voting=voting)
    candidates, proposals, classified = trace.candidates, trace.proposals, trace.class_candidates
    assert len(trace.detections) > 0
    n_voters = 0
    for d in range(len(trace.detections)):
        origin = trace.origin(d)
        k = trace.rpn_deltas[origin.level].shape[-1] // 4
        cell = origin.level, 0, origin.row, origin.column
        probabilities = trace.rpn_class_probabilities[origin.level][0, origin.row, origin.column].reshape(k, 2)
        background, foreground = probabilities[origin.cell_anchor]
        assert background + foreground == pytest.approx(1, abs=1e-5)
        assert candidates.objectness[origin.candidate] == pytest.approx(foreground, rel=1e-5)
        assert proposals.objectness[origin.proposal] == candidates.objectness[origin.candidate]
        assert np.array_equal(proposals.boxes[origin.proposal], candidates.boxes[origin.candidate])
        if model.conventions.name != "matterport":  # which decodes in other units
            deltas = trace.rpn_deltas[cell[0]][cell[1:]].reshape(k, 4)[origin.cell_anchor]
            box = decode_boxes(deltas[None], origin.anchor_box[None], (1.0,) * 4, 4.0)[0]
            x1, y1, x2, y2 = trace.window
            assert np.allclose(np.clip(box, [x1, y1, x1, y1], [x2, y2, x2, y2]), origin.proposal_box, atol=1e-3)
        label = classified.labels[origin.class_candidate]
        assert model.class_ids[label - 1] == trace.detections.class_ids[d]
        assert classified.scores[origin.class_candidate] == trace.detections.scores[d]
        assert proposals.class_probabilities[origin.proposal, label] == trace.detections.scores[d]
        refined = proposals.refined_boxes[origin.proposal, label]
        assert np.allclose(refined, classified.boxes[origin.class_candidate], atol=1e-4)
        votes = trace.masks.voters[origin.mask]
        mean = np.average(classified.boxes[votes].astype(float), axis=0, weights=classified.scores[votes])
        assert origin.class_candidate in votes
        assert np.allclose(mean, origin.box, atol=1e-3)
        n_voters += len(votes)
    assert voting or n_voters == len(trace.detections)
    assert trace.candidates.fate[proposals.candidate].tolist() == [KEPT] * len(proposals.boxes)
    assert (candidates.fate == KEPT).sum() == len(proposals.boxes)
    assert classified.fate[trace.masks.class_candidate].tolist() == [KEPT] * len(trace.masks.boxes)
    assert (classified.fate == KEPT).sum() == len(trace.masks.boxes)


def test_fates_say_why_a_candidate_is_no_proposal(rng):
    _, _, trace = traced("native, small limits", rng)
    boxes, candidates = trace.candidates.boxes, trace.candidates
    small = (np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])) <= 12
    assert ((candidates.fate == TOO_SMALL) == small).all()
    assert {TOO_SMALL, CUT, KEPT} <= set(candidates.fate)
    for fates, rows_by, overlaps, groups, threshold, values in (
        (candidates.fate, candidates.suppressed_by, candidates.suppressed_iou, candidates.level, 0.7, boxes),
        (
            trace.class_candidates.fate,
            trace.class_candidates.suppressed_by,
            trace.class_candidates.suppressed_iou,
            trace.class_candidates.labels,
            0.2,
            trace.class_candidates.boxes,
        ),
    ):
        assert ((rows_by >= 0) == (fates == SUPPRESSED)).all()
        for row in np.flatnonzero(rows_by >= 0):
            winner = rows_by[row]
            assert fates[winner] == KEPT
            assert groups[winner] == groups[row]
            assert iou(values[[row]], values[[winner]])[0, 0] == pytest.approx(overlaps[row], abs=1e-6)
            assert overlaps[row] > threshold


def test_sampling_points_average_to_the_pooled_cell(rng):
    """Bilinear samples of the map at the points of a bin, averaged, are RoIAlign's output."""
    for variant in ("native", "detectron2"):
        _, _, trace = traced(variant, rng, hw=(128, 128))
        proposal = int(np.flatnonzero(trace.proposals.pooled_level == 0)[0])
        x, y = trace.sampling_points(proposal)
        feature = trace.pyramid_maps[0][0]
        limit = np.array(feature.shape[:2]) - 1
        per_bin = len(x) // 7
        for by, bx in ((0, 0), (3, 5), (6, 6)):
            total = np.zeros(feature.shape[-1])
            for py in y[by * per_bin : (by + 1) * per_bin] / 4 - 0.5:
                for px in x[bx * per_bin : (bx + 1) * per_bin] / 4 - 0.5:
                    cy, cx = np.clip([py, px], 0, limit)
                    top, left = int(cy), int(cx)
                    bottom, right = min(top + 1, limit[0]), min(left + 1, limit[1])
                    fy, fx = cy - top, cx - left
                    total += (1 - fy) * ((1 - fx) * feature[top, left] + fx * feature[top, right])
                    total += fy * ((1 - fx) * feature[bottom, left] + fx * feature[bottom, right])
            assert np.allclose(total / per_bin**2, trace.proposals.pooled[proposal, by, bx], atol=1e-3)


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_a_bundle_traces_all_but_the_backbone(runtime, tmp_path, rng):
    model = predictor()
    maskrcnn.export(model, tmp_path / "bundle", runtime=runtime)
    bundle = maskrcnn.load(tmp_path / "bundle")
    image = rng.integers(0, 256, (128, 128, 3), np.uint8)
    trace, ours, found = bundle.trace(image), model.trace(image), bundle.predict(image)
    assert np.array_equal(trace.detections.boxes, found.boxes)
    assert [r.to_coco() for r in trace.detections.rles] == [r.to_coco() for r in found.rles]
    assert trace.backbone_maps == ()
    assert [m.shape for m in trace.pyramid_maps] == [m.shape for m in ours.pyramid_maps]
    for a, b in zip(trace.pyramid_maps, ours.pyramid_maps, strict=True):
        assert np.abs(a - b).max() < 1e-3
    assert trace.origin(0).level == ours.origin(0).level


def test_later_predictions_leave_a_trace_alone(rng):
    """Runtimes reuse the memory of their outputs."""
    model, image, trace = traced("native", rng)
    pooled, maps = trace.proposals.pooled.copy(), trace.pyramid_maps[0].copy()
    model.predict(255 - image)
    assert np.array_equal(trace.proposals.pooled, pooled)
    assert np.array_equal(trace.pyramid_maps[0], maps)


def test_a_picture_without_detections_has_a_trace(rng):
    _, _, trace = traced("native", rng, score_threshold=1.0)
    assert len(trace.detections) == len(trace.masks.boxes) == len(trace.class_candidates.boxes) == 0
    assert trace.masks.logits.shape == (0, 28, 28)
    assert trace.candidates.fate.tolist().count(KEPT) == len(trace.proposals.boxes) > 0


def test_summary_describes_every_array(rng):
    _, _, trace = traced("native", rng)
    lines = repr(trace).splitlines()
    assert lines == trace.summary().splitlines()
    assert lines[0].split() == ["stage", "shape", "unit", "meaning"]
    for name in ("network_input", "backbone_maps", "candidates.fate", "proposals.pooled", "masks.logits", "detections"):
        (line,) = (text for text in lines if text.split()[0] == name)
        assert line.endswith(".")


@st.composite
def random_scenes(draw):
    n = draw(st.integers(0, 25))
    low = draw(arrays(np.float32, (n, 2), elements=st.integers(0, 10).map(np.float32)))
    wh = draw(arrays(np.float32, (n, 2), elements=st.integers(1, 6).map(np.float32)))
    scores = draw(arrays(np.float32, n, elements=st.integers(0, 20).map(lambda v: np.float32(v / 20))))
    groups = draw(arrays(np.int64, n, elements=st.integers(0, 2)))
    threshold = draw(st.sampled_from([0.0, 0.2, 0.5, 0.7]))
    return np.concatenate([low, low + wh], 1), scores, groups, threshold, draw(st.integers(1, 30)), draw(st.booleans())


@settings(max_examples=200, deadline=None)
@given(random_scenes())
def test_suppression_records_follow_the_definition(scene):
    """Greedy suppression in plain Python, which writes down who suppressed whom."""
    boxes, scores, groups, threshold, limit, shifted = scene
    kept = suppress(boxes, scores, groups, np.zeros(len(boxes), np.int64), 1, threshold, limit, shifted)
    result = explain_suppression(boxes, groups, kept, threshold, shifted)
    expected_kept, by = [], np.full(len(boxes), -1)
    for row in np.argsort(-scores, kind="stable"):
        for winner in expected_kept:
            if groups[winner] == groups[row]:
                low = np.maximum(boxes[row, :2], boxes[winner, :2])
                shared = np.prod(np.maximum(np.minimum(boxes[row, 2:], boxes[winner, 2:]) - low, 0))
                union = np.prod(boxes[row, 2:] - boxes[row, :2]) + np.prod(boxes[winner, 2:] - boxes[winner, :2])
                if shared > 0 and np.float32(shared / (union - shared)) > np.float32(threshold):
                    by[row] = winner
                    assert result.iou[row] == pytest.approx(shared / (union - shared), abs=1e-6)
                    break
        else:
            if len(expected_kept) < limit:
                expected_kept.append(int(row))
    assert kept.tolist() == expected_kept
    assert result.by.tolist() == by.tolist()
    assert np.flatnonzero(result.kept).tolist() == sorted(expected_kept)
    assert result.cut.sum() == len(boxes) - len(expected_kept) - (by >= 0).sum()
    if len(expected_kept) < limit:
        assert not result.cut.any()


def test_objects_of_unknown_classes_are_counted(shapes):
    """They have no label of the model, so they are left out of the truth."""
    names = ["comet" if name == "star" else name for name in shapes.class_names]
    data = dataclasses.replace(shapes, class_names=names, class_ids=names)
    model = predictor()
    n_comets = [int((data.labels[data.instances(k)] == names.index("comet") + 1).sum()) for k in range(len(data))]
    i = int(np.argmax(n_comets))
    truth = true_objects(model, (data, i), data.hw(i))
    assert truth.n_unknown == n_comets[i] > 0
    assert len(truth.masks) + truth.n_unknown == len(data.rles(i))
    traced = dataclasses.replace(model.trace(data.files[i]), truth=truth)
    explanations = [traced.explain(k) for k in range(len(truth.masks))]
    assert f"does not know their class: {truth.n_unknown}." in truth_section(traced, explanations).content
