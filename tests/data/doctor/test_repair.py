"""`maskrcnn check --fix`: each repair, its log, the log replayed, and the input untouched."""

import json

import numpy as np
import pytest
from PIL import Image

from maskrcnn import RLE, open_dataset
from maskrcnn.cli import main
from maskrcnn.data.doctor import find_problems
from maskrcnn.data.doctor.repair import Action
from maskrcnn.data.problem import Kind
from maskrcnn.data.synthetic import draw_scene
from scenes import write_scenes

HW = (96, 128)


def call(*arguments):
    with pytest.raises(SystemExit) as exit_info:
        main([str(a) for a in arguments])
    return exit_info.value.code or 0


def opened(csv, **options):
    return open_dataset(csv, bad="skip", say=lambda _: None, **options)


def log_of(path):
    return [json.loads(line) for line in path.with_name(f"{path.name}.fixes.jsonl").read_text("utf-8").splitlines()][1:]


def write_rows(folder, rows, header="ImageId,EncodedPixels,ClassId"):
    csv = folder / "train.csv"
    csv.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n", "utf-8")
    return csv


@pytest.fixture
def scenes(tmp_path):
    """Images with shapes, and the rows of a table that fits them."""
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(7)
    rows = []
    for k in range(5):
        pixels, masks, labels = draw_scene(HW, rng)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{k}.png")
        rows += [[f"{k}.png", mask.to_encoded_pixels(), label] for mask, label in zip(masks, labels, strict=True)]
    return tmp_path, rows


def test_a_blemished_table_is_repaired_and_the_log_repeats_it(scenes, capsys):
    folder, rows = scenes
    n_clean = len(rows)
    several = [name for name in {row[2] for row in rows} if sum(row[2] == name for row in rows) > 1]
    for name in sorted(several)[:2]:
        first = next(row for row in rows if row[2] == name)
        first[2] = name.upper()
    background = RLE.from_mask(np.indices(HW).sum(0) > 150).to_encoded_pixels()
    rows += [
        rows[-1],
        rows[-2],
        ["1.png", "5 3 5 1", "disc"],
        ["gone.png", "5 3", "disc"],
        ["2.png", background, "Background"],
    ]
    csv = write_rows(folder, rows)
    before = csv.read_bytes()
    assert call("check", csv, "--json") == 1
    kinds = {f["kind"] for f in json.loads(capsys.readouterr().out)["findings"]}
    assert {Kind.BAD_ROW, Kind.NO_FILE, Kind.REPEATED, Kind.SPELLING, Kind.BACKGROUND} <= kinds
    assert call("check", csv, "--fix", folder / "out.csv") == 0
    said = capsys.readouterr().err
    assert "remove mask" in said
    assert csv.read_bytes() == before
    repaired = opened(folder / "out.csv")
    assert repaired.n_instances == n_clean
    assert sorted(repaired.class_names) == sorted({row[2].lower() for row in rows} - {"background"})
    found = {f.kind for f in [*repaired.problems, *find_problems(repaired)]}
    assert found.isdisjoint({Kind.BAD_ROW, Kind.NO_FILE, Kind.REPEATED, Kind.SPELLING, Kind.BACKGROUND})
    actions = [line["action"] for line in log_of(folder / "out.csv")]
    assert actions.count(Action.REMOVE_MASK) == 2
    assert actions.count(Action.LEAVE_OUT) == 2
    assert Action.DROP_CLASS in actions
    assert actions.count(Action.MERGE_CLASS) == 2
    log = folder / "out.csv.fixes.jsonl"
    assert call("check", csv, "--fix", folder / "again.csv", "--replay", log) == 0
    assert (folder / "again.csv").read_bytes() == (folder / "out.csv").read_bytes()
    assert log_of(folder / "again.csv") == log_of(folder / "out.csv")


def test_moved_masks_are_moved_back(scenes):
    folder, rows = scenes
    clean = opened(write_rows(folder, rows))
    moved = [[row[0], RLE.from_encoded_pixels(row[1], HW).shift(2, -1).to_encoded_pixels(), row[2]] for row in rows]
    csv = write_rows(folder, moved)
    assert call("check", csv, "--fix", folder / "out.csv") == 0
    assert [line["move"] for line in log_of(folder / "out.csv")] == [[-2, 1]]
    repaired = opened(folder / "out.csv")
    assert Kind.SHIFTED not in {f.kind for f in find_problems(repaired)}
    back = [RLE(mask, HW).shift(2, -1).shift(-2, 1) for mask in map(clean.masks.__getitem__, range(clean.n_instances))]
    assert [RLE(repaired.masks[k], HW) for k in range(repaired.n_instances)] == back


