"""Tables that name mask files in place of runs."""

import os

import numpy as np
import pytest
from PIL import Image

from maskrcnn import RLE, UserError, open_dataset

HW = (30, 44)


def blobs(rng, n):
    rows, columns = np.mgrid[: HW[0], : HW[1]]
    return [(rows - rng.uniform(6, 24)) ** 2 + (columns - rng.uniform(6, 38)) ** 2 <= 25 for _ in range(n)]


def write(folder, masks, place="masks", header="image,x1,class,mask", suffix=".png", save=None):
    """Write two images for each pair of `masks`, the mask files to `place`, and the CSV."""
    for directory in (folder / "images", folder / place):
        directory.mkdir(parents=True, exist_ok=True)
    lines = [header]
    for k, mask in enumerate(masks):
        image = f"img_{k // 2}.png"
        Image.new("RGB", HW[::-1]).save(folder / "images" / image)
        pixels = Image.fromarray(mask.astype(np.uint8) * 255) if save is None else save(mask)
        pixels.save(folder / place / f"m{k}{suffix}")
        lines.append(f"{image},1,cow,{place}/m{k}{suffix}")
    csv = folder / "train.csv"
    csv.write_text("\n".join(lines) + "\n")
    return csv


def opened(csv, **options):
    lines: list[str] = []
    return open_dataset(csv, say=lines.append, **options), "\n".join(lines)


def all_masks(data):
    return [rle for i in range(len(data)) for rle in data.rles(i)]


SAVED = {
    "255": None,
    "1": lambda mask: Image.fromarray(mask.astype(np.uint8)),
    "one bit": lambda mask: Image.fromarray(mask),
    "16 bits": lambda mask: Image.fromarray(mask.astype(np.uint16) * 300),
    "palette": lambda mask: Image.fromarray(mask.astype(np.uint8)).convert("P"),
    "RGB": lambda mask: Image.fromarray(np.stack([mask * 0, mask * 9, mask * 0], 2).astype(np.uint8)),
    "RGBA": lambda mask: Image.fromarray(np.stack([mask, mask, mask, mask * 0 + 255], 2).astype(np.uint8)),
}


@pytest.mark.parametrize("saved", SAVED)
def test_nonzero_pixels_are_the_object(tmp_path, rng, saved):
    masks = blobs(rng, 4)
    data, said = opened(write(tmp_path, masks, save=SAVED[saved]))
    assert all_masks(data) == [RLE.from_mask(mask) for mask in masks]
    assert data.class_ids == ["cow"]
    assert data.problems == []
    assert "every text of mask is read as the name of a mask file" in said


@pytest.mark.parametrize("place", ["masks", "images/masks", "."])
@pytest.mark.parametrize("header", ["image,x1,class,mask", "image,x1,class,mask_path", "image,x1,label,MaskFile"])
def test_mask_files_lie_beside_the_table_or_the_images(tmp_path, rng, place, header):
    csv = write(tmp_path, blobs(rng, 4), place, header)
    data, _ = opened(csv, unlisted="empty")
    assert data.names == ["img_0.png", "img_1.png"]
    assert data.counts.tolist() == [2, 2]
    csv.write_text(csv.read_text().replace("images/masks", "masks"))
    assert opened(csv, unlisted="empty")[0].n_instances == 4


def test_masks_of_the_same_name_as_their_image_are_no_images(tmp_path, rng):
    mask = blobs(rng, 1)[0]
    for place in ("images", "masks"):
        (tmp_path / place).mkdir()
        Image.fromarray(mask).save(tmp_path / place / "a.png")
    csv = tmp_path / "train.csv"
    csv.write_text("image,mask\na,masks\\a.png\n")
    data, _ = opened(csv, images=tmp_path, unlisted="empty")
    assert [file.parent.name for file in data.files] == ["images"]
    assert data.rles(0) == [RLE.from_mask(mask)]


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".webp"])
@pytest.mark.parametrize("value", [255, 60])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_lossy_masks_do_not_grow_by_their_blur(tmp_path, rng, suffix, value, mode):
    """The blur has about as many pixels inside of the outline as outside."""
    masks = blobs(rng, 4)
    data, _ = opened(
        write(
            tmp_path,
            masks,
            suffix=suffix,
            save=lambda mask: Image.fromarray(mask.astype(np.uint8) * value).convert(mode),
        )
    )
    for mask, read in zip(masks, all_masks(data), strict=True):
        assert (mask != read.to_mask()).sum() <= 0.05 * mask.sum()


