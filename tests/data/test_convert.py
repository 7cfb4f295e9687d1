"""Writing a data set to a place: what may be there, where pictures go, and what an interruption leaves."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_tools

from labelled import hard_dataset
from maskrcnn import RLE, Dataset, UserError, open_dataset
from maskrcnn.cli import SOME_UNREADABLE, main
from maskrcnn.data.convert import FORMAT_OF_SUFFIX, convert, written_formats
from maskrcnn.data.formats import MODULES, encoded_pixels, format_module
from maskrcnn.data.formats.traits import Trait
from maskrcnn.rle import RunTable
from samples import write_sample

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools

FOLDER_FORMATS = [name for name in written_formats() if not format_module(name).SUFFIXES]
FORMATS_WITHOUT_OVERLAPS, FORMATS_WITHOUT_CROWD = (
    [name for name in written_formats() if trait not in format_module(name).HOLDS]
    for trait in (Trait.OVERLAPS, Trait.CROWD)
)


@pytest.fixture
def sample(tmp_path):
    return write_sample(tmp_path / "sample")


def call(*arguments) -> int:
    """Run the command line and return its exit status."""
    with pytest.raises(SystemExit) as exit_info:
        main([str(a) for a in arguments])
    return exit_info.value.code or 0


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("format", FOLDER_FORMATS)
def test_folders_and_classes_may_have_the_names_that_formats_use(tmp_path, format):
    """The words that layouts use for folders and files name pictures, classes and parts here."""
    data = write_sample(tmp_path / "sample")
    names = ["images/train/a.png", "labels/a.png", "images/a_mask.png", "images/a.png", "train_masks/images/a.jpg"]
    files = [tmp_path / "in" / name for name in names]
    for file, source in zip(files, data.files, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        source.rename(file)
    data = replace(
        data, names=names, files=files, parts=None, class_names=["mask", "Images", ".hidden/50 %?", "nothing"]
    )
    again = open_dataset(convert(data, tmp_path / "out", format).target)
    found = {file.read_bytes(): i for i, file in enumerate(again.files)}
    for i, file in enumerate(files):
        k = found[file.read_bytes()]
        if format in ("label-images", "mask-folders"):
            assert Path(again.names[k]).parent == Path(names[i]).parent
        assert (again.counts[k] > 0) == (data.counts[i] > 0)
    n_classes = 4 if Trait.UNUSED_CLASSES in format_module(format).HOLDS else 3
    assert sorted(again.class_names) == sorted(data.class_names[:n_classes])


@pytest.mark.parametrize("suffix", FORMAT_OF_SUFFIX)
def test_the_suffix_says_the_format(tmp_path, sample, suffix):
    if FORMAT_OF_SUFFIX[suffix] not in MODULES:
        pytest.skip("this format is not there")
    assert sample.save(tmp_path / f"out{suffix}").format == FORMAT_OF_SUFFIX[suffix]


@pytest.mark.parametrize(
    ("name", "format", "fault"),
    [
        ("out", None, r"name the format to write with --to: .*csv, coco.*By suffix, \.csv is csv"),
        ("out.xyz", None, "name the format"),
        ("out.txt", "csv", r"is a file that ends in \.csv"),
        ("out.json", "label-images", "is a folder; choose a name without .json"),
        ("out", "cocoa", "there is no format 'cocoa'"),
    ],
)
def test_a_target_that_does_not_fit_its_format_is_an_error(tmp_path, sample, name, format, fault):
    with pytest.raises(UserError, match=fault):
        convert(sample, tmp_path / name, format)
    assert left_in(tmp_path) == ["sample"]


@pytest.mark.parametrize("kind", ["file", "folder", "broken link"])
def test_what_exists_is_never_replaced(tmp_path, sample, kind):
    target = tmp_path / "out.csv"
    {"file": target.touch, "folder": target.mkdir, "broken link": lambda: target.symlink_to("nowhere")}[kind]()
    before = left_in(tmp_path)
    with pytest.raises(UserError, match=r"out\.csv exists; choose another name"):
        convert(sample, target)
    assert left_in(tmp_path) == before


def test_pictures_go_beside_a_file_unless_something_is_there(tmp_path, sample):
    convert(sample, tmp_path / "a" / "out.csv", pictures="copy")
    assert left_in(tmp_path / "a") == ["images", "out.csv"]
    assert [f.read_bytes() for f in open_dataset(tmp_path / "a" / "out.csv").files] == [
        f.read_bytes() for f in sample.files
    ]
    with pytest.raises(UserError, match=r"images exists, where the pictures of again\.csv would go"):
        convert(sample, tmp_path / "a" / "again.csv", pictures="copy")
    convert(sample, tmp_path / "a" / "again.csv")
    assert left_in(tmp_path / "a") == ["again.csv", "images", "out.csv"]


def test_links_lead_to_the_pictures(tmp_path, sample, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = replace(sample, files=[file.relative_to(tmp_path) for file in sample.files])
    convert(relative, tmp_path / "out", "label-images", pictures="link")
    data = open_dataset(tmp_path / "out")
    assert all(file.is_symlink() for file in data.files)
    assert sorted(file.resolve() for file in data.files) == sorted(file.resolve() for file in sample.files)


def test_pictures_are_found_whatever_their_names_were(tmp_path):
    """Names without suffix, with one of another picture, with the path of another machine, and two of one stem."""
    rng = np.random.default_rng(3)
    places = ["p/a.png", "p/b.jpg", "q/c.png", "q/c.jpg", "d.png"]
    names = ["a", "b.tif", r"C:\data\q\c.png", "q/c.jpg", "../../elsewhere/d.png"]
    for k, place in enumerate(places):
        (tmp_path / "in" / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (9 + k, 7, 3), dtype=np.uint8)).save(tmp_path / "in" / place)
    rows = [f"{name},{k + 1} 2" for k, name in enumerate(names)]
    (tmp_path / "t.csv").write_text("ImageId,EncodedPixels\n" + "\n".join(rows) + "\n")
    data = open_dataset(tmp_path / "t.csv", images=tmp_path / "in")
    for k, format in enumerate(("csv", "coco", "label-images", "mask-folders")):
        target = tmp_path / str(k) / {"csv": "t.csv", "coco": "t.json"}.get(format, "t")
        again = open_dataset(convert(data, target, format, pictures="copy").target)
        content = {data.files[i].read_bytes(): data.rles(i) for i in range(5)}
        assert {again.files[i].read_bytes(): again.rles(i) for i in range(5)} == content


def test_an_error_leaves_nothing(tmp_path, sample):
    sample.files[3].unlink()
    for target, format in ((tmp_path / "out.csv", "csv"), (tmp_path / "out", "mask-folders")):
        with pytest.raises(UserError, match="cannot write"):
            convert(sample, target, format, pictures="copy")
    assert left_in(tmp_path) == ["sample"]


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background starts it ignored
from maskrcnn.data import convert
put = convert._put
def slow(*arguments):
    put(*arguments)
    print("picture", flush=True)
    time.sleep(60)
convert._put = slow
from maskrcnn.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("out", ["out.csv", "out"])
def test_a_convert_that_is_stopped_leaves_nothing_at_its_target(tmp_path, sample, stop, out):
    encoded_pixels.write(sample, tmp_path / "t.csv")
    command = ["convert", tmp_path / "t.csv", tmp_path / "new" / out, "--to", "csv" if "." in out else "mask-folders"]
    command += ["--images", tmp_path / "sample", "--pictures", "copy"]
    words = [sys.executable, "-c", SLOW, *map(str, command)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"picture\n"
        process.send_signal(stop)
        process.wait(20)
    left = os.listdir(tmp_path / "new")
    assert all(name.startswith(f".{out}.") for name in left)
    if stop == signal.SIGINT:
        assert left == []


def test_the_command_says_what_was_written_and_what_was_lost(tmp_path, sample, capsys):
    sample.save(tmp_path / "in.json")
    folder = ["--images", tmp_path / "sample"]
    assert call("convert", tmp_path / "in.json", tmp_path / "out.csv", *folder) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "out.csv: 5 images and 19 instances, format csv; pictures are left where they are" in printed.err
    assert "crowd regions (3) are left out: the format csv cannot hold them" in printed.err
    assert (
        "the format csv cannot hold: names of attributes (14 instances), scores (21 instances), crowd regions "
        "(3 instances), lists of classes that annotators looked for (5 images)"
    ) in printed.err
    assert call("convert", tmp_path / "in.json", tmp_path / "out", "--to", "label-images", "--json", *folder) == 0
    assert json.loads(capsys.readouterr().out) == {
        "source": str(tmp_path / "in.json"),
        "target": str(tmp_path / "out"),
        "format": "label-images",
        "images": 5,
        "instances": 19,
        "pictures": "copy",
        "runs": None,
        "lost": {"overlaps": 21, "attributes": 14, "attribute_names": 14, "scores": 21, "crowd": 3, "federated": 5},
        "left_out": {"crowd regions": 3},
    }


def nested(folder, crowd=None):
    """A picture with an object wholly under another, which comes first, two equal ones, and one that they cover."""
    outer, inner, left, right = (np.zeros((30, 40), bool) for _ in range(4))
    outer[2:20, 2:20], inner[8:12, 8:14] = True, True
    left[22:28, 20:26], right[22:28, 26:32] = True, True
    masks = [RLE.from_mask(mask).runs for mask in (outer, inner, left | right, left, right, right)]
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    return Dataset(
        source=folder,
        names=["a.png"],
        files=[folder / "a.png"],
        sizes=np.array([(30, 40)]),
        image_index=np.zeros(6, int),
        labels=np.ones(6, int),
        masks=RunTable.of(masks),
        rows=np.arange(6),
        class_ids=[1],
        class_names=["cell"],
        crowd=crowd,
    )


@pytest.mark.parametrize("format", FORMATS_WITHOUT_OVERLAPS)
def test_the_smallest_of_overlapping_masks_is_seen_and_hidden_ones_are_counted(tmp_path, format):
    data = nested(tmp_path)
    conversion = convert(data, tmp_path / "out", format)
    again = open_dataset(conversion.target, say=lambda _: None)
    outer, inner, _, left, right, _ = data.rles(0)
    assert set(again.rles(0)) == {outer.difference(inner), inner, left, right}
    assert conversion.n_instances == again.n_instances == 4
    assert list(conversion.left_out.values()) == [2]


@pytest.mark.parametrize("format", FORMATS_WITHOUT_CROWD)
def test_crowd_regions_never_become_objects(tmp_path, format):
    crowd = np.array([True, False, True, False, False, False])
    data = nested(tmp_path, crowd).take_instances(np.arange(5))
    target = tmp_path / f"out{(*format_module(format).SUFFIXES, '')[0]}"
    conversion = convert(data, target, format, pictures="copy")
    again = open_dataset(conversion.target, say=lambda _: None)
    assert set(again.rles(0)) == {data.rles(0)[k] for k in (1, 3, 4)}
    assert conversion.n_instances == again.n_instances == 3
    assert conversion.left_out == {"crowd regions": 2}


def test_the_exit_status_tells_whether_something_was_skipped(tmp_path, sample):
    source, images = tmp_path / "t.csv", ["--images", tmp_path / "sample"]
    encoded_pixels.write(sample, source)
    source.write_text(source.read_text().replace(",1 ", ",x ", 1))
    assert call("convert", source, tmp_path / "a.json", *images) == 1
    assert call("convert", source, tmp_path / "a.json", *images, "--bad", "skip") == SOME_UNREADABLE
    assert open_dataset(tmp_path / "a.json", images=tmp_path / "sample").n_instances == sample.n_instances - 1
    assert call("convert", source, tmp_path / "a.json", *images, "--bad", "skip") == 1, "the target exists"


def test_masks_on_stored_pixels_are_said_to_need_the_option(tmp_path, sample, capsys):
    encoded_pixels.write(sample, tmp_path / "t.csv")
    call("convert", tmp_path / "t.csv", tmp_path / "a.json", "--exif", "ignore", "--images", tmp_path / "sample")
    assert "--exif ignore" in capsys.readouterr().err


def test_polygons_of_coco_are_the_same_masks(tmp_path, sample, capsys):
    sample.save(tmp_path / "in.json")
    folder = ["--images", tmp_path / "sample"]
    assert call("convert", tmp_path / "in.json", tmp_path / "out.json", "--polygons", *folder) == 0
    entries = json.loads((tmp_path / "out.json").read_text())["annotations"]
    holes = [any(part.holes for part in RLE(run, sample.hw(i)).to_polygons())
             for run, i in zip(sample.masks, sample.image_index, strict=True)]  # fmt: skip
    stay_runs = np.array(holes) | sample.crowd
    assert [isinstance(entry["segmentation"], dict) for entry in entries] == stay_runs.tolist()
    assert f"{stay_runs.sum()} masks are written as runs" in capsys.readouterr().err
    for entry, i, mask in zip(entries, sample.image_index, sample.masks, strict=True):
        segmentation = entry["segmentation"]
        if isinstance(segmentation, list):
            segmentation = mask_tools.merge(mask_tools.frPyObjects(segmentation, *sample.hw(i)))
        assert np.array_equal(mask_tools.decode(segmentation), RLE(mask, sample.hw(i)).to_mask())
        assert entry["area"] == mask_tools.area(segmentation)
    again = open_dataset(tmp_path / "out.json", tmp_path / "sample", say=lambda _: None)
    assert again.masks.runs.tolist() == sample.masks.runs.tolist()
    assert again.fingerprint() == open_dataset(tmp_path / "in.json", tmp_path / "sample").fingerprint()


def test_polygons_of_noise_are_exact(tmp_path, rng):
    data = hard_dataset(tmp_path / "pictures", rng)
    conversion = data.save(tmp_path / "out.json", polygons=True)
    assert 0 < conversion.n_runs < data.n_instances
    again = open_dataset(tmp_path / "out.json", tmp_path / "pictures", say=lambda _: None)
    assert again.masks.runs.tolist() == data.masks.runs.tolist()


def test_polygons_are_a_choice_of_coco_alone(tmp_path, sample):
    with pytest.raises(UserError, match="--polygons is for COCO"):
        sample.save(tmp_path / "out.csv", polygons=True)
    assert not (tmp_path / "out.csv").exists()
