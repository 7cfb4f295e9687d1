"""EXIF orientations: both readings of a picture, and masks that were drawn on the other one."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from maskrcnn import UserError, open_dataset
from maskrcnn.data.dataset import read_pixels
from maskrcnn.data.doctor import orientation as orientation_module
from maskrcnn.data.doctor.orientation import find_wrong_order, find_wrong_orientation, turned_images
from maskrcnn.data.images import SIDEWAYS, read_image
from maskrcnn.reading import Reading
from scenes import HW, save_turned, turned, write_scenes


def opened(csv, **options):
    return open_dataset(csv, say=lambda _: None, **options)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_stored_pixels_can_be_read(tmp_path, rng, orientation, suffix):
    stored = np.kron(rng.integers(0, 255, (3, 5)), np.ones((16, 16))).astype(np.uint8)
    path = tmp_path / f"a{suffix}"
    save_turned(stored, path, orientation)
    for exif, expected in (("ignore", stored), ("turn", turned(stored, orientation))):
        with Image.open(io.BytesIO(path.read_bytes())) as image, Image.open(path) as opened_by_path:
            for source in (path, path.read_bytes(), image, image, opened_by_path, opened_by_path):
                read = read_image(source, Reading(exif=exif))[:, :, 0]
                assert read.shape == expected.shape
                assert np.abs(read.astype(int) - expected).max() <= 12  # JPEG is not exact


def test_the_page_of_an_open_tiff_is_read(tmp_path):
    pages = [Image.fromarray(np.full((6, 8), value, np.uint8)) for value in (10, 20, 30)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with Image.open(tmp_path / "a.tif") as image:
        for page in (2, 0, 1):
            image.seek(page)
            assert (read_image(image) == 10 * (page + 1)).all()
            assert image.tell() == page


@pytest.mark.parametrize("exif", ["turn", "ignore"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_masks_lie_on_their_objects_in_the_reading_they_were_drawn_on(tmp_path, orientation, exif):
    csv = write_scenes(tmp_path, orientation, drawn_on="stored" if exif == "ignore" else "upright")
    data = opened(csv, exif=exif)
    assert data.hw(0) == (HW if exif == "ignore" or orientation not in SIDEWAYS else HW[::-1])
    assert read_pixels(data, 0).shape[:2] == data.hw(0)
    other = opened(csv, exif="turn" if exif == "ignore" else "ignore")
    assert find_wrong_orientation(data, turned_images(data), other) == []
    [finding] = find_wrong_orientation(other, turned_images(other), data)
    assert finding.is_problem
    assert f"--exif {exif}" in finding.message


def test_runs_along_rows_and_square_pictures_are_compared_too(tmp_path):
    csv = write_scenes(tmp_path, 6, drawn_on="stored", order="row", hw=(100, 100))
    turn, ignore = (opened(csv, exif=exif, order="row") for exif in ("turn", "ignore"))
    assert find_wrong_orientation(turn, turned_images(turn), ignore)
    assert not find_wrong_orientation(ignore, turned_images(ignore), turn)


@pytest.mark.parametrize("order", ["row", "column"])
def test_square_pictures_tell_the_order_of_runs(tmp_path, order):
    """Transposed masks of square pictures are whole, so only the pixels tell."""
    csv = write_scenes(tmp_path, 1, drawn_on="stored", order=order, hw=(96, 96), n=5)
    other = "column" if order == "row" else "row"
    assert find_wrong_order(opened(csv, order=order), other) == []
    wrong = opened(csv, order=other)
    assert [problem for problem in wrong.problems if problem.is_problem] == []
    [finding] = find_wrong_order(wrong, order)
    assert finding.is_problem
    assert f"pass --order {order}" in finding.message
    assert find_wrong_order(wrong.take([0, 1]), order) == []


def test_masks_that_number_no_pixels_have_no_order(tmp_path):
    wrong = opened(write_scenes(tmp_path, 1, drawn_on="stored", order="row", hw=(96, 96), n=4))
    assert find_wrong_order(wrong, "row")
    assert find_wrong_order(replace(wrong, is_numbered=False), "row") == []


@pytest.mark.parametrize("n", [4, 6, 9, 11])
def test_only_so_many_square_pictures_are_compared(tmp_path, monkeypatch, n):
    read = []
    monkeypatch.setattr(orientation_module, "MAX_SQUARES", 4)
    monkeypatch.setattr(
        orientation_module, "read_pixels", lambda data, i: read.append(i) or np.zeros((*data.hw(i), 3), np.uint8)
    )
    data = opened(write_scenes(tmp_path, 1, drawn_on="stored", hw=(96, 96), n=n))
    find_wrong_order(data, "row")
    assert 2 <= len(read) <= 4


def test_square_masks_that_follow_no_edges_tell_no_order(tmp_path, rng):
    csv = write_scenes(tmp_path, 1, drawn_on="stored", hw=(96, 96), n=6)
    for path in (tmp_path / "images").iterdir():
        save_turned(rng.integers(0, 255, (96, 96, 3), np.uint8), path, 1)
    assert find_wrong_order(opened(csv), "row") == []


def test_pictures_without_an_orientation_are_not_compared(tmp_path):
    data = opened(write_scenes(tmp_path, 1, drawn_on="stored"))
    assert len(turned_images(data)) == 0


def test_masks_that_follow_no_edges_decide_nothing(tmp_path, rng):
    csv = write_scenes(tmp_path, 3, drawn_on="stored", n=6)
    for path in (tmp_path / "images").iterdir():
        save_turned(rng.integers(0, 255, (*HW, 3), np.uint8), path, 3)
    turn, ignore = opened(csv), opened(csv, exif="ignore")
    assert find_wrong_orientation(turn, turned_images(turn), ignore) == []
    assert find_wrong_orientation(ignore, turned_images(ignore), turn) == []


@pytest.mark.parametrize("drawn_on", ["stored", "upright"])
@pytest.mark.parametrize("orientation", sorted(SIDEWAYS))
def test_sizes_in_the_table_name_the_option(tmp_path, orientation, drawn_on):
    csv = write_scenes(tmp_path, orientation, drawn_on=drawn_on, sizes=True, suffix=".tif")
    right, wrong = ("ignore", "turn") if drawn_on == "stored" else ("turn", "ignore")
    opened(csv, exif=right)
    with pytest.raises(UserError, match=f"--exif {right}"):
        opened(csv, exif=wrong)


def test_other_sizes_in_the_table_do_not_blame_the_orientation(tmp_path):
    csv = write_scenes(tmp_path, 6, drawn_on="stored", sizes=True)
    csv.write_text(csv.read_text().replace(",90,130", ",91,130"))
    with pytest.raises(UserError) as caught:
        opened(csv)
    assert "--exif" not in str(caught.value)
