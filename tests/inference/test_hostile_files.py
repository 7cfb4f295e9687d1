"""JSON, YAML and safetensors headers that are damaged, hostile or of another version: an error that names the file."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

import maskrcnn.settings
from maskrcnn import Config, UserError
from maskrcnn.checkpoints.native import Checkpoint, read_model, write_model
from maskrcnn.detection.conventions import NATIVE, TORCHVISION, Conventions
from maskrcnn.inference.bundle import FORMAT, read_bundle
from maskrcnn.inference.description import Description
from maskrcnn.training.run_folder import RunFolder, read_conventions

DESCRIPTION = Description(
    config=Config(), conventions=TORCHVISION, class_ids=[3, 7], class_names=["cat", "dog"], provenance={"step": 1}
)
BUNDLE = {
    "format": FORMAT, "runtime": "onnx", "precisions": ["fp32"], "pixel_mean": [1, 2, 3], **DESCRIPTION.to_dict(),
}  # fmt: skip
WRONG = [None, True, 3, -1.5, "x", [], [[]], {}, {"a": 1}]
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*BUNDLE]) | st.text(), inner),
)


def changed(values):
    """Yield copies of `values` without one entry, and with one that has the wrong type."""
    for key, right in values.items():
        yield key, {k: v for k, v in values.items() if k != key}
        for wrong in WRONG:
            if not isinstance(wrong, type(right)):
                yield key, {**values, key: wrong}


def write_bundle(folder, content):
    folder.mkdir(exist_ok=True)
    (folder / "model.json").write_text(content)
    return folder


def test_descriptions_survive_json():
    assert Description.parse(json.loads(json.dumps(DESCRIPTION.to_dict())), "x") == DESCRIPTION


@given(ANY_JSON)
def test_any_json_is_a_description_or_an_error_with_its_source(value):
    with pytest.raises(UserError, match=r"^model\.json"):
        Description.parse(value, "model.json")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        '{"format": 3}',
        "\x00",
        "[" * 100_000,
        '{"a":' * 100_000,
        json.dumps({"format": FORMAT}),
    ],
    ids=range(10),
)
def test_damaged_bundle_names_its_file(tmp_path, content):
    with pytest.raises(UserError, match=r"model\.json"):
        read_bundle(write_bundle(tmp_path / "bundle", content))


def test_bundle_that_is_no_text_names_its_file(tmp_path):
    folder = write_bundle(tmp_path / "bundle", "")
    (folder / "model.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"model\.json is not UTF-8"):
        read_bundle(folder)


def test_each_wrong_entry_of_a_bundle_is_named(tmp_path):
    required = {key: value for key, value in BUNDLE.items() if key not in ("config", "format", "reading")}
    cases = list(changed(required))
    assert len(cases) > 40
    for key, values in cases:
        content = json.dumps({"format": FORMAT, "config": BUNDLE["config"], **values})
        with pytest.raises(UserError, match=rf"model\.json.*{key}"):
            read_bundle(write_bundle(tmp_path / "bundle", content))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"poolling": "aligned"}, "'poolling'; did you mean 'pooling'"),
        ({"pooling": "bilinear"}, "pooling must be .* not 'bilinear'"),
        ({"rpn_delta_weights": [1, 2]}, "rpn_delta_weights"),
        ({"shorter_side": "long"}, "shorter_side must be a whole number, not 'long'"),
    ],
)
def test_unknown_convention_is_named(tmp_path, values, message):
    with pytest.raises(UserError, match=rf"^header: .*{message}"):
        Conventions.from_dict({**NATIVE.to_dict(), **values}, "header")


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "model.safetensors"
    weights = {
        f"layer.{k}": torch.full((2, k + 1), float(k), dtype=dtype)
        for k, dtype in enumerate([torch.float32, torch.int64, torch.bfloat16])
    }
    write_model(path, Checkpoint(weights=weights, **vars(DESCRIPTION)))
    return path


def header_of(path):
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def test_each_wrong_entry_of_a_model_file_is_named(model_file):
    header = header_of(model_file)
    entries = [key for key in header if key != "format"]
    assert sorted(entries) == ["class_ids", "class_names", "config", "conventions", "provenance", "reading"]
    for key in entries:
        for text in (
            *[None] * (key != "reading"),
            "",
            "{",
            "3",
            "[[]]",
            "[" * 100_000,
            '{"unknown": 1}' if key != "provenance" else "0",
        ):
            changes = {k: v for k, v in {**header, key: text}.items() if v is not None}
            save_file({"a": torch.zeros(1)}, model_file, changes)
            with pytest.raises(UserError, match=rf"model\.safetensors.*{key}"):
                read_model(model_file)


def test_equal_models_have_equal_bytes(model_file):
    first = model_file.read_bytes()
    for _ in range(8):  # the library shuffles the keys of the header
        checkpoint = read_model(model_file)
        write_model(model_file, checkpoint)
        assert model_file.read_bytes() == first


def test_sorting_the_header_keeps_the_file_readable(tmp_path):
    path = tmp_path / "model.safetensors"
    names = {'quote "': 'back\\slash "quote"', "control": "\n\t\x01\x7f", "letters": "Ωл漢字 \u2028", "a": ""}
    description = Description(**{**vars(DESCRIPTION), "provenance": names})
    write_model(path, Checkpoint(weights={"ж": torch.arange(6).reshape(2, 3)}, **vars(description)))
    checkpoint = read_model(path)
    assert checkpoint.provenance == names
    assert checkpoint.weights["ж"].tolist() == [[0, 1, 2], [3, 4, 5]]
    with open(path, "rb") as file:
        keys = list(json.loads(file.read(int.from_bytes(file.read(8), "little")))["__metadata__"])
    assert keys == sorted(keys)
    assert len(keys) > 5


def test_damaged_state_of_a_run_is_named(tmp_path):
    folder = RunFolder(tmp_path)
    folder.state.parent.mkdir()
    for header in (None, {}, {"progress": "3"}, {"progress": '{"step": 1}'}, {"progress": '{"step_images": "many"}'}):
        save_file({"weights/a": torch.zeros(1)}, folder.state, header)
        with pytest.raises(UserError, match=r"cannot be resumed: .*state\.safetensors cannot be read"):
            folder.load_state()
    folder.state.write_bytes(b"\xff" * 100)
    with pytest.raises(UserError, match=r"state\.safetensors"):
        folder.load_state()
    for content in ("", "3", '{"pooling": []}', "[" * 100_000):
        folder.conventions.write_text(content)
        with pytest.raises(UserError, match=r"conventions\.json"):
            read_conventions(folder)


@pytest.mark.parametrize(
    "content",
    ["- a", "3", "model: 3", "model: {lr: 1}", "[" * 50_000, "a: b: c", "set_by: {user: 3}\nmodel: {}", "{" * 50_000],
)
def test_damaged_settings_name_their_file(tmp_path, content):
    file = tmp_path / "settings.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match=r"settings\.yaml"):
        maskrcnn.settings.Settings.build(file=file)


def test_settings_with_a_billion_laughs_are_refused_briefly(tmp_path):
    """References are never expanded in a message."""
    file = tmp_path / "settings.yaml"
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 10)]
    file.write_text("\n".join(lines) + "\nmodel: {lr: *a9}\ntrain: {lr: *a9}\n")
    with pytest.raises(UserError, match=r"settings\.yaml") as error:
        maskrcnn.settings.Settings.build(file=file)
    assert len(str(error.value)) < 5_000
