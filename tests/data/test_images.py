"""Decoding images: orientation, bit depth, colour modes and invalid files."""

import io

import numpy as np
import pytest
from PIL import Image

from maskrcnn.data import images
from maskrcnn.data.images import read_header, read_image
from maskrcnn.detection.fit import resize
from maskrcnn.errors import ImageError


def saved(image: Image.Image, path, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, rng, orientation):
    upright = rng.integers(0, 255, (6, 10, 3), np.uint8)
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, 3),
    }[orientation]
    stored = Image.fromarray(np.ascontiguousarray(undo(upright)))
    exif = Image.Exif()
    exif[images.ORIENTATION] = orientation
    path = saved(stored, tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(path), upright)
    assert read_header(path).upright_hw == (6, 10)


def test_tiff_orientation_applies_to_image_and_size(tmp_path, rng):
    exif = Image.Exif()
    exif[images.ORIENTATION] = 6
    path = saved(Image.fromarray(rng.integers(0, 255, (6, 10, 3), np.uint8)), tmp_path / "a.tif", exif=exif)
    assert read_image(path).shape[:2] == read_header(path).upright_hw == (10, 6)


def test_sixteen_bit_images_are_scaled_to_eight_bits(tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    path = saved(Image.fromarray(ramp), tmp_path / "a.png")
    assert np.array_equal(read_image(path)[:, :, 0].ravel(), np.arange(256))


def test_twelve_bit_images_use_the_full_range():
    image = read_image(np.array([[0, 2048], [3000, 4095]], np.uint16))
    assert image[:, :, 0].tolist() == [[0, 128], [187, 255]]


def test_eight_bit_values_survive_sixteen_bit_storage(rng):
    eight = rng.integers(0, 256, (20, 20), np.uint8)
    eight[0, 0] = 255
    assert np.array_equal(read_image(eight.astype(np.uint16) * 257)[:, :, 0], eight)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(tmp_path, rng, mode):
    base = Image.fromarray(rng.integers(0, 255, (9, 7, 3), np.uint8))
    image = base.convert("L").convert("I").convert("I;16") if mode == "I;16" else base.convert(mode)
    path = saved(image, tmp_path / ("a.tif" if mode in ("CMYK", "I;16") else "a.png"))
    array = read_image(path)
    assert array.shape == (9, 7, 3)
    assert array.dtype == np.uint8
    if mode in ("RGBA", "P"):
        assert np.array_equal(array, np.asarray(image.convert("RGB")))


def test_all_source_types_give_the_same_image(tmp_path, rng):
    array = rng.integers(0, 255, (9, 7, 3), np.uint8)
    path = saved(Image.fromarray(array), tmp_path / "a.png")
    for source in (path, str(path), path.read_bytes(), Image.open(path), array):
        assert np.array_equal(read_image(source), array)


def test_inputs_are_not_modified(tmp_path, rng):
    array = rng.integers(0, 255, (9, 7, 3), np.uint8)
    path = saved(Image.fromarray(array), tmp_path / "a.png")
    before = path.read_bytes()
    copy = array.copy()
    for source in (array, path):
        resize(read_image(source), (3, 3))
    assert path.read_bytes() == before
    assert np.array_equal(array, copy)


def test_truncated_corrupt_and_missing_files_are_named(tmp_path, rng):
    array = rng.integers(0, 255, (64, 64, 3), np.uint8)
    path = saved(Image.fromarray(array), tmp_path / "cut.png")
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ImageError, match=r"cut\.png: truncated or corrupt"):
        read_image(path)
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(ImageError, match=r"text\.png: not a picture"):
        read_image(tmp_path / "text.png")
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "absent.png")


def test_decompression_bombs_are_refused_before_decoding(tmp_path, monkeypatch):
    path = saved(Image.new("1", (4000, 3000)), tmp_path / "bomb.png")
    monkeypatch.setattr(images, "PIXEL_LIMIT", 1_000_000)
    for read in (read_image, read_header):
        with pytest.raises(ImageError, match="4000 x 3000 pixels are more than the limit"):
            read(path)


@pytest.mark.parametrize("shape", [(3,), (4, 4, 2), (0, 4, 3), (2, 3, 4, 3)])
def test_arrays_of_invalid_shape_are_refused(shape):
    with pytest.raises(ImageError, match="shape"):
        read_image(np.zeros(shape, np.uint8))


def test_nan_is_refused():
    with pytest.raises(ImageError, match="NaN"):
        read_image(np.array([[np.nan, 1.0]]))


def test_resize_crops_to_the_window(rng):
    array = rng.integers(0, 255, (20, 30, 3), np.uint8)
    assert np.array_equal(resize(array, (5, 6), (3, 4, 9, 9)), array[4:9, 3:9])
    assert resize(array, (10, 15)).shape == (10, 15, 3)


def test_invalid_image_bytes_are_refused():
    with pytest.raises(ImageError, match="the image: not a picture"):
        read_image(io.BytesIO(b"abc").getvalue())
