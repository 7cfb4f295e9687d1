"""What `fuzz.py` runs: every format, tables of other masks, codecs of masks, and the decoder of pictures.

Valid samples come from the package's writers, so that a new format is a target as soon as it is in ``MODULES``.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from mutations import Mutator
from PIL import Image

from maskrcnn import Dataset, open_dataset, shapes
from maskrcnn.data.convert import convert, written_formats
from maskrcnn.data.formats import coco_masks, dialects, labelme, supervisely
from maskrcnn.data.formats.brush import decode_brush, encode_brush
from maskrcnn.data.formats.cvat_masks import CvatMask, decode_cvat_mask
from maskrcnn.data.formats.packed import read_content
from maskrcnn.data.formats.polygon_texts import parse_polygons
from maskrcnn.data.formats.polygons import read_polygons
from maskrcnn.data.images import picture_suffixes, read_header, read_image, read_mask
from maskrcnn.errors import UserError
from maskrcnn.polygons import join_rings, rasterize_polygons
from maskrcnn.rle import RLE, RunTable

SIZES = [(24, 32), (17, 19), (20, 12)]
NAMES = ["train/a.png", "train/größe, b.png", "val/c.png"]
HW = SIZES[0]


def disc(hw: tuple[int, int], radius: float) -> np.ndarray:
    """A disc in the middle of a picture, (H, W) bool."""
    rows, columns = np.mgrid[: hw[0], : hw[1]]
    return (rows - hw[0] / 2) ** 2 + (columns - hw[1] / 2) ** 2 <= radius**2


def write_sample(folder: Path) -> Dataset:
    """Write small pictures, and return them with masks of two classes that have everything a format may hold."""
    masks, image_index = [], []
    for i, (name, hw) in enumerate(zip(NAMES, SIZES, strict=True)):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*hw, 3), 40 * i, np.uint8)).save(file)
        ring = disc(hw, 7) & ~disc(hw, 4)
        corners = np.zeros(hw, bool)
        corners[:2, :3] = corners[-2:, -1] = True
        for mask in (ring, disc(hw, 3), corners)[: 3 - i]:
            masks.append(RLE.from_mask(mask).runs)
            image_index.append(i)
    n = len(masks)
    return Dataset(
        source=folder,
        names=list(NAMES),
        files=[folder / name for name in NAMES],
        sizes=np.array(SIZES),
        image_index=np.array(image_index),
        labels=np.arange(n) % 2 + 1,
        masks=RunTable.of(masks),
        rows=np.arange(1, n + 1),
        class_ids=[2, 7],
        class_names=["cell", "größe"],
        attributes=np.array([("", "20 44")[k % 2] for k in range(n)], object),
        crowd=np.arange(n) == 3,
        scores=np.linspace(0.1, 0.9, n),
        parts=[name.partition("/")[0] for name in NAMES],
    )


class Target:
    """Something to run on mutated content. `folder` is its own and empty. ``suffix`` is that of its content."""

    suffix = ""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.prepare(folder)

    def prepare(self, folder: Path) -> None:
        """Make the valid content."""

    def contents(self) -> Sequence[bytes]:
        """Return the valid content."""
        raise NotImplementedError

    def read(self, content: bytes) -> None:
        """Read content. Raise `UserError`."""
        raise NotImplementedError

    def run(self, mutator: Mutator | None, number: int) -> None:
        """Read valid content after a mutation, if there is one."""
        contents = self.contents()
        content = contents[number % len(contents)]
        self.read(content if mutator is None else mutator.mutated(content, self.suffix))


# ---- formats ------------------------------------------------------------------------------------------------------


class Format(Target):
    """A data set in a format. One of its files is changed, seldom its name; then the whole of it is opened."""

    def prepare(self, folder: Path) -> None:
        data = write_sample(folder / "pictures")
        Image.new("RGB", SIZES[0][::-1]).save(folder / "secret.png")
        self.root = folder / "data"
        self.root.mkdir()
        self.path = self.write(data)
        files = sorted(path for path in self.root.rglob("*") if path.is_file())
        self.content = {file: file.read_bytes() for file in files}
        annotations = [file for file in files if file.suffix.lower() not in picture_suffixes()]
        self.chosen = [*files, *annotations * (1 + 8 * len(files) // max(len(annotations), 1))]
        self.annotation_file = max(annotations or files, key=lambda file: len(self.content[file]))
        self.suffix = self.annotation_file.suffix

    def write(self, data: Dataset) -> Path:
        """Write `data` below ``root`` and return what to open."""
        suffix = next(iter(written(self.name)), "")
        return convert(data, self.root / f"set{suffix}", self.name, "copy").target

    def contents(self) -> Sequence[bytes]:
        return [self.content[self.annotation_file]]

    def read(self, content: bytes) -> None:
        self.annotation_file.write_bytes(content)
        self.open(0)

    def open(self, number: int) -> None:
        """Open the data set, in one of several ways. No picture may be outside of it."""
        data = open_dataset(
            self.path,
            format=self.format if number % 4 else None,
            bad=("skip", "error")[number % 3 == 2],
            unlisted=("ignore", "empty")[number % 5 == 1],
            say=lambda line: None,
        )
        root = self.root.resolve()
        outside = [file for file in data.files if not file.resolve().is_relative_to(root)]
        assert not outside, f"{outside[0]} is outside of {root}"
        data.fingerprint()

    @property
    def format(self) -> str:
        return self.name

    def run(self, mutator: Mutator | None, number: int) -> None:
        if mutator is None:
            return self.open(0)
        changed = [mutator.rng.choice(self.chosen) for _ in range(mutator.rng.choice((1, 1, 1, 2)))]
        made: list[Path] = []
        try:
            for file in changed:
                if mutator.rng.random() < 0.03:
                    made.append(file.with_name(mutator.file_name(file.name)))
                    if file.exists():
                        file.rename(made[-1])
                elif mutator.rng.random() < 0.02:
                    file.unlink(missing_ok=True)
                else:
                    suffix = self.suffix if file == self.annotation_file else file.suffix
                    file.write_bytes(mutator.mutated(self.content[file], suffix))
            self.open(number)
        finally:
            for file in made:
                file.unlink(missing_ok=True)
            for file in changed:
                file.write_bytes(self.content[file])


def written(name: str) -> Sequence[str]:
    """Return the suffixes of the files of a format."""
    from maskrcnn.data.formats import format_module

    return format_module(name).SUFFIXES


class Table(Format):
    """A table whose masks are texts of another form, or names of mask files."""

    format = "csv"

    def write(self, data: Dataset) -> Path:
        rows = []
        for i, name in enumerate(data.names):
            place = self.root / "images" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data.files[i].read_bytes())
            for k, mask in enumerate(data.rles(i)):
                rows.append({"ImageId": name, "EncodedPixels": self.mask(mask, f"{i}_{k}.png"), "ClassId": k})
        table = self.root / "train.csv"
        pl.DataFrame(rows).write_csv(table)
        return table

    def mask(self, mask: RLE, file: str) -> str:
        """Return the text of a mask; `file` is the name of a mask file that it may have."""
        counts = json.dumps(mask.to_coco())
        rings = [ring.ravel().tolist() for part in mask.to_polygons() for ring in (part.outer, *part.holes)]
        if self.name == "csv of polygons":
            return json.dumps(rings)
        if self.name == "csv of lists":
            return str(mask.counts())
        if self.name == "csv of files":
            folder = self.root / "masks"
            folder.mkdir(exist_ok=True)
            Image.fromarray(mask.to_mask()).save(folder / file)
            return file
        return counts


class ViaTable(Format):
    """VIA's CSV, which is read and not written."""

    format = "via"

    def write(self, data: Dataset) -> Path:
        rows = []
        for i, name in enumerate(data.names):
            place = self.root / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data.files[i].read_bytes())
            for k, mask in enumerate(data.rles(i)):
                ring = join_rings([ring for part in mask.to_polygons() for ring in (part.outer, *part.holes)])
                x, y = ring.T.tolist()
                rows.append(
                    {
                        "#filename": name,
                        "region_id": str(k),
                        "region_shape_attributes": json.dumps(
                            {"name": "polygon", "all_points_x": x, "all_points_y": y}
                        ),
                        "region_attributes": json.dumps({"class": "cell"}),
                    }
                )
        table = self.root / "via.csv"
        pl.DataFrame(rows).write_csv(table)
        return table


