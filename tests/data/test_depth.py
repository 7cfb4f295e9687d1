"""Pictures of more than 8 bits: one range for a data set, kept by its model."""

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import maskrcnn
from lively import predictor
from maskrcnn import UserError, open_dataset
from maskrcnn.data import depth as depth_module
from maskrcnn.data.dataset import read_pixels
from maskrcnn.reading import BY_ITSELF, Reading

HW = (24, 32)


def write_pictures(folder, arrays, suffix=".png"):
    """Write a data set of gray pictures, one mask each."""
    (folder / "images").mkdir(parents=True)
    rows = ["ImageId,EncodedPixels"]
    for k, array in enumerate(arrays):
        Image.fromarray(array).save(folder / "images" / f"{k}{suffix}")
        rows.append(f"{k}{suffix},30 40")
    csv = folder / "train.csv"
    csv.write_text("\n".join(rows) + "\n")
    return csv


def ramp(maximum, dtype=np.uint16):
    return np.linspace(0, maximum, HW[0] * HW[1]).reshape(HW).astype(dtype)


def opened(csv, **options):
    notes = []
    data = open_dataset(csv, say=notes.append, **options)
    return data, "\n".join(notes)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(
    ("dim", "bright", "bits"), [(900, 3871, 12), (255, 600, 10), (4095, 4096, 14), (200, 16384, 16)]
)
def test_frames_of_one_sensor_have_the_same_contrast(tmp_path, suffix, dim, bright, bits):
    data, notes = opened(write_pictures(tmp_path, [ramp(dim), ramp(bright)], suffix))
    for i, maximum in enumerate((dim, bright)):
        assert read_pixels(data, i).max() == round(maximum * 255 / (2**bits - 1))
    assert f"16-bit pictures: {bits} bits are used (largest value {bright:,}); --depth N sets another" in notes


def test_a_picture_and_its_crop_have_the_same_contrast(tmp_path):
    picture = ramp(40_000)
    data, _ = opened(write_pictures(tmp_path, [picture, picture[:8]]))
    assert np.array_equal(read_pixels(data, 0)[:8], read_pixels(data, 1))


def test_the_depth_can_be_given_and_decodes_nothing(tmp_path, monkeypatch):
    csv = write_pictures(tmp_path, [ramp(900), ramp(3000)])
    monkeypatch.setattr(depth_module, "read_maximum", None)
    data, notes = opened(csv, depth=14)
    assert read_pixels(data, 1).max() == round(3000 * 255 / 16383)
    assert "14 bits, as --depth says" in notes
    with pytest.raises(UserError, match="from 1 to 32, not 40"):
        opened(csv, depth=40)


def test_eight_bit_pictures_are_not_decoded_and_deep_ones_once(tmp_path, monkeypatch):
    decoded = []
    read_maximum = depth_module.read_maximum
    monkeypatch.setattr(depth_module, "read_maximum", lambda path: decoded.append(path.name) or read_maximum(path))
    data, _ = opened(write_pictures(tmp_path, [ramp(255, np.uint8), ramp(3000), ramp(200)]))
    assert sorted(decoded) == ["1.png", "2.png"]
    assert read_pixels(data, 0).max() == 255
    shallow = write_pictures(tmp_path / "shallow", [ramp(255, np.uint8)])
    assert opened(shallow)[0].reading == BY_ITSELF
    assert len(decoded) == 2
    assert "depth 12 is not used" in opened(shallow, depth=12)[1]


@pytest.mark.parametrize(
    ("dtype", "values"), [(np.int32, (70_000, 900_000)), (np.float32, (0.2, 3.5)), (np.float32, (0.01, 0.02))]
)
def test_the_largest_value_is_the_range_of_wider_pictures(tmp_path, dtype, values):
    data, notes = opened(write_pictures(tmp_path, [ramp(v, dtype) for v in values], ".tif"))
    assert [int(read_pixels(data, i).max()) for i in range(2)] == [round(255 * values[0] / values[1]), 255]
    assert f"{values[1]:,}" in notes


def test_a_damaged_picture_does_not_hide_the_depth_of_the_others(tmp_path):
    csv = write_pictures(tmp_path, [ramp(65_000), ramp(3000)])
    file = tmp_path / "images" / "0.png"
    file.write_bytes(file.read_bytes()[:-60])
    assert opened(csv)[0].reading == Reading(white=4095)


def test_splits_keep_the_depth_and_it_identifies_the_data(tmp_path):
    data, _ = opened(write_pictures(tmp_path, [ramp(900), ramp(3871), ramp(100)]))
    assert {part.reading for part in data.split(0.4)} == {Reading(white=4095)}
    assert data.fingerprint() != opened(tmp_path / "train.csv", depth=16)[0].fingerprint()


@pytest.fixture
def twelve_bits():
    model = predictor()
    model.reading = Reading(white=4095)
    return model


def seen(model, picture):
    """Gray levels that the network gets."""
    return model.predict(picture).pixels[:, :, 0]


def test_a_model_file_keeps_the_depth_and_prediction_uses_it(twelve_bits, tmp_path):
    from maskrcnn.checkpoints.load import save

    save(twelve_bits, tmp_path / "m.safetensors")
    model = maskrcnn.load(tmp_path / "m.safetensors").changed(score_threshold=0.2)
    Image.fromarray(ramp(900)).save(tmp_path / "a.png")
    for picture in (ramp(900), tmp_path / "a.png", Image.open(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes()):
        assert seen(model, picture).max() == round(900 * 255 / 4095)
    assert seen(model, ramp(200, np.uint8)).max() == 200
    assert seen(model, ramp(60_000)).max() == 255
    assert seen(model, ramp(0.5, np.float32)).max() == 128


def test_a_model_file_of_before_scales_each_picture_by_its_own_maximum(twelve_bits, tmp_path):
    from maskrcnn.checkpoints.load import save

    save(twelve_bits, tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        header = {k: v for k, v in file.metadata().items() if k != "reading"}
        save_file({k: file.get_tensor(k) for k in file.keys()}, tmp_path / "old.safetensors", header)  # noqa: SIM118
    old = maskrcnn.load(tmp_path / "old.safetensors")
    assert old.reading == BY_ITSELF
    assert seen(old, ramp(1023)).max() == 255


def test_evaluation_takes_the_depth_of_the_model_and_says_so(twelve_bits, tmp_path):
    csv, names = write_pictures(tmp_path, [ramp(900), ramp(60_000)]), {1: twelve_bits.class_names[0]}
    data, _ = opened(csv, class_names=names)
    lines = []

    def say(line):
        if "range" in line:
            lines.append(line)

    maskrcnn.evaluate(twelve_bits, data, say=say)
    assert len(lines) == 1
    assert "the model's range, 0 to 4,095 (12 bits)" in lines[0]
    assert "has 0 to 65,535 (16 bits)" in lines[0]
    lines.clear()
    maskrcnn.evaluate(twelve_bits, opened(csv, class_names=names, depth=12)[0], say=say)
    assert lines == []
    twelve_bits.reading = BY_ITSELF
    maskrcnn.evaluate(twelve_bits, data, say=say)
    assert "each picture's own maximum" in lines[0]
