"""Findings about image files: damaged, repeated, alike, in training and in validation, of mixed channels and depths.

file -> decoded once: error, print (64 bits and a small gray image), steps across outlines -> compared with all others
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from maskrcnn.data.dataset import read_pixels
from maskrcnn.data.doctor.shift import steps_across
from maskrcnn.data.images import is_deep, read_header
from maskrcnn.data.problem import Kind, Problem
from maskrcnn.data.table import Dataset
from maskrcnn.errors import ImageError

MAX_DIFFERENT_BITS = 8
"""Of 64. Files of one image in other sizes and qualities differ in 0 to 4, unlike images in 32 on average. Dark images
with few bright spots come close to one another by chance, which the next limit tells."""

MIN_CORRELATION = 0.95
"""Of small gray images (`SMALL`). Of the 220,000 pairs of the nuclei images of BBBC038, one is above: two fields of one
slide. All others are below 0.70, however many bits they share."""

SMALL = 16
"""Side of the small gray image, in pixels."""

MAX_COMPARED = 200
"""Images whose outlines are compared with their edges, spread over the data."""

ROWS_AT_ONCE = 256
"""Images that are compared at once with all others, which bounds memory."""

GRAY, COLOR, EIGHT_BITS, MORE_BITS = "gray", "colour", "8 bits", "more than 8 bits"


@dataclass(frozen=True)
class Look:
    """What decoding one image showed: an error, or its print, its mode, and the steps across its outlines (or None).

    `bits` are 64 comparisons of neighbours in a gray image of 8 x 9 (Krawetz's dHash), `small` (SMALL * SMALL,) float32
    is a gray image with mean 0 and length 1, or 0 where it is of one brightness.
    """

    error: str | None = None
    bits: int = 0
    small: np.ndarray | None = None
    mode: str = ""
    steps: np.ndarray | None = None


def look_at_each(data: Dataset, on_image: Callable[[int], None] | None = None) -> list[Look]:
    """Decode each image once."""
    with_masks = np.flatnonzero(data.counts)
    compared = set(with_masks[:: -(-len(with_masks) // MAX_COMPARED) or 1].tolist())
    looks = []
    with ThreadPoolExecutor(4) as pool:
        for look in pool.map(partial(_look, data, compared), range(len(data))):
            looks.append(look)
            if on_image is not None:
                on_image(len(looks))
    return looks


def _look(data: Dataset, compared: set[int], i: int) -> Look:
    try:
        pixels = read_pixels(data, i)
        mode = read_header(data.files[i]).mode
    except ImageError as error:
        return Look(str(error))
    gray = Image.fromarray(pixels).convert("L")
    tiny, small = (np.asarray(gray.resize(size, Image.Resampling.BOX), np.float32) for size in ((9, 8), (SMALL, SMALL)))
    centered = small.ravel() - small.mean()
    return Look(
        bits=int(np.packbits(tiny[:, 1:] > tiny[:, :-1]).view(np.uint64)[0]),
        small=centered / max(float(np.linalg.norm(centered)), 1e-6),
        mode=mode,
        steps=steps_across(pixels, data.rles(i)) if i in compared else None,
    )


def find_damaged(data: Dataset, looks: Sequence[Look]) -> list[Problem]:
    """Return a finding for each image that cannot be decoded."""
    return [
        Problem(Kind.UNREADABLE, "unreadable image", look.error, image=data.names[i])
        for i, look in enumerate(looks)
        if look.error is not None
    ]


def find_mixed(data: Dataset, looks: Sequence[Look]) -> list[Problem]:
    """Return a finding if some images are gray and others in colour, or some have more than 8 bits."""
    modes = [(i, look.mode) for i, look in enumerate(looks) if look.mode]
    channels = {i: GRAY if mode in ("1", "L", "LA", "La", "F") or mode[0] == "I" else COLOR for i, mode in modes}
    depths = {i: MORE_BITS if is_deep(mode) else EIGHT_BITS for i, mode in modes}
    problems = []
    for values in (channels, depths):
        counts = Counter(values.values())
        if len(counts) > 1:
            rarest = min(counts, key=counts.__getitem__)
            example = data.names[next(i for i, value in values.items() if value == rarest)]
            listed = ", ".join(f"{n:,} with {v}" if "bits" in v else f"{n:,} in {v}" for v, n in counts.items())
            message = f"of {len(values):,} images, {listed}; the rarer kind has {example}"
            problems.append(Problem(Kind.MIXED, str(data.source), message, image=example))
    return problems


def find_repeated(data: Dataset, looks: Sequence[Look]) -> list[Problem]:
    """Return a finding for each image that repeats an earlier one, or looks like it; of both parts, if it has parts."""
    problems = []
    for a, b, equal in _alike_pairs(data.files, looks):
        in_parts = (data.parts[a], data.parts[b]) if data.parts is not None else ("", "")
        verb = _verb(equal)
        if all(in_parts) and in_parts[0] != in_parts[1]:
            other = _unless_same(data.names[a], data.names[b])
            message = f"image {data.names[b]} of {in_parts[1]} {verb} {other} of {in_parts[0]}"
            kind = Kind.LEAK
        else:
            message = f"image {data.names[b]} {verb} {data.names[a]}"
            kind = Kind.SAME_IMAGE if equal else Kind.ALIKE
        problems.append(Problem(kind, str(data.files[b]), message, image=data.names[b], twin=str(data.files[a])))
    return problems


def find_leaks(data: Dataset, looks: Sequence[Look], validation: Dataset, val_looks: Sequence[Look]) -> list[Problem]:
    """Return a finding for each image of `validation` that is equal to one of `data`, or looks like it."""
    problems = []
    for a, b, equal in _alike_pairs([*data.files, *validation.files], [*looks, *val_looks], n_first=len(data)):
        name, file = validation.names[b - len(data)], validation.files[b - len(data)]
        other = _unless_same(data.names[a], name)
        message = f"image {name} of the validation {_verb(equal)} {other} of the training"
        problems.append(Problem(Kind.LEAK, str(file), message, image=data.names[a], twin=str(file)))
    return problems


def _unless_same(name: str, other: str) -> str:
    return "that" if name == other else name


def _verb(equal: bool) -> str:
    return "is equal to" if equal else "looks like"


def _alike_pairs(
    files: Sequence[Path], looks: Sequence[Look], n_first: int | None = None
) -> Iterator[tuple[int, int, bool]]:
    """Yield for image b the first image a before it that is equal or alike, and whether the files are equal.

    With `n_first`, only pairs of the first `n_first` images with the others count.
    """
    first_of: dict[str, int] = {}
    digests, alike = _digests(files, looks), _first_alike(looks, n_first)
    for b, digest in enumerate(digests):
        if digest and (a := first_of.setdefault(digest, b)) != b and (n_first is None or a < n_first <= b):
            yield a, b, True
        elif b in alike:
            yield alike[b], b, False


def _first_alike(looks: Sequence[Look], n_first: int | None) -> dict[int, int]:
    """Return for each image that looks like one before it the first such image. `n_first` is as in `_alike_pairs`."""
    textured = np.array([i for i, look in enumerate(looks) if look.small is not None and look.small.any()], np.int64)
    bits = np.array([looks[i].bits for i in textured.tolist()], np.uint64)
    small = np.array([looks[i].small for i in textured.tolist()], np.float32).reshape(len(textured), SMALL * SMALL)
    first_alike: dict[int, int] = {}
    for start in range(0, len(textured), ROWS_AT_ONCE):
        later = textured[start : start + ROWS_AT_ONCE, None]
        matches = np.bitwise_count(bits[start : start + ROWS_AT_ONCE, None] ^ bits) <= MAX_DIFFERENT_BITS
        matches &= textured < later if n_first is None else (textured < n_first) & (n_first <= later)
        columns = np.flatnonzero(matches.any(0))
        rows = np.flatnonzero(matches.any(1))
        matches = matches[np.ix_(rows, columns)] & (small[start + rows] @ small[columns].T >= MIN_CORRELATION)
        for k in np.flatnonzero(matches.any(1)).tolist():
            first_alike[int(later[rows[k], 0])] = int(textured[columns[matches[k].argmax()]])
    return first_alike


def _digests(files: Sequence[Path], looks: Sequence[Look]) -> list[str]:
    """Return a digest of each readable file that has the size of another one; "" for the others."""
    sizes = [file.stat().st_size if look.error is None else None for file, look in zip(files, looks, strict=True)]
    counts = Counter(sizes)
    return [
        hashlib.sha256(file.read_bytes()).hexdigest() if size is not None and counts[size] > 1 else ""
        for file, size in zip(files, sizes, strict=True)
    ]
