"""The layout of a YOLO data set: ``data.yaml`` or bare folders -> pictures of each part and names of classes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import yaml

from maskrcnn.data.formats.source import Source, read_bytes
from maskrcnn.data.names import PathIndex
from maskrcnn.data.parts import PARTS, first_part, part_named
from maskrcnn.data.pictures import files_below, image_files
from maskrcnn.errors import UserError

YAML = (".yaml", ".yml")
MAX_DEPTH = 20
"""Brackets within brackets that a file may have."""

PART_KEYS = ("train", "val", "validation", "test")
OTHER_KEYS = {"path", "names", "nc", "kpt_shape", "flip_idx", "download", "roboflow", "channels"}
CLASS_FILES = ("classes.txt", "obj.names", "_darknet.labels", "predefined_classes.txt")
"""Files that list class names one a line, beside labels that have no data.yaml."""


@dataclass
class Layout:
    """What a data set says about itself: pictures by part, class names or None, and the shape of its key points."""

    root: Path
    pictures: dict[str, list[Path | str]]
    class_names: dict[Any, str] | None = None
    keypoint_shape: tuple[int, ...] = ()
    notes: list[str] = field(default_factory=list)


def is_yaml(path: PurePath) -> bool:
    return path.suffix.lower() in YAML


def is_data(file: Path) -> bool:
    """Whether a YAML file has names of classes, or their number, and a part."""
    try:
        values = _load_yaml(file)
    except UserError:
        return False
    return bool({"names", "nc"} & set(values)) and bool(set(PART_KEYS) & set(values))


def data_files(source: Source) -> list[Path]:
    """Return the data.yaml, or files like it under other names, at the top of a folder."""
    return [file for file in source.files if file.parent == source.path and is_yaml(file) and is_data(file)]


def data_file(source: Source) -> Path:
    """Return the data.yaml. Raise `UserError` if several files could be it."""
    if source.path.is_file():
        return source.path
    found = data_files(source)
    named = [file for file in found if file.stem.lower() == "data"] or found
    if len(named) > 1:
        raise UserError(f"{source.path} has several data sets: {', '.join(f.name for f in named)}. Give one of them")
    return named[0]


def darknet_file(source: Source) -> Path | None:
    """Return Darknet's ``obj.data``: lines such as "train = data/train.txt"."""
    for file in source.having_suffix(".data"):
        keys = {line.partition(b"=")[0].strip() for line in read_bytes(file).splitlines()}
        if {b"train", b"names"} <= keys:
            return file
    return None


class _Texts(yaml.BaseLoader):
    """Reads every value as the text that stands there. PyYAML's cost grows with the square of the lists in lists."""

    def fetch_flow_collection_start(self, token: Any) -> None:
        """Read a bracket."""
        if self.flow_level >= MAX_DEPTH:
            raise yaml.YAMLError(f"more than {MAX_DEPTH} lists lie within one another")
        super().fetch_flow_collection_start(token)


def _load_yaml(file: Path) -> dict[str, Any]:
    """Read a YAML file, every value as the text that stands there. Raise `UserError`."""
    try:
        values = yaml.load(read_bytes(file).decode(), Loader=_Texts)
    except UnicodeDecodeError:
        raise UserError(f"{file} is not UTF-8 text") from None
    except yaml.YAMLError as error:
        raise UserError(f"{file} is not valid YAML: {error}") from None
    except RecursionError:
        raise UserError(f"{file} is not usable YAML: it is nested too deeply") from None
    return values if isinstance(values, dict) else {}


def read_yaml(file: Path) -> Layout:
    """Read data.yaml and list the pictures of its parts. Raise `UserError`."""
    values = _load_yaml(file)
    path, parts = values.get("path"), _parts(values)
    root = _existing(path if isinstance(path, str) and path else ".", [file.parent]) or file.parent
    layout = Layout(root, {}, _class_names(file, values), _keypoint_shape(values))
    n = values.get("nc")
    if isinstance(n, str) and layout.class_names and n != str(len(layout.class_names)):
        layout.notes.append(f"{file}: nc is {n}, but there are {len(layout.class_names)} names; the names count")
    train = parts.get("train")
    is_undivided = train == parts.get("val") and not _is_named_after_part(train)
    if is_undivided and train and parts.get("test"):
        layout.notes.append(f"{file}: train and val are the same pictures, so the data set is not divided")
    pictures_of_parts: set[Path | str] = set()
    for key, entries in sorted(parts.items(), key=lambda item: not _is_named_after_part(item[1], item[0])):
        if key == "val" and is_undivided:
            continue
        listed: list[Path | str] = []
        for entry in filter(None, entries):
            place = _existing(entry, [root, file.parent])
            if place is not None:
                listed += _listed(place, root) if place.is_file() else image_files(place)
            elif key in PART_KEYS:
                layout.notes.append(f"{file}: {key} is {entry}, which is not there and is left out")
        listed = list(dict.fromkeys(listed))
        new = [picture for picture in listed if picture not in pictures_of_parts]
        if len(new) < len(listed):
            n = len(listed) - len(new)
            layout.notes.append(f"{file}: pictures of {key} that another part has too ({n:,}) stay in that one")
        pictures_of_parts.update(new)
        if new:
            layout.pictures["" if is_undivided and key == "train" else part_named(key) or key] = new
    if not layout.pictures:
        raise UserError(f"{file}: none of its folders of pictures is there. They are looked for in {root}")
    return layout