@pytest.mark.parametrize(("numbering", "option"), [({"order": "row"}, "--order row"), ({"origin": 0}, "--origin 0")])
def test_masks_are_read_with_the_better_option(scenes, numbering, option):
    folder, rows = scenes
    clean = opened(write_rows(folder, rows))
    encoded = [[row[0], RLE.from_encoded_pixels(row[1], HW).to_encoded_pixels(**numbering), row[2]] for row in rows]
    csv = write_rows(folder, encoded)
    assert call("check", csv, "--fix", folder / "out.csv") == 0
    assert log_of(folder / "out.csv")[0]["option"] == option
    repaired = opened(folder / "out.csv")
    assert np.array_equal(repaired.masks.runs, clean.masks.runs)
    log = folder / "out.csv.fixes.jsonl"
    assert call("check", csv, "--fix", folder / "again.csv", "--replay", log) == 0
    assert (folder / "again.csv").read_bytes() == (folder / "out.csv").read_bytes()


def test_swapped_sizes_are_read_again(scenes):
    """One image has its sizes in order: it alone is left out."""
    folder, rows = scenes
    in_order = rows[-1][0]
    sized = [[*row, *(HW if row[0] == in_order else HW[::-1])] for row in rows]
    csv = write_rows(folder, sized, "ImageId,EncodedPixels,ClassId,Height,Width")
    assert call("check", csv, "--fix", folder / "out.csv") == 0
    changes = log_of(folder / "out.csv")
    assert changes[0]["option"] == "--column height=Width --column width=Height"
    assert [change["action"] for change in changes[1:]] == [Action.LEAVE_OUT]
    assert opened(folder / "out.csv").n_instances == sum(row[0] != in_order for row in rows)


def test_sizes_that_are_all_swapped_are_read_again(scenes):
    folder, rows = scenes
    csv = write_rows(
        folder, [[*row, *HW[::-1]] for row in rows], "ImageId,EncodedPixels,ClassId,Image Height,Image Width"
    )
    assert call("check", csv) == 2
    assert call("check", csv, "--fix", folder / "out.csv") == 0
    assert log_of(folder / "out.csv")[0]["option"] == "--column height=Image Width --column width=Image Height"
    assert opened(folder / "out.csv").n_instances == len(rows)
    log = folder / "out.csv.fixes.jsonl"
    assert call("check", csv, "--fix", folder / "again.csv", "--replay", log) == 0
    assert (folder / "again.csv").read_bytes() == (folder / "out.csv").read_bytes()


def test_data_without_a_usable_image_are_not_repaired(scenes):
    folder, rows = scenes
    csv = write_rows(folder, [["gone.png", *row[1:]] for row in rows])
    assert call("check", csv, "--fix", folder / "out.csv") == 2
    assert not (folder / "out.csv").exists()


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_masks_of_the_stored_pixels_are_turned_upright(tmp_path, orientation):
    csv = write_scenes(tmp_path / "stored", orientation, drawn_on="stored")
    upright = opened(write_scenes(tmp_path / "upright", orientation, drawn_on="upright"))
    out = tmp_path / "stored" / "out.csv"
    call("check", csv, "--exif", "ignore", "--fix", out)
    repaired = opened(out)
    assert np.array_equal(repaired.masks.runs, upright.masks.runs)
    assert np.array_equal(repaired.sizes, upright.sizes)
    assert {line["action"] for line in log_of(out)} == {Action.TURN_UPRIGHT}


def test_a_damaged_image_is_left_out(scenes):
    folder, rows = scenes
    csv = write_rows(folder, rows)
    damaged = folder / "images" / rows[0][0]
    damaged.write_bytes(damaged.read_bytes()[:-500])
    assert call("check", csv) == 1
    assert call("check", csv, "--fix", folder / "out.csv") == 0
    assert rows[0][0] not in opened(folder / "out.csv").names