class Mots(Format):
    """MOTS, which is read and not written."""

    def write(self, data: Dataset) -> Path:
        for i in range(len(data)):
            place = self.root / "val" / "images" / "0001" / f"{i:06d}.png"
            labels = self.root / "val" / "instances" / "0001" / f"{i:06d}.png"
            for file in (place, labels):
                file.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data.files[i].read_bytes())
            values = np.zeros(data.hw(i), np.uint16)
            for k, mask in enumerate(data.rles(i)):
                values[mask.to_mask()] = (1001, 2002, 10_000)[k]
            Image.fromarray(values).save(labels)
        (self.root / "val" / "instances" / "labels.txt").write_text("car\nperson\n")
        return self.root


class WebTool(Format):
    """Files of LabelMe's web tool, which are read and not written: a polygon, and a mask in a picture."""

    def write(self, data: Dataset) -> Path:
        for kind in ("Images", "Annotations", "Masks"):
            (self.root / kind / "sub").mkdir(parents=True)
        for i, name in enumerate(data.names):
            stem, (height, width) = Path(name).stem, data.hw(i)
            (self.root / "Images" / "sub" / f"{stem}.png").write_bytes(data.files[i].read_bytes())
            objects = []
            for k, mask in enumerate(data.rles(i)):
                shape = f"<segm><mask>{stem}_mask_{k}.png</mask></segm>"
                if k % 2:
                    ring = join_rings([part.outer for part in mask.to_polygons()])
                    points = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ring.tolist())
                    shape = f"<polygon><username>a</username>{points}</polygon>"
                alpha = np.dstack([np.full((height, width, 3), 90), mask.to_mask() * 200]).astype(np.uint8)
                Image.fromarray(alpha).save(self.root / "Masks" / "sub" / f"{stem}_mask_{k}.png")
                parts = "<parts><hasparts/><ispartof/></parts>"
                objects.append(f"<object><name>cell</name><deleted>0</deleted>{parts}{shape}</object>")
            size = f"<imagesize><nrows>{height}</nrows><ncols>{width}</ncols></imagesize>"
            head = f"<filename>{stem}.png</filename><folder>sub</folder>"
            text = f"<annotation>{head}{''.join(objects)}{size}</annotation>"
            (self.root / "Annotations" / "sub" / f"{stem}.xml").write_text(text, "utf-8")
        return self.root


