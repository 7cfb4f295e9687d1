"""Files of strangers: each of these once ended in a traceback, took forever, or filled the memory.

The first tests run the mutations of `benchmarks/fuzz.py`, which counts far more of them, on every format.
"""

import base64
import io
import json
import os
import random
import sys
import time
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from maskrcnn import RLE, ImageError, RLEError, UserError, open_dataset
from maskrcnn.data.convert import convert, written_formats
from maskrcnn.data.formats import MODULES
from maskrcnn.data.images import read_header, read_image, read_mask
from maskrcnn.data.names import safe_places

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from fuzz_targets import CODECS, NAMES, TARGETS, write_sample
from mutations import Mutator

HW = (40, 56)
LONG, DIGITS = "a" * 5000, "9" * 5000


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in CODECS])
def test_mutated_files_open_or_are_refused(name, tmp_path):
    """Also a picture outside of the data is never one of the data set's: the target asserts this."""
    target = TARGETS[name](name, tmp_path)
    outcomes = {"opened": 0, "refused": 0}
    for case in range(16):
        try:
            target.run(Mutator(random.Random(f"{name} {case}")), case)
            outcomes["opened"] += 1
        except UserError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 0, "no mutation did any harm"
    target.run(None, 0)


@pytest.mark.parametrize("name", CODECS)
def test_mutated_masks_are_decoded_or_refused(name, tmp_path):
    target = TARGETS[name](name, tmp_path)
    n_refused = 0
    for case in range(100):
        try:
            target.run(Mutator(random.Random(f"{name} {case}")), case)
        except UserError:
            n_refused += 1
    assert n_refused > 0 or name == "mask texts"


def test_every_format_is_a_target():
    assert set(MODULES) <= set(TARGETS)


# ---- what was found -----------------------------------------------------------------------------------------------


def picture(path, hw=HW):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*hw, 3), 90, np.uint8)).save(path)
    return path


def png(hw):
    """A PNG file of a size, a few hundred bytes whatever it is."""
    file = io.BytesIO()
    Image.new("1", hw[::-1], 1).save(file, "PNG")
    return file.getvalue()


def base64_of(content):
    return base64.b64encode(content).decode()


@pytest.mark.parametrize(
    "coco",
    [
        {"size": [float("inf"), 3], "counts": [3]},
        {"size": [3, float("nan")], "counts": [3]},
        {"size": [2, 2], "counts": "\ud800"},
        {"size": [2, 2], "counts": [float("inf")]},
        {"size": [2, 2], "counts": [10**30]},
        {"size": [DIGITS, 2], "counts": []},
    ],
)
def test_numbers_without_end_in_coco_runs_are_named(coco):
    with pytest.raises(RLEError, match="COCO RLE"):
        RLE.from_coco(coco)


def test_half_of_a_surrogate_pair_is_no_run():
    with pytest.raises(RLEError, match="EncodedPixels"):
        RLE.from_encoded_pixels("1 \ud800", HW)


def test_class_id_of_thousands_of_digits_is_a_name(tmp_path):
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "train.csv").write_text(f"ImageId,EncodedPixels,ClassId\na.png,1 2,{DIGITS}\na.png,5 2,7\n")
    data = open_dataset(tmp_path / "train.csv")
    assert sorted(data.class_ids) == ["7", DIGITS]


def test_class_file_with_an_id_of_thousands_of_digits_is_read(tmp_path):
    convert(write_sample(tmp_path / "sample"), tmp_path / "out", "mask-folders")
    (tmp_path / "out" / "classes.json").write_text(json.dumps({DIGITS: "cell"}))
    assert DIGITS in open_dataset(tmp_path / "out").class_ids


def test_eps_under_the_name_of_a_picture_is_not_run(tmp_path, monkeypatch):
    """Pillow would hand it to Ghostscript, which runs it."""
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **options: pytest.fail("Ghostscript ran"))
    file = tmp_path / "a.png"
    Image.new("RGB", (9, 9)).save(file, "EPS")
    for read in (
        read_header,
        read_image,
        lambda path: read_mask(path, "turn"),
        lambda path: read_image(path.read_bytes()),
    ):
        with pytest.raises(ImageError):
            read(file)


def labelme(mask):
    shape = {"label": "cell", "points": [[0, 0], [9, 9]], "shape_type": "mask", "mask": mask}
    return {"imagePath": "a.png", "imageHeight": 40, "imageWidth": 56, "imageData": None, "shapes": [shape]}


def label_studio(mask):
    value = {"imageDataURL": f"data:image/png;base64,{mask}", "brushlabels": ["cell"]}
    return [{"data": {"image": "a.png"}, "annotations": [{"result": [{"value": value, "type": "bitmask"}]}]}]


