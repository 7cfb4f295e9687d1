"""Mask columns as other programs write them: read where most rows agree, an error that names the row that does not."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from maskrcnn import RLE, UserError, open_dataset
from scenes import save_turned

HW = (30, 44)


def numbers(mask, **numbering):
    return [int(word) for word in mask.to_encoded_pixels(**numbering).split()]


def pairs(mask):
    values = numbers(mask)
    return list(zip(values[::2], values[1::2], strict=True))


WRITERS = {
    "floats": (lambda mask: " ".join(f"{n}.0" for n in numbers(mask)), "numbers with decimal points"),
    "commas": (lambda mask: ",".join(map(str, numbers(mask))), "numbers separated by commas"),
    "commas and blanks": (lambda mask: ", ".join(map(str, numbers(mask))), "numbers separated by commas"),
    "floats and commas": (lambda mask: ", ".join(f"{n}.0" for n in numbers(mask)), "numbers separated by commas"),
    "a JSON list": (lambda mask: json.dumps(numbers(mask)), "lists of numbers"),
    "a list of pairs": (lambda mask: str(pairs(mask)), "lists of numbers"),
    "an array of NumPy": (lambda mask: str(np.array(numbers(mask))), "lists of numbers"),
    "a matrix of NumPy": (lambda mask: str(np.array(pairs(mask), float)), "lists of numbers"),
    "several lines of floats": (lambda mask: "\n".join(f"{a}. {b}." for a, b in pairs(mask)), "decimal points"),
    "COCO's counts": (lambda mask: str(mask.counts()), "COCO's counts"),
    "COCO's string": (lambda mask: mask.to_coco()["counts"], "COCO's compressed counts"),
    "COCO's RLE as JSON": (lambda mask: json.dumps(mask.to_coco()), "COCO's RLE"),
    "COCO's RLE uncompressed": (lambda mask: json.dumps({"size": HW, "counts": mask.counts()}), "COCO's RLE"),
    "COCO's RLE as Python prints it": (
        lambda mask: str({"size": [*HW], "counts": mask.to_coco()["counts"].encode()}),
        "COCO's RLE",
    ),
}


def blobs(rng, n=4):
    rows, columns = np.mgrid[: HW[0], : HW[1]]
    centers = rng.uniform((6, 6), (HW[0] - 6, HW[1] - 6), (n, 2))
    return [RLE.from_mask((rows - y) ** 2 + (columns - x) ** 2 <= rng.uniform(2, 36)) for y, x in centers]


def opened(folder, texts, **options):
    (folder / "images").mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        Image.new("L", HW[::-1]).save(folder / "images" / name)
    with (folder / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ImageId", "EncodedPixels"])
        writer.writerows(["a.png", text] for text in texts)
        writer.writerow(["b.png", ""])
    lines: list[str] = []
    return open_dataset(folder / "train.csv", say=lines.append, **options), "\n".join(lines)


@pytest.mark.parametrize("dialect", WRITERS)
def test_dialects_of_all_rows_are_read_and_said(tmp_path, rng, dialect):
    write, name = WRITERS[dialect]
    masks = blobs(rng)
    data, said = opened(tmp_path, [write(mask) for mask in masks])
    assert data.rles(0) == masks
    assert data.problems == []
    assert "every text of EncodedPixels is read as" in said
    assert name in said


@pytest.mark.parametrize("dialect", ["a JSON list", "COCO's string"])
def test_the_options_hold_for_numbers_and_not_for_coco(tmp_path, rng, dialect):
    masks, numbering = blobs(rng), {"order": "row", "origin": 0}
    write = WRITERS[dialect][0] if "COCO" in dialect else lambda mask: json.dumps(numbers(mask, **numbering))
    assert opened(tmp_path, [write(mask) for mask in masks], **numbering)[0].rles(0) == masks


def test_an_empty_list_is_no_object(tmp_path, rng):
    masks = blobs(rng)
    data, _ = opened(tmp_path, [*(json.dumps(numbers(mask)) for mask in masks), "[]"])
    assert data.rles(0) == masks


OF_NUMBERS = [dialect for dialect in WRITERS if "COCO" not in dialect]
OF_COCO = [dialect for dialect in WRITERS if "COCO" in dialect]


@pytest.mark.parametrize("dialect", OF_NUMBERS)
@pytest.mark.parametrize("n_plain", [1, 3, 5])
def test_plain_integers_and_a_dialect_are_read_together(tmp_path, rng, dialect, n_plain):
    masks, (write, name) = blobs(rng, 6), WRITERS[dialect]
    texts = [mask.to_encoded_pixels() if k < n_plain else write(mask) for k, mask in enumerate(masks)]
    data, said = opened(tmp_path, texts)
    assert data.rles(0) == masks
    assert name in said
    assert f"beside plain integers in {n_plain} of 6 rows" in said


@pytest.mark.parametrize("dialect", OF_NUMBERS)
@pytest.mark.parametrize("odd", ["1.5 2.5 9", "no mask", "3; 4", "[1, 2", '{"counts": [1]}'])
def test_one_odd_row_is_named_and_leaves_the_others(tmp_path, rng, dialect, odd):
    masks, (write, name) = blobs(rng, 5), WRITERS[dialect]
    texts = [*map(write, masks[:3]), odd, *map(write, masks[3:])]
    with pytest.raises(UserError, match=r"has 1 problem:\n.*row 5: EncodedPixels of a\.png: ") as caught:
        opened(tmp_path, texts)
    assert repr(odd) in str(caught.value)
    assert "expected integers between blanks or, as in other rows, " in str(caught.value)
    assert name in str(caught.value)
    assert not re.search("write|alike", str(caught.value))
    assert opened(tmp_path, texts, bad="skip")[0].rles(0) == masks


def test_the_dialect_of_most_texts_is_read(tmp_path, rng):
    """Floats are most of the texts, and a list is then a bad row."""
    masks = blobs(rng, 5)
    texts = [*(" ".join(f"{n}.0" for n in numbers(mask)) for mask in masks[:4]), str(numbers(masks[4]))]
    with pytest.raises(UserError, match=r"has 1 problem:\n.*row 6: .*\[.* is no list of runs; expected"):
        opened(tmp_path, texts)


def test_a_column_of_no_form_stays_a_column_of_bad_rows(tmp_path, rng):
    texts = ["1.0 2.0", "x", "y", "z w"]
    with pytest.raises(UserError, match=r"has 4 problems:"):
        opened(tmp_path, texts)


@pytest.mark.parametrize("dialect", OF_COCO)
def test_one_row_of_runs_among_masks_of_coco_is_named_alone(tmp_path, rng, dialect):
    first, *others = blobs(rng, 5)
    texts = [first.to_encoded_pixels(), *map(WRITERS[dialect][0], others)]
    with pytest.raises(UserError, match=r"has 1 problem:\n.*row 2: EncodedPixels of a\.png: "):
        opened(tmp_path, texts)
    assert opened(tmp_path, texts, bad="skip")[0].rles(0) == others


@pytest.mark.parametrize(
    "text", ["1.5 3.0", "1,5 3,0", "{'counts': 3}", "[1, [", "bS27g14M2N2", "__import__('os')", "[-1, 2]"]
)
def test_what_is_no_dialect_is_an_error(tmp_path, text):
    with pytest.raises(UserError, match="row 2"):
        opened(tmp_path, [text])


@pytest.mark.parametrize("hw", [(HW[0] + 1, HW[1]), HW[::-1]])
def test_coco_of_another_size_is_an_error(tmp_path, hw):
    other = RLE.from_mask(np.ones(hw, bool))
    with pytest.raises(UserError, match="row 2"):
        opened(tmp_path, [json.dumps(other.to_coco())])


def test_data_without_a_text_has_no_dialect(tmp_path):
    assert "is read as" not in opened(tmp_path, [])[1]


def rows_first(mask):
    """COCO's counts of the mask, written along the rows by mistake."""
    return RLE.from_mask(mask.to_mask().T).counts()


