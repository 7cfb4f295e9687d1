"""One bundle for every machine: what it stores, what each precision of it gives, and which one `load` takes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import maskrcnn
from lively import predictor
from maskrcnn import RLE, UserError, iou_matrix
from maskrcnn.cli import main
from maskrcnn.deploy import export as export_module
from maskrcnn.deploy.convert import to_openvino
from maskrcnn.deploy.graphs import graphs_of
from maskrcnn.detection.conventions import MATTERPORT, NATIVE, TORCHVISION
from maskrcnn.inference import precision as precision_module
from maskrcnn.inference.runtimes import ExportedRuntime
from maskrcnn.inference.runtimes import openvino as openvino_runtime
from maskrcnn.inference.runtimes import torch as torch_runtime
from maskrcnn.kernels.formats import to_float32
from maskrcnn.winograd.completed import completed

VARIANTS = {
    "native": (NATIVE, {}),
    "torchvision v2": (TORCHVISION, {"norm": "batch", "box_convs": 2, "box_layers": 1, "rpn_convs": 2}),
    "matterport": (MATTERPORT, {"mask_deconv_channels": 24}),
    "single map": (NATIVE, {"pyramid": "single", "norm": "batch"}),
}


def size_of(folder: Path, suffix: str = "") -> int:
    return sum(file.stat().st_size for file in folder.rglob(f"*{suffix}") if file.is_file())


def weights_in(folder: Path) -> int:
    """Bytes of weights: everything but the graphs' texts, in which counters of operations differ."""
    return sum(size_of(folder, suffix) for suffix in (".bin", ".safetensors"))


@pytest.fixture(scope="module")
def bundles(shapes, tmp_path_factory) -> Path:
    """Bundles of one model: both, fp32 and int8 alone."""
    folder = tmp_path_factory.mktemp("precisions")
    model = predictor()
    for layer in model.model.pyramid.outputs:
        torch.nn.init.constant_(layer.bias, 0.1)  # without any, OpenVINO 2026.4 feeds zeros to the int8 RPN behind it
    maskrcnn.export(model, folder / "both", calibrate=shapes, max_loss=100)
    maskrcnn.export(model, folder / "fp32")
    maskrcnn.export(model, folder / "int8", precision="int8", calibrate=shapes, max_loss=100)
    return folder


def same(a, b) -> bool:
    return np.array_equal(a.boxes, b.boxes) and np.array_equal(a.scores, b.scores) and a.rles == b.rles


def test_one_bundle_holds_the_weights_of_both_once(bundles, shapes):
    assert weights_in(bundles / "both") == weights_in(bundles / "fp32") + weights_in(bundles / "int8")
    assert size_of(bundles / "both") < size_of(bundles / "fp32") + size_of(bundles / "int8")
    for name in ("fp32", "int8"):
        both, alone = maskrcnn.load(bundles / "both", precision=name), maskrcnn.load(bundles / name)
        assert both.runtime.precision == alone.runtime.precision == both.provenance["precision"] == name
        found = [model.predict(shapes.files[0]) for model in (both, alone)]
        assert same(*found)
        assert len(found[0]) > 5
    assert not same(*(maskrcnn.load(bundles / n).predict(shapes.files[0]) for n in ("fp32", "int8")))


@pytest.mark.parametrize("faster", ["fp32", "int8"])
def test_opening_takes_what_this_machine_runs_faster(faster, bundles, monkeypatch, tmp_path, capsys, shapes):
    monkeypatch.setenv("MASKRCNN_CACHE", str(tmp_path))
    monkeypatch.setattr(precision_module, "measure", lambda opened: {n: 1.0 + (n != faster) for n in opened})
    said = []
    model = maskrcnn.load(bundles / "both", say=said.append)
    assert model.runtime.precision == faster
    assert [line.partition(":")[0] for line in said] == [faster]
    assert same(model.predict(shapes.files[0]), maskrcnn.load(bundles / faster).predict(shapes.files[0]))
    monkeypatch.delattr(precision_module, "measure")  # the time is known now
    with pytest.raises(SystemExit):
        main(["benchmark", str(bundles / "both"), "--rounds", "1", "--json"])
    printed = capsys.readouterr()
    assert json.loads(printed.out)["precision"] == faster
    assert said[0] in printed.err


