"""From `Annotations` to a `Dataset`: annotations -> pictures near them -> classes -> masks -> data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.data.federated import Federated
from maskrcnn.data.formats.annotations import AnnotatedImage, Annotations
from maskrcnn.data.formats.assemble import MAX_EXAMPLES, OpenOptions, build_dataset, check_sizes, find_pictures
from maskrcnn.data.formats.classes import find_class_names
from maskrcnn.data.formats.drawing import draw_instances
from maskrcnn.data.parts import images_of_part
from maskrcnn.data.pictures import find_folder
from maskrcnn.data.table import Dataset
from maskrcnn.errors import UserError, counted


def to_dataset(annotations: Annotations, options: OpenOptions) -> Dataset:
    """Find the pictures, draw the masks and return the data set. Raise `UserError`."""
    source = annotations.source
    if not annotations.images:
        reasons = "".join(f"\n  {problem}" for problem in annotations.problems[:MAX_EXAMPLES])
        raise UserError(f"{source} is read as {annotations.format}, but lists no images{reasons}")
    if options.part:
        indices = images_of_part([image.part for image in annotations.images], options.part, source)
        annotations = replace(annotations, images=[annotations.images[i] for i in indices])
    images = annotations.images
    unknown = [image for image in images if image.file is None]
    notes = [f"{source}: {annotations.format}", *annotations.notes, *_describe_shapes(annotations)]
    if options.images is not None and len(unknown) < len(images):
        subject = "its pictures" if not unknown else f"{len(images) - len(unknown):,} of its pictures"
        notes.append(f"{source}: {annotations.format} itself says where {subject} are; --images is not used for them")
    folder = find_folder(
        source,
        _common_folder(images) or options.images,
        [image.names for image in unknown],
        hint=annotations.folder_hint,
        is_needed=not all(image.embedded for image in unknown),
    )
    pictures = find_pictures(
        [image.name for image in images],
        [annotations.place(image) for image in images],
        folder,
        options,
        known_files=[image.file for image in images],
        other_names=[image.other_names for image in images],
        embedded=[image.embedded for image in images],
        no_pictures={file.resolve() for file in annotations.mask_files},
    )
    pictures.problems[:0] = annotations.problems
    stated = np.array([image.hw for image in images], np.float64)  # None becomes NaN
    check_sizes(
        pictures,
        np.arange(len(images)),
        stated,
        options.exif,
        n_masks=np.array([len(image.instances) for image in images]),
        place=lambda i: annotations.place(images[i]),
        text=lambda i: f"height, width are {images[i].hw[0]}, {images[i].hw[1]}",
    )
    class_ids, class_names = _classes(annotations, options, notes)
    instances, warnings = draw_instances(annotations, pictures, class_ids)
    parts = [image.part for image in images]
    n_unlisted = len(pictures.names) - len(images)
    return build_dataset(
        source,
        pictures,
        instances,
        class_ids,
        class_names,
        options,
        notes=notes,
        warnings=[*annotations.warnings, *warnings],
        parts=parts + [""] * n_unlisted if any(parts) else None,
        federated=_federated(annotations, class_ids, n_unlisted),
        attribute_names=annotations.attribute_names or None,
        sources=[i.source or source for i in images] + [source] * n_unlisted if any(i.source for i in images) else None,
        row_noun=annotations.row_noun,
        is_numbered=False,
    )


def _describe_shapes(annotations: Annotations) -> list[str]:
    """Say what is left out and what is joined. Raise `UserError` if the source has objects, but none with a mask."""
    source, notes = annotations.source, []
    kinds = [f"{name} ({n:,})" for name, n in annotations.left_out.most_common()]
    if kinds and not annotations.problems and not any(image.instances for image in annotations.images):
        raise UserError(
            f"{source} is read as {annotations.format}, but has no masks: all it has is {' and '.join(kinds)}. A mask "
            "cannot be made of these; draw outlines in the program that made them"
        )
    if kinds:
        notes.append(f"{source}: what has no mask is left out: {', '.join(kinds)}")
    if annotations.n_joined:
        further = counted(annotations.n_joined, "shape is a further part", "shapes are further parts")
        notes.append(f"{source}: {further} of an object")
    return notes


def _common_folder(images: Sequence[AnnotatedImage]) -> Path | None:
    """Return the folder that holds the files of all images, None if the format does not say all of them."""
    folders = {image.file.parent for image in images if image.file is not None}
    if any(image.file is None for image in images):
        return None
    return Path(os.path.commonpath(folders))


def _federated(annotations: Annotations, class_ids: list[Any], n_unlisted: int) -> Federated | None:
    """Return what LVIS knows about classes and images, with nothing known about `n_unlisted` further images."""
    images, frequencies = annotations.images, annotations.frequencies
    if not frequencies and not any(image.absent or image.incomplete for image in images):
        return None
    label_of = {class_id: label for label, class_id in enumerate(class_ids, 1)}

    def labels(ids: list[Any]) -> frozenset[int]:
        return frozenset(label_of[i] for i in ids if i in label_of)

    unlisted = [frozenset[int]()] * n_unlisted
    absent, incomplete = [labels(image.absent) for image in images], [labels(image.incomplete) for image in images]
    return Federated(absent + unlisted, incomplete + unlisted, [frequencies.get(i, "") for i in class_ids])


def _classes(annotations: Annotations, options: OpenOptions, notes: list[str]) -> tuple[list[Any], list[str]]:
    """Return class ids and names: those that the source lists, or else those that its instances have, sorted."""
    listed = annotations.class_names
    if listed is None:
        used = {instance.label for image in annotations.images for instance in image.instances}
        ids = sorted(used, key=lambda class_id: (isinstance(class_id, str), class_id))
        return ids or [1], find_class_names(ids or [1], options.class_names, bool(ids), notes)
    if options.class_names is not None:
        return list(listed), find_class_names(list(listed), options.class_names, True, notes)
    return list(listed), list(listed.values())
