"""A GPU gives what a CPU gives: steps, predictions, validation, resume, half precision, determinism, waits."""

import copy
import json
import signal
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import maskrcnn
from lively import predictor
from maskrcnn.checkpoints.native import read_model
from maskrcnn.config import Config, ModelConfig, TrainConfig
from maskrcnn.data.batch import Shard, make_batch
from maskrcnn.detection.conventions import DETECTRON2, MATTERPORT, NATIVE, TORCHVISION
from maskrcnn.detection.fit import stack
from maskrcnn.detection.pool import pool
from maskrcnn.detection.stages import Proposals
from maskrcnn.evaluation import find
from maskrcnn.inference.predictor import Predictor
from maskrcnn.inference.runtimes.torch import TorchRuntime
from maskrcnn.model.mask_rcnn import build_model
from maskrcnn.training import criterion
from maskrcnn.training.criterion import LOSSES, Criterion
from maskrcnn.training.distributed import World
from maskrcnn.training.learner import Learner, page_locked
from maskrcnn.training.loop import train
from maskrcnn.training.numerics import deterministic
from maskrcnn.training.targets import Truth

ALL = 10**5
"""More than there are anchors and regions: devices draw different samples, so both sides use all of them."""

CPU = torch.device("cpu")
TINY = Config(
    model=ModelConfig(
        backbone="test_resnet", weights="none", image_size=128, channels=16, box_channels=32, mask_channels=16,
        proposals=40, proposals_per_level=40,
    ),
    train=TrainConfig(
        epochs=2, epoch_images=6, batch_size=2, workers=2, optimizer="sgd", precision="fp32", rpn_batch=64, roi_batch=32
    ),
)  # fmt: skip
EVERYTHING = TINY.changed(
    train={"batch_size": 4, "rpn_batch": ALL, "roi_batch": ALL, "roi_positive_fraction": 1, "mask_batch": ALL}
)


def learner_on(device, config=TINY):
    torch.manual_seed(0)
    return Learner(build_model(config.model, 4).to(device), config.train, World())


def gradients(learner):
    return {n: p.grad.cpu() for n, p in learner.model.named_parameters() if p.grad is not None}


def steps(learner, data, count, config=TINY):
    return [learner.learn(make_batch(data, k, config, Shard.of(2)), k, 100).losses for k in range(count)]


def proposals_around(targets):
    """Boxes near the true ones of each image: of an untrained network, devices rank proposals differently."""
    rng = np.random.default_rng(4)
    boxes = [np.repeat(t.boxes, 5, 0) + rng.normal(0, 4, (5 * len(t), 4)).astype(np.float32) for t in targets]
    images = np.repeat(np.arange(len(targets)), [len(b) for b in boxes])
    return Proposals(np.concatenate(boxes), np.zeros(len(images), np.float32), images)


def test_training_steps_match_the_cpu(device, all_tensors, scenes, monkeypatch):
    reference, ours = learner_on(CPU, EVERYTHING), learner_on(device, EVERYTHING)
    batch = make_batch(scenes, 0, EVERYTHING, Shard.of(4))
    proposals = proposals_around(batch.targets)
    monkeypatch.setattr(criterion, "propose", lambda *_: proposals)
    expected = reference.learn(batch, 0, 100).losses
    on_device = [torch.from_numpy(v).to(device) for v in (proposals.boxes, proposals.logits, proposals.image_index)]
    monkeypatch.setattr(criterion, "propose", lambda *_: Proposals(*on_device))
    with all_tensors():
        losses = ours.learn(batch, 0, 100).losses
    assert losses == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert losses["mrcnn_mask_loss"] > 0.1
    a, b = gradients(reference), gradients(ours)
    assert a.keys() == b.keys()
    scale = max(float(t.abs().max()) for t in a.values())
    assert max(float((a[name] - b[name]).abs().max()) for name in a) < 1e-3 * scale
    for name, average in reference.average.average.items():
        assert torch.allclose(ours.average.average[name].cpu().float(), average.float(), atol=1e-4)