@pytest.mark.parametrize("write", [str, lambda counts: json.dumps({"size": HW, "counts": counts})])
def test_no_option_of_numbers_is_advised_for_coco(tmp_path, rng, write):
    masks = blobs(rng, 9)
    data, said = opened(tmp_path, [write(rows_first(mask)) for mask in masks])
    assert data.n_instances == 9
    assert not data.is_numbered
    assert data.problems == []
    assert "--order" not in said


BAD_OBJECTS = {
    "another size": ({"size": [HW[0] + 1, HW[1]], "counts": [0, 1364]}, "the size 31 x 44 is not that of the image"),
    "no size": ({"size": None, "counts": [0, 1320]}, "the size None is not"),
    "one number": ({"size": 5, "counts": [0, 1320]}, "the size 5 is not"),
    "no counts": ({"size": HW, "counts": None}, "the counts None are not a list of integers"),
    "an object of counts": ({"size": HW, "counts": {}}, "the counts {} are not a list"),
    "lists of counts": ({"size": HW, "counts": [[0], [1320]]}, "are not a list of integers"),
    "a text in the counts": ({"size": HW, "counts": [0, "x"]}, "are not a list of integers"),
    "huge counts": ({"size": HW, "counts": [0, 2**70]}, "are not a list of integers"),
    "other keys": ({"points": [1, 2]}, "is not an object"),
}


