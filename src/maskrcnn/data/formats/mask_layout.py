"""Which picture each mask file of a folder belongs to, by the names of folders and files alone.

    images/a.png  masks/a.png          one file for a picture: each of its values is an object
    images/a.png  masks/cell/a.png     ... and a class
    a.png         a_masks.png          ... beside it (a_img.png a_masks.png: Cellpose)
    images/a.png  masks/a/0.png        one file for an object
    images/a.png  masks/a_0.png        ... with its number
    a/images/a.png  a/masks/0.png      ... as the 2018 Data Science Bowl has it
    a.png         a_mask_0.png         ... beside it

A folder between ``masks`` and the file may name a class in each. Words for both folders are in `FOLDER_KIND`. Folders
above or below them may divide the data: ``train/images``, ``images/train``, ``train_images``.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from maskrcnn.data.formats.annotations import AnnotatedImage
from maskrcnn.data.formats.source import Source
from maskrcnn.data.names import quoted, unquoted
from maskrcnn.data.pictures import is_picture
from maskrcnn.data.table import Dataset

MASK_WORDS = r"(?:cp[_ -])?masks?|labels?|instances?|segmentations?|seg|groundtruth|ground[_ -]truth|gt"
PICTURE_WORDS = r"images?|imgs?|pictures?|photos?|raw|inputs?"
FOLDER_KIND = re.compile(
    rf"(?:(?P<rest>.+)[_ -])?(?:(?P<mask>{MASK_WORDS})|(?P<picture>{PICTURE_WORDS}))", re.IGNORECASE
)
MASK_STEM = re.compile(rf"(?P<name>.+?)[_ .-](?:{MASK_WORDS})(?:[_ .-]?(?P<number>\d+))?", re.IGNORECASE)
NUMBERED_STEM = re.compile(r"(?P<name>.+)[_ .-]\d+")
PICTURE_STEM = re.compile(rf"(?P<name>.+)[_ .-](?:{PICTURE_WORDS})", re.IGNORECASE)

ESCAPE = "~"
"""Ends the name of a folder that would else be one for pictures or for masks."""

Key = tuple[str, ...]


def folder_of(name: str) -> str:
    """Return the folder of a class or a part, which `name_of` turns back."""
    return escaped(quoted(name))


def escaped(folder: str) -> str:
    """Return the name of a folder, or one like it that is not for pictures or for masks."""
    return folder + ESCAPE if FOLDER_KIND.fullmatch(folder) else folder


def name_of(folder: str) -> str:
    """Return the class or the part that a folder is of."""
    is_escaped = folder.endswith(ESCAPE) and FOLDER_KIND.fullmatch(folder[:-1])
    return unquoted(folder[:-1] if is_escaped else folder)


@dataclass(frozen=True, slots=True)
class PlacedFile:
    """A file below the root: the folders above the one for pictures or for masks, that folder, and the rest of it."""

    file: Path
    above: Key
    folder: Path | None
    below: Key
    stem: str

    @property
    def folders(self) -> Key:
        """All folders but the one for pictures or for masks."""
        return self.above + self.below

    @property
    def has_own_folder(self) -> bool:
        """Whether it is alone in its folder for pictures, in a folder with its name: ``a/images/a.png``."""
        return self.folder is not None and not self.below and self.above[-1:] == (self.stem,)

    @property
    def name(self) -> str:
        """Name of a picture: its path without the folder for pictures, or that has its name."""
        folders = self.above[:-1] if self.has_own_folder else self.folders
        return "/".join((*map(name_of, folders), self.file.name))


@dataclass(frozen=True, slots=True)
class MaskFile:
    """A mask file and the picture whose name it has, if any.

    `image` is the name of the picture, or that by which it was sought; `label` the class that a folder names, or "".
    `is_of_object` says whether the file is of one object alone, by its name or folder.
    """

    file: Path
    picture: PlacedFile | None
    image: str
    label: str
    is_of_object: bool


@dataclass(frozen=True)
class MaskLayout:
    """The mask files of a folder, sorted, and all other pictures in it. `root` is that folder."""

    root: Path
    masks: list[MaskFile]
    pictures: list[PlacedFile]

    def images(self) -> list[tuple[AnnotatedImage, list[MaskFile]]]:
        """Return the images that have mask files, without instances yet, and their mask files."""
        masks_of_image: dict[str, list[MaskFile]] = defaultdict(list)
        for mask in self.masks:
            masks_of_image[mask.image].append(mask)
        images = []
        for name, masks in masks_of_image.items():
            file = None if masks[0].picture is None else masks[0].picture.file
            images.append((AnnotatedImage(name, file=file, source=masks[0].file), masks))
        return images

    def unmasked(self) -> Iterator[PlacedFile]:
        """Yield the pictures without a mask file that have an empty folder for them."""
        masked = {mask.picture.file for mask in self.masks if mask.picture is not None}
        folders = {folder for mask in self.masks if (folder := _mask_folder(mask.file, self.root)) is not None}
        names = {folder.name for folder in folders}
        for picture in self.pictures:
            if picture.file not in masked and (
                any((folder / picture.file.stem).is_dir() for folder in folders)
                or (picture.has_own_folder and any((picture.file.parents[1] / name).is_dir() for name in names))
            ):
                yield picture


def find_mask_files(source: Source) -> MaskLayout:
    """Tell pictures and masks of a folder from one another, and find the picture of each mask."""
    if not source.path.is_dir():
        return MaskLayout(source.root, [], [])
    pictures: list[PlacedFile] = []
    masks: list[PlacedFile] = []
    for file in source.files:
        if is_picture(file.relative_to(source.path)):
            placed, is_mask = _placed(file, source.path)
            (masks if is_mask else pictures).append(placed)
    index = _Index(pictures)
    beside = {}  # a name alone can make a mask, outside of folders for masks or beside them
    for picture in pictures:
        match = MASK_STEM.fullmatch(picture.stem) if not masks or picture.folder is None else None
        if match and (found := index.named(picture.folders, match["name"])) and found.file != picture.file:
            beside[picture.file] = MaskFile(picture.file, found, found.name, "", match["number"] is not None)
    found_masks = [_find(mask, index) for mask in masks] + list(beside.values())
    rest = [picture for picture in pictures if picture.file not in beside]
    return MaskLayout(source.path, sorted(found_masks, key=lambda mask: mask.file), rest)


def _placed(file: Path, root: Path) -> tuple[PlacedFile, bool]:
    """Return where a file stands, and whether that is in a folder for masks: the last one of either kind decides."""
    *folders, _ = file.relative_to(root).parts
    for k in reversed(range(len(folders))):
        if match := FOLDER_KIND.fullmatch(folders[k]):
            above = (*folders[:k], *filter(None, [match["rest"]]))
            folder = root.joinpath(*folders[: k + 1])
            return PlacedFile(file, above, folder, tuple(folders[k + 1 :]), file.stem), match["mask"] is not None
    return PlacedFile(file, tuple(folders), None, (), file.stem), False


def _mask_folder(file: Path, root: Path) -> Path | None:
    placed, is_mask = _placed(file, root)
    return placed.folder if is_mask else None


def set_parts(images: list[AnnotatedImage], part_of_file: Mapping[Path, str]) -> None:
    """Set the part of each image, if they are of several."""
    parts = ["" if image.file is None else part_of_file[image.file] for image in images]
    if len(set(parts)) > 1:
        for image, part in zip(images, parts, strict=True):
            image.part = part


def place_in_part(data: Dataset, i: int) -> tuple[PurePosixPath, PurePosixPath]:
    """Return the folder of the part of image i, "." without one, and the place of its picture below that folder."""
    place = data.places[i]
    part = PurePosixPath(*(folder_of(word) for word in (data.parts[i] if data.parts else "").split("/") if word))
    place = place.relative_to(part) if place.is_relative_to(part) else place
    return part, PurePosixPath(*map(escaped, place.parts[:-1]), place.name)


class _Index:
    """Pictures by their folders and what a mask file may call them: stem, name, or stem without ``_img``."""

    def __init__(self, pictures: list[PlacedFile]) -> None:
        self._by_name: dict[Key, PlacedFile] = {}
        self._alone: dict[Key, PlacedFile | None] = {}
        for picture in pictures:
            match = PICTURE_STEM.fullmatch(picture.stem)
            for name in (picture.file.name, picture.stem, *([match["name"]] if match else [])):
                self._by_name.setdefault(_folded((*picture.folders, name)), picture)
            if picture.folder is not None and picture.above and not picture.below:
                key = _folded(picture.above)
                self._alone[key] = None if key in self._alone else picture

    def named(self, folders: Key, *names: str | None) -> PlacedFile | None:
        """Return the picture in `folders` with the first of `names` that one has."""
        found = (self._by_name.get(_folded((*folders, name))) for name in names if name)
        return next((picture for picture in found if picture), None)

    def alone_in(self, above: Key) -> PlacedFile | None:
        """Return the one picture in the folder for pictures below `above`, None if there are several or none."""
        return self._alone.get(_folded(above))


def _find(mask: PlacedFile, index: _Index) -> MaskFile:
    """Return a file of a folder for masks with its picture: the first that fits, as the module lists them."""
    match, numbered = MASK_STEM.fullmatch(mask.stem), NUMBERED_STEM.fullmatch(mask.stem)
    stem = match["name"] if match and match["number"] is None else None
    object_stem = match["name"] if match and match["number"] is not None else numbered and numbered["name"]
    class_folder = name_of(mask.below[0]) if mask.below else ""
    places = [(mask.folders, "")]
    if mask.below:
        places.append((mask.above + mask.below[1:], class_folder))

    def of(picture: PlacedFile, label: str, is_of_object: bool) -> MaskFile:
        return MaskFile(mask.file, picture, picture.name, label, is_of_object)

    for folders, label in places:
        if picture := index.named(folders, mask.stem, stem):
            return of(picture, label, False)
        if picture := index.named(folders, object_stem):
            return of(picture, label, True)
    for folders, name, label in _folders_of_picture(mask):
        if picture := index.named(folders, name):
            return of(picture, label, True)
    if len(mask.below) < 2 and (picture := index.alone_in(mask.above)):
        return of(picture, class_folder, True)
    return MaskFile(mask.file, None, "/".join((*mask.folders, stem or mask.stem)), "", False)


def _folders_of_picture(mask: PlacedFile) -> Iterator[tuple[Key, str, str]]:
    """Yield the folders, the name and the class that a picture with a folder of masks may have."""
    *outer, last = mask.below or ("",)
    yield (*mask.above, *outer), last, ""
    if outer:
        yield (*mask.above, *outer[:-1]), outer[-1], name_of(last)  # masks/a/cell/0.png
        yield (*mask.above, *outer[1:]), last, name_of(outer[0])  # masks/cell/a/0.png


def _folded(key: Key) -> Key:
    return tuple(unicodedata.normalize("NFC", part).casefold() for part in key)