def test_every_precision_of_the_machine_is_measured_on_other_images(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(openvino_runtime, "half_precisions", lambda: ["bf16"])
    measured, calibrated = [], []
    evaluate, inputs = export_module.evaluate, export_module._inputs

    def recorded_evaluate(model, data, say):
        measured.append((model.runtime.precision, data.names))
        return evaluate(model, data, say=say)

    def recorded_inputs(model, data):
        calibrated.extend(data.names)
        return inputs(model, data)

    monkeypatch.setattr(export_module, "evaluate", recorded_evaluate)
    monkeypatch.setattr(export_module, "_inputs", recorded_inputs)
    scores = maskrcnn.export(predictor(), tmp_path / "both", calibrate=shapes, max_loss=50)
    assert [name for name, _ in measured] == ["fp32", "bf16", "int8"]
    assert set(scores) == {"images", "fp32", "bf16", "int8"}
    for _, names in measured:
        assert len(names) == scores["images"] > 0
        assert not set(names) & set(calibrated)
    description = json.loads((tmp_path / "both" / "model.json").read_text())
    assert description["scores"] == scores
    assert description["max_loss"] == 50
    measured.clear()
    scores = maskrcnn.export(predictor(), tmp_path / "fp32", precision="fp32", calibrate=shapes)
    assert set(scores) == {"images", "fp32", "bf16"}
    assert not (tmp_path / "fp32" / "int8").exists()


@pytest.mark.parametrize("variant", VARIANTS)
def test_completed_graphs_are_the_network(variant, tmp_path, rng):
    """The graphs of a bundle with its convolutions inside, in fp32, against the bundle with the convolutions beside."""
    conventions, changes = VARIANTS[variant]
    model = predictor(conventions, **changes)
    maskrcnn.export(model, tmp_path / "bundle")
    config, mean = model.config.model, tuple(model.model.pixel_mean.tolist())
    parts = openvino_runtime.read_graphs(tmp_path / "bundle")
    graphs = completed(parts, tmp_path / "bundle" / "convolutions.safetensors", config.channels)
    networks = [
        ExportedRuntime("openvino", g, config, model.conventions, mean).network()
        for g in (graphs, to_openvino(graphs_of(model.model)))
    ]
    pixels = rng.integers(0, 256, (2, 96, 160, 3), np.uint8)
    windows = np.array([[0, 0, 160, 96], [0, 0, 130, 80]])
    trunks = [network.trunk(pixels, windows) for network in networks]
    for name in ("objectness", "deltas"):
        ours, theirs = (getattr(trunk, name) for trunk in trunks)
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() < 1e-4 * max(np.abs(theirs).max(), 1)
    for ours, theirs in zip(trunks[0].maps, trunks[1].maps, strict=True):
        assert np.abs(ours - theirs).max() < 1e-4 * max(np.abs(theirs).max(), 1)
    cells = config.mask_size // 2
    regions = rng.normal(size=(5, 7, 7, config.channels)).astype(np.float32)
    objects = rng.normal(size=(3, cells, cells, config.channels)).astype(np.float32)
    for calls in (lambda n: n.box_head(regions), lambda n: [n.mask_head(objects, np.array([1, 2, 4]))]):
        for ours, theirs in zip(*map(calls, networks), strict=True):
            assert ours.shape == theirs.shape
            assert np.abs(ours - theirs).max() < 1e-4 * max(np.abs(theirs).max(), 1)


def agreement(found, exact) -> tuple[float, float]:
    """Return the share of `exact` detections that `found` has with a mask IoU of 0.8, and their largest score change."""
    overlap = iou_matrix(exact.rles, found.rles)
    overlap[exact.class_ids[:, None] != found.class_ids[None]] = 0
    partner, paired = overlap.argmax(1), overlap.max(1) >= 0.8
    return float(paired.mean()), float(np.abs(exact.scores - found.scores[partner])[paired].max())


def nuclei(rng):
    """Return a picture of soft, bright discs on a dark, noisy background."""
    y, x = np.mgrid[:192, :192]
    image = np.full((192, 192), 12.0)
    for cy in range(30, 192, 45):
        for cx in range(30, 192, 45):
            radius = np.hypot(y - cy - rng.uniform(-6, 6), x - cx - rng.uniform(-6, 6))
            image += 90 / (1 + np.exp(radius - rng.uniform(8, 13)))
    return np.repeat(np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)[..., None], 3, 2)


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_bf16_finds_what_fp32_finds(runtime, tmp_path, monkeypatch, rng, record_property):
    """The trained model that ships, in bf16 against fp32, on three pictures of 16 nuclei.

    torch computes bf16 on any processor. OpenVINO does so with or without instructions for it, or else in f32; the
    property "computes in" of the test's report says which.
    """
    library = openvino_runtime if runtime == "openvino" else torch_runtime
    monkeypatch.setattr(library, "half_precisions", lambda *_: ["bf16"])
    place = "nuclei"
    if runtime == "openvino":
        place = tmp_path / "bundle"
        maskrcnn.export(maskrcnn.load("nuclei", device="cpu"), place)
    exact, half = (maskrcnn.load(place, device="cpu", precision=name) for name in ("fp32", "bf16"))
    assert half.runtime.precision == "bf16"
    computes_in = "bfloat16"
    if runtime == "openvino":
        trunk = half.runtime.exported.engine.compiled["trunk"]
        computes_in = trunk.get_property("INFERENCE_PRECISION_HINT").to_string()
    record_property("computes in", computes_in)
    for _ in range(3):
        picture = nuclei(rng)
        expected, found = exact.predict(picture), half.predict(picture)
        assert len(expected) == 16
        share, score = agreement(found, expected)
        assert share == 1
        assert score < 0.03
        assert computes_in in ("f32", "float32") or not same(expected, found)