# ---- codecs -------------------------------------------------------------------------------------------------------


class Texts(Target):
    """A function of a text, or of bytes."""

    def __init__(self, contents: Sequence[bytes], read: Callable[[bytes], Any], suffix: str = ".txt") -> None:
        self._contents, self._read, self.suffix = contents, read, suffix

    def __call__(self, name: str, folder: Path) -> Texts:
        self.name = name
        return self

    def contents(self) -> Sequence[bytes]:
        return self._contents

    def read(self, content: bytes) -> None:
        self._read(content)


MASK = RLE.from_mask(disc(HW, 7) & ~disc(HW, 4))
RINGS = [ring.tolist() for part in MASK.to_polygons() for ring in (part.outer, *part.holes)]
FLAT = [np.ravel(ring).tolist() for ring in RINGS]


def text(content: bytes) -> str:
    """Return bytes as a text that may hold anything, also halves of surrogates."""
    return content.decode("utf-8", "surrogatepass" if content.isascii() else "replace")


def json_of(content: bytes) -> Any:
    """Return what JSON says; a text stands for JSON that is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return text(content)


def check(mask: RLE) -> None:
    """Assert that the runs of a mask increase and end inside the picture."""
    runs = mask.runs
    assert runs.dtype == np.int64
    assert runs.ndim == 2
    ends = runs.sum(1)
    assert (runs[:, 0] >= np.concatenate([[0], ends[:-1] + 1])[: len(runs)]).all() or runs[0, 0] == 0
    assert (runs[:, 1] > 0).all()
    assert len(ends) == 0 or ends[-1] <= mask.hw[0] * mask.hw[1]


def read_runs(content: bytes) -> None:
    """Parse EncodedPixels in one of their forms."""
    k = len(content) % 8
    check(RLE.from_encoded_pixels(text(content), HW, origin=k & 1, order="row" if k & 2 else "column", relative=k > 3))


def read_counts(content: bytes) -> None:
    """Convert COCO's object, whatever it is."""
    value = json_of(content)
    if isinstance(value, dict):
        check(RLE.from_coco(value))