@pytest.mark.parametrize("fault", BAD_OBJECTS)
def test_one_bad_object_of_coco_is_named_with_its_fault(tmp_path, rng, fault):
    content, message = BAD_OBJECTS[fault]
    first, *others = [json.dumps(mask.to_coco()) for mask in blobs(rng, 5)]
    texts = [first, json.dumps(content), *others]
    with pytest.raises(UserError, match=r"has 1 problem:\n.*row 3: ") as caught:
        opened(tmp_path, texts)
    assert message in str(caught.value)
    assert "brackets" not in str(caught.value)
    data, _ = opened(tmp_path, texts, bad="skip")
    assert data.n_instances == 5


@pytest.mark.parametrize("dialect", ["COCO's counts", "COCO's string"])
def test_one_row_of_counts_of_another_size_is_named(tmp_path, rng, dialect):
    write, masks = WRITERS[dialect][0], blobs(rng, 4)
    texts = [*(write(mask) for mask in masks), write(RLE.from_mask(np.eye(HW[0] + 1, HW[1], dtype=bool)))]
    with pytest.raises(UserError, match=r"has 1 problem:\n.*row 6: .* add up to 1364, not to 30 x 44"):
        opened(tmp_path, texts)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{'a':" * 100_000, "{1: {[]: 2}}"])
def test_texts_nested_too_deeply_are_bad_rows(tmp_path, text):
    with pytest.raises(UserError, match="row 2"):
        opened(tmp_path, [text])


def test_coco_of_the_unturned_picture_names_the_option(tmp_path, rng):
    (tmp_path / "images").mkdir()
    save_turned(np.zeros((*HW, 3), np.uint8), tmp_path / "images" / "t.png", 6)
    with (tmp_path / "turned.csv").open("w", newline="") as file:
        rows = [["t.png", json.dumps(mask.to_coco())] for mask in blobs(rng)]
        csv.writer(file).writerows([["ImageId", "EncodedPixels"], *rows])
    with pytest.raises(UserError, match="every row is valid with --exif ignore"):
        open_dataset(tmp_path / "turned.csv", say=lambda _: None)
    assert open_dataset(tmp_path / "turned.csv", exif="ignore", say=lambda _: None).n_instances == 4


@pytest.mark.parametrize("dialect", ["COCO's counts", "COCO's string", "COCO's RLE as JSON"])
@pytest.mark.parametrize("text", ["no mask", "[1319.5, 0.5]", "[131.9, 1]"])
def test_one_row_of_no_form_is_named_alone(tmp_path, rng, dialect, text):
    """131.9 and 1 would be all 1,320 pixels without the point."""
    texts = [*(WRITERS[dialect][0](mask) for mask in blobs(rng, 3)), text]
    with pytest.raises(UserError, match=r"has 1 problem:\n.*row 5: .* is not "):
        opened(tmp_path, texts)


def test_a_few_objects_among_runs_are_said(tmp_path, rng):
    first, *others = blobs(rng)
    texts = [json.dumps(first.to_coco()), *(mask.to_encoded_pixels() for mask in others)]
    with pytest.raises(UserError, match="write all rows alike"):
        opened(tmp_path, texts)


@pytest.mark.parametrize("dialect", OF_COCO)
def test_empty_masks_of_coco_are_counted(tmp_path, rng, dialect):
    masks, (write, _) = blobs(rng), WRITERS[dialect]
    data, said = opened(tmp_path, [write(mask) for mask in [*masks, RLE.empty(masks[0].hw)]])
    assert data.rles(0) == masks
    assert "; 1 cover no pixel" in said
