"""The image folder of a table: where it is, which files it holds, and which of them each name means."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath

from maskrcnn.data.images import picture_suffixes
from maskrcnn.data.names import PathIndex, without_suffix
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.errors import UserError

SYSTEM_NAMES = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir"})
"""Files and folders of macOS, Windows and a file server, which hold copies or no data."""

ANNOTATION_FOLDERS = ("ann", "label", "json", "xml")
"""What names of folders begin with that hold annotations beside the folder of pictures."""


def find_folder(
    source: Path, folder: Path | None, names: Sequence[Sequence[str]], *, hint: str = "", is_needed: bool = True
) -> Path:
    """Return `folder`, or the one near `source` that has most of the pictures that it names. Raise `UserError`.

    ``names[k]`` are the names by which picture k may be found, the best first. A picture counts once: folders of train
    and val may have files of the same names. A folder that has all of the first names as paths, or as paths without
    suffix, is found without an index. `hint` is how the folder may be called. If no folder has a picture, that is an
    error if one `is_needed`.
    """
    if folder is not None:
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder of images")
        return folder
    guesses = [guess for guess in _guesses(source, hint) if guess.is_dir()]
    for guess in [source, *guesses] if source.is_dir() else guesses:
        if names and all(os.path.isfile(guess / first) for first, *_ in names):
            return guess
    n_found: dict[Path, int] = {}
    for guess in guesses:
        if files := image_files(guess):
            paths = [file.relative_to(guess).as_posix() for file in files]
            stems = set(map(without_suffix, paths))
            if names and all(first in stems for first, *_ in names):
                return guess
            index = PathIndex(paths)
            matches = [next(filter(None, (index.find(name).indices for name in of_one)), []) for of_one in names]
            n_found[guess] = len({match[0] for match in matches if len(match) == 1})
            if n_found[guess] == len(names):
                return guess
    if not n_found and is_needed:
        raise UserError(f"no folder of images was found beside {source}; pass --images FOLDER")
    return max(n_found, key=lambda guess: n_found[guess], default=source if source.is_dir() else source.parent)


def _guesses(source: Path, hint: str) -> list[Path]:
    """Return the folders that may have the pictures of a file or a folder, the likeliest first."""
    parent = source if source.is_dir() else source.parent
    stems = source.stem, source.name.partition(".")[0]  # the second one of "train.csv.gz"
    homes = [parent]
    guesses = [parent / name for name in ("images", "train", *filter(None, stems))] + homes
    if parent.name.lower().startswith(ANNOTATION_FOLDERS):
        homes.append(parent.parent)
        guesses += [parent.parent / "images", parent.parent]
    hinted = [home / folder / hint for home in homes for folder in (".", "images")] if hint else []
    return list(dict.fromkeys([*hinted, *guesses]))


def image_files(folder: Path) -> list[Path]:
    """Return the pictures in a folder and its subfolders, sorted: what the decoder reads, without hidden files."""
    return sorted(path for path in walk(folder) if is_picture(path))


def files_below(folder: Path) -> list[Path]:
    """Return the files in a folder and its subfolders that are not hidden, sorted."""
    return sorted(walk(folder))


def walk(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders that are not hidden, in any order.

    Links are followed. A folder that several links lead to, also in a circle, is listed once. Raise `UserError` for a
    name that is not Unicode, which no format can hold.
    """
    folders, listed = [str(folder)], set()
    while folders:  # links are followed after all real folders, so that a file has its real path if it has one
        for directory, subfolders, names in os.walk(folders.pop(0)):
            if (real := os.path.realpath(directory)) in listed:
                subfolders.clear()
                continue
            listed.add(real)
            subfolders[:] = sorted(name for name in subfolders if not _is_hidden_name(name))
            folders += [path for name in subfolders if os.path.islink(path := os.path.join(directory, name))]
            for name in names:
                if not _is_hidden_name(name) and os.path.isfile(path := os.path.join(directory, name)):
                    _check_name(path)
                    yield Path(path)


def _check_name(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        written = path.encode("utf-8", "backslashreplace").decode()
        raise UserError(f"the name of the file {written} is not Unicode; rename it, or move it elsewhere") from None


def is_picture(name: PurePath) -> bool:
    """Whether Pillow decodes this suffix and the name is not hidden or a system file."""
    return name.suffix.lower() in picture_suffixes() and not _is_hidden_name(name.name)


def is_hidden(path: PurePath) -> bool:
    """Whether a system put a file there, or hides it: ``._a.png``, ``__MACOSX/a.png``, ``.git/a.png``."""
    return any(_is_hidden_name(part) for part in path.parts)


def _is_hidden_name(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM_NAMES


def describe_pages(n_pages_of_name: Mapping[str, int]) -> str | None:
    """Say that only the first page of pictures of several pages is read, or None if there are none."""
    several = {name: n for name, n in n_pages_of_name.items() if n > 1}
    if not several:
        return None
    examples = ", ".join(f"{name} (page 1 of {n:,})" for name, n in list(several.items())[:3])
    subject = "1 picture has" if len(several) == 1 else f"{len(several):,} pictures have"
    return f"{subject} several pages, and only the first is read: {examples}" + (" ..." if len(several) > 3 else "")


def locate(
    names: list[str], places: Sequence[str], paths: list[Path], folder: Path
) -> tuple[list[Path | None], list[Problem], list[str]]:
    """Return the one of `paths`, in `folder`, that each name means, the names that have none, and notes for people.

    ``places[k]`` says where name k stands first, for the message. The closest names choose first, so an exact path
    always gets its file. Two names of one file are a problem of the second.
    """
    relative = [path.relative_to(folder).as_posix() for path in paths]
    index = PathIndex(relative)
    matches = [index.find(name) for name in names]
    name_of_file: dict[int, int] = {}
    faults: dict[int, tuple[Kind, str]] = {}
    for k in sorted(range(len(names)), key=lambda k: matches[k].rank, reverse=True):
        indices = matches[k].indices
        if len(indices) != 1:
            matching = ", ".join(relative[i] for i in indices[:3])
            fault = "has no name" if not names[k] else "is not in the folder"
            faults[k] = Kind.NO_FILE, f"matches several files: {matching}" if indices else fault
        elif (other := name_of_file.setdefault(indices[0], k)) != k:
            fault = f"is the file {relative[indices[0]]}, which {names[other]!r} names too ({places[other]})"
            faults[k] = Kind.BAD_ROW, fault
    files: list[Path | None] = [None] * len(names)
    for i, k in name_of_file.items():
        files[k] = paths[i]
    problems = [
        Problem(kind, places[k], f"image {names[k]!r} {fault} ({folder})")
        for k, (kind, fault) in sorted(faults.items())
    ]
    loose = [(i, k) for i, k in name_of_file.items() if matches[k].is_loose]
    notes = []
    if loose:
        i, k = loose[0]
        subject = "1 image name differs" if len(loose) == 1 else f"{len(loose):,} image names differ"
        example = f"{names[k]!r} for {relative[i]}"
        notes.append(f"{subject} from the file in case, suffix or quoting, such as {example}")
    return files, problems, notes
