"""Polygons in a mask column: told from lists of runs by all rows, and read by COCO's rule."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from maskrcnn import RLE, UserError, open_dataset

HW = (60, 90)


def polygon(rng, n_points=8, whole=False):
    """An irregular polygon around a random centre: its x rise and fall."""
    angles = [*rng.uniform(0, 2 * np.pi, n_points - 3).tolist(), 0.5, 2.5, 4.5]
    radii = rng.uniform(5, 14, n_points)
    center = rng.uniform((16, 16), (HW[1] - 16, HW[0] - 16))
    points = center + radii[:, None] * np.stack([np.cos(sorted(angles)), np.sin(sorted(angles))], 1)
    return (points.round() if whole else points.round(2)).ravel().tolist()


WRITERS = {
    "nested fractions": lambda polygons: json.dumps(polygons),
    "nested, as Python prints it": lambda polygons: str(tuple(map(tuple, polygons))),
    "whole numbers": lambda polygons: json.dumps([[round(v) for v in p] for p in polygons]),
}


def opened(folder, texts, header="segmentation", **options):
    (folder / "images").mkdir(exist_ok=True)
    Image.new("L", HW[::-1]).save(folder / "images" / "a.png")
    with (folder / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", header], *(["a.png", text] for text in texts)])
    lines: list[str] = []
    return open_dataset(folder / "train.csv", say=lines.append, **options), "\n".join(lines)


def expected(texts):
    return [
        RLE.from_polygons(json.loads(text.replace("(", "[").replace(")", "]").replace(",]", "]")), HW) for text in texts
    ]


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("n_parts", [1, 2])
@pytest.mark.parametrize("header", ["segmentation", "EncodedPixels"])
def test_polygons_are_read_and_said(tmp_path, rng, writer, n_parts, header):
    texts = [WRITERS[writer]([polygon(rng) for _ in range(n_parts)]) for _ in range(6)]
    data, said = opened(tmp_path, texts, header)
    assert data.rles(0) == expected(texts)
    assert data.problems == []
    assert not data.is_numbered
    assert f"every text of {header} is read as polygons of x and y, because " in said
    assert " of 6 cannot be runs" in said


@pytest.mark.parametrize("whole", [True, False])
def test_flat_lists_of_points_are_polygons(tmp_path, rng, whole):
    polygons = [polygon(rng, whole=whole) for _ in range(5)]
    data, said = opened(tmp_path, [str(p) for p in polygons])
    assert data.rles(0) == [RLE.from_polygons([p], HW) for p in polygons]
    assert "is read as polygons" in said


def blobs(rng, n):
    rows, columns = np.mgrid[: HW[0], : HW[1]]
    centers = rng.uniform((12, 12), (HW[0] - 12, HW[1] - 12), (n, 2))
    return [RLE.from_mask((rows - y) ** 2 + (columns - x) ** 2 <= rng.uniform(9, 99)) for y, x in centers]


@pytest.mark.parametrize("numbering", [{}, {"origin": 0}, {"relative": True}, {"order": "row"}])
@pytest.mark.parametrize("is_said", [True, False])
def test_lists_of_runs_stay_runs(tmp_path, rng, numbering, is_said):
    masks = blobs(rng, 6)
    texts = [str([int(n) for n in mask.to_encoded_pixels(**numbering).split()]) for mask in masks]
    if is_said:
        data, said = opened(tmp_path, texts, **numbering)
        assert data.rles(0) == masks
    else:
        data, said = opened(tmp_path, texts, bad="skip")
    assert "polygons" not in said
    assert "lists of numbers" in said


def test_lists_that_may_be_either_stay_runs(tmp_path):
    texts = ["[5, 3, 12, 3, 20, 9]", "[1, 2, 8, 2, 30, 7]", "[10, 4, 20, 5, 40, 6]"]
    data, said = opened(tmp_path, texts)
    assert [len(mask.runs) for mask in data.rles(0)] == [3, 3, 3]
    assert "lists of numbers" in said


BAD = {
    "words": ("no mask", "'no mask' is no polygon; expected [x, y, x, y, ...] of 3 points or more"),
    "two points": ("[[1, 2, 3, 4]]", "'[[1, 2, 3, 4]]' is no polygon"),
    "an odd count": ("[[1, 2, 3, 4, 5, 6, 7]]", "is no polygon"),
    "outside": ("[[1, 2, 300, 4, 5, 60]]", "goes beyond the image of 60 x 90 (height x width)"),
    "runs": ("5 3 12 3", "'5 3 12 3' is no polygon"),
    "not finite": ("[[1, 2, NaN, 4, 5, 6]]", "is no polygon"),
    "nested deeply": ("[" * 100_000, "is no polygon"),
    "another size": ('{"size": [3, 4], "counts": [12]}', "the size 3 x 4 is not that of the image"),
}


@pytest.mark.parametrize("fault", BAD)
def test_one_bad_row_is_named_alone(tmp_path, rng, fault):
    text, message = BAD[fault]
    good = [WRITERS["nested fractions"]([polygon(rng)]) for _ in range(4)]
    with pytest.raises(UserError, match=r"has 1 problem:\n.*row 4: segmentation of a\.png: ") as caught:
        opened(tmp_path, [*good[:2], text, *good[2:]])
    assert message in str(caught.value)
    assert opened(tmp_path, [*good[:2], text, *good[2:]], bad="skip")[0].rles(0) == expected(good)


def test_a_crowd_of_coco_stands_beside_polygons(tmp_path, rng):
    crowd = blobs(rng, 1)[0]
    good = [WRITERS["nested fractions"]([polygon(rng)]) for _ in range(3)]
    counts = {"size": list(HW), "counts": crowd.counts()}
    assert opened(tmp_path, [json.dumps(counts), *good])[0].rles(0) == [crowd, *expected(good)]


def test_points_on_the_far_edge_are_inside(tmp_path):
    width, height = float(HW[1]), float(HW[0])
    data, _ = opened(tmp_path, [f"[[0.0, 0.0, {width}, 0.0, {width}, {height}, 0.0, {height}]]"] * 2)
    assert data.rles(0)[0].area == HW[0] * HW[1]


def test_polygons_of_no_pixel_are_counted(tmp_path, rng):
    good = [WRITERS["nested fractions"]([polygon(rng)]) for _ in range(3)]
    data, said = opened(tmp_path, [*good, "[[5.1, 5.1, 5.2, 5.1, 5.2, 5.2]]"])
    assert data.n_instances == 3
    assert "1 cover no pixel" in said