def test_repeats_of_two_classes_are_left_to_people(scenes, capsys):
    folder, rows = scenes
    csv = write_rows(folder, [*rows, [rows[0][0], rows[0][1], "zebra"]])
    assert call("check", csv, "--fix", folder / "out.csv") == 1
    assert "left for you to judge: repeated mask (1)" in capsys.readouterr().err
    assert opened(folder / "out.csv").n_instances == len(rows) + 1


def test_coco_is_written_too(scenes):
    folder, rows = scenes
    csv = write_rows(folder, [*rows, rows[0]])
    assert call("check", csv, "--fix", folder / "out.json") == 0
    assert opened(folder / "out.json").n_instances == len(rows)


@pytest.mark.parametrize(("arguments", "message"), [
    (["--fix", "{csv}"], "exists; name another"),
    (["--fix", "{folder}/out.txt"], "ends in .csv or .json"),
    (["--replay", "{folder}/log"], "name the file to write with --fix"),
    (["--fix", "{folder}/out.csv", "--replay", "{folder}/log"], "cannot read"),
    (["--fix", "{folder}/out.csv", "--replay", "{csv}"], "is no log of repairs"),
])  # fmt: skip
def test_mistakes_are_named_and_nothing_is_written(scenes, capsys, arguments, message):
    folder, rows = scenes
    csv = write_rows(folder, rows)
    before = sorted(folder.iterdir()), csv.read_bytes()
    assert call("check", csv, *(a.format(csv=csv, folder=folder) for a in arguments)) == 1
    assert message in " ".join(capsys.readouterr().err.split())
    assert (sorted(folder.iterdir()), csv.read_bytes()) == before


@pytest.mark.parametrize("line", [
    "[]", "{}", '{"action": "explode", "kind": "tiny mask", "place": ""}',
    '{"action": "remove mask", "kind": "tiny mask", "place": "", "mask": 9999}',
    '{"action": "remove mask", "kind": "tiny mask", "place": "", "mask": -1}',
    '{"action": "remove mask", "kind": "tiny mask", "place": "", "mask": "2"}',
    '{"action": "merge class", "kind": "tiny mask", "place": "", "label": 1, "into": 77}',
    '{"action": "read again", "kind": "tiny mask", "place": "", "option": "--images /"}',
    '{"action": "move masks", "kind": "tiny mask", "place": "", "move": [1]}',
    "\xff", "[" * 5000,
])  # fmt: skip
def test_a_damaged_log_is_refused(scenes, capsys, line):
    folder, rows = scenes
    csv = write_rows(folder, rows)
    log = folder / "log.jsonl"
    log.write_bytes(
        b'{"source": "x", "fingerprint": "%s"}\n' % opened(csv).fingerprint().encode() + line.encode("latin-1")
    )
    assert call("check", csv, "--fix", folder / "out.csv", "--replay", log) == 1
    assert "error: " in capsys.readouterr().err
    assert not (folder / "out.csv").exists()


def test_masks_that_a_move_takes_off_the_image_are_counted(scenes, capsys):
    folder, rows = scenes
    last = RLE.from_mask(np.indices(HW)[0] == 0).to_encoded_pixels()
    csv = write_rows(folder, [*rows, [rows[0][0], last, rows[0][2]]])
    data = opened(csv)
    log = folder / "log.jsonl"
    head = {"source": "x", "fingerprint": data.fingerprint()}
    move = {"action": "move masks", "kind": "masks beside their objects", "place": "", "move": [0, -1]}
    log.write_text("".join(json.dumps(line) + "\n" for line in (head, move)))
    assert call("check", csv, "--fix", folder / "out.csv", "--replay", log) == 0
    n_left = opened(folder / "out.csv").n_instances
    assert n_left < data.n_instances
    assert f"{n_left} of {data.n_instances} masks" in " ".join(capsys.readouterr().err.split())


def test_a_log_of_other_data_is_refused(scenes, capsys):
    folder, rows = scenes
    csv = write_rows(folder, [*rows, rows[0]])
    assert call("check", csv, "--fix", folder / "out.csv") == 0
    write_rows(folder, rows)
    assert call("check", csv, "--fix", folder / "again.csv", "--replay", folder / "out.csv.fixes.jsonl") == 1
    assert "is of other data" in capsys.readouterr().err
    assert not (folder / "again.csv").exists()