def read_segmentation(content: bytes) -> None:
    """Draw COCO's segmentation, alone and as one of many."""
    segmentation = coco_masks.Segmentation(msgspec.Raw(content), Path("a.json"))
    mask = segmentation(HW)
    check(mask)
    polygons = parse_polygons([segmentation.text] if segmentation.text is not None else [])
    if polygons.valid.any():
        masks, bad = rasterize_polygons(polygons.points, polygons.polygon_offsets, polygons.mask_offsets, HW)
        assert not bad
        assert np.array_equal(masks[0], mask.runs)


def read_rings(content: bytes) -> None:
    """Rasterise polygons."""
    value = json_of(content)
    if isinstance(value, list):
        check(RLE.from_polygons(value, HW, holes=value[1:]))


def read_shapes(content: bytes) -> None:
    """Draw an ellipse, a rectangle and a circle of numbers."""
    value = json_of(content)
    if isinstance(value, list) and len(value) == 5:
        check(shapes.ellipse(value[:2], value[2:4], HW, degrees=value[4]))
        check(shapes.rectangle(value[:4], HW, degrees=value[4]))
        check(shapes.circle(value[:2], value[2], HW))


def read_brush_list(content: bytes) -> None:
    """Decode Label Studio's list of bytes."""
    value = json_of(content)
    if isinstance(value, list):
        check(decode_brush(value, HW))


def read_cvat(content: bytes) -> None:
    """Decode CVAT's counts with their box."""
    head, _, counts = text(content).partition("|")
    try:
        left, top, width, height = map(int, head.split())
    except ValueError:
        left, top, width, height = 0, 0, HW[1], HW[0]
    check(decode_cvat_mask(CvatMask(counts, left, top, width, height), HW))


def read_shape(content: bytes, draw: Callable[[Any, tuple[int, int]], RLE], type_: Any) -> None:
    """Draw an object of LabelMe or Supervisely, whose mask is a picture in base64."""
    try:
        shape = msgspec.json.decode(content, type=type_)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UserError(str(error)) from None
    check(draw(shape, HW))


def draw_shape(shape: labelme.Shape, hw: tuple[int, int]) -> RLE:
    """Draw LabelMe's shape if it has a mask."""
    return labelme.DRAWINGS[shape.kind](shape, hw) if shape.kind in labelme.DRAWINGS else RLE.empty(hw)


def draw_object(entry: supervisely.Object, hw: tuple[int, int]) -> RLE:
    """Draw Supervisely's object if it has a mask."""
    draw = supervisely.DRAW.get(entry.geometry_type)
    return draw(entry, hw) if draw else RLE.empty(hw)


def read_column(content: bytes) -> None:
    """Read a column of texts in every dialect."""
    texts = pl.Series(
        [line for line in content.decode("utf-8", "replace").split("\n") if line.strip()], dtype=pl.String
    )
    hw = np.array([HW] * len(texts)).reshape(-1, 2)
    if not len(texts):
        return
    dialects.translate_numbers(texts)
    dialects.read_coco(texts, hw)
    read_polygons(texts, hw, np.zeros(len(texts), bool))


def png(mask: np.ndarray, **options: Any) -> bytes:
    """Return a PNG file."""
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG", **options)
    return file.getvalue()


def base64_of(content: bytes) -> str:
    """Return bytes in base64."""
    return base64.b64encode(content).decode()


