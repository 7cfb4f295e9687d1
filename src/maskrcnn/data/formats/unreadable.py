"""Data sets that people have and that cannot be read here: what they are, and the way forward."""

from __future__ import annotations

from maskrcnn.data.format_names import MODULES
from maskrcnn.data.formats.encoded_pixels import holds_masks
from maskrcnn.data.formats.source import Source, read_bytes
from maskrcnn.data.pictures import is_picture
from maskrcnn.errors import UserError

MAX_LOOKED_AT = 20
"""Files of a suffix that are looked into."""

HEAD, MAX_LISTED = 4096, 3

BY_DATUMARO = "Datumaro (`datum convert`) writes it as COCO, which is read"

AS_COCO = "Write its polygons as COCO, each as [x1, y1, x2, y2, ...] in the segmentation of an annotation"

TABLES = (".csv", ".tsv")

ANNOTATION_SUFFIXES = (".json", ".xml", ".txt", ".yaml", ".csv", ".tsv", ".parquet")
"""Files that a format reads whose content alone tells what they are. Of these, --format may know better."""


def refuse(source: Source) -> None:
    """Raise `UserError` if the source is of a kind that is known and cannot be read."""
    if what := _description(source):
        raise UserError(f"{source.path}: {what}")


def _description(source: Source) -> str:
    """Return what the source is and what to do, or "" if it is of no such kind."""
    names = {file.name.lower() for file in source.files}
    if any(name.endswith((".tfrecord", ".tfrecords")) for name in names):
        return "these are TensorFlow's records, which are not read. Export the data set as COCO instead"
    if "_classes.csv" in names:
        return "_classes.csv lists classes of whole pictures; there are no masks of objects"
    for file in source.having_suffix(".json")[:MAX_LOOKED_AT]:
        head = b"".join(read_bytes(file)[:HEAD].split())
        if head.startswith(b"[") and b'"image"' in head and b'"coordinates"' in head:
            return "this is CreateML's JSON, which has boxes and no masks"
        if head.startswith(b"{") and b'"assets"' in head and b'"tags"' in head:
            return f"this is VoTT's JSON, which is not read. {BY_DATUMARO}"
    if source.path.is_file():
        return ""
    for file in source.having_suffix(".csv")[:MAX_LOOKED_AT]:
        header = read_bytes(file)[:HEAD].split(b"\n")[0]
        if header.startswith((b"MaskPath,ImageID", b"ImageID,Source,LabelName", b"ImageID,Subset,OriginalURL")):
            return f"this is Open Images. {BY_DATUMARO}"
    return ""


def way_forward(source: Source) -> str:
    """Return what a source is that no format recognises, as far as that shows, and what to do."""
    if source.path.is_dir() and (tables := [file for file in source.having_suffix(*TABLES) if holds_masks(file)]):
        listed = ", ".join(str(table.relative_to(source.path)) for table in tables[:MAX_LISTED])
        more = f" and {len(tables) - MAX_LISTED:,} more" if len(tables) > MAX_LISTED else ""
        which = "that file" if len(tables) == 1 else "one"
        return f"the folder holds {listed}{more}, where the masks are: give {which}"
    if named := _polygons(source) or _label_pictures(source):
        return named
    if source.files and all(map(is_picture, source.files)):
        one = len(source.files) == 1
        subject = f"{'this is a picture' if one else 'these are pictures'} without annotations"
        return (
            f"{subject}; `maskrcnn predict` takes {'it' if one else 'them'}. To train or score, give the annotations, "
            "with --images if their pictures lie elsewhere"
        )
    kind = "folder" if source.path.is_dir() else "file"
    sentence = f"the format of this {kind} was not recognised. Formats that can be read: {', '.join(MODULES)}"
    if source.having_suffix(*ANNOTATION_SUFFIXES):
        sentence += ". Name it with --format if it is one of them"
    return sentence


def _polygons(source: Source) -> str:
    """Name programs and data sets whose files of polygons are not read."""
    for file in source.having_suffix(".json", ".geojson", ".jsonl", ".ndjson")[:MAX_LOOKED_AT]:
        head = b"".join(read_bytes(file)[:HEAD].split())
        if b'"FeatureCollection"' in head or b'"type":"Feature"' in head:
            return f"this is GeoJSON, such as QuPath writes, which is not read. {AS_COCO}, or export label pictures"
        if head.startswith(b"[[[") or (head.startswith(b'{"id"') and b'"coordinates":[[[' in head):
            return f"these are bare polygons, as in Kaggle's HuBMAP, which are not read. {AS_COCO}"
        if b'"item":' in head and b'"slots":' in head:
            return "this is Darwin JSON of V7, which is not read. Export the data set from V7 as COCO instead"
        if b'"data_row":' in head:
            return f"this is Labelbox's export, which is not read. {AS_COCO}, or download its masks as files"
        if b'"imgHeight":' in head and b'"objects":' in head:
            return f"this is Cityscapes. {BY_DATUMARO}"
    return ""


def _label_pictures(source: Source) -> str:
    """Name data sets of label pictures whose layout is not read."""
    if any(file.stem.endswith("_instanceIds") for file in source.files):
        return f"this is Cityscapes. {BY_DATUMARO}"
    if any(file.stem.startswith("man_seg") or file.parent.name == "SEG" for file in source.files):
        return (
            "this is the Cell Tracking Challenge, whose layout is not read. Copy 01/t000.tif and so on to images/, and "
            "01_GT/SEG/man_seg000.tif and so on to masks/, under the names of their pictures (masks/t000.tif)"
        )
    return ""
