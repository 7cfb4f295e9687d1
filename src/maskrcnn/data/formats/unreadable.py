"""Data sets that people have and that cannot be read here: what they are, and the way forward."""

from __future__ import annotations

from maskrcnn.data.formats.source import Source, read_bytes
from maskrcnn.errors import UserError

MAX_LOOKED_AT = 20
"""Files of a suffix that are looked into."""

HEAD = 4096

BY_DATUMARO = "Datumaro (`datum convert`) writes it as COCO, which is read"


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
