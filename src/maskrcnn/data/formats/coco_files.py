"""The JSON files of a COCO data set: which of them hold masks, which part each one is, and where its pictures lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

import msgspec

from maskrcnn.data.formats.source import Fields, Source, decoded, is_json, json_fields, read_bytes, starts_with
from maskrcnn.data.parts import part_named, part_word
from maskrcnn.errors import UserError

MARKS = (b'"images"', b'"image"')
"""Keys of COCO's object and of SA-1B's, beside "annotations". In a folder, JSON files without them are not decoded:
other formats have many small ones."""

MAX_PEEKED = 20
"""Annotations of a file that show what it holds."""

MIN_FOUND = 0.5
"""Share of the pictures of the fullest folder that a folder must have to be preferred for its name."""


class Content(StrEnum):
    """What the annotations of a file are."""

    INSTANCES = "objects"
    PANOPTIC = "panoptic segments"
    WHOLE_IMAGES = "captions or classes of whole images, without masks"
    NOTHING = "no annotations"


@dataclass
class CocoFile:
    """A JSON file with the fields of COCO's object. `path` is relative to the folder that was given."""

    file: Path
    fields: Fields
    path: Path

    @cached_property
    def entries(self) -> list[msgspec.Raw]:
        """The annotations, not decoded."""
        annotations, where = self.fields["annotations"], "the list of annotations"
        if starts_with(annotations, b"{"):  # LIVECell's, by their ids
            return list(decoded(annotations, Fields, self.file, where).values())
        return decoded(annotations, list[msgspec.Raw], self.file, where)

    @cached_property
    def content(self) -> Content:
        """What the first annotations show."""
        keys: set[str] = set()
        for raw in self.entries[:MAX_PEEKED]:
            with suppress(UserError):
                keys |= decoded(raw, Fields, self.file).keys()
        if "segments_info" in keys:
            return Content.PANOPTIC
        if keys & {"segmentation", "bbox", "keypoints"}:
            return Content.INSTANCES
        return Content.WHOLE_IMAGES if self.entries else Content.NOTHING

    @property
    def folder(self) -> str:
        """The folder of the file with slashes, "" for the one that was given."""
        return "" if self.path.parent == Path() else self.path.parent.as_posix()

    @property
    def mask_folder(self) -> Path:
        """The folder of the PNGs of panoptic segments: called as the file is, or else the file's."""
        folder = self.file.with_name(self.file.name[: self.file.name.lower().rindex(".json")])
        return folder if folder.is_dir() else folder.parent

    @property
    def part_word(self) -> str:
        """The word of its folders or its name that names its part ("train2017"), or ""."""
        return part_word([*reversed(self.path.parent.parts), self.path.stem])

    @property
    def part(self) -> str:
        """The part that the file is of ("train"), or ""."""
        return part_named(self.part_word)


def coco_files(source: Source) -> list[CocoFile]:
    """Return the files that hold COCO's object. Raise `UserError` for a damaged one that has its keys."""
    if source.path.is_file():
        fields = _with_images(source.fields, source.path)
        return [CocoFile(source.path, fields, Path(source.path.name))] if _is_coco(fields) else []
    found = []
    for file in filter(is_json, source.files):
        content = read_bytes(file)
        if not (b'"annotations"' in content and any(mark in content for mark in MARKS)):
            continue
        if _is_coco(fields := _with_images(json_fields(file), file)):
            found.append(CocoFile(file, fields, file.relative_to(source.path)))
    return found


def _is_coco(fields: Fields) -> bool:
    if "images" not in fields or "annotations" not in fields:
        return False
    images, annotations = fields["images"], fields["annotations"]
    return starts_with(images, b"[") and (starts_with(annotations, b"[") or starts_with(annotations, b"{"))