def test_undefined_ap_is_no_known_cost(shapes, tmp_path, monkeypatch):
    """Images without objects say nothing about a precision."""
    monkeypatch.setattr(export_module, "evaluate", lambda *_, say: {kind: {"AP": None} for kind in ("box", "mask")})
    said = []
    scores = maskrcnn.export(predictor(), tmp_path / "bundle", runtime="onnx", calibrate=shapes, say=said.append)
    assert scores["int8"] == {"box AP": None, "mask AP": None}
    assert "int8: box AP undefined (no objects), mask AP undefined (no objects)" in said
    monkeypatch.setattr(precision_module, "measure", lambda _: {"fp32": 1.0, "int8": 0.1})
    assert maskrcnn.load(tmp_path / "bundle", say=pytest.fail).runtime.precision == "fp32"
    assert maskrcnn.load(tmp_path / "bundle", precision="int8").runtime.precision == "int8"


def test_stages_in_bf16_can_be_looked_at(monkeypatch, rng):
    """NumPy has no bf16."""
    monkeypatch.setattr(torch_runtime, "half_precisions", lambda _: ["bf16"])
    trace = maskrcnn.load("nuclei", device="cpu", precision="bf16").trace(nuclei(rng))
    assert len(trace.detections) == 16
    assert {maps.dtype for maps in trace.backbone_maps} == {np.dtype(np.float32)}


def test_regions_in_bf16_can_be_looked_at(bundles, monkeypatch, rng):
    """The heads of a bundle take the bits of bf16; a trace has their values."""
    monkeypatch.setattr(openvino_runtime, "half_precisions", lambda: ["bf16"])
    picture = rng.integers(0, 256, (128, 128, 3), np.uint8)
    exact, half = (maskrcnn.load(bundles / "fp32", precision=name).trace(picture) for name in ("fp32", "bf16"))
    for stage in ("proposals", "masks"):
        of_both = [getattr(trace, stage).pooled for trace in (exact, half)]
        assert [regions.dtype for regions in of_both] == [np.float32] * 2
        means = [float(np.abs(regions).mean()) for regions in of_both]
        assert means[1] == pytest.approx(means[0], rel=0.1)


