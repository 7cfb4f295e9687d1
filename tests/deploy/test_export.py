"""Bundles agree with the model and need no torch; an int8 export that costs too much AP is refused."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import maskrcnn
from lively import predictor
from maskrcnn import UserError
from maskrcnn.deploy import export as export_module
from maskrcnn.deploy.quantize import unquantized_layers
from maskrcnn.detection.conventions import MATTERPORT, NATIVE, TORCHVISION
from maskrcnn.reading import Reading

VARIANTS = {
    "native": (NATIVE, {}),
    "torchvision v2": (TORCHVISION, {"norm": "batch", "box_convs": 2, "box_layers": 1, "rpn_convs": 2}),
    "matterport": (MATTERPORT, {"mask_deconv_channels": 24}),
    "single map": (NATIVE, {"pyramid": "single", "norm": "batch"}),
}


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_bundle_agrees_with_the_model(variant, runtime, tmp_path, rng):
    conventions, changes = VARIANTS[variant]
    model = predictor(conventions, **changes)
    model.reading = Reading(white=4095, exif="ignore")
    maskrcnn.export(model, tmp_path / "bundle", runtime=runtime)
    bundle = maskrcnn.load(tmp_path / "bundle")
    assert bundle.class_names == model.class_names
    assert bundle.conventions == model.conventions
    assert bundle.reading == model.reading
    counts = []
    for hw in ((128, 128), (70, 128), (128, 33), (200, 150)):
        image = rng.integers(0, 256, (*hw, 3), np.uint8)
        ours, theirs = bundle.predict(image), model.predict(image)
        assert len(ours) == len(theirs)
        assert np.array_equal(ours.class_ids, theirs.class_ids)
        assert np.abs(ours.boxes - theirs.boxes).max(initial=0) < 0.05
        assert np.abs(ours.scores - theirs.scores).max(initial=0) < 1e-4
        assert [a.area for a in ours.rles] == pytest.approx([b.area for b in theirs.rles], abs=2)
        counts.append(len(ours))
    assert max(counts) > 5
    images = [rng.integers(0, 256, (128, 128, 3), np.uint8) for _ in range(6)]
    serial = [bundle.predict(image).boxes for image in images]
    with ThreadPoolExecutor(3) as pool:
        threaded = [detections.boxes for detections in pool.map(bundle.predict, images)]
    batched = [detections.boxes for detections in bundle.predict_many(images, batch_size=3)]
    for boxes, threaded_boxes, batched_boxes in zip(serial, threaded, batched, strict=True):
        assert np.array_equal(boxes, threaded_boxes)
        # detections whose scores differ by 1e-5 may swap
        assert np.abs(boxes[:, None] - batched_boxes).max(2).min(1).max(initial=0) < 0.05
    empty = bundle.changed(score_threshold=1.0).predict(image)
    assert len(empty) == 0


@pytest.mark.parametrize("box_convs", [0, 1])
def test_no_proposals_give_no_detections(box_convs, tmp_path, rng):
    model = predictor(box_convs=box_convs)
    model.runtime.detector.conventions = NATIVE.changed(smallest_proposal=1e4)
    maskrcnn.export(model, tmp_path / "bundle")
    for tested in (model, maskrcnn.load(tmp_path / "bundle")):
        assert len(tested.predict(rng.integers(0, 256, (128, 128, 3), np.uint8))) == 0


NO_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "timm", "nncf", "h5py", "polars"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
from maskrcnn.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_bundle_predicts_without_torch(runtime, shapes, shapes_csv, tmp_path):
    model = predictor()
    maskrcnn.export(model, tmp_path / "bundle", runtime=runtime)
    picture = str(shapes.files[0])
    command = ["predict", picture, "--model", str(tmp_path / "bundle"), "--out", str(tmp_path / "found"), "--json"]
    done = subprocess.run([sys.executable, "-c", NO_TORCH, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "found" / "submission.csv").read_text().splitlines()
    assert len(rows) - 1 >= 1
    command = ["predict", picture, "--model", str(tmp_path / "nowhere.safetensors")]
    (tmp_path / "nowhere.safetensors").write_bytes(b"")
    done = subprocess.run([sys.executable, "-c", NO_TORCH, *command], capture_output=True, text=True)
    assert done.returncode == 1
    assert "torch is not installed: pip install" in done.stderr


def quantised_convolutions(bundle: Path, runtime: str) -> list[bool]:
    """Return whether each convolution of the trunk has quantised weights, in order from the input."""
    if runtime == "openvino":
        import openvino as ov

        operations = ov.Core().read_model(bundle / "trunk.xml").get_ordered_ops()
        convolutions = [operation for operation in operations if operation.get_type_name() == "Convolution"]
        return [c.input_value(1).get_node().get_type_name() != "Constant" for c in convolutions]
    import onnx

    nodes = onnx.load(bundle / "trunk.onnx").graph.node
    producers = {output: node.op_type for node in nodes for output in node.output}
    return [producers.get(node.input[1]) == "DequantizeLinear" for node in nodes if node.op_type == "Conv"]


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_int8_is_calibrated_and_measured_on_different_images(runtime, shapes, tmp_path, monkeypatch):
    evaluate, inputs, measured, calibrated, messages = export_module.evaluate, export_module._inputs, [], [], []

    def recorded_evaluate(model, data, say):
        measured.append((model, data.names, evaluate(model, data, say=say)))
        return measured[-1][2]

    def recorded_inputs(model, data):
        calibrated.extend(data.names)
        return inputs(model, data)

    monkeypatch.setattr(export_module, "evaluate", recorded_evaluate)
    monkeypatch.setattr(export_module, "_inputs", recorded_inputs)
    settings = {"runtime": runtime, "precision": "int8", "calibrate": shapes, "max_loss": 100}
    scores = maskrcnn.export(predictor(), tmp_path / "small", **settings, say=messages.append)
    (fp32, names, fp32_scores), (int8, int8_names, int8_scores) = measured
    assert names == int8_names
    assert sorted(names + calibrated) == sorted(shapes.names)
    ap = {
        name: {f"{kind} AP": 100 * result[kind]["AP"] for kind in ("box", "mask")}
        for name, result in (("fp32", fp32_scores), ("int8", int8_scores))
    }
    assert scores == {"images": len(names), **ap}
    for name in ap:
        expected = f"{name}: box AP {ap[name]['box AP']:.2f}, mask AP {ap[name]['mask AP']:.2f}"
        assert expected in messages
    description = json.loads((tmp_path / "small" / "model.json").read_text())
    assert description["precisions"] == ["int8"]
    assert description["scores"] == scores
    assert not (tmp_path / "small" / "convolutions.safetensors").exists()
    written, scored, unquantised = (
        model.predict(shapes.files[0]) for model in (maskrcnn.load(tmp_path / "small"), int8, fp32)
    )
    assert len(written) > 0
    assert np.array_equal(written.scores, scored.scores)
    assert not np.array_equal(written.scores[:5], unquantised.scores[:5])
    quantised = quantised_convolutions(tmp_path / "small", runtime)
    assert not quantised[0], "the stem stays in fp32"
    assert any(quantised)
    maskrcnn.export(predictor(), tmp_path / "large", runtime=runtime)
    sizes = [
        sum(f.stat().st_size for f in (tmp_path / name).iterdir() if f.suffix in (".bin", ".onnx"))
        for name in ("small", "large")
    ]
    assert sizes[0] < 0.7 * sizes[1]


@pytest.mark.parametrize("worse", ["box", "mask"])
def test_int8_bundle_is_written_only_if_its_ap_holds(worse, shapes, tmp_path, monkeypatch):
    """Both kinds of AP count."""
    fp32 = {"box": {"AP": 0.5}, "mask": {"AP": 0.5}}
    settings = {"runtime": "onnx", "precision": "int8", "calibrate": shapes}
    for lost, is_written in ((0.031, False), (0.029, True)):
        scores = iter([fp32, {**fp32, worse: {"AP": 0.5 - lost}}])
        monkeypatch.setattr(export_module, "evaluate", lambda *_, scores=scores, say: next(scores))
        if is_written:
            maskrcnn.export(predictor(), tmp_path / "bundle", **settings, max_loss=3)
        else:
            with pytest.raises(UserError, match=r"int8 costs 3\.10 points .* more than 3; nothing was written"):
                maskrcnn.export(predictor(), tmp_path / "bundle", **settings, max_loss=3)
        assert (tmp_path / "bundle").exists() == is_written


@pytest.mark.parametrize(("groups", "n_unquantised"), [(1, 1), (8, 12)])
def test_first_depthwise_blocks_are_not_quantised(groups, n_unquantised):
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(f"v{k}", TensorProto.FLOAT, None) for k in range(21)]
    convolutions = [
        helper.make_node("Conv", [f"v{k}", f"w{k}"], [f"v{k + 1}"], name=f"conv{k}", group=groups if k % 3 == 1 else 1)
        for k in range(20)
    ]
    graph = helper.make_model(helper.make_graph(convolutions, "trunk", values[:1], values[-2:]))
    names = set(unquantized_layers("trunk", graph))
    assert names - {"conv18", "conv19"} == {f"conv{k}" for k in range(n_unquantised)}


def test_invalid_exports_and_damaged_bundles_are_refused(tmp_path, shapes):
    with pytest.raises(UserError, match="needs images with masks to calibrate on"):
        maskrcnn.export(predictor(), tmp_path / "a", precision="int8")
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="exists"):
        maskrcnn.export(predictor(), tmp_path / "there")
    maskrcnn.export(predictor(), tmp_path / "b")
    with pytest.raises(UserError, match="can only predict"):
        maskrcnn.export(maskrcnn.load(tmp_path / "b"), tmp_path / "c")
    (tmp_path / "b" / "trunk.bin").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be opened"):
        maskrcnn.load(tmp_path / "b")
    maskrcnn.export(predictor(channels=8), tmp_path / "narrow")
    shutil.copy(tmp_path / "narrow" / "convolutions.safetensors", tmp_path / "b")
    with pytest.raises(UserError, match=r"convolutions\.safetensors cannot be used: .* 8 channels, but gets 16"):
        maskrcnn.load(tmp_path / "b")
    (tmp_path / "b" / "convolutions.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"convolutions\.safetensors cannot be used"):
        maskrcnn.load(tmp_path / "b")
    (tmp_path / "b" / "convolutions.safetensors").unlink()
    with pytest.raises(UserError, match=r"convolutions\.safetensors cannot be used"):
        maskrcnn.load(tmp_path / "b")
    (tmp_path / "b" / "model.json").write_text('{"format": "maskrcnn-bundle-9"}')
    with pytest.raises(UserError, match="has the format maskrcnn-bundle-9; this version reads"):
        maskrcnn.load(tmp_path / "b")
    (tmp_path / "b" / "model.json").write_text("{}")
    with pytest.raises(UserError, match="not the description of a bundle"):
        maskrcnn.load(tmp_path / "b")


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"damaged")])
def test_damaged_graphs_for_onnx_are_refused(damage, tmp_path):
    maskrcnn.export(predictor(), tmp_path / "b", runtime="onnx")
    damage(tmp_path / "b" / "trunk.onnx")
    with pytest.raises(UserError, match="cannot be opened"):
        maskrcnn.load(tmp_path / "b")


def test_torchvisions_layout_is_not_calibrated(tmp_path, shapes):
    with pytest.raises(UserError, match="leave out --calibrate"):
        maskrcnn.export(predictor(TORCHVISION), tmp_path / "a.pth", runtime="torchvision", calibrate=shapes)


def test_bundle_of_a_model_that_does_not_resize_opens(tmp_path, rng):
    """It takes pictures of multiples of 64 alone; its ``image_size`` may be none."""
    model = predictor(MATTERPORT.changed(resize="none"), image_size=100)
    maskrcnn.export(model, tmp_path / "b")
    picture = rng.integers(0, 256, (64, 128, 3), np.uint8)
    assert len(maskrcnn.load(tmp_path / "b").predict(picture)) == len(model.predict(picture)) > 0