def _with_images(fields: Fields, file: Path) -> Fields:
    """Return COCO's fields for a file of SA-1B, which has one image and its annotations; others as they are."""
    if not fields.keys() >= {"image", "annotations"} or not starts_with(fields["image"], b"{"):
        return fields
    image = decoded(fields["image"], Fields, file, "image")
    if "file_name" not in image or not starts_with(fields["annotations"], b"["):
        return fields
    number = image.get("image_id", msgspec.Raw(b"0"))
    entries = decoded(fields["annotations"], list[Fields], file, "annotations")
    images, annotations = [{**image, "id": number}], [{**entry, "image_id": number} for entry in entries]
    encode = msgspec.json.encode
    return {"images": msgspec.Raw(encode(images)), "annotations": msgspec.Raw(encode(annotations))}


def is_result_list(path: Path) -> bool:
    """Whether a JSON file is a list of detections, as COCO's evaluation takes it, and not an object with images."""
    if not is_json(path) or not (content := read_bytes(path)).lstrip().startswith(b"["):
        return False
    with suppress(UserError):
        for entry in decoded(content, list[msgspec.Raw], path)[:1]:
            keys = decoded(entry, Fields, path).keys()
            return {"image_id", "category_id"} <= keys and bool({"segmentation", "bbox"} & keys)
    return False


def files_to_read(source: Source) -> tuple[list[CocoFile], list[CocoFile]]:
    """Return the files with masks, and the others. Raise `UserError` if there are none.

    Files without annotations stand last. COCO's own folder has the same objects in several files, such as those of
    keypoints; where names begin with "instances", the others are left out. Panoptic files count where no file has
    instances.
    """
    files = coco_files(source)
    kinds = (Content.INSTANCES, Content.PANOPTIC)
    chosen = next(filter(None, ([file for file in files if file.content == kind] for kind in kinds)), [])
    chosen = [file for file in chosen if file.path.stem.startswith("instances")] or chosen
    chosen += [file for file in files if file.content == Content.NOTHING]
    if not chosen:
        if not files:
            raise UserError(f"{source.path}: no file has COCO's images and annotations. Give that of instances")
        held = "; ".join(f"{file.path} has {file.content}" for file in files[:3])
        raise UserError(f"{source.path}: no file has masks of objects: {held}. Give the file of instances")
    return chosen, [file for file in files if file not in chosen]


class PictureFolders:
    """Finds the folder of the pictures of a file, among the files of the folder that was given."""

    def __init__(self, source: Source) -> None:
        self._root = source.path
        self._paths_of_name: dict[str, list[str]] = {}
        if source.path.is_dir():
            for file in source.files:
                self._paths_of_name.setdefault(file.name, []).append(file.relative_to(source.path).as_posix())

    def folder_of(self, file: CocoFile, names: Sequence[str], mask_files: AbstractSet[Path] = frozenset()) -> str:
        """Return the folder in which most of `names` lie, "" if it is the one that was given.

        A folder of the same part, or the file's, is preferred to one that has more of the names. If no folder has any,
        return the word that names the part: the pictures may lie elsewhere in a folder that is called so.
        `mask_files` are no pictures.
        """
        n_found = self._count(names, mask_files)
        if not n_found:
            return file.part_word
        sufficient = [folder for folder, n in n_found.items() if n >= MIN_FOUND * max(n_found.values())]
        return max(sufficient, key=lambda folder: (_closeness(file, folder), n_found[folder]))

    def _count(self, names: Sequence[str], mask_files: AbstractSet[Path]) -> Mapping[str, int]:
        """Return how many of `names` lie in each folder."""
        n_found: Counter[str] = Counter()
        for name in names:
            ending = f"/{name}"
            for path in self._paths_of_name.get(name.rpartition("/")[2], ()):
                if f"/{path}".endswith(ending) and self._root / path not in mask_files:
                    n_found[path[: -len(ending)]] += 1
        return n_found


def _closeness(file: CocoFile, folder: str) -> int:
    """Return how well the name of a folder fits a file: higher is better, negative for a folder of another part."""
    if folder == file.folder:
        return 3
    word = part_word(reversed(folder.split("/")))
    if word == file.part_word:
        return 2 if word else 0
    return 1 if part_named(word) == file.part else -1
