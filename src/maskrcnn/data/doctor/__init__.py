"""The doctor: data that is valid but probably wrong -> findings by kind, each with its place. `repair` mends some.

One module for each family of findings: `masks`, `boxes` and `classes` look at the annotations alone, `images`, `shift`
and `orientation` at the pixels. Readers report what they cannot read.
"""

from __future__ import annotations

from collections.abc import Callable

from maskrcnn.data.doctor.boxes import check_boxes
from maskrcnn.data.doctor.classes import check_classes
from maskrcnn.data.doctor.images import find_damaged, find_leaks, find_mixed, find_repeated, look_at_each
from maskrcnn.data.doctor.masks import check_masks
from maskrcnn.data.doctor.shift import find_shift
from maskrcnn.data.formats.mask_texts import Numbering
from maskrcnn.data.problem import Problem
from maskrcnn.data.table import Dataset


def find_problems(
    data: Dataset,
    *,
    decode: bool = True,
    numbering: Numbering | None = None,
    validation: Dataset | None = None,
    on_image: Callable[[int], None] | None = None,
) -> list[Problem]:
    """Find what is probably wrong with masks, classes and stated boxes and, with `decode`, with images.

    `numbering` is how runs were read. Images of `validation` are looked for among those of `data`.
    """
    problems = [problem for i in range(len(data)) for problem in check_masks(data, i)]
    problems += [*check_boxes(data), *check_classes(data)]
    if not decode:
        return problems
    looks = look_at_each(data, on_image)
    problems += [*find_damaged(data, looks), *find_repeated(data, looks), *find_mixed(data, looks)]
    shift = find_shift(data, [look.steps for look in looks if look.steps is not None], numbering or Numbering())
    if shift is not None:
        problems.append(shift.finding(data))
    if validation is not None:
        problems += find_leaks(data, looks, validation, look_at_each(validation))
    return problems
