"""Tensors are found by the ending of their names, under any prefix and any nesting; copies are told apart or named."""

import pytest
import torch
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from maskrcnn import UserError, import_checkpoint
from maskrcnn.checkpoints.foreign import SUFFIXES
from maskrcnn.checkpoints.locate import locate
from maskrcnn.checkpoints.torchvision import to_torchvision

TELLTALES = {"one": "head.mask.weight", "other": "rpn/kernel"}
NETWORK = {"body.weight": 1, "head.mask.weight": 2}
COPY = {"body.weight": 3, "head.mask.weight": 4}


def under(prefix, tensors):
    return {prefix + name: tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "net.detector.0.", "_orig_mod.module.", "a/b/"])
@pytest.mark.parametrize("path", [(), ("state_dict",), ("checkpoint", "weights", 7)])
def test_any_prefix_at_any_depth(prefix, path):
    content = {**under(prefix, NETWORK), **({"criterion.weight": 9} if prefix else {})}
    for key in reversed(path):
        content = {key: content, "epoch": 3, "optimizer": {"state": {0: {"step": 1}}, "param_groups": [{"lr": 0.1}]}}
    located = locate(content, TELLTALES)
    assert located is not None
    assert (located.source, located.tensors) == ("one", NETWORK)
    assert located.beside == (["criterion.weight"] if prefix else [])


@pytest.mark.parametrize("content", [
    {"model": NETWORK, "model_ema": COPY},
    {"state_dict": {**under("model.", NETWORK), **under("ema_model.", COPY)}},
    {"state_dict": {**NETWORK, **under("ema.module.", COPY)}},
    {"swa": {"weights": COPY}, "last": under("module.", NETWORK)},
    {"student": NETWORK, "teacher": COPY},
])  # fmt: skip
def test_a_network_is_told_from_its_average(content):
    located = locate(content, TELLTALES)
    assert located is not None
    assert located.tensors == NETWORK


def test_an_average_alone_is_taken():
    located = locate({"ema": under("module.", COPY)}, TELLTALES)
    assert located is not None
    assert located.tensors == COPY


def test_several_networks_are_named():
    content = {"cinema": under("a.", NETWORK), "second": {"b": COPY}}
    with pytest.raises(UserError, match=r"2 networks: cinema\.a\.\*, second\.b\.\*.*checkpoint\['cinema'\]"):
        locate(content, TELLTALES)


def test_endings_begin_at_a_part_of_the_name():
    assert locate({"overhead.mask.weight": 1, "body.weight": 2}, TELLTALES) is None


@pytest.mark.parametrize("suffix", [s for s in SUFFIXES if s in (".ckpt", ".tar", ".pt")])
def test_a_lightning_checkpoint_is_imported_like_the_plain_file(tmp_path, suffix):
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)
    state = detection.MaskRCNN(backbone, 3).state_dict()
    content = {
        "epoch": 4,
        "state_dict": {**under("model.", state), "metric.total": torch.zeros(1)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}],
        "hyper_parameters": {"lr": 0.1},
    }
    torch.save(content, tmp_path / f"last{suffix}")
    imported = import_checkpoint(tmp_path / f"last{suffix}")
    exported = to_torchvision(imported)
    assert exported.keys() == state.keys()
    assert all(torch.equal(exported[name], tensor) for name, tensor in state.items())
    assert imported.provenance["unused"] == ["metric.total"]


def test_dictionaries_that_hold_themselves_or_each_other_are_searched_once():
    deep = {"weights": NETWORK}
    for _ in range(60):
        deep = {"a": deep, "b": deep}
    deep["itself"] = deep
    assert locate(deep, TELLTALES).tensors == NETWORK
    assert locate({"model": NETWORK, "state_dict": NETWORK}, TELLTALES).tensors == NETWORK