@pytest.mark.parametrize("document", [labelme, label_studio])
def test_mask_larger_than_its_picture_is_not_decoded(document, tmp_path, monkeypatch):
    """A kilobyte can claim 178 million pixels."""
    picture(tmp_path / "a.png")
    (tmp_path / "a.json").write_text(json.dumps(document(base64_of(png((41, 56))))))
    monkeypatch.setattr(Image.Image, "convert", lambda *args: pytest.fail("decoded"))
    with pytest.raises(UserError, match="41 x 56, larger than the picture of 40 x 56"):
        open_dataset(tmp_path / "a.json")


def yolo(folder, yaml):
    picture(folder / "images" / "a.png")
    (folder / "labels").mkdir()
    (folder / "labels" / "a.txt").write_text("0 .1 .1 .9 .1 .9 .9\n")
    (folder / "data.yaml").write_text(yaml)
    return folder / "data.yaml"


def doubled(key, name, depth=60):
    """Lists within lists, each of which has the one before twice: 2 to the power of `depth` items."""
    lines = [f"x{name}: &{name}0 [a, a]"]
    lines += [f"x{name}{k}: &{name}{k} [*{name}{k - 1}, *{name}{k - 1}]" for k in range(1, depth)]
    return "\n".join([*lines, f"{key}: *{name}{depth - 1}", ""])


@pytest.mark.parametrize(
    "yaml",
    [
        doubled("train", "t") + doubled("val", "v") + "names: [cell]\n",
        "train: images\nnames: [cell]\n" + doubled("nc", "n"),
        "train: images\nnames: [cell]\n" + doubled("path", "p"),
        "train: &a [*a]\nval: &b [*b]\nnames: [cell]\n",
        "path: [a]\ntrain: images\nnames: [cell]\n",
        "path: {a: b}\ntrain: images\nnames: [cell]\n",
        f"path: {LONG}\ntrain: images\nnames: [cell]\n",
        f"train: {LONG}\nnames: [cell]\n",
        'train: "a\\0b"\nnames: [cell]\n',
        "train: images\nnames: !!python/object/apply:os.system [exit]\n",
    ],
)
def test_hostile_data_yaml_ends_soon(yaml, tmp_path):
    began = time.perf_counter()
    try:
        data = open_dataset(yolo(tmp_path, yaml))
    except UserError:
        pass
    else:
        assert data.n_instances == 1
    assert time.perf_counter() - began < 30, "it grows with every list within a list"


@pytest.mark.parametrize("name", ["**.json", "[a.json", "a*.json"])
def test_file_name_is_no_pattern(name, tmp_path):
    convert(write_sample(tmp_path / "sample"), tmp_path / "out", "supervisely")
    folder = tmp_path / "out" / "train" / "ann"
    (folder / name).write_text('{"objects": []}')
    data = open_dataset(tmp_path / "out", bad="skip")
    assert len(data) == len(NAMES)
    assert name.removesuffix(".json") in str(data.problems)