CODECS: dict[str, Texts] = {
    "EncodedPixels": Texts(
        [MASK.to_encoded_pixels(relative=k > 3, order="row" if k & 2 else "column").encode() for k in range(8)],
        read_runs,
    ),
    "COCO counts": Texts(
        [json.dumps(MASK.to_coco()).encode(), json.dumps({"size": HW, "counts": MASK.counts()}).encode()],
        read_counts,
        ".json",
    ),
    "COCO segmentation": Texts(
        [json.dumps(v).encode() for v in (FLAT, FLAT[0], RINGS, MASK.to_coco(), [MASK.to_coco()])],
        read_segmentation,
        ".json",
    ),
    "polygons": Texts([json.dumps(FLAT).encode(), json.dumps(RINGS).encode()], read_rings, ".json"),
    "shapes": Texts([b"[10.5, 12, 5, 7.25, 30]"], read_shapes, ".json"),
    "brush bytes": Texts([bytes(encode_brush(MASK))], lambda content: check(decode_brush(content, HW)), ""),
    "brush list": Texts([json.dumps(encode_brush(MASK)).encode()], read_brush_list, ".json"),
    "CVAT mask": Texts(
        [b"2 3 4 5|3, 5, 2, 10", b"0 0 32 24|" + b", ".join(b"%d" % n for n in MASK.counts())], read_cvat
    ),
    "LabelMe shape": Texts(
        [
            json.dumps({"label": "a", "points": [[3, 4], [9, 12]], "shape_type": kind, "mask": mask}).encode()
            for kind, mask in (("mask", base64_of(png(disc((9, 7), 3)))), ("circle", None), ("rectangle", None))
        ],
        partial(read_shape, draw=draw_shape, type_=labelme.Shape),
        ".json",
    ),
    "Supervisely bitmap": Texts(
        [
            json.dumps(
                {
                    "classTitle": "a",
                    "geometryType": "bitmap",
                    "bitmap": {"data": base64_of(zlib.compress(content)), "origin": [3, 4]},
                }
            ).encode()
            for content in (png(disc((9, 7), 3)), png(disc((9, 7), 3).astype(np.uint8), transparency=0))
        ],
        partial(read_shape, draw=draw_object, type_=supervisely.Object),
        ".json",
    ),
    "mask texts": Texts(
        [
            "\n".join(form(k) for k in range(4)).encode()
            for form in (
                lambda k: json.dumps(MASK.to_coco()),
                lambda k: json.dumps(FLAT),
                lambda k: str(MASK.counts()),
                lambda k: str(MASK.to_coco()["counts"]),
                lambda k: MASK.to_encoded_pixels().replace(" ", ", "),
            )
        ],
        read_column,
    ),
}


class Files(Target):
    """A function of a file, which may be one of several kinds."""

    def prepare(self, folder: Path) -> None:
        self.file = folder / "file"
        self._contents = self.valid()

    def valid(self) -> list[bytes]:
        """Return the valid contents."""
        raise NotImplementedError

    def contents(self) -> Sequence[bytes]:
        return self._contents

    def read(self, content: bytes) -> None:
        self.file.write_bytes(content)
        self.read_file()

    def read_file(self) -> None:
        """Read the file. Raise `UserError`."""
        raise NotImplementedError


class Pictures(Files):
    """Headers and pixels of pictures in every format that Pillow writes here."""

    def valid(self) -> list[bytes]:
        contents = []
        pixels = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
        pictures = [
            Image.fromarray(pixels),
            Image.fromarray(pixels[:, :, 0]),
            Image.fromarray(pixels[:, :, 0].astype(np.uint16)),
        ]
        pictures.append(pictures[0].quantize(8))
        exif = Image.Exif()
        exif[0x0112] = 6
        for kind in sorted(set(Image.SAVE) & set(Image.OPEN)):
            for picture in pictures:
                for options in ({}, {"exif": exif}, {"save_all": True, "append_images": [picture]}):
                    file = io.BytesIO()
                    try:
                        picture.save(file, kind, **options)
                    except Exception:  # Pillow has no such combination
                        continue
                    contents.append(file.getvalue())
        return sorted(set(contents))

    def read_file(self) -> None:
        if self.name == "picture headers":
            read_header(self.file)
        elif self.name == "pictures":
            read_image(self.file)
        else:
            read_mask(self.file, "turn")


class Archives(Files):
    """Packed tables."""

    def valid(self) -> list[bytes]:
        table = b"ImageId,EncodedPixels\na.png,1 2 5 6\n" * 20
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("train.csv", table)
        return [gzip.compress(table), bz2.compress(table), lzma.compress(table), packed.getvalue(), table]

    def read_file(self) -> None:
        read_content(self.file)


TARGETS: dict[str, Callable[[str, Path], Target]] = {
    **CODECS,
    "archives": Archives,
    "picture headers": Pictures,
    "pictures": Pictures,
    "mask pictures": Pictures,
    **{name: Format for name in written_formats()},
    **{f"csv of {what}": Table for what in ("COCO", "polygons", "lists", "files")},
    "VIA table": ViaTable,
    "mots": Mots,
    "labelme-web": WebTool,
}
"""Makes the target of each name in a folder."""
