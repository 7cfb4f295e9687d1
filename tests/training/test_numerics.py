"""Numerics of a training step: accumulation, half precision, clipping, learning rates, batch norm, determinism."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from maskrcnn.config import Config, ModelConfig, TrainConfig
from maskrcnn.data.batch import Shard, make_batch
from maskrcnn.detection.conventions import NATIVE
from maskrcnn.model import folding
from maskrcnn.model.mask_rcnn import build_model
from maskrcnn.training import losses
from maskrcnn.training.distributed import World
from maskrcnn.training.learner import Learner
from maskrcnn.training.numerics import deterministic, half_type, keep_depthwise_in_float32
from maskrcnn.training.schedule import build_optimizer
from maskrcnn.training.start import build
from maskrcnn.winograd import training as winograd

TINY = Config(
    model=ModelConfig(
        backbone="test_resnet", weights="none", image_size=64, channels=16, box_channels=32, mask_channels=16,
        proposals=40, proposals_per_level=40,
    ),
    train=TrainConfig(roi_batch=16, rpn_batch=32, mask_batch=4, optimizer="sgd", batch_size=4),
)  # fmt: skip
DEPTHWISE = TINY.changed(model={"backbone": "test_efficientnet"})
LEARNING_NORMS = TINY.changed(model={"norm": "batch"}, train={"freeze_norm": False})
CPU = torch.device("cpu")


def learner_of(config=TINY):
    torch.manual_seed(0)
    return Learner(build_model(config.model, 4), config.train, World())


def batch_of(data, images=4, step=0):
    return make_batch(data, step, TINY, Shard.of(images))


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def gradients(learner):
    return {n: p.grad for n, p in learner.model.named_parameters() if p.grad is not None}


def largest_difference(a, b):
    assert a.keys() == b.keys()
    scale = max(float(t.abs().max()) for t in a.values())
    return max(float((a[name] - b[name]).abs().max()) for name in a) / scale


@pytest.fixture
def uneven(shapes):
    """Images with many, few and no instances, so per-image means differ; rotated, their shapes differ too."""
    kept = ~np.isin(shapes.image_index, [0, 1, 2]) | (np.arange(shapes.n_instances) == 0)
    return dataclasses.replace(
        shapes, image_index=shapes.image_index[kept], labels=shapes.labels[kept], rows=shapes.rows[kept],
        masks=shapes.masks.take(np.flatnonzero(kept)),
    )  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 3])
def test_small_batches_add_up_to_the_step_of_a_large_one(uneven, batch_size):
    for step in range(2):
        batch = batch_of(uneven, step=step)
        single, split = learner_of(), learner_of(TINY.changed(train={"batch_size": batch_size}))
        a, b = single.learn(batch, 0, 10), split.learn(batch, 0, 10)
        assert b.losses == pytest.approx(a.losses, rel=1e-5)
        assert largest_difference(gradients(single), gradients(split)) < 1e-5


def test_winograd_and_torch_convolutions_make_the_same_step(shapes, monkeypatch):
    batch, plain = batch_of(shapes), learner_of()
    a = plain.learn(batch, 0, 10)
    monkeypatch.setattr(winograd, "MIN_OPERATIONS", 0)
    monkeypatch.setattr(winograd, "MIN_CELLS", 1)
    fast = learner_of()
    b = fast.learn(batch, 0, 10)
    assert b.losses == pytest.approx(a.losses, rel=1e-5)
    assert 0 < largest_difference(gradients(plain), gradients(fast)) < 1e-4


def test_shares_of_a_step_are_its_batch(uneven):
    """Three processes together prepare the same pixels, padding included, as one."""
    batch = batch_of(uneven)
    parts = [make_batch(uneven, 0, TINY, Shard.of(4, rank, 3)) for rank in range(3)]
    assert [n for part in parts for n in part.names] == batch.names
    assert np.array_equal(np.concatenate([part.pixels for part in parts]), batch.pixels)
    assert [n for part in parts for n in part.numbers] == [0, 1, 2, 3]


def test_bfloat16_reaches_the_same_parameters(shapes):
    batch = batch_of(shapes)
    exact, half = learner_of(), learner_of(TINY.changed(train={"precision": "bf16"}))
    dtypes = []
    half.model.rpn.convs[0].register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    a, b = exact.learn(batch, 0, 10), half.learn(batch, 0, 10)
    assert dtypes
    assert set(dtypes) == {torch.bfloat16}
    assert b.losses == pytest.approx(a.losses, rel=0.05, abs=0.01)
    assert b.losses != a.losses
    assert gradients(exact).keys() == gradients(half).keys()
    assert all(p.dtype == torch.float32 for p in half.model.parameters())


@pytest.mark.parametrize("freeze_norm", [True, False], ids=["folded", "norms train"])
def test_depthwise_convolutions_stay_float32_in_bfloat16(shapes, freeze_norm):
    """They give the float32 result of their input, rounded once, and all other layers compute in bfloat16."""
    config = DEPTHWISE.changed(train={"precision": "bf16", "freeze_norm": freeze_norm})
    learner, before = learner_of(config), learner_of(config.changed(train={"precision": "fp32"}))
    exact = dict(before.model.named_modules())
    outputs = []

    def record(name):
        # The activation that follows may change the output in place.
        return lambda layer, inputs, output: outputs.append((name, inputs[0].detach().clone(), output.detach().clone()))

    depthwise = {name for name, layer in exact.items() if isinstance(layer, nn.Conv2d) and layer.groups > 1}
    dense = {"pyramid.laterals.0", "pyramid.outputs.0"}
    for name in depthwise | dense:
        learner.model.get_submodule(name).register_forward_hook(record(name))
    assert learner.learn(batch_of(shapes), 0, 10).losses["loss"] > 0
    assert {name for name, _, _ in outputs} == depthwise | dense
    assert len(depthwise) == 2
    for name, x, output in outputs:
        assert output.dtype == torch.bfloat16
        assert torch.equal(output, exact[name](x.float()).bfloat16()) == (name in depthwise), name
    assert gradients(learner).keys() >= {f"{name}.weight" for name in depthwise}
    assert learner.model.state_dict().keys() == before.model.state_dict().keys()


def test_depthwise_convolutions_are_themselves_outside_autocast():
    layer, x = nn.Conv2d(4, 4, 3, groups=4), torch.randn(1, 4, 8, 8)
    expected = layer(x)
    keep_depthwise_in_float32(layer)
    assert torch.equal(layer(x), expected)


def test_losses_and_folded_norms_stay_float32_in_bfloat16(shapes, monkeypatch):
    dtypes = {}

    def spy(module, name):
        function = getattr(module, name)

        def recording(*arguments):
            dtypes.setdefault(name, set()).update(a.dtype for a in arguments if getattr(a, "is_floating_point", bool)())
            result = function(*arguments)
            dtypes[name].update(t.dtype for t in (result if isinstance(result, tuple) else (result,)))
            return result

        monkeypatch.setattr(module, name, recording)

    for name in ("class_logit_loss", "box_loss", "class_loss", "mask_loss"):
        spy(losses, name)
    spy(folding, "folded_weights")
    learner_of(TINY.changed(train={"precision": "bf16"})).learn(batch_of(shapes), 0, 10)
    assert len(dtypes) == 5
    assert set().union(*dtypes.values()) == {torch.float32}


def test_float16_backs_off_when_a_gradient_overflows(shapes):
    learner = learner_of(TINY.changed(train={"precision": "fp16"}))
    before = {n: p.detach().clone() for n, p in learner.model.named_parameters()}
    learner.scaler.load_state_dict({**learner.scaler.state_dict(), "scale": 2.0**40})
    step = learner.learn(batch_of(shapes), 0, 10)
    assert step.losses["loss"] > 0  # the network is fine; the loss scale was too high
    assert all(torch.equal(p, before[n]) for n, p in learner.model.named_parameters())
    assert learner.scaler.get_scale() == 2.0**39
    learner.scaler.load_state_dict({**learner.scaler.state_dict(), "scale": 64.0})
    learner.learn(batch_of(shapes), 1, 10)
    assert any(not torch.equal(p, before[n]) for n, p in learner.model.named_parameters())
    learner.scaler.load_state_dict({**learner.scaler.state_dict(), "scale": 1.0})
    learner.model.rpn.objectness.weight.register_hook(lambda gradient: gradient * float("inf"))
    assert learner.learn(batch_of(shapes), 2, 10).losses == {}


def test_auto_precision_is_float32_on_a_cpu():
    assert half_type("auto", CPU) is None
    assert half_type("fp32", CPU) is None
    assert half_type("bf16", CPU) == torch.bfloat16
    assert half_type("fp16", CPU) == torch.float16


def test_a_nonfinite_gradient_changes_nothing(shapes):
    learner = learner_of(LEARNING_NORMS)
    learner.learn(batch_of(shapes), 0, 10)
    learner.model.box_head.class_logits.weight.register_hook(lambda gradient: gradient * float("nan"))
    before = state_of(learner.model)
    average = {n: t.clone() for n, t in learner.average.average.items()}
    assert learner.learn(batch_of(shapes, step=1), 1, 10).losses == {}
    assert all(torch.equal(t, before[n]) for n, t in learner.model.state_dict().items())
    assert all(torch.equal(t, average[n]) for n, t in learner.average.average.items())


def test_a_process_without_images_updates_no_statistics(shapes):
    learner = learner_of(LEARNING_NORMS)
    before = state_of(learner.model)
    batch = batch_of(shapes)
    learner.model.train()
    learner._backward(dataclasses.replace(batch, targets=[], names=[], numbers=[]), 4)
    assert all(torch.equal(t, before[n]) for n, t in learner.model.state_dict().items())
    assert all(not g.any() for g in gradients(learner).values())
    assert len(gradients(learner)) > 10


def test_norms_of_frozen_stages_stay_while_others_train(shapes):
    config = LEARNING_NORMS.changed(train={"freeze": "4+"})
    model = build(config, shapes, NATIVE)
    before = state_of(model)
    Learner(model, config.train, World()).learn(batch_of(shapes), 0, 10)
    updated = {name for name, value in model.named_buffers() if name in before and not torch.equal(value, before[name])}
    frozen = {id(p) for p in model.backbone.parameters() if not p.requires_grad}
    frozen_modules = [n for n, m in model.named_modules() if any(id(p) in frozen for p in m.parameters(recurse=False))]
    assert any(name.startswith("pyramid") for name in updated)
    assert any(name.startswith("backbone") for name in updated)
    assert not [name for name in updated if name.rpartition(".")[0] in frozen_modules]


def test_gradients_are_clipped(shapes):
    long, short = learner_of(TINY.changed(train={"clip": 1e6})), learner_of(TINY.changed(train={"clip": 0.01}))
    norms = []
    for learner in (long, short):
        learner.learn(batch_of(shapes), 0, 10)
        norms.append(float(torch.cat([g.flatten() for g in gradients(learner).values()]).norm()))
    assert norms[0] > 0.1
    assert norms[1] == pytest.approx(0.01, rel=1e-3)


def test_earlier_stages_have_lower_rates():
    model = build_model(TINY.model, 4)
    optimizer = build_optimizer(model, TrainConfig(lr=1.0, backbone_lr=0.5, layer_lr_decay=0.1))
    rate = {id(p): group["peak_lr"] for group in optimizer.param_groups for p in group["params"]}
    for stage, parameter in model.backbone.parameters_by_stage():
        if parameter.requires_grad:
            assert rate[id(parameter)] == pytest.approx(0.5 * 0.1 ** (5 - stage))
    assert {rate[id(p)] for p in model.rpn.parameters()} == {1.0}
    assert len({stage for stage, _ in model.backbone.parameters_by_stage()}) >= 3


def test_determinism_is_switched_on_and_restored():
    with deterministic(True):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic(False):
        assert not torch.are_deterministic_algorithms_enabled()


def test_each_image_of_a_run_has_its_own_generator(shapes):
    def draws(config):
        learner, generators = learner_of(config), []
        learner.criterion = lambda *arguments: generators.extend(arguments[3])
        for step in range(3):
            learner.losses(batch_of(shapes, step=step), 4)
        return [float(torch.rand(1, generator=generator)) for generator in generators]

    first = draws(TINY)
    assert len(set(first)) == 12
    assert draws(TINY) == first
    assert not set(draws(TINY.changed(train={"seed": 1}))) & set(first)


@pytest.mark.parametrize("freeze", ["all", "4+"])
def test_frozen_norms_are_folded_in_training(shapes, monkeypatch, freeze):
    config = TINY.changed(train={"freeze": freeze})
    model = build(config, shapes, NATIVE)
    learner = Learner(model, config.train, World())
    unfrozen = learner_of(TINY.changed(train={"freeze_norm": False}))
    passes = []
    batch_norm = torch.nn.functional.batch_norm
    monkeypatch.setattr(torch.nn.functional, "batch_norm", lambda *a, **k: passes.append(1) or batch_norm(*a, **k))
    learner.learn(batch_of(shapes), 0, 10)
    assert not passes
    unfrozen.learn(batch_of(shapes), 0, 10)
    assert passes
