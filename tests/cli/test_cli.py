"""Every subcommand, called as a user or a script calls it: output, exit status and files, never a traceback."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import maskrcnn
from commands import TINY, call
from maskrcnn import RLE
from maskrcnn.cli import SOME_UNREADABLE
from maskrcnn.data.synthetic import write_shapes
from maskrcnn.training import loop
from scenes import save_turned, write_scenes


def test_check_reports_counts_and_classes(shapes_csv, capsys):
    status = call("check", shapes_csv, "--json")
    report = json.loads(capsys.readouterr().out)
    assert report["images"] == 12
    assert {c["name"] for c in report["classes"]} == set(
        maskrcnn.open_dataset(shapes_csv, say=lambda _: None).class_names
    )
    assert status == (1 if report["problems"] else 0)
    call("check", shapes_csv)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "instances per image" in printed.err


def test_check_finds_bad_rows_and_damaged_images(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for name, value in (("a.png", 1), ("b.png", 0), ("c.png", 2)):
        Image.fromarray(np.full((10, 10), value, np.uint8)).save(tmp_path / "images" / name)
    truncated = tmp_path / "images" / "b.png"
    truncated_bytes = truncated.read_bytes()[:-30]
    truncated.write_bytes(truncated_bytes)
    csv = tmp_path / "train.csv"
    csv.write_text(
        "ImageId,EncodedPixels\na.png,1 30\na.png,1 30\na.png,25 20\na.png,70 2\na.png,5 2 6 1\nb.png,1 100\nc.png,1 100\n"
    )
    assert call("check", csv, "--json") == 1
    report = json.loads(capsys.readouterr().out)
    kinds = {
        f"{f['place']}: {f['message']}".removeprefix(f"{csv}, "): (f["kind"], f["severity"]) for f in report["findings"]
    }
    expected = {
        "row 6: EncodedPixels of a.png: value 3": ("bad row", "problem"),
        "row 3: image a.png: the mask repeats that of row 2": ("repeated mask", "problem"),
        "row 4: image a.png: the mask shares 6 pixels with that of row 2": ("masks that share pixels", "note"),
        "row 5: image a.png: the mask has 2 pixels": ("tiny mask", "note"),
        "row 8: image c.png: the mask covers the whole image": ("mask of the whole image", "problem"),
        "unreadable image: ": ("unreadable image", "problem"),
    }
    for start, kind in expected.items():
        assert [v for k, v in kinds.items() if k.startswith(start)] == [kind], start
    assert report["problems"] == sum(f["severity"] == "problem" for f in report["findings"]) == 4
    assert report["notes"] == len(report["findings"]) - 4
    assert truncated.read_bytes() == truncated_bytes
    assert call("check", csv) == 1
    printed = capsys.readouterr().err
    assert "4 problems found, 3 notes" in printed
    assert printed.index("bad row") < printed.index("masks that share pixels")


def write_discs(folder, centers, radius=12, hw=(80, 200), classes=None):
    """Write one picture of equal discs, as (x, y)."""
    (folder / "images").mkdir()
    Image.fromarray(np.zeros(hw, np.uint8)).save(folder / "images" / "a.png")
    y, x = np.mgrid[: hw[0], : hw[1]]
    texts = [RLE.from_mask((x - cx) ** 2 + (y - cy) ** 2 <= radius**2).to_encoded_pixels() for cx, cy in centers]
    classes = classes or [1] * len(texts)
    csv = folder / "train.csv"
    csv.write_text(
        "ImageId,EncodedPixels,ClassId\n" + "".join(f"a.png,{t},{c}\n" for t, c in zip(texts, classes, strict=True))
    )
    return csv


def test_neighbours_that_share_a_border_are_notes(tmp_path, capsys):
    csv = write_discs(tmp_path, [(20 + 23 * k, 40) for k in range(7)])
    assert call("check", csv) == 0
    printed = capsys.readouterr().err
    assert "no problems found, 6 notes" in printed
    assert printed.count("the mask shares") == 3
    assert "3 of 6" in printed
    assert call("check", csv, "--all-problems") == 0
    assert capsys.readouterr().err.count("the mask shares") == 6


@pytest.mark.parametrize(("dx", "classes", "kind"), [
    (4, [1, 1], "mask mostly inside another of its class"),
    (4, [1, 2], "masks that share pixels"),
    (16, [1, 1], "masks that share pixels"),
    (0, [1, 2], "repeated mask"),
])  # fmt: skip
def test_overlaps_are_judged_by_the_share_of_the_smaller_mask(tmp_path, capsys, dx, classes, kind):
    csv = write_discs(tmp_path, [(40, 40), (40 + dx, 40)], classes=classes)
    status = call("check", csv, "--json")
    [finding] = json.loads(capsys.readouterr().out)["findings"]
    assert finding["kind"] == kind
    assert status == (0 if kind == "masks that share pixels" else 1)
    assert (finding["share"] > 0.5) == (dx < 16)


def test_the_worst_overlap_comes_first(tmp_path, capsys):
    csv = write_discs(tmp_path, [(20, 40), (43, 40), (80, 40), (98, 40), (140, 40), (162, 40)])
    assert call("check", csv) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "the mask shares" in line]
    assert [int(line.split()[1].strip(",:")) for line in lines] == [5, 7, 3]


def test_split_and_train_name_the_classes_that_do_not_train(tmp_path, capsys, monkeypatch):
    (tmp_path / "images").mkdir()
    lines = ["ImageId,EncodedPixels,ClassId"]
    for k in range(6):
        Image.fromarray(np.full((64, 64), 20 * k, np.uint8)).save(tmp_path / "images" / f"{k}.png")
        lines.append(f"{k}.png,{RLE.from_mask(np.eye(64, dtype=bool)).to_encoded_pixels()},kind {k}")
    csv = tmp_path / "train.csv"
    csv.write_text("\n".join(lines) + "\n")
    message = "the training images hold no object of 2 of 6 classes: kind"
    assert call("split", csv, "--out", tmp_path / "val.txt", "--val", "0.33") == 0
    assert message in " ".join(capsys.readouterr().err.split())

    def stop(self):
        raise maskrcnn.UserError("stopped before the first step")

    monkeypatch.setattr(loop._Trainer, "run", stop)
    assert call("train", csv, "--out", tmp_path / "run", "--val", "0.33", *TINY) != 0
    assert message in " ".join(capsys.readouterr().err.split())


def test_one_turned_picture_does_not_hide_the_order_of_the_others(tmp_path, capsys):
    csv = write_scenes(tmp_path, 1, drawn_on="stored", order="row", hw=(96, 96), n=6)
    path = maskrcnn.open_dataset(csv, order="row", say=lambda _: None).files[0]
    save_turned(np.asarray(Image.open(path)), path, 3)
    assert call("check", csv) == 1
    assert "pass --order row" in capsys.readouterr().err


def test_check_finds_masks_drawn_on_unturned_pixels(tmp_path, capsys):
    csv = write_scenes(tmp_path, 6, drawn_on="stored")
    assert call("check", csv) == 1
    assert "pass --exif ignore" in capsys.readouterr().err
    assert call("check", csv, "--exif", "ignore") == 0
    assert "pass --exif" not in capsys.readouterr().err
    assert call("check", csv, "--no-decode") == 1  # the pieces of masks on swapped sides tell without the pixels
    assert "pass --exif ignore or --order row" in capsys.readouterr().err
    upside_down = write_scenes(tmp_path / "upside_down", 3, drawn_on="stored")
    assert call("check", upside_down) == 1
    assert call("check", upside_down, "--no-decode") == 0


@pytest.mark.parametrize("content", [None, "a,b\n1,2\n", "ImageId,EncodedPixels\ngone.png,1 2\n"])
def test_check_of_unusable_data_exits_with_2(tmp_path, capsys, content):
    (tmp_path / "images").mkdir()
    Image.new("L", (9, 9)).save(tmp_path / "images" / "a.png")
    csv = tmp_path / "train.csv"
    if content is not None:
        csv.write_text(content)
    assert call("check", csv) == 2
    assert "error: " in capsys.readouterr().err


def test_check_finds_validation_images_among_those_of_training(tmp_path, capsys):
    train, val = write_shapes(tmp_path / "train", 4, seed=1), write_shapes(tmp_path / "val", 4, seed=2)
    assert call("check", train, "--val-data", val, "--json") == 0
    capsys.readouterr()
    leaked = (tmp_path / "train" / "images" / "shapes_0002.png").read_bytes()
    (tmp_path / "val" / "images" / "shapes_0001.png").write_bytes(leaked)
    assert call("check", train, "--val-data", val, "--json") == 1
    [finding] = json.loads(capsys.readouterr().out)["findings"]
    assert finding["kind"] == "image in training and in validation"
    assert "shapes_0001.png" in finding["message"]
    assert "shapes_0002.png" in finding["message"]


def test_check_ranks_what_a_model_doubts_and_shows_it(run, shapes_csv, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert call("check", shapes_csv, "--model", run, "--html", page, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["suspects"]
    doubts = [suspect["doubt"] for suspect in report["suspects"]]
    assert doubts == sorted(doubts, reverse=True)
    assert "Suspect labels" in page.read_text("utf-8")
    assert call("check", shapes_csv, "--model", run) == 0
    assert "the strongest doubt first" in capsys.readouterr().err
    assert call("check", shapes_csv, "--model", tmp_path / "none") == 1
    assert call("check", shapes_csv, "--html", tmp_path / "page") == 0
    assert "Suspect labels" not in (tmp_path / "page").read_text("utf-8")


def test_check_has_no_option_for_bad_rows(shapes_csv, capsys):
    assert call("check", shapes_csv, "--bad", "error") != 0
    assert "--bad" in "".join(capsys.readouterr())


def test_export_takes_data_options_for_calibration_only(run, tmp_path, capsys):
    assert call("export", run, "--out", tmp_path / "b", "--depth", "12") == 1
    assert "--calibrate" in capsys.readouterr().err


def test_split_writes_names_and_never_overwrites(shapes_csv, tmp_path, capsys):
    out = tmp_path / "val.txt"
    assert call("split", shapes_csv, "--out", out, "--val", "0.25") == 0
    assert len(out.read_text().splitlines()) == 3
    assert call("split", shapes_csv, "--out", out) == 1
    assert "exists" in capsys.readouterr().err


def test_train_and_resume(shapes_csv, tmp_path, capsys):
    ids = tmp_path / "val.txt"
    ids.write_text("shapes_0001\nshapes_0002\n")
    out = tmp_path / "run"
    assert call("train", shapes_csv, "--val-ids", ids, "--out", out, "--json", *TINY) == 0
    printed = capsys.readouterr()
    scores = json.loads(printed.out)
    assert {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR", "per_class"} <= set(scores["box"]) == set(scores["mask"])
    assert len(scores["kaggle"]["per_threshold"]) == 10
    assert scores["images"] == 2
    assert "10 images to train on, 2 to validate" in printed.err
    assert call("train", "--resume", out) == 0
    assert "resumed at step" in capsys.readouterr().err
    assert call("train", "--resume", out, "--preset", "resnet50") == 1
    assert "leave out all other options" in capsys.readouterr().err
    ids.write_text("\n")
    assert call("train", shapes_csv, "--val-ids", ids, "--out", tmp_path / "new", *TINY) == 1
    assert "leave no image for validation" in capsys.readouterr().err
    assert call("train", shapes_csv, "--out", out, *TINY) == 1
    assert "already holds a run" in capsys.readouterr().err


def test_validation_without_objects_is_said(tmp_path, capsys):
    csv = write_shapes(tmp_path, 4, seed=1, hw=(64, 64))
    header, *rows = csv.read_text().splitlines()
    csv.write_text("\n".join([header, *(row for row in rows if "0000" in row)]) + "\n")
    out = tmp_path / "val.txt"
    assert call("split", csv, "--unlisted", "empty", "--out", out) == 0
    assert "the validation images hold no objects" in capsys.readouterr().err
    status = call("train", csv, "--unlisted", "empty", "--out", tmp_path / "run", "--patience", "1", *TINY)
    printed = capsys.readouterr().err
    assert status == 0
    assert "the validation images hold no objects" in printed
    assert "the model is last.safetensors" in printed
    assert "patience 1 is not used" in printed
    assert "(best)" not in printed


def test_train_on_everything(tmp_path, capsys):
    """A single 16-bit picture, masks on unturned pixels, no validation: the model keeps how the picture is read."""
    (tmp_path / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.full((40, 64), 900, np.uint16)).save(tmp_path / "images" / "a.tif", exif=exif)
    csv, out = tmp_path / "train.csv", tmp_path / "run"
    csv.write_text("ImageId,EncodedPixels\na.tif,101 20 141 20 181 20\n")
    assert call("train", csv, "--out", out, *TINY) == 1
    assert "--val 0" in capsys.readouterr().err
    status = call(
        "train",
        csv,
        "--val",
        "0",
        "--exif",
        "ignore",
        "--depth",
        "14",
        "--patience",
        "2",
        "--out",
        out,
        "--json",
        *TINY,
    )
    printed = capsys.readouterr()
    assert status == 0
    assert json.loads(printed.out) == {"run": str(out), "finished": True}
    assert "1 image to train on, 0 to validate" in printed.err
    assert "no validation images: nothing is scored, and the model is last.safetensors" in printed.err
    assert "patience 2 is not used" in printed.err
    assert (out / "last.safetensors").exists()
    assert not (out / "best.safetensors").exists()
    assert "the last one" in (out / "report.html").read_text("utf-8")
    model = maskrcnn.load(out)
    found = model.predict(tmp_path / "images" / "a.tif")
    assert found.hw == (40, 64)
    assert found.pixels.max() == round(900 * 255 / 16383)
    assert call("train", "--resume", out) == 0
    assert "resumed at step" in capsys.readouterr().err
    assert call("split", csv, "--out", tmp_path / "v.txt", "--val", "0") == 1
    assert "chooses no image" in capsys.readouterr().err


def test_evaluate(run, shapes_csv, capsys):
    assert call("evaluate", shapes_csv, "--model", run, "--json") == 0
    printed = capsys.readouterr()
    scores = json.loads(printed.out)
    assert scores["images"] == 12
    assert scores["seconds"] >= 0
    assert "Kaggle" in printed.err


def test_evaluate_writes_a_report_for_a_run_or_a_model_file(run, shapes_csv, tmp_path, capsys):
    for model, has_losses in ((run, True), (run / "last.safetensors", False)):
        assert call("evaluate", shapes_csv, "--model", model, "--report", tmp_path / "new" / "page.html") == 0
        page = (tmp_path / "new" / "page.html").read_text("utf-8")
        assert "Reliability" in page
        assert ("mrcnn_mask_loss" in page.split("Configuration and environment</h2>")[0]) == has_losses
        assert '<section id="missed">' in page
        assert '<section id="false">' in page
    assert "page.html" in capsys.readouterr().err


def test_predict_writes_everything(run, shapes, tmp_path, capsys):
    folder = tmp_path / "in" / "deep"
    folder.mkdir(parents=True)
    Image.open(shapes.files[0]).save(folder / "one.png")
    Image.open(shapes.files[1]).resize((50, 80)).save(tmp_path / "in" / "007.png")
    out = tmp_path / "out"
    status = call("predict", tmp_path / "in", "--model", run, "--out", out, "--labels", "--coco", "--json")
    assert status == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(line["image"]).name for line in lines] == ["007.png", "one.png"]
    assert (lines[0]["height"], lines[0]["width"]) == (80, 50)
    assert all(RLE.from_coco(d["segmentation"]).hw == (80, 50) for d in lines[0]["detections"])
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.*")) == [
        "coco.json", "labels/007.png", "labels/deep/one.png", "overlays/007.png", "overlays/deep/one.png", "submission.csv",
    ]  # fmt: skip
    assert {e["image_id"] for e in json.loads((out / "coco.json").read_text())} <= {7, "deep/one.png"}
    rows = (out / "submission.csv").read_text().splitlines()
    assert rows[0] == "ImageId,EncodedPixels,ClassId"
    covered = np.zeros((80, 50), int)
    for row in rows[1:]:
        name, text, _ = row.split(",")
        if name == "007.png" and text:
            covered += RLE.from_encoded_pixels(text, (80, 50)).to_mask()
    assert covered.max() <= 1
    assert call("predict", tmp_path / "in", "--model", run, "--out", out) == 1
    assert "--overwrite" in capsys.readouterr().err


def test_predict_reports_bad_pictures_and_continues(run, shapes, tmp_path, capsys):
    (tmp_path / "bad.png").write_text("hello")
    arguments = [tmp_path / "bad.png", shapes.files[0], tmp_path / "absent.png"]
    assert call("predict", *arguments, "--model", run, "--out", tmp_path / "out", "--json") == 3
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 1
    assert "bad.png: not a picture" in printed.err
    assert "absent.png: there is no such file" in printed.err


def test_predict_numbers_pictures_of_the_same_name(run, shapes, tmp_path, capsys):
    for name in ("x/a.png", "y/a.png", "y/a.bmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.open(shapes.files[0]).save(tmp_path / name)
    (tmp_path / "z.png").write_text("hello")
    pictures = [tmp_path / n for n in ("x/a.png", "x/a.png", "z.png", "y/a.png", "y/a.bmp")]
    assert call("predict", *pictures, "--model", run, "--out", tmp_path / "out", "--json") == 3
    assert len(capsys.readouterr().out.splitlines()) == 4
    overlays = sorted(p.name for p in (tmp_path / "out" / "overlays").iterdir())
    assert overlays == ["a-2.png", "a-3.png", "a-4.png", "a.png"]
    images = {row.split(",")[0] for row in (tmp_path / "out" / "submission.csv").read_text().splitlines()[1:]}
    assert images == {"a.png", "a-2.png", "a-3.png", "a-4.bmp"}


def test_predict_takes_patterns_and_lists(run, shapes, tmp_path, capsys, monkeypatch):
    pattern = str(shapes.files[0].parent / "shapes_000[0-2].png")
    assert call("predict", pattern, "--model", run, "--no-overlays", "--out", tmp_path / "a", "--json") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    monkeypatch.setattr(sys, "stdin", iter([f"{f}\n" for f in shapes.files[:2]]))
    assert call("predict", "-", "--model", run, "--no-overlays", "--out", tmp_path / "b", "--json") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert call("predict", str(tmp_path / "*.xyz"), "--model", run, "--out", tmp_path / "c") == 1
    assert "nothing matches" in capsys.readouterr().err


def test_predict_says_where_it_reads_the_first_page_alone(run, shapes, tmp_path, capsys):
    pages = [Image.open(file) for file in shapes.files[:3]]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    assert call("predict", tmp_path, shapes.files[0], "--model", run, "--no-overlays", "--out", tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert "1 picture has several pages, and only the first is read" in said
    assert "stack.tif (page 1 of 3)" in said


MISTAKES = [
    (["train", "nowhere.csv"], "there is no such file"),
    (["train"], "name the annotations"),
    (["train", "{csv}", "--backbon", "x"], "--backbone"),
    (["train", "{csv}", "--lr", "fast"], "lr"),
    (["train", "{csv}", "--preset", "big"], "preset"),
    (["train", "{csv}", "--budget", "soon", "--out", "{tmp}/r"], "'soon' is not a duration"),
    (["train", "{csv}", "--images", "{tmp}/none"], "no such folder"),
    (["train", "--resume", "{tmp}"], "cannot be resumed"),
    (["evaluate", "{csv}", "--model", "{tmp}/none"], "no such run folder"),
    (["predict", "a.png", "--model", "{tmp}"], "neither a run folder"),
    (["predictt"], "predict"),
    (["check", "{csv}", "--column", "rle"], "image=NAME"),
    (["train", "{csv}", "--epochs", "0"], "epochs"),
    (["train", "{csv}", "--out", "{csv}"], "cannot be a run folder"),
    (["split", "{csv}", "--out", "{tmp}/x", "--seed", "-1"], "seed"),
    (["predict", "a.png", "--model", "{tmp}", "--batch-size", "0"], "batch-size"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_a_mistake_gets_a_message_and_no_traceback(arguments, message, shapes_csv, tmp_path):
    filled = [a.format(csv=shapes_csv, tmp=tmp_path) for a in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "maskrcnn", *filled], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode != 0
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_benchmark_reports_the_time_of_each_stage(run, shapes, capsys):
    assert call("benchmark", run, "--rounds", 2, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert {"trunk", "box head", "mask head"} <= set(result["stages_ms"])
    assert all(ms > 0 for ms in result["stages_ms"].values())
    assert 0 < result["detections"] <= 5
    assert call("benchmark", run, "--rounds", 1, "--picture", shapes.files[0]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "total (median)" in printed.err
    assert "peak memory" in printed.err


def test_benchmark_runs_where_memory_cannot_be_measured(run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    assert call("benchmark", run, "--rounds", 1) == 0
    assert "peak memory" not in capsys.readouterr().err
    assert call("benchmark", run, "--rounds", 1, "--json") == 0
    assert json.loads(capsys.readouterr().out)["peak_mb"] is None


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "[" * 100_000,
        "[]",
        "{}",
        '{"data": 3, "options": {}, "val": 0.1, "val_ids": null, "val_data": null}',
        '{"data": "a.csv", "options": {"order": "diagonal"}, "val": 0.1, "val_ids": null, "val_data": null}',
    ],
    ids=range(7),
)
def test_damaged_record_of_the_data_is_named(content, tmp_path, capsys):
    (tmp_path / "state").mkdir()
    if content is not None:
        (tmp_path / "state" / "data.json").write_text(content)
    assert call("train", "--resume", tmp_path) == 1
    error = capsys.readouterr().err
    assert "data.json" in error
    assert "Check that" in error


def test_check_of_turned_pictures_whose_sizes_fit(tmp_path):
    """No picture can be opened in the other orientation, which settles the question."""
    csv = write_scenes(tmp_path, 6, drawn_on="upright", sizes=True)
    assert call("check", csv) == 0


def nest(files, folder, ids):
    """Lay pictures out as the Data Science Bowl does: FOLDER/ID/images/ID.png."""
    for file, image_id in zip(files, ids, strict=True):
        (folder / image_id / "images").mkdir(parents=True)
        Image.open(file).save(folder / image_id / "images" / f"{image_id}.png")


@pytest.mark.parametrize("option", [["--image-ids", "stem"], ["--like", "sample.csv"]])
def test_nested_pictures_are_named_without_folders(run, shapes, tmp_path, option):
    ids = ["c0ffee", "abad1dea", "5ca1ab1e"]
    nest(shapes.files[:3], tmp_path / "test", ids)
    sample = tmp_path / "sample.csv"
    sample.write_text("ImageId,EncodedPixels\n" + "".join(f"{i},\n" for i in ids))
    options = [str(sample) if o == "sample.csv" else o for o in option]
    assert call("predict", tmp_path / "test", "--model", run, "--out", tmp_path / "out", "--no-overlays", *options) == 0
    rows = [row.split(",") for row in (tmp_path / "out" / "submission.csv").read_text().splitlines()]
    assert list(dict.fromkeys(row[0] for row in rows[1:])) == (ids if "--like" in option else sorted(ids))
    assert len(rows[0]) == (2 if "--like" in option else 3)


def test_equal_stems_in_folders_keep_their_folders(run, shapes, tmp_path):
    for folder in ("x", "y"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        Image.open(shapes.files[0]).save(tmp_path / "in" / folder / "a.png")
    arguments = ["predict", tmp_path / "in", "--model", run, "--out", tmp_path / "out", "--no-overlays"]
    assert call(*arguments, "--image-ids", "stem") == 0
    rows = (tmp_path / "out" / "submission.csv").read_text().splitlines()[1:]
    assert {row.split(",")[0] for row in rows} == {"x/a", "y/a"}


def test_a_submission_like_a_sample_is_checked_before_predicting(run, shapes, tmp_path, capsys):
    nest(shapes.files[:2], tmp_path / "test", ["a", "b"])
    arguments = ["predict", tmp_path / "test", "--model", run, "--out", tmp_path / "out", "--no-overlays"]
    for ids, message in (("abc", "'c' is not among the pictures"), ("a", "has no row for 1 picture,")):
        sample = tmp_path / f"{ids}.csv"
        sample.write_text("EncodedPixels,ImageId\n" + "".join(f",{i}\n" for i in ids))
        assert call(*arguments, "--like", sample) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    (tmp_path / "test" / "b" / "images" / "b.png").write_text("damaged")
    sample = tmp_path / "ab.csv"
    sample.write_text("ImageId,EncodedPixels\na,\nb,\n")
    assert call(*arguments, "--like", sample, "--coco") == SOME_UNREADABLE
    assert "has an empty row for 1 picture that could not be read, such as b" in capsys.readouterr().err
    assert (tmp_path / "out" / "submission.csv").read_text().splitlines()[-1] == "b,"
    assert (tmp_path / "out" / "coco.json").exists()


def test_predict_says_that_a_limit_was_reached(run, shapes, tmp_path, capsys):
    arguments = ["predict", *shapes.files[:2], "--model", run, "--no-overlays", "--overwrite", "--out", tmp_path]
    assert call(*arguments, "--detections", "3", "--proposals", "40") == 0
    assert "2 of 2 pictures reached the limit of 3 detections (--detections N)" in capsys.readouterr().err
    assert call(*arguments, "--detections", "5000") == 0
    assert "(--detections N)" not in capsys.readouterr().err


@pytest.mark.parametrize(("command", "message"), [
    (["import", "{tmp}/x.pth", "-o", "{tmp}/y.safetensors", "--class-names", "scratch", "dent"], "x.pth: there is no"),
    (["import", "{tmp}/x.pth", "-o", "{tmp}/y.safetensors", "--anchor-sizes", "8", "16", "32"], "x.pth: there is no"),
    (["check", "{tmp}/x.csv", "--column", "image=a", "rle=b"], "x.csv: there is no"),
    (["train", "{tmp}/x.csv", "--swap-on-flip", "a=b", "c=d", "--anchor-ratios", "0.5", "1"], "x.csv: there is no"),
])  # fmt: skip
def test_list_options_take_several_values(command, message, tmp_path, capsys):
    assert call(*(word.format(tmp=tmp_path) for word in command)) == (2 if command[0] == "check" else 1)
    assert message in capsys.readouterr().err
