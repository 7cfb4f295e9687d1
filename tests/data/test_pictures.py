"""One idea of the pictures of a folder: what the decoder reads, wherever it lies, without what systems leave there."""

import gzip
import json
import os

import numpy as np
import pytest
from PIL import Image

from maskrcnn import UserError, open_dataset
from maskrcnn.cli.pictures import find_files
from maskrcnn.data import pictures
from maskrcnn.data.images import picture_suffixes, read_header, read_image
from maskrcnn.data.pictures import find_folder, image_files

WRITABLE = sorted(
    suffix for suffix in picture_suffixes() if Image.registered_extensions()[suffix] in Image.SAVE
    and suffix not in (".xbm", ".icns", ".ico", ".pfm", ".msp", ".blp")  # of one bit, of fixed sizes, of other modes
)  # fmt: skip


def relative(folder):
    return [path.relative_to(folder).as_posix() for path in image_files(folder)]


def save(path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((16, 16, 3), 200, np.uint8)).save(path, **options)


@pytest.mark.filterwarnings("ignore:IM image format:DeprecationWarning")
@pytest.mark.parametrize("suffix", WRITABLE)
def test_what_the_decoder_reads_is_a_picture(tmp_path, suffix):
    assert {".png", ".jfif", ".jpe", ".tga", ".pbm", ".bmp"} <= set(WRITABLE)
    for name in (f"a{suffix}", f"b{suffix.upper()}"):
        save(tmp_path / "images" / name)
        assert read_image(tmp_path / "images" / name).shape == (16, 16, 3)
    assert len(image_files(tmp_path)) == 2
    assert [name.name for _, name in find_files([str(tmp_path)])] == [f"a{suffix}", f"b{suffix.upper()}"]
    csv = tmp_path / "train.csv"
    csv.write_text("ImageId,EncodedPixels\na,1 3\nb,1 3\n")
    assert len(open_dataset(csv, say=lambda _: None)) == 2


