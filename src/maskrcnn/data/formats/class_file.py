"""``classes.json``: the classes of a data set whose files are pictures, by id. Folders for classes have their names."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from maskrcnn.data.formats.mask_layout import folder_of
from maskrcnn.data.table import Dataset
from maskrcnn.errors import UserError
from maskrcnn.files import read_json, write_text
from maskrcnn.structures import UNNAMED_CLASS

CLASS_FILE = "classes.json"


def class_folders(data: Dataset) -> list[str] | None:
    """Return the folder of each class: its name, or its id where names do not differ. None if one class needs none."""
    names = data.class_names
    if len(names) == 1:
        return None
    differ = all(names) and len({name.casefold() for name in names}) == len(names)
    return [folder_of(name) for name in (names if differ else map(str, data.class_ids))]


def write_class_file(data: Dataset, folder: Path) -> None:
    """Write ``{"1": "cell"}`` unless the data has one class without a name."""
    if data.class_ids != [1] or data.class_names != [UNNAMED_CLASS]:
        names = {str(i): name for i, name in zip(data.class_ids, data.class_names, strict=True)}
        write_text(json.dumps(names, ensure_ascii=False, indent=1) + "\n", folder / CLASS_FILE)


def read_class_file(folder: Path) -> dict[Any, str] | None:
    """Return the classes of a folder, None if it has no such file. Raise `UserError` for one that is malformed."""
    file = folder / CLASS_FILE
    if not file.is_file():
        return None
    names = read_json(file)
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise UserError(f'{file} must be JSON like {{"1": "cat", "2": "dog"}}')
    are_numbers = all(i.isascii() and i.isdigit() and len(i) < 19 for i in names)
    return {int(i) if are_numbers else i: name for i, name in names.items()}


def find_classes(folders: Iterable[str], listed: dict[Any, str] | None) -> tuple[dict[Any, str] | None, dict[str, Any]]:
    """Return class names by id, None if the ids are the names, and the id of each of `folders`, "" for files in none.

    `listed` are the classes of the class file, if any.
    """
    found = sorted(set(folders))
    if listed is None and any(found):
        return None, {folder: folder or UNNAMED_CLASS for folder in found}
    names = dict(listed or {1: UNNAMED_CLASS})
    id_of_folder: dict[str, Any] = {str(i): i for i in names} | {name: i for i, name in names.items()}
    for folder in found:
        if folder == "" and len(names) == 1:
            id_of_folder[folder] = next(iter(names))
        elif folder not in id_of_folder:
            id_of_folder[folder] = folder or UNNAMED_CLASS
            names[id_of_folder[folder]] = folder or UNNAMED_CLASS
    return names, id_of_folder