@pytest.mark.parametrize(("suffixes", "clause"), [
    ([".png", ".bmp"], "whose nonzero pixels are the object\n"),
    ([".jpg", ".JPEG"], "whose pixels above half of the file's maximum are the object, because the format blurs edges\n"),
    ([".webp", ".webp"], "whose pixels above half of the file's maximum are the object, because the format blurs edges\n"),
    ([".png", ".jpg"], "whose nonzero pixels are the object, or those above half of the file's maximum in JPEG"),
])  # fmt: skip
def test_the_note_says_which_pixels_are_the_object(tmp_path, rng, suffixes, clause):
    masks = blobs(rng, 4)
    csv = write(tmp_path, masks[:2], suffix=suffixes[0])
    write(tmp_path, masks, suffix=suffixes[1])
    csv.write_text(csv.read_text().replace(f"m0{suffixes[1]}", f"m0{suffixes[0]}"))
    assert clause in opened(csv)[1]


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_black_mask_file_has_no_object(tmp_path, rng, suffix):
    masks = [*blobs(rng, 1), np.zeros(HW, bool)]
    assert opened(write(tmp_path, masks, suffix=suffix))[0].n_instances == 1


def test_a_mask_file_without_an_object_is_counted(tmp_path, rng):
    masks = [*blobs(rng, 1), np.zeros(HW, bool)]
    data, said = opened(write(tmp_path, masks))
    assert data.n_instances == 1
    assert "1 of 2 have none" in said


def outside(folder):
    """A picture outside of the data's folder, and the folder of the data."""
    Image.fromarray(np.ones(HW, bool)).save(folder / "secret.png")
    (folder / "data" / "masks").mkdir(parents=True)
    return folder / "secret.png", folder / "data"


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
@pytest.mark.parametrize("way", ["dots", "absolute", "link", "link to a folder", "dots in the middle"])
def test_no_mask_file_is_read_outside(tmp_path, rng, way):
    secret, folder = outside(tmp_path)
    (folder / "masks" / "link.png").symlink_to(secret)
    (folder / "linked").symlink_to(tmp_path)
    name = {
        "dots": "../secret.png",
        "absolute": str(secret),
        "link": "masks/link.png",
        "link to a folder": "linked/secret.png",
        "dots in the middle": "masks/../../secret.png",
    }[way]
    csv = write(folder, blobs(rng, 2))
    csv.write_text(csv.read_text().replace("masks/m1.png", name))
    with pytest.raises(UserError, match=r"row 3: mask of img_0\.png: the mask file .* lies outside of"):
        opened(csv)
    assert opened(csv, bad="skip")[0].n_instances == 1


def test_an_absolute_name_inside_is_read(tmp_path, rng):
    csv = write(tmp_path, blobs(rng, 2))
    csv.write_text(csv.read_text().replace("masks/m1.png", str(tmp_path / "masks" / "m1.png")))
    assert opened(csv)[0].n_instances == 2


def test_bad_mask_files_are_named_with_their_row(tmp_path, rng):
    csv = write(tmp_path, blobs(rng, 6))
    (tmp_path / "masks" / "m1.png").unlink()
    (tmp_path / "masks" / "m3.png").write_bytes(b"no picture")
    Image.new("L", (HW[1] + 1, HW[0])).save(tmp_path / "masks" / "m4.png")
    with pytest.raises(UserError) as caught:
        opened(csv)
    message = str(caught.value)
    assert "row 3: mask of img_0.png: there is no mask file masks/m1.png in" in message
    assert "m3.png: not a picture" in message
    assert "row 6: mask of img_2.png: the mask file masks/m4.png has 30 x 45 (height x width)" in message
    assert "30 x 44" in message
    data, _ = opened(csv, bad="skip")
    assert data.n_instances == 3
    assert [problem.place.rpartition(" ")[2] for problem in data.problems] == ["3", "5", "6"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
@pytest.mark.parametrize("name", ["nul\0byte.png", "long" * 80 + ".png", "masks/circle.png"])
def test_names_that_no_file_can_have_are_bad_rows(tmp_path, rng, name):
    csv = write(tmp_path, blobs(rng, 2))
    (tmp_path / "masks" / "circle.png").symlink_to(tmp_path / "masks" / "circle.png")
    csv.write_text(csv.read_text().replace("masks/m1.png", name))
    with pytest.raises(UserError, match=r"row 3: mask of img_0\.png: the mask file '.* cannot be found") as caught:
        opened(csv)
    assert repr(name)[:30] in str(caught.value)
    assert opened(csv, bad="skip")[0].n_instances == 1


def test_a_column_is_one_of_mask_files_or_is_not(tmp_path, rng):
    """The one text of an image that exists names a file, the other is runs."""
    mask = blobs(rng, 1)[0]
    csv = write(tmp_path, [mask], "images")
    csv.write_text(csv.read_text() + "missing.png,1,cow,1 3\n")
    data, said = opened(csv, bad="skip", unlisted="empty")
    assert "mask file" not in said
    assert data.names == ["img_0.png", "m0.png"]
    assert data.n_instances == 0