@pytest.mark.parametrize("suffix", [".mpg", ".h5", ".grib", ".wmf", ".eps", ".pdf", ".csv", ".txt", ""])
def test_what_it_does_not_decode_is_none(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_bytes(b"x")
    assert image_files(tmp_path) == []


def test_what_systems_leave_is_no_picture(tmp_path):
    for name in ("a.png", "._a.png", "__MACOSX/a.png", "b/._c.png", ".cache/d.png", "@eaDir/a.png", "b/e.png"):
        save(tmp_path / name)
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    assert relative(tmp_path) == ["a.png", "b/e.png"]
    assert len(list(find_files([str(tmp_path)]))) == 2


def test_a_hidden_folder_that_was_named_is_read(tmp_path):
    save(tmp_path / ".hidden" / "a.png")
    assert relative(tmp_path / ".hidden") == ["a.png"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_are_followed_once(tmp_path):
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "images"
    save(elsewhere / "a.png")
    save(elsewhere / "deep" / "b.png")
    save(folder / "real" / "c.png")
    (folder / "0 link").symlink_to(elsewhere)  # sorts before the real folders
    (folder / "1 link").symlink_to(elsewhere)
    (folder / "2 real").symlink_to(folder / "real")
    (folder / "real" / "circle").symlink_to(folder)
    (elsewhere / "circle").symlink_to(folder)
    (folder / "d.png").symlink_to(elsewhere / "a.png")
    (folder / "dangling.png").symlink_to(tmp_path / "nothing.png")
    assert relative(folder) == ["0 link/a.png", "0 link/deep/b.png", "d.png", "real/c.png"]


def test_a_pattern_names_files_alone(tmp_path):
    save(tmp_path / "scans" / "a.png")
    (tmp_path / "scans" / "folder").mkdir()
    assert [path.name for path, _ in find_files([str(tmp_path / "scans" / "*")])] == ["a.png"]
    with pytest.raises(UserError, match="nothing matches"):
        list(find_files([str(tmp_path / "scans" / "f*")]))


def save_pages(path, n, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pages = [Image.fromarray(np.full((16, 16), 40 * (k + 1), np.uint8)) for k in range(n)]
    pages[0].save(path, save_all=True, append_images=pages[1:], **options)


@pytest.mark.parametrize("suffix", [".tif", ".gif", ".webp", ".png"])
def test_pictures_of_several_pages_are_said(tmp_path, suffix):
    save_pages(tmp_path / "images" / f"one{suffix}", 1)
    for name, n in (("three", 3), ("five", 5)):
        save_pages(tmp_path / "images" / f"{name}{suffix}", n)
    assert [read_header(tmp_path / "images" / f"{name}{suffix}").n_pages for name in ("one", "three", "five")] == [
        1,
        3,
        5,
    ]
    csv = tmp_path / "train.csv"
    for rows, expected in (
        (["one"], None),
        (["one", "three"], "1 picture has several pages, and only the first is read: three (page 1 of 3)"),
        (["five", "one", "three"], "2 pictures have several pages, and only the first is read: five (page 1 of 5), "),
    ):
        csv.write_text("ImageId,EncodedPixels\n" + "".join(f"{row},1 3\n" for row in rows))
        said = []
        open_dataset(csv, say=said.append)
        lines = [line for line in said if "several pages" in line]
        assert len(lines) == (expected is not None)
        assert expected is None or lines[0].startswith(expected)


def test_a_damaged_later_page_leaves_the_first(tmp_path):
    save_pages(tmp_path / "a.tif", 3)
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: len(whole) // 2])
    assert read_header(tmp_path / "a.tif").upright_hw == (16, 16)
    assert read_image(tmp_path / "a.tif").max() == 40


def test_previews_of_a_camera_are_no_pages(tmp_path):
    save_pages(tmp_path / "a.mpo", 2)
    (tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        assert (image.format, image.n_frames) == ("MPO", 2)
    assert read_header(tmp_path / "a.jpg").n_pages == 1


# ---- which folder -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{}.png", "{}", "{}.PNG", "elsewhere/{}.png"])
@pytest.mark.parametrize("table", ["val.csv", "val.csv.gz", "annotations/val.csv", "val.json"])
def test_the_folder_is_the_one_that_the_names_fit(tmp_path, table, form):
    folder = tmp_path / "images" if table.startswith("annotations") else tmp_path
    for part, numbers in (("train", range(6)), ("val", range(6, 9))):
        for n in numbers:
            save(folder / part / f"{n}.png")
    names = [form.format(n) for n in (6, 7, 8)]
    rows = "".join(f"{name},1 4\n" for name in names)
    images = [{"id": k, "file_name": name} for k, name in enumerate(names)]
    content = f"ImageId,EncodedPixels\n{rows}".encode()
    if table.endswith(".json"):
        entry = {"image_id": 0, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]}
        content = json.dumps({"images": images, "annotations": [entry], "categories": [{"id": 1}]}).encode()
    (tmp_path / table).parent.mkdir(exist_ok=True)
    (tmp_path / table).write_bytes(gzip.compress(content) if table.endswith(".gz") else content)
    data = open_dataset(tmp_path / table, say=lambda _: None)
    assert data.files == [folder / "val" / f"{n}.png" for n in (6, 7, 8)]


def test_a_picture_that_is_missing_does_not_change_the_folder(tmp_path):
    for part, numbers in (("train", range(6)), ("val", range(6, 9))):
        for n in numbers:
            save(tmp_path / part / f"{n}.png")
    (tmp_path / "val.csv").write_text("ImageId,EncodedPixels\n" + "".join(f"{n},1 4\n" for n in (7, 8, 99)))
    with pytest.raises(UserError, match=r"image '99' is not in the folder \(.*val\)"):
        open_dataset(tmp_path / "val.csv")


def test_exact_names_need_no_index(tmp_path, monkeypatch):
    for folder in ("train", "val"):
        save(tmp_path / folder / f"{folder}.png")
    monkeypatch.setattr(pictures, "image_files", None)
    assert find_folder(tmp_path / "val.csv", None, [("val.png",)]) == tmp_path / "val"
    assert find_folder(tmp_path / "x.csv", None, [("val/val.png", "no.png")]) == tmp_path


def test_a_folder_that_is_missing_is_an_error_in_every_format(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "a.csv").write_text("ImageId,EncodedPixels\na.png,1 4\n")
    content = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "categories": []}
    (tmp_path / "a.json").write_text(json.dumps(content))
    for name in ("a.csv", "a.json"):
        with pytest.raises(UserError, match=r"no: there is no such folder of images"):
            open_dataset(tmp_path / name, tmp_path / "no")