@pytest.mark.parametrize("conventions", [NATIVE, MATTERPORT], ids=lambda c: c.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_pooling_and_its_gradient_match_the_cpu(device, conventions, dtype):
    """In float64, torch's operations pool on a CPU, too."""
    generator = torch.Generator().manual_seed(3)
    features = [torch.randn(2, 48 // 2**k, 64 // 2**k, 6, generator=generator) for k in range(4)]
    corner = torch.rand(80, 2, generator=generator) * 120
    boxes = torch.cat([corner, corner + torch.rand(80, 2, generator=generator) ** 3 * 500 + 1], 1)
    boxes = boxes / 640 if conventions.normalized_boxes else boxes
    images = torch.randint(0, 2, (80,), generator=generator)
    grad = torch.randn(80, 7, 7, 6, generator=generator)

    def pooled_on(device, dtype):
        maps = [f.to(device, dtype).requires_grad_() for f in features]
        pooled = pool(maps, boxes.to(device), images.to(device), 7, (4, 8, 16, 32), conventions)
        return [pooled, *torch.autograd.grad(pooled, maps, grad.to(device, dtype))]

    for a, b in zip(pooled_on(CPU, torch.float32), pooled_on(device, dtype), strict=True):
        assert b.dtype == dtype
        assert (a - b.cpu()).abs().max() < 1e-3


def same_detections(a, b):
    """Share of the detections of `a` that `b` has, too: same class, corners within 0.1 px, score within 0.001."""
    near = np.abs(a.boxes[:, None] - b.boxes[None]).max(2) < 0.1
    near &= np.abs(a.scores[:, None] - b.scores[None]) < 1e-3
    near &= np.array(a.class_names)[:, None] == np.array(b.class_names)[None]
    return near.any(1).mean() if len(a) else 1.0


def moved(model, device, autocast_to=None):
    """The same network on another device; `model` stays where it is."""
    runtime = TorchRuntime(copy.deepcopy(model.model), device, autocast_to)
    return Predictor(runtime, model.config, model.class_ids, model.class_names)


@pytest.mark.parametrize("voting", [False, True])
@pytest.mark.parametrize("conventions", [NATIVE, TORCHVISION, DETECTRON2, MATTERPORT], ids=lambda c: c.name)
def test_predictions_match_the_cpu(device, all_tensors, scenes, conventions, voting):
    reference = predictor(conventions).changed(box_voting=voting)
    expected = list(reference.predict_many(scenes.files))
    ours = moved(reference, device)
    with all_tensors():
        single = list(ours.predict_many(scenes.files))
        batched = list(ours.predict_many(scenes.files, batch_size=4))
    assert sum(map(len, expected)) >= 10
    for a, b, c in zip(expected, single, batched, strict=True):
        # Rounding may decide a suppression the other way: a few detections differ.
        assert abs(len(a) - len(b)) <= 2
        assert abs(len(b) - len(c)) <= 2
        assert same_detections(a, b) > 0.9
        assert same_detections(b, c) > 0.9


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_predicts_nearly_the_same(device, all_tensors, scenes, half):
    reference = predictor()
    exact, rounded = moved(reference, device), moved(reference, device, half)
    image = reference.prepare(scenes.files[0]).fitted
    inputs = stack([image.pixels])
    with all_tensors():
        a, b = (side.runtime.network().trunk(*inputs) for side in (exact, rounded))
        found = list(rounded.predict_many(scenes.files, batch_size=4))
    assert {m.dtype for m in b.maps} == {half}
    assert b.objectness.dtype == torch.float32
    difference = (a.objectness - b.objectness).abs().max()
    assert 0 < difference < 0.1 * a.objectness.abs().max()
    assert sum(map(len, found)) > 20
    assert all(np.isfinite(detections.boxes).all() for detections in found)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_takes_nearly_the_same_step(device, all_tensors, scenes, precision):
    config = EVERYTHING.changed(train={"precision": precision})
    exact, half = learner_on(device, EVERYTHING), learner_on(device, config)
    batch = make_batch(scenes, 0, config, Shard.of(2))
    with all_tensors():
        a, b = exact.learn(batch, 0, 100).losses, half.learn(batch, 0, 100).losses
    assert a != b
    assert b == pytest.approx(a, rel=0.1, abs=0.02)
    assert all(p.dtype == torch.float32 for p in half.model.parameters())


@pytest.mark.filterwarnings("ignore")  # torchvision compiles its deterministic RoIAlign, and torch warns of that
def test_deterministic_steps_give_the_same_bytes(device, all_tensors, scenes):
    runs = []
    with deterministic(True), all_tensors():
        for _ in range(2):
            learner = learner_on(device)
            runs.append((steps(learner, scenes, 3), learner.model.state_dict()))
    (losses, weights), (same_losses, same_weights) = runs
    assert losses == same_losses
    assert all(torch.equal(weights[name], same_weights[name]) for name in weights)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_ends_in_the_same_bytes(device, all_tensors, scenes, tmp_path, monkeypatch, precision):
    config = TINY.changed(train={"device": str(device), "deterministic": True, "precision": precision})
    data, val = scenes.take(range(6)), scenes.take(range(6, 8))
    learn = Learner.learn

    def interrupting(self, batch, step, total):
        result = learn(self, batch, step, total)
        if step + 1 == 2:
            signal.raise_signal(signal.SIGTERM)
        return result

    with all_tensors():
        whole = train(data, val, out=tmp_path / "whole", config=config)
        monkeypatch.setattr(Learner, "learn", interrupting)
        assert not train(data, val, out=tmp_path / "parts", config=config).finished
        monkeypatch.setattr(Learner, "learn", learn)
        resumed = train(data, val, out=tmp_path / "parts", config=config, resume=True)
    assert resumed.finished
    a, b = (read_model(run.path / "last.safetensors").weights for run in (whole, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert whole.scores["mask"] == resumed.scores["mask"]


def test_a_run_trains_and_validates(device, all_tensors, scenes, tmp_path):
    """With the settings that a GPU gets if the user sets none but the network's."""
    config = Config(model=TINY.model, train=TrainConfig(epochs=1, epoch_images=8, device=str(device)))
    with all_tensors():
        run = train(scenes, scenes, out=tmp_path / "run", config=config)
    assert run.finished
    assert run.scores["images"] == 8
    chosen = Config.load(run.path / "config.yaml").train
    assert chosen.batch_size == (8 if device.type == "cuda" else 2)
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite([line[name] for name in LOSSES]).all() for line in lines if line["kind"] == "step")
    detections = maskrcnn.load(run.path, device=str(device)).predict(scenes.files[0])
    assert detections.hw == scenes.hw(0)


def test_batches_find_what_single_images_do(device, all_tensors, scenes):
    model = moved(predictor(), device)
    with all_tensors():
        single = find(model, scenes, range(8))
        batched = find(model, scenes, range(8), batch_size=3)
    assert single.keys() == batched.keys()
    for i in single:
        assert same_detections(single[i], batched[i]) > 0.9


def test_pixels_are_page_locked_for_a_gpu_alone(device, scenes):
    batch = make_batch(scenes, 0, TINY, Shard.of(2))
    locked = page_locked(batch, device)
    assert np.array_equal(locked.pixels, batch.pixels)
    assert torch.from_numpy(locked.pixels).is_pinned() == (device.type == "cuda")


class Counting(TorchDispatchMode):
    """Counts the operations whose result has a length that only the values tell: a GPU is waited for."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        masks = [i for i in args[1] if i is not None and i.dtype == torch.bool] if name == "index" else []
        if masks or name in {"nonzero", "nms", "bincount", "masked_select", "repeat_interleave"} or "unique" in name:
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("images", [1, 3])
def test_losses_wait_for_few_values(device, all_tensors, scenes, images):
    """Sampling of anchors and regions looks for positives and negatives of each image; proposals for valid boxes."""
    learner = learner_on(device)
    batch = make_batch(scenes, 0, TINY, Shard.of(images))
    with all_tensors(), Counting() as counting:
        learner.losses(batch, images)
    assert counting.counts == {"nonzero": 4 * images + 1, "nms": images}


@pytest.mark.parametrize("images", [1, 3])
def test_detection_waits_for_few_values(device, all_tensors, scenes, images):
    """Valid proposals, candidates and detections of a batch; suppression of each image, twice."""
    model = moved(predictor(), device)
    prepared = [model.prepare(path) for path in scenes.files[:images]]
    with all_tensors(), Counting() as counting:
        model.detect(prepared, keep_pixels=False)
    assert counting.counts == {"nonzero": 3, "nms": 2 * images}


def test_anchors_are_made_once_for_a_device(device, scenes):
    model = build_model(TINY.model, 4).to(device)
    batch = make_batch(scenes, 0, TINY, Shard.of(2))
    losses = Criterion(model, TINY.train)
    pixels, windows = (torch.from_numpy(v).to(device) for v in (batch.pixels, batch.windows))
    for _ in range(3):
        generators = [torch.Generator(device).manual_seed(n) for n in range(2)]
        losses(model.normalize(pixels, windows), windows, Truth.of(batch.targets, device), generators, 2)
    uses = model.anchors._grids.cache_info()
    assert uses.misses == 2, "as an array, and on the device"
    assert uses.hits >= 4
