"""Each kind of finding: data that show it, and clean data that show nothing."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from maskrcnn import RLE, open_dataset
from maskrcnn.data.dataset import read_pixels
from maskrcnn.data.doctor import find_problems
from maskrcnn.data.doctor import images as images_module
from maskrcnn.data.doctor import masks as masks_module
from maskrcnn.data.doctor.classes import spelled_alike
from maskrcnn.data.doctor.shift import find_shift, steps_across
from maskrcnn.data.formats.mask_texts import Numbering
from maskrcnn.data.problem import KINDS, Kind, Repair, Severity
from maskrcnn.data.synthetic import make_shapes
from maskrcnn.rle import RunTable

HW = (96, 128)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp("clean"), 8, seed=11, hw=HW)


@pytest.fixture
def copied(tmp_path):
    """Clean data whose images a test may change."""
    return make_shapes(tmp_path, 6, seed=4, hw=HW)


def kinds(problems):
    return Counter(problem.kind for problem in problems)


def with_masks(data, masks, image=0):
    """Return `data` with other masks (dense or RLE) in one image, and only that image."""
    rles = [mask if isinstance(mask, RLE) else RLE.from_mask(mask) for mask in masks]
    one = data.take([image])
    return replace(
        one,
        image_index=np.zeros(len(rles), np.int64),
        labels=np.ones(len(rles), np.int64),
        masks=RunTable.of(rle.runs for rle in rles),
        rows=np.arange(2, 2 + len(rles)),
        class_ids=[1],
        class_names=["object"],
    )


def rectangle(x1, y1, x2, y2):
    mask = np.zeros(HW, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def test_every_kind_is_described():
    assert set(KINDS) == set(Kind)
    for kind, description in KINDS.items():
        texts = (description.meaning, description.harm, description.remedy)
        assert all(text.endswith(".") for text in texts), kind


def test_problems_come_before_notes():
    severities = [KINDS[kind].severity for kind in Kind]
    assert severities == sorted(severities, reverse=True)


def test_every_repair_is_of_some_kind():
    assert {d.repair for d in KINDS.values()} - {None} == set(Repair)


def test_clean_data_have_no_findings(clean):
    assert find_problems(clean) == []


@pytest.mark.parametrize(("masks", "kind"), [
    ([rectangle(5, 5, 6, 6)], Kind.TINY),
    ([rectangle(5, 5, 6, 8)], Kind.TINY),
    ([rectangle(5, 5, 6, 30)], Kind.SLIT),
    ([rectangle(5, 5, 40, 6)], Kind.SLIT),
    ([rectangle(0, 0, 128, 96)], Kind.FULL),
    ([rectangle(0, 0, 128, 96), rectangle(5, 5, 20, 20)], Kind.FULL),
    ([rectangle(5, 5, 20, 20) | rectangle(40, 8, 55, 22)], Kind.DISTANT_PARTS),
    ([rectangle(5, 5, 20, 20) | rectangle(8, 50, 22, 62)], Kind.DISTANT_PARTS),
    ([rectangle(5, 5, 40, 40)] * 2, Kind.REPEATED),
    ([rectangle(5, 5, 45, 45), rectangle(5, 5, 45, 44)], Kind.NEARLY_REPEATED),
    ([rectangle(5, 5, 45, 45), rectangle(5, 5, 30, 30)], Kind.COVERED),
    ([rectangle(5, 5, 45, 45), rectangle(40, 40, 80, 80)], Kind.OVERLAP),
])  # fmt: skip
def test_masks(clean, masks, kind):
    data = with_masks(clean, masks)
    [finding] = find_problems(data, decode=False)
    assert finding.kind == kind
    assert finding.image == data.names[0]
    assert len(finding.instances) == (len(masks) if kind != Kind.FULL else 1)


@pytest.mark.parametrize("mask", [
    rectangle(5, 5, 20, 20) | rectangle(22, 5, 37, 20),  # behind a pole
    rectangle(5, 5, 40, 40) | rectangle(90, 80, 93, 83),  # a crumb
    rectangle(5, 5, 7, 9),
    rectangle(5, 5, 40, 90) & ~rectangle(15, 15, 30, 60),  # a ring
])  # fmt: skip
def test_usual_masks_are_no_findings(clean, mask):
    assert find_problems(with_masks(clean, [mask]), decode=False) == []


def test_crowds_cover_others_and_have_parts(clean):
    crowd = rectangle(5, 5, 40, 40) | rectangle(90, 5, 125, 40)
    data = with_masks(clean, [crowd, rectangle(8, 8, 20, 20)])
    assert kinds(find_problems(data, decode=False)) == {Kind.DISTANT_PARTS: 1, Kind.COVERED: 1}
    assert find_problems(replace(data, crowd=np.array([True, False])), decode=False) == []


def test_pairs_are_found_in_every_block(clean, monkeypatch):
    masks = [rectangle(x, 5, x + 6, 30) for x in range(0, 120, 4)]
    data = with_masks(clean, masks)
    expected = find_problems(data, decode=False)
    assert len(expected) == len(masks) - 1
    monkeypatch.setattr(masks_module, "ROWS_AT_ONCE", 7)
    assert find_problems(data, decode=False) == expected


@pytest.mark.parametrize("move", [(1, 0), (0, -1), (1, 1), (-2, 1), (3, -3)])
def test_masks_beside_their_objects_name_the_move_back(clean, move):
    dx, dy = move
    masks = [RLE(clean.masks[k], HW).shift(dx, dy) for k in range(clean.n_instances)]
    moved = replace(clean, masks=RunTable.of(mask.runs for mask in masks))
    [finding] = [f for f in find_problems(moved) if f.kind == Kind.SHIFTED]
    words = {-1: f"{abs(dx)} px to the right", 0: "", 1: f"{abs(dx)} px to the left"}[int(np.sign(dx))]
    assert words in finding.message
    words = {-1: f"{abs(dy)} px down", 0: "", 1: f"{abs(dy)} px up"}[int(np.sign(dy))]
    assert words in finding.message


@pytest.mark.parametrize("origin", [0, 1])
@pytest.mark.parametrize("order", ["row", "column"])
def test_the_wrong_first_pixel_is_named(clean, origin, order):
    """Runs that count from `origin` are read from the other first pixel."""
    by = -1 if origin == 0 else 1
    dx, dy = (by, 0) if order == "row" else (0, by)
    masks = [RLE(clean.masks[k], HW).shift(dx, dy) for k in range(clean.n_instances)]
    moved = replace(clean, masks=RunTable.of(mask.runs for mask in masks))
    [finding] = [f for f in find_problems(moved, numbering=Numbering(order, 1 - origin)) if f.kind == Kind.SHIFTED]
    assert f"pass --origin {origin}" in finding.message
    numbered = replace(moved, is_numbered=False)
    [finding] = [f for f in find_problems(numbered, numbering=Numbering(order, 1 - origin)) if f.kind == Kind.SHIFTED]
    assert "--origin" not in finding.message


def test_masks_drawn_by_hand_over_soft_edges(tmp_path, rng):
    """Every mask is up to a pixel off in its own way; all are another two pixels off together."""
    data = make_shapes(tmp_path, 16, seed=6, hw=HW)
    for file in data.files:
        Image.open(file).filter(ImageFilter.GaussianBlur(1.5)).save(file)
    own = rng.integers(-1, 2, (data.n_instances, 2)).tolist()
    for together in ((0, 0), (2, 0), (-2, 2)):
        masks = [RLE(data.masks[k], HW).shift(dx + together[0], dy + together[1]) for k, (dx, dy) in enumerate(own)]
        drawn = replace(data, masks=RunTable.of(mask.runs for mask in masks))
        found = [f.move for f in find_problems(drawn) if f.kind == Kind.SHIFTED]
        assert len(found) == (together != (0, 0))
        assert np.abs(np.array(found).reshape(-1, 2) + together).max(initial=0) <= 1


@pytest.mark.shared
def test_photos_with_polygons_drawn_by_hand(shared, clean):
    """In place, they are no finding; two pixels off, they are."""
    folder = shared / "data/fruits_nuts/images"
    names = sorted(path.stem for path in folder.glob("*.json"))
    pixels = [np.asarray(Image.open(folder / f"{name}.jpg").convert("RGB")) for name in names]
    shapes = [json.loads((folder / f"{name}.json").read_text())["shapes"] for name in names]
    outlines = [[np.ravel(shape["points"]).tolist() for shape in of_image] for of_image in shapes]
    for by in (0, 2):
        steps = []
        for image, polygons in zip(pixels, outlines, strict=True):
            masks = [RLE.from_polygons([polygon], image.shape[:2]).shift(by, 0) for polygon in polygons]
            steps.append(steps_across(image, masks))
        shift = find_shift(clean, steps, Numbering())
        assert (shift and (shift.dx, shift.dy)) == (None if by == 0 else (-2, 0))


def test_masks_without_edges_are_not_shifted(copied, rng):
    for file in copied.files:
        Image.fromarray(rng.integers(0, 255, (*HW, 3), np.uint8)).save(file)
    assert find_problems(copied) == []


def test_two_images_do_not_tell_a_shift(clean):
    masks = [RLE(clean.masks[k], HW).shift(1, 0) for k in range(clean.n_instances)]
    moved = replace(clean, masks=RunTable.of(mask.runs for mask in masks))
    assert find_problems(moved.take(np.flatnonzero(moved.counts)[:2])) == []


def test_equal_files_and_copies_of_another_size_are_told(copied):
    copied.files[4].write_bytes(copied.files[1].read_bytes())
    pixels = Image.fromarray(read_pixels(copied, 2))
    pixels.resize((64, 48)).resize((128, 96)).save(copied.files[5].with_suffix(".jpg"), quality=60)
    copied.files[5] = copied.files[5].with_suffix(".jpg")
    found = [f for f in find_problems(copied) if f.kind in (Kind.SAME_IMAGE, Kind.ALIKE)]
    assert [(f.kind, f.image) for f in found] == [
        (Kind.SAME_IMAGE, copied.names[4]),
        (Kind.ALIKE, copied.names[5]),
    ]
    assert copied.names[1] in found[0].message
    assert copied.names[2] in found[1].message


def test_alike_images_are_found_in_every_block(tmp_path, monkeypatch):
    data = make_shapes(tmp_path, 9, seed=8, hw=HW)
    for k in (3, 7, 8):
        Image.fromarray(read_pixels(data, 1)).save(data.files[k].with_suffix(".jpg"), quality=50 + k)
        data.files[k] = data.files[k].with_suffix(".jpg")
    expected = [f for f in find_problems(data) if f.kind == Kind.ALIKE]
    assert [(f.image, f.twin) for f in expected] == [(data.names[k], str(data.files[1])) for k in (3, 7, 8)]
    monkeypatch.setattr(images_module, "ROWS_AT_ONCE", 2)
    assert [f for f in find_problems(data) if f.kind == Kind.ALIKE] == expected


def test_dark_images_with_a_bright_spot_are_not_alike(tmp_path):
    """Nearly all their bits are equal."""
    data = make_shapes(tmp_path, 6, seed=8, hw=HW)
    data = with_masks(data, [rectangle(5, 5, 40, 40)]).take([0] * 6)
    for k in range(6):
        dark = np.zeros(HW, np.uint8)
        dark[10 + 12 * k : 18 + 12 * k, 20 + 14 * k : 28 + 14 * k] = 255
        Image.fromarray(dark).save(tmp_path / f"dark{k}.png")
    data = replace(data, files=[tmp_path / f"dark{k}.png" for k in range(6)])
    assert find_problems(data) == []


def test_repeated_images_of_one_side_are_no_leaks(copied):
    train, val = copied.take([0, 1, 2]), copied.take([3, 4, 5])
    train.files[2].write_bytes(train.files[0].read_bytes())
    val.files[2].write_bytes(val.files[1].read_bytes())
    Image.fromarray(read_pixels(val, 0)).save(val.files[1].with_suffix(".jpg"), quality=80)
    val.files[1] = val.files[1].with_suffix(".jpg")
    assert kinds(find_problems(train, validation=val)) == {Kind.SAME_IMAGE: 1}


def test_images_of_one_brightness_look_like_nothing(copied):
    for k, file in enumerate(copied.files):
        Image.new("RGB", HW[::-1], (20 * k, 20 * k, 20 * k)).save(file)
    assert find_problems(copied) == []


def test_leaks_between_parts_and_into_validation_data(copied):
    copied.files[3].write_bytes(copied.files[0].read_bytes())
    Image.fromarray(read_pixels(copied, 1)).save(copied.files[4].with_suffix(".jpg"), quality=70)
    copied.files[4] = copied.files[4].with_suffix(".jpg")
    in_parts = replace(copied, parts=["train"] * 3 + ["val"] * 3)
    found = [f for f in find_problems(in_parts) if f.kind not in (Kind.SHIFTED, Kind.TINY)]
    assert [(f.kind, f.image) for f in found] == [(Kind.LEAK, copied.names[k]) for k in (3, 4)]
    train, val = copied.take([0, 1, 2]), copied.take([3, 4, 5])
    assert find_problems(train) == []
    assert kinds(find_problems(train, validation=val)) == {Kind.LEAK: 2}


def test_mixed_channels_and_depths(copied):
    Image.open(copied.files[0]).convert("L").save(copied.files[0])
    [finding] = find_problems(copied)
    assert finding.kind == Kind.MIXED
    assert "5 in colour" in finding.message
    assert "1 in gray" in finding.message
    for file in copied.files[1:4]:
        Image.fromarray(np.asarray(Image.open(file).convert("L"), np.uint16) * 200).save(file)
    for file in copied.files[4:]:
        Image.open(file).convert("L").save(file)
    [finding] = find_problems(copied)
    assert "3 with more than 8 bits" in finding.message


def test_damaged_images(copied):
    copied.files[2].write_bytes(copied.files[2].read_bytes()[:-200])
    assert kinds(find_problems(copied)) == {Kind.UNREADABLE: 1}
    assert find_problems(copied, decode=False) == []


@pytest.mark.parametrize(("names", "kind", "text"), [
    (["cat", "Cat"], Kind.SPELLING, "'cat' (2 objects), 'Cat' (1 object)"),
    (["traffic light", "traffic_light"], Kind.SPELLING, "traffic_light"),
    (["Größe ", "größe"], Kind.SPELLING, "größe"),
    (["cat", "cats"], Kind.ONE_LETTER, "'cat' and 'cats'"),
    (["hazelnut", "haselnut"], Kind.ONE_LETTER, "hazelnut"),
    (["hazelnut", "hazlnut"], Kind.ONE_LETTER, "hazlnut"),
    (["triangle", "triangel"], Kind.ONE_LETTER, "triangel"),
    (["background", "cell"], Kind.BACKGROUND, "'background' (id 1) has 2 objects"),
    (["cell", "__BACKGROUND__"], Kind.BACKGROUND, "(id 2) has 1 object"),
    (["cat", "dog", "horse"], Kind.UNUSED_CLASS, "horse"),
])  # fmt: skip
def test_names_of_classes(clean, names, kind, text):
    data = with_masks(clean, [rectangle(x, 5, x + 10, 25) for x in (5, 30, 60)])
    data = replace(data, labels=np.array([1, 1, 2]), class_names=names, class_ids=list(range(1, len(names) + 1)))
    [finding] = find_problems(data, decode=False)
    assert finding.kind == kind
    assert text in finding.message


@pytest.mark.parametrize("names", [
    ["cat", "car"], ["class 1", "class 2"], ["grade a", "grade b"], ["apple", "maple"], ["type10", "type11"],
    ["left lung", "right lung"], ["cat", "dog"], ["triangle", "tirangel"],
])  # fmt: skip
def test_names_of_two_classes_are_no_finding(clean, names):
    data = with_masks(clean, [rectangle(x, 5, x + 10, 25) for x in (5, 30)])
    data = replace(data, labels=np.array([1, 2]), class_names=names, class_ids=[0, 1])
    assert find_problems(data, decode=False) == []


@pytest.mark.parametrize(("ids", "missing"), [
    ([1, 2, 4], "3"), ([0, 1, 4], "2, 3"), ([1, 2, 3], None), (["a", "b", "d"], None), ([10, 200, 3000], None),
])  # fmt: skip
def test_gaps_in_class_ids(clean, ids, missing):
    data = with_masks(clean, [rectangle(x, 5, x + 10, 25) for x in (5, 30, 60)])
    data = replace(data, labels=np.array([1, 2, 3]), class_names=["cat", "dog", "horse"], class_ids=ids)
    assert [f.message for f in find_problems(data, decode=False)] == (
        [] if missing is None else [f"no class has the id {missing}"]
    )


def test_names_without_letters_stay_apart():
    assert spelled_alike(["-", "_", "a"]) == []


def write_coco(folder, change):
    """Write two discs in each of three images; `change` gets the list of annotations."""
    (folder / "images").mkdir()
    y, x = np.mgrid[: HW[0], : HW[1]]
    images, annotations = [], []
    for i in range(3):
        Image.new("RGB", HW[::-1]).save(folder / "images" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": HW[0], "width": HW[1]})
        for cx, cy in ((30, 30 + i), (90, 60)):
            mask = RLE.from_mask((x - cx) ** 2 + (y - cy) ** 2 <= 15**2)
            x1, y1, x2, y2 = mask.box
            entry = {
                "image_id": i,
                "category_id": 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "segmentation": mask.to_coco(),
            }
            annotations.append({"id": len(annotations) + 1, **entry})
    change(annotations)
    path = folder / "a.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "disc"}]})
    )
    return open_dataset(path, say=lambda _: None)


def findings_of_boxes(data):
    return [f for f in find_problems(data, decode=False) if f.kind in (Kind.BOX, Kind.OUTSIDE)]


def set_box(annotations, k, box):
    annotations[k]["bbox"] = box


@pytest.mark.parametrize("change", [
    lambda annotations: None,
    lambda annotations: [a.pop("bbox") for a in annotations],
    lambda annotations: annotations[0].pop("bbox"),
    lambda annotations: set_box(annotations, 0, [14.6, 15.2, 31.7, 30.4]),
])  # fmt: skip
def test_boxes_that_fit(tmp_path, change):
    assert findings_of_boxes(write_coco(tmp_path, change)) == []


def test_a_box_of_another_object(tmp_path):
    data = write_coco(tmp_path, lambda annotations: set_box(annotations, 3, [10, 10, 30, 30]))
    [finding] = findings_of_boxes(data)
    assert (finding.kind, finding.instances) == (Kind.BOX, (3,))
    assert finding.place.endswith("annotation 4")
    assert "is 10, 10, 40, 40, that of the mask 75, 45, 106, 76" in finding.message
    assert len(findings_of_boxes(data.take([1]))) == 1
    assert findings_of_boxes(data.take([0, 2])) == []


def test_a_box_beyond_the_image(tmp_path):
    data = write_coco(tmp_path, lambda annotations: set_box(annotations, 1, [75, 45, 60, 31]))
    finding = findings_of_boxes(data)[0]
    assert finding.kind == Kind.OUTSIDE
    assert "7 pixels beyond" in finding.message


def test_boxes_written_as_corners(tmp_path):
    def as_corners(annotations):
        for a in annotations:
            x, y, w, h = a["bbox"]
            a["bbox"] = [x, y, x + w, y + h]

    found = [f for f in findings_of_boxes(write_coco(tmp_path, as_corners)) if f.kind == Kind.BOX]
    assert ["x1, y1, x2, y2" in f.message for f in found] == [True]


def test_images_that_the_annotations_do_not_list(tmp_path):
    data = write_coco(tmp_path, lambda annotations: None)
    assert data.problems == []
    Image.new("RGB", (9, 9)).save(tmp_path / "images" / "extra.png")
    [finding] = open_dataset(data.source, say=lambda _: None).problems
    assert (finding.kind, finding.severity) == (Kind.UNLISTED, Severity.NOTE)
    assert "extra.png" in finding.message
    assert open_dataset(data.source, unlisted="empty", say=lambda _: None).problems == []


@pytest.mark.shared
def test_good_data_do_not_drown_in_findings(shared):
    """Community-corrected masks of 664 images: no problem, and a handful of notes."""
    data = open_dataset(shared / "data/dsb2018/train.csv", say=lambda _: None)
    found = find_problems(data.take(np.arange(0, len(data), 4)))
    assert [f for f in found if f.is_problem] == []
    assert len(found) < 20