@pytest.mark.parametrize("halves", [[], ["bf16"]])
def test_int8_heads_take_regions_as_they_quantise_them(bundles, monkeypatch, rng, halves):
    """Against the graphs as they are stored, which take float32 and quantise it."""
    monkeypatch.setattr(openvino_runtime, "half_precisions", lambda: halves)
    model = maskrcnn.load(bundles / "int8")
    network = model.runtime.network()
    cells, channels = model.config.model.mask_size // 2, model.config.model.channels
    stored = openvino_runtime.start_compiling(openvino_runtime.read_graphs(bundles / "int8"), "f32").result()
    for name, shape, labels in (("box_head", (9, 7, 7), []), ("mask_head", (9, cells, cells), [np.ones(9, np.int64)])):
        regions = network.region_formats[name]
        spread = 128 * regions.step
        values = rng.normal(regions.low + spread, spread / 2, (*shape, channels)).astype(np.float32)
        head = network.mask_head if labels else lambda pooled: network.box_head(pooled)[0]
        found = head(regions.encode(values), *labels)
        flat = values.reshape(9, -1) if name == "box_head" else values
        expected = stored[name]([flat, *labels])[0]
        assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()
        assert len(head(regions.encode(values[:0]), *[n[:0] for n in labels])) == 0


def test_heads_in_bf16_take_no_regions(bundles, monkeypatch):
    monkeypatch.setattr(openvino_runtime, "half_precisions", lambda: ["bf16"])
    model = maskrcnn.load(bundles / "fp32", precision="bf16")
    network, channels = model.runtime.network(), model.config.model.channels
    assert network.region_formats["box_head"].dtype == np.uint16
    class_logits, box_deltas = network.box_head(np.zeros((0, 7, 7, channels), np.uint16))
    assert class_logits.shape[0] == box_deltas.shape[0] == 0


@pytest.mark.parametrize(("found", "expected"), [(["bf16", "fp16"], "bf16"), (["fp16"], "f32"), ([], "f32")])
def test_what_int8_leaves_is_bf16_where_the_processor_has_it(monkeypatch, found, expected):
    monkeypatch.setattr(openvino_runtime, "half_precisions", lambda: found)
    assert openvino_runtime.float_format("int8") == expected
    assert openvino_runtime.float_format("fp32") == "f32"


def test_int8_finds_the_same_with_and_without_bf16(monkeypatch, rng):
    picture, found = nuclei(rng), []
    for halves in ([], ["bf16"]):
        monkeypatch.setattr(openvino_runtime, "half_precisions", lambda halves=halves: halves)
        model = maskrcnn.load("nuclei-int8")
        assert {regions.dtype for regions in model.runtime.network().region_formats.values()} == {np.uint8}
        found.append(model.predict(picture))
    assert len(found[0]) == len(found[1]) == 16
    share, score = agreement(found[1], found[0])
    assert share == 1
    assert score < 0.03


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_inputs_of_the_usual_size_have_a_trunk_of_their_own(bundles, monkeypatch, rng, precision):
    """Below fp32. A picture gives the same bits in a batch, and nearly those of the trunk for any size."""
    monkeypatch.setattr(openvino_runtime, "half_precisions", lambda: ["bf16"])
    engine = maskrcnn.load(bundles / "both", precision=precision).runtime.exported.engine
    used, infer = [], engine._infer
    monkeypatch.setattr(engine, "_infer", lambda name, inputs: used.append(name) or infer(name, inputs))
    pixels = rng.uniform(0, 255, (2, 128, 128, 3)).astype(np.float32)
    batch = [np.array(output) for output in engine.run("trunk", pixels)]
    singles = [[np.array(output) for output in engine.run("trunk", pixels[k : k + 1])] for k in range(2)]
    for output, *parts in zip(batch, *singles, strict=True):
        assert np.array_equal(output, np.concatenate(parts))
    engine.run("trunk", pixels[:, :96])
    assert batch[0].dtype == (np.float32 if precision == "fp32" else np.uint16)
    usual = openvino_runtime.USUAL_TRUNK
    assert used == (["trunk"] * 4 if precision == "fp32" else [usual] * 4 + ["trunk"])
    for of_both in zip(batch, infer("trunk", [pixels]), strict=True):
        output, general = (to_float32(o) if o.dtype == np.uint16 else o for o in of_both)
        assert np.abs(output - general).mean() < 0.02 * np.abs(general).mean()


def test_opening_graphs_leaves_them_as_they_were(bundles, monkeypatch):
    """An export measures graphs in several precisions before it writes them."""
    monkeypatch.setattr(openvino_runtime, "half_precisions", lambda: ["bf16"])
    graphs = openvino_runtime.read_graphs(bundles / "int8")
    openvino_runtime.Engine(graphs, "int8", (128, 128))
    assert set(graphs) == {"trunk", "box_head", "mask_head"}
    for name, graph in graphs.items():
        assert graph.input(0).get_element_type().to_string() == "f32", name
        assert graph.input(0).get_partial_shape()[0].is_dynamic, name


