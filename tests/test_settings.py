"""Settings: precedence, the origin of each value, and reuse of an earlier run's file."""

import pytest
import yaml

import maskrcnn
from maskrcnn import Config, UserError
from maskrcnn.config import PRESETS
from maskrcnn.settings import Origin, Settings


def test_user_overrides_file_and_file_overrides_preset(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("model: {channels: 64, box_channels: 300}\ntrain: {seed: 3}\n")
    settings = Settings.build("resnet50", file, Config().changed(model={"channels": 32}))
    model = settings.config.model
    assert (model.backbone, model.box_channels, model.channels) == ("resnet50", 300, 32)
    assert settings.origins["model.backbone"] == Origin.PRESET
    assert settings.origins["model.box_channels"] == settings.origins["train.seed"] == Origin.FILE
    assert settings.origins["model.channels"] == Origin.USER
    assert settings.is_open("train.lr")
    assert not settings.is_open("train.lr", "train.seed")
    assert settings.notes == ()


def test_only_open_settings_are_filled_in():
    settings = Settings.of(Config().changed(model={"channels": 32}))
    filled = settings.filled_in({"model": {"channels": 256, "mask_size": 56}}, Origin.MODEL)
    assert (filled.config.model.channels, filled.config.model.mask_size) == (32, 56)
    assert filled.origins == {"model.channels": Origin.USER, "model.mask_size": Origin.MODEL}
    assert settings.config.model.mask_size == 28


def test_invalid_settings_are_named(tmp_path):
    file = tmp_path / "wrong.yaml"
    file.write_text("model: {chanels: 64}")
    with pytest.raises(UserError, match=r"wrong\.yaml: there is no setting 'model\.chanels'; did you mean 'channels'"):
        Settings.build("lite", file)
    file.write_text("set_by: user\nmodel: {channels: 64}")
    with pytest.raises(UserError, match=r"wrong\.yaml: set_by must list"):
        Settings.build("lite", file)
    file.write_text("set_by: {user: [train.seed]}\ntrain: 3")
    with pytest.raises(UserError, match=r"wrong\.yaml: train = 3"):
        Settings.build("lite", file)
    with pytest.raises(UserError, match="there is no preset 'large'; there are lite"):
        Settings.build("large")


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory):
    """Return the folder of a short run in which the user set seven settings and the plan chose others."""
    user = Config().changed(
        model={"backbone": "test_resnet", "weights": "none", "image_size": 64},
        train={"epochs": 1, "epoch_images": 2, "roi_batch": 8, "rpn_batch": 16},
    )
    folder = tmp_path_factory.mktemp("settings") / "run"
    maskrcnn.train(shapes, None, out=folder, config=Settings.build(user=user))
    return folder


def test_run_records_the_origin_of_each_setting(run):
    set_by = yaml.safe_load((run / "config.yaml").read_text())["set_by"]
    assert "model.image_size" in set_by["user"]
    assert "model.anchor_sizes" in set_by["plan"]
    assert "train.lr" not in [name for names in set_by.values() for name in names]
    assert Config.load(run / "config.yaml").predict.box_voting


def test_file_of_an_earlier_run_keeps_only_user_settings(run):
    """The plan chooses the other settings again, and a note says so."""
    settings = Settings.build("lite", run / "config.yaml")
    assert settings.config.model.image_size == 64
    assert settings.origins["model.image_size"] == Origin.FILE
    assert settings.is_open("model.anchor_sizes", "predict.box_voting", "predict.detections")
    assert settings.config.model.anchor_sizes is None
    (note,) = settings.notes
    assert "model.image_size" in note
    assert "the others are chosen again" in note


def test_file_that_sets_everything_gets_a_note(tmp_path):
    file = tmp_path / "all.yaml"
    file.write_text(Config().to_yaml())
    settings = Settings.build("lite", file)
    assert not settings.is_open("predict.box_voting")
    assert "sets every setting" in settings.notes[0]


def test_presets_are_valid():
    for name in PRESETS:
        assert set(Settings.build(name).origins.values()) <= {Origin.PRESET}