def _parts(values: dict[str, Any]) -> dict[str, list[str]]:
    """Return the folders and lists of pictures of each part. Other keys with a text may be parts of another name."""
    parts = {key: value if isinstance(value, list) else [value] for key, value in values.items()}
    return {
        key: entries
        for key, entries in parts.items()
        if key not in OTHER_KEYS and all(isinstance(entry, str) for entry in entries)
    }


def _is_named_after_part(value: Any, part: str = "") -> bool:
    """Whether some folder of `value` has the name of `part`, or of any part."""
    entries = value if isinstance(value, list) else [value]
    words = [word for entry in entries if isinstance(entry, str) for word in PurePath(entry).parts]
    wanted_parts = [part_named(part)] if part_named(part) else PARTS.values()
    return any(word == part or part_named(word) in wanted_parts for word in words)


def _existing(entry: str, folders: list[Path]) -> Path | None:
    """Return the file or folder that `entry` means in one of `folders`; if there is none, what its last parts mean.

    The last of `folders` is that of data.yaml. What lies above its parent holds more than the data set, such as ``/``,
    and is not looked through. Roboflow writes ``../train/images`` for ``train/images``, and files made elsewhere have
    absolute paths.
    """
    parts = [part for part in PurePath(entry.replace("\\", "/")).parts if part not in ("..", "/")]
    too_large = folders[-1].resolve().parents[1:]
    for candidate in (entry, *("/".join(parts[k:]) for k in range(len(parts)))):
        for folder in folders:
            if os.path.exists(folder / candidate):
                found = Path(os.path.normpath(folder / candidate))
                if found.resolve() not in too_large:
                    return found
    return None


def _listed(file: Path, root: Path) -> list[Path | str]:
    """Return the pictures that a text file lists, one a line. A text stands for a picture that is not below `root`."""
    if file.suffix.lower() != ".txt":
        return []
    found = image_files(root)
    index = PathIndex([picture.relative_to(root).as_posix() for picture in found])
    lines = read_bytes(file).decode("utf-8", "replace").splitlines()
    pictures: list[Path | str] = []
    for line in filter(None, map(str.strip, lines)):
        matches = index.find(line).indices
        pictures.append(found[matches[0]] if len(matches) == 1 else line)
    return pictures


def _class_names(file: Path, values: dict[str, Any]) -> dict[Any, str] | None:
    """Return the names of the classes by their number. Raise `UserError` if they are neither a list nor numbered."""
    names = values.get("names")
    n = values.get("nc", "")
    if names is None or names == "":
        return {i: str(i) for i in range(int(n))} if isinstance(n, str) and n.isdecimal() and len(n) < 6 else None
    numbered = dict(enumerate(names)) if isinstance(names, list) else names
    try:
        by_number = {int(number): name for number, name in numbered.items()}
    except (AttributeError, TypeError, ValueError):
        by_number = {}
    if not by_number or not all(isinstance(name, str) for name in by_number.values()):
        raise UserError(f"{file}: names must be a list of texts, or texts by class number such as 0: cat")
    return dict(sorted(by_number.items()))


def _keypoint_shape(values: dict[str, Any]) -> tuple[int, ...]:
    shape = values.get("kpt_shape")
    if not isinstance(shape, list) or not all(isinstance(n, str) and n.isdecimal() and len(n) < 6 for n in shape):
        return ()
    return tuple(map(int, shape))


def bare(source: Source) -> Layout:
    """List the pictures of a folder without data.yaml. Folders such as ``train`` are the parts."""
    layout = Layout(source.path, {})
    for picture in image_files(source.path):
        part = first_part(picture.relative_to(source.path).parts[:-1])
        layout.pictures.setdefault(part, []).append(picture)
    files = [file for file in files_below(source.path) if file.name in CLASS_FILES]
    names = []
    if files:
        text = read_bytes(min(files, key=lambda file: len(file.parts))).decode("utf-8", "replace")
        names = [line.strip() for line in text.rstrip().splitlines()]
    if names:
        layout.class_names = dict(enumerate(names))
    else:
        layout.notes.append(f"{source.path}: no data.yaml or classes.txt names the classes; they are called by numbers")
    return layout