@pytest.mark.parametrize("name", [LONG + ".png", "a\0b.png", "b/" * 3000 + "c.png"])
def test_name_that_no_file_can_have_is_an_image_without_a_file(name, tmp_path):
    folder = tmp_path / "coco"
    picture(folder / "a.png")
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": name}]
    annotations = [{"image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]}]
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cell"}]}
    (folder / "a.json").write_text(json.dumps(document))
    for path in (folder, folder / "a.json"):
        data = open_dataset(path, bad="skip")
        assert data.names == ["a.png"]
        assert len(data.problems) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_file_name_that_is_not_unicode_is_named(tmp_path):
    convert(write_sample(tmp_path / "sample"), tmp_path / "out", "yolo")
    picture(tmp_path / "a.png").rename(tmp_path / "out" / "images" / "train" / "b\udcff.png")
    with pytest.raises(UserError, match=r"b\\udcff.png is not Unicode; rename it"):
        open_dataset(tmp_path / "out")


@pytest.mark.parametrize("key", ["data", "annotations"])
def test_label_studio_text_that_is_not_utf8_is_named(key, tmp_path):
    picture(tmp_path / "a.png")
    content = json.dumps(label_studio("")).encode()
    (tmp_path / "a.json").write_bytes(content.replace(f'"{key}": '.encode(), f'"{key}\xff": '.encode("latin-1")))
    with pytest.raises(UserError, match="not UTF-8"):
        open_dataset(tmp_path / "a.json", format="label-studio")
    with pytest.raises(UserError):
        open_dataset(tmp_path / "a.json")


def test_bitmap_that_unpacks_to_gigabytes_is_refused(tmp_path):
    convert(write_sample(tmp_path / "sample"), tmp_path / "out", "supervisely")
    file = next((tmp_path / "out" / "train" / "ann").glob("*a.png.json"))
    document = json.loads(file.read_text())
    document["objects"][0]["bitmap"]["data"] = base64_of(zlib.compress(b"\0" * 10**8))
    file.write_text(json.dumps(document))
    with pytest.raises(UserError, match="unpacks to more than"):
        open_dataset(tmp_path / "out")


# ---- names that lead out -------------------------------------------------------------------------------------------

OUTSIDE = [
    "../secret.png",
    "../../secret.png",
    "images/../../secret.png",
    "{absolute}",
    "file://{absolute}",
    "..\\secret.png",
]
OUTSIDE += [
    "\\\\server\\share\\secret.png",
    "C:\\secret.png",
    "C:secret.png",
    "secret.png\0.png",
    "\0",
    "%2e%2e/secret.png",
]


def with_name(content, old, new):
    """The text of annotations in which a picture has another name, wherever it stands."""
    escaped = json.dumps(new)[1:-1]
    return content.replace(old, escaped)


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("name", ["labelme", "via", "coco", "label-studio", "datumaro"])
def test_name_in_json_does_not_lead_out(name, outside, tmp_path, monkeypatch):
    data = write_sample(tmp_path / "sample").take([0])
    secret = picture(tmp_path / "secret.png", data.hw(0))
    suffix = ".json" if name in ("via", "coco", "label-studio") else ""
    target = convert(data, tmp_path / "in" / f"set{suffix}", name, "copy").target
    files = [target] if suffix else [file for file in target.rglob("*.json")]
    for file in files:
        for old in ("train/a.png", "train%2Fa.png", "a.png"):
            if old in (content := file.read_text("utf-8")):
                file.write_text(with_name(content, old, outside.format(absolute=secret)), "utf-8")
                break
    assert_unused(secret, target, name, monkeypatch)


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("name", ["csv", "cvat", "parquet"])
def test_name_in_a_table_does_not_lead_out(name, outside, tmp_path, monkeypatch):
    data = write_sample(tmp_path / "sample").take([0])
    secret = picture(tmp_path / "secret.png", data.hw(0))
    if name != "parquet" and "\0" in outside:
        outside = outside.replace("\0", "&#1;" if name == "cvat" else "\1")
    named = outside.format(absolute=secret)
    suffix = {"csv": ".csv", "cvat": ".xml", "parquet": ".parquet"}[name]
    target = convert(data, tmp_path / "in" / f"set{suffix}", name, "copy").target
    if name == "parquet":
        table = pl.read_parquet(target)
        column = next(c for c in table.columns if table[c].dtype == pl.String and "train/a.png" in table[c].to_list())
        table.with_columns(pl.lit(named).alias(column)).write_parquet(target)
    else:
        target.write_text(target.read_text("utf-8").replace("train/a.png", named), "utf-8")
    assert_unused(secret, target, name, monkeypatch)


def assert_unused(secret, target, name, monkeypatch):
    """Open the data, and fail if the picture outside is opened or is one of the data set's."""
    import builtins

    opened, original = [], builtins.open
    monkeypatch.setattr(
        builtins, "open", lambda file, *args, **kw: opened.append(str(file)) or original(file, *args, **kw)
    )
    try:
        data = open_dataset(target, format=name, bad="skip")
    except UserError:
        pass
    else:
        assert all(file.resolve().is_relative_to(target.parent.resolve()) for file in data.files)
    assert not [file for file in opened if Path(file).resolve() == secret.resolve()]


HOSTILE_NAMES = [
    "../../a.png",
    "/etc/a.png",
    "C:\\a.png",
    "\\\\server\\share\\a.png",
    "a\0b.png",
    LONG + ".png",
    "..",
    "",
]
HOSTILE_NAMES += [
    "a\nb.png",
    "\ud800.png",
    "../" * 9 + "b",
    "a/../../../c.png",
    "...",
    " /../d.png",
    "~/e.png",
    "\x7f\x01.png",
]


@pytest.mark.parametrize("name", [name for name in written_formats() if name not in ("csv", "parquet", "cvat")])
def test_writers_stay_in_their_target(name, tmp_path):
    """Names, parts, classes and attributes of strangers: all files are below the target, and the data is read again."""
    sample = write_sample(tmp_path / "sample")
    data = sample.take(np.arange(len(HOSTILE_NAMES)) % len(sample))
    data.names[:] = HOSTILE_NAMES
    data.class_names[:] = ["../../class", "/etc/class\0"[:-1]]
    data.parts[:] = [("../up", "/etc", "train")[k % 3] for k in range(len(data))]
    before = {file for file in tmp_path.rglob("*") if "out" not in file.parts}
    suffix = ".json" if name in ("via", "coco", "label-studio") else ""
    target = tmp_path / "out" / "deep" / f"set{suffix}"
    try:
        convert(data, target, name, "copy")
    except UserError as error:
        pytest.fail(str(error))
    after = {file for file in tmp_path.rglob("*") if "out" not in file.parts}
    assert after == before
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["deep"]
    inside = {"set", "images"} if not suffix else {f"set{suffix}", "images"}
    assert {file.name for file in (tmp_path / "out" / "deep").iterdir()} <= inside
    assert len(open_dataset(target, format=name, bad="skip")) >= len(data) - 1


def test_places_are_names_that_every_file_system_holds():
    places = safe_places(HOSTILE_NAMES, [Path("a.png")] * len(HOSTILE_NAMES))
    assert len({str(place).casefold() for place in places}) == len(places)
    for place in places:
        assert not place.is_absolute()
        assert all(part not in ("", ".", "..") and len(part.encode()) <= 255 for part in place.parts)
        assert not set("\0\n:\x7f") & set(str(place))


def coco(folder, annotation):
    """A file of one picture and one annotation."""
    picture(folder / "a.png")
    square = {"image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9, 1, 9]]}
    document = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [square | annotation]}
    (folder / "a.json").write_text(json.dumps(document | {"categories": [{"id": 1, "name": "cell"}]}))
    return folder / "a.json"


def test_address_of_a_picture_that_is_none_is_its_name(tmp_path):
    name = "s3://[bucket/a.png"
    document = json.loads(coco(tmp_path, {}).read_text())
    document["images"].append({"id": 2, "file_name": name})
    (tmp_path / "a.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"s3://\[bucket/a\.png"):
        open_dataset(tmp_path / "a.json")


@pytest.mark.parametrize("value", [10**30, 1e300, -(2**70), 2**63])
def test_annotation_id_beyond_64_bits_counts_as_none(value, tmp_path):
    assert open_dataset(coco(tmp_path, {"id": value})).rows.tolist() == [1]


def test_parquet_without_runs_is_named(tmp_path):
    picture(tmp_path / "a.png")
    pl.DataFrame({"image": ["a.png"]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="no column 'runs'"):
        open_dataset(tmp_path / "a.parquet", format="parquet")


@pytest.mark.parametrize("color", [f"{DIGITS},0,0", "²,0,0", "256,0,0", "1,2"])
def test_color_of_a_label_map_that_is_none_is_left_out(color, tmp_path):
    target = convert(write_sample(tmp_path / "sample"), tmp_path / "out", "voc").target
    label_map = next(target.rglob("labelmap.txt"))
    label_map.write_text(label_map.read_text("utf-8") + f"other:{color}::\n", "utf-8")
    assert "other" not in open_dataset(target).class_names


@pytest.mark.parametrize("line", [f"nc: {DIGITS}", "nc: ²", f"kpt_shape: [{DIGITS}, 2]", "kpt_shape: [²]"])
def test_number_of_classes_that_is_none_counts_as_none(line, tmp_path):
    assert open_dataset(yolo(tmp_path, f"train: images\nval: images\nnames:\n{line}\n")).n_instances == 1


def test_attribute_of_thousands_of_digits_is_written(tmp_path):
    data = write_sample(tmp_path / "sample")
    data.attributes[:] = DIGITS
    convert(data, tmp_path / "out.json", "coco", "copy")
    assert set(open_dataset(tmp_path / "out.json").attributes) == {DIGITS}


@pytest.mark.parametrize("yaml", ["train: /", "train: ../../..", "path: /\ntrain: images", "path: /\ntrain: list.txt"])
def test_data_yaml_does_not_look_through_the_whole_disk(yaml, tmp_path, monkeypatch):
    walked, original = [], os.walk
    monkeypatch.setattr(os, "walk", lambda folder, *args: walked.append(Path(folder)) or original(tmp_path / "deep"))
    folder = tmp_path / "deep" / "er"
    folder.mkdir(parents=True)
    (folder / "list.txt").write_text("a.png\n")
    with suppress(UserError):
        open_dataset(yolo(folder, f"{yaml}\nnames: [cell]\n"), format="yolo")
    assert not [path for path in walked if path.resolve() in tmp_path.parents or path.resolve() == tmp_path]


def test_lists_in_lists_of_yaml_are_refused_soon(tmp_path):
    with pytest.raises(UserError, match="within one another"):
        open_dataset(yolo(tmp_path, "train: images\nnames: " + "[" * 100_000), format="yolo")