def test_precisions_that_are_not_there_are_named(bundles, tmp_path, monkeypatch):
    monkeypatch.setattr(openvino_runtime, "half_precisions", lambda: [])
    monkeypatch.setattr(torch_runtime, "half_precisions", lambda _: ["bf16"])
    cases = [
        (bundles / "fp32", "int8", r"fp32 cannot predict in int8 here: openvino runs it in fp32$"),
        (bundles / "int8", "fp32", r"int8 cannot predict in fp32 here: openvino runs it in int8$"),
        (bundles / "both", "bf16", r"both cannot predict in bf16 here: openvino runs it in fp32 or int8$"),
        ("nuclei", "fp16", r"nuclei.safetensors cannot predict in fp16 here: torch runs it in fp32 or bf16$"),
    ]
    maskrcnn.export(predictor(), tmp_path / "onnx", runtime="onnx")
    cases.append((tmp_path / "onnx", "bf16", r"onnx cannot predict in bf16 here: onnx runs it in fp32$"))
    for path, name, message in cases:
        with pytest.raises(UserError, match=message):
            maskrcnn.load(path, device="cpu", precision=name)
    from maskrcnn.checkpoints.load import save

    save(predictor(), tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"torch runs it in fp32 or bf16; int8 comes with a bundle"):
        maskrcnn.load(tmp_path / "model.safetensors", device="cpu", precision="int8")


def test_bundles_of_earlier_formats_give_what_they_gave(bundles, tmp_path, shapes, monkeypatch):
    """Their one precision, without a question of time, whatever their scores say."""
    monkeypatch.delattr(precision_module, "measure")
    for name in ("fp32", "int8"):
        for number in (2, 3)[name == "fp32" :]:  # the fp32 bundle is split, as in format 3
            old = tmp_path / f"{name}-{number}"
            shutil.copytree(bundles / name, old)
            values = json.loads((old / "model.json").read_text())
            del values["precisions"], values["max_loss"]
            scores = json.loads((bundles / "both" / "model.json").read_text())["scores"]
            values |= {"format": f"maskrcnn-bundle-{number}", "precision": name, "scores": scores}
            values["scores"] = {k: v for k, v in scores.items() if k in ("images", "fp32", "int8")}
            (old / "model.json").write_text(json.dumps(values))
            model = maskrcnn.load(old, say=pytest.fail)
            assert model.runtime.precision == name
            assert same(model.predict(shapes.files[1]), maskrcnn.load(bundles / name).predict(shapes.files[1]))


def test_the_shipped_model_is_what_it_was_and_int8_on_request():
    assert maskrcnn.load("nuclei", device="cpu").runtime.name == "torch"
    small = maskrcnn.load("nuclei", device="cpu", precision="int8")
    assert (small.runtime.name, small.runtime.precision) == ("openvino", "int8")
    picture = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    assert same(small.predict(picture), maskrcnn.load("nuclei-int8").predict(picture))


def test_command_line_takes_and_says_the_precision(bundles, shapes, tmp_path, capsys):
    command = ["predict", str(shapes.files[0]), "--model", str(bundles / "both"), "--out", str(tmp_path), "--json"]
    results = {}
    for name in ("fp32", "int8"):
        with pytest.raises(SystemExit) as exit_info:
            main([*command, "--overwrite", "--precision", name])
        assert not exit_info.value.code
        results[name] = json.loads(capsys.readouterr().out)["detections"]
        expected = maskrcnn.load(bundles / name).predict(shapes.files[0])
        assert [d["score"] for d in results[name]] == pytest.approx(expected.scores.tolist())
        assert [RLE.from_coco(d["segmentation"]) for d in results[name]] == expected.rles
    assert results["fp32"] != results["int8"]
    with pytest.raises(SystemExit) as exit_info:
        main([*command, "--overwrite", "--precision", "int4"])
    assert exit_info.value.code
    with pytest.raises(SystemExit) as exit_info:
        main(["evaluate", "x.csv", "--model", str(bundles / "int8"), "--precision", "fp32"])
    assert exit_info.value.code == 1
    assert "cannot predict in fp32 here" in capsys.readouterr().err
