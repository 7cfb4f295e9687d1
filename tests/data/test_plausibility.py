"""Data whose rows are valid one by one and wrong as a whole: `check` and `train` say so in the same words."""

import numpy as np
import pytest
from PIL import Image

from maskrcnn import RLE, UserError, open_dataset
from maskrcnn.data.problem import Kind
from maskrcnn.kernels.runs import count_pieces
from scenes import save_turned

HW = (60, 90)


def disc(y, x, r, hw=HW):
    rows, columns = np.mgrid[: hw[0], : hw[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= r * r


def write(folder, masks, hw=HW, header="ImageId,EncodedPixels", ending="", **numbering):
    """Write one picture for each list of masks, and the CSV."""
    (folder / "images").mkdir(exist_ok=True)
    lines = [header]
    for i, masks_of_image in enumerate(masks):
        Image.new("L", hw[::-1]).save(folder / "images" / f"{i}.png")
        texts = [RLE.from_mask(mask).to_encoded_pixels(**numbering) for mask in masks_of_image] or [""]
        lines += [f"{i}.png,{text}{ending}" for text in texts]
    csv = folder / "train.csv"
    csv.write_text("\n".join(lines) + "\n")
    return csv


def opened(csv, **options):
    lines: list[str] = []
    data = open_dataset(csv, say=lines.append, **options)
    return data, "\n".join(lines)


def random_discs(rng, n_images, hw=HW, n=3):
    return [
        [disc(rng.uniform(-3, hw[0] + 3), rng.uniform(-3, hw[1] + 3), rng.uniform(4, 14), hw) for _ in range(n)]
        for _ in range(n_images)
    ]


@pytest.mark.parametrize("hw", [HW, (90, 60), (50, 64)])
def test_masks_along_the_other_axis_name_the_order(tmp_path, rng, hw):
    masks = random_discs(rng, 4, hw)
    for order, other in (("row", "column"), ("column", "row")):
        csv = write(tmp_path, masks, hw, order=order)
        right, said = opened(csv, order=order)
        assert right.problems == []
        assert "warning" not in said
        wrong, said = opened(csv, order=other)
        [finding] = wrong.problems
        assert finding.kind == Kind.IN_PIECES
        assert finding.is_problem
        assert f"pass --order {order}" in finding.message
        assert f"warning: {finding}" in said
        assert wrong.n_instances == right.n_instances


@pytest.mark.parametrize("origin", [0, 1])
def test_masks_at_the_border_name_the_origin(tmp_path, rng, origin):
    """Read from the wrong first pixel, a mask that touches the top or bottom leaves crumbs at the other border."""
    border = HW[0] if origin else 0
    masks = [[disc(border, x, 6), disc(30, x, 9)] for x in (20, 30, 40, 50)]
    csv = write(tmp_path, masks, origin=origin)
    assert opened(csv, origin=origin)[0].problems == []
    [finding] = opened(csv, origin=1 - origin)[0].problems
    assert f"pass --origin {origin}" in finding.message


def test_masks_of_several_objects_suggest_nothing(tmp_path, rng):
    pairs = [[a | b for a, b in zip(one, two, strict=True)] for one, two in zip(
        random_discs(rng, 5), random_discs(rng, 5), strict=True
    )]  # fmt: skip
    scattered = [[rng.random(HW) < 0.02] for _ in range(3)]
    for number, masks in enumerate((pairs, scattered)):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert opened(write(folder, masks))[0].problems == []


def test_masks_of_the_unturned_picture_name_exif_too(tmp_path, rng):
    csv = write(tmp_path, random_discs(rng, 4))
    for path in (tmp_path / "images").iterdir():
        save_turned(np.zeros(HW, np.uint8), path, 6)
    [finding] = opened(csv)[0].problems
    assert "pass --exif ignore or --order row" in finding.message
    assert opened(csv, exif="ignore")[0].problems == []


@pytest.mark.parametrize("bad", ["error", "skip"])
def test_data_without_any_object_is_named(tmp_path, bad):
    data, said = opened(write(tmp_path, [[], []]), bad=bad)
    assert [finding.kind for finding in data.problems] == [Kind.NO_OBJECTS]
    assert "warning: " in said
    assert "no image has an object" in said


def test_masks_that_all_go_beyond_their_pictures_are_one_fault(tmp_path):
    csv = write(tmp_path, [[disc(50, 80, 5)], [disc(40, 80, 5)]])
    for i in range(2):
        Image.new("L", (45, 30)).save(tmp_path / "images" / f"{i}.png")
    with pytest.raises(UserError, match="Every mask goes beyond its picture"):
        opened(csv)
    assert "Every mask goes beyond its picture" in opened(csv, bad="skip")[1]


def test_a_hint_is_said_when_bad_rows_are_skipped(tmp_path):
    csv = write(tmp_path, [[disc(0, 0, 5)], [disc(30, 30, 5)]], origin=0)
    assert "every row is valid with --origin 0" in opened(csv, bad="skip")[1]


@pytest.mark.parametrize("bad", ["error", "skip"])
def test_swapped_sizes_are_called_swapped(tmp_path, bad):
    csv = write(tmp_path, [[disc(30, 30, 9)]], header="ImageId,EncodedPixels,Height,Width", ending=",90,60")
    with pytest.raises(UserError, match="The two are swapped: pass --column height=Width --column width=Height"):
        opened(csv, bad=bad)
    data, _ = opened(csv, columns={"height": "Width", "width": "Height"})
    assert data.hw(0) == HW
    csv.write_text(csv.read_text().replace(",90,60", ",91,60"))
    with pytest.raises(UserError) as caught:
        opened(csv)
    assert "The two are" not in str(caught.value)


@pytest.mark.parametrize("limit", [32_767, 50_000])
@pytest.mark.parametrize("n_values", ["even", "odd"])
def test_texts_that_a_spreadsheet_cut_are_named(tmp_path, limit, n_values):
    """An even number of values left is a valid mask, an odd one is not."""
    hw = (150, 900)
    whole = " ".join(f"{start} 1" for start in range(10_001, 10_001 + 2 * 8_000, 2))
    # The first blank is doubled until the cut leaves the number of values.
    texts = [whole.replace(" ", " " * n, 1)[:limit] for n in range(1, 9)]
    text = next(text for text in texts if len(text.split()) % 2 == (n_values == "odd"))
    csv = write(tmp_path, [[disc(30, 30, 9, hw)], []], hw)
    with csv.open("a") as file:
        file.write(f"1.png,{text}\n" * 2)
    if n_values == "odd":
        with pytest.raises(UserError, match=rf"row 4: .* is odd; the text has exactly {limit:,} characters"):
            opened(csv)
    data, said = opened(csv, bad="skip" if n_values == "odd" else "error")
    assert [finding.place.rpartition(" ")[2] for finding in data.problems] == ["4", "5"]
    assert {finding.kind for finding in data.problems} == {Kind.BAD_ROW if n_values == "odd" else Kind.CUT}
    assert "a spreadsheet cut the mask" in said
    assert ("skipped 2 problems" if n_values == "odd" else "1 more like it") in said
    assert data.n_instances == (1 if n_values == "odd" else 3)


def test_why_no_image_can_be_read_is_said(tmp_path):
    csv = write(tmp_path, [[disc(30, 30, 9)]])
    csv.write_text(csv.read_text().replace("0.png", "zebra.png"))
    with pytest.raises(UserError, match=r"of 1 image, none can be read from .*\n.*'zebra\.png' is not in the folder"):
        opened(csv, bad="skip")


def test_pieces_are_counted_like_a_flood_fill(rng):
    for density in (0.02, 0.2, 0.4, 0.6, 0.9, 1.0):
        for hw in ((17, 23), (40, 3), (1, 30), (30, 1)):
            mask = rng.random(hw) < density
            runs = RLE.from_mask(mask).runs
            counted = count_pieces(runs, np.array([0, len(runs)]), np.array([hw[0]]))
            assert counted.tolist() == [flood_fill_count(mask)]


def flood_fill_count(mask):
    left, pieces = set(zip(*np.nonzero(mask), strict=True)), 0
    while left:
        stack, pieces = [left.pop()], pieces + 1
        while stack:
            y, x = stack.pop()
            for neighbour in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
                if neighbour in left:
                    left.remove(neighbour)
                    stack.append(neighbour)
    return pieces
