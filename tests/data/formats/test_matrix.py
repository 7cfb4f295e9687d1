"""Every format into every other: what both hold comes back as it was, and what one cannot hold is counted."""

from dataclasses import replace

import numpy as np
import pytest

from maskrcnn import open_dataset
from maskrcnn.data.convert import convert, written_formats
from maskrcnn.data.formats import format_module, recognized
from maskrcnn.data.formats.source import Source
from maskrcnn.data.formats.traits import Trait, count_traits
from maskrcnn.data.images import read_image
from maskrcnn.rle import RLE, are_disjoint
from samples import write_sample

FORMATS = written_formats()

COLUMNS = {
    Trait.ATTRIBUTES: "attributes",
    Trait.ATTRIBUTE_NAMES: "attribute_names",
    Trait.SCORES: "scores",
    Trait.CROWD: "crowd",
    Trait.DIVISION: "parts",
    Trait.FEDERATED: "federated",
}
"""Traits that are columns of a data set, None without them."""


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("sample"))


def without(data, traits):
    """The data set without everything that has one of `traits`."""
    kept = np.ones(data.n_instances, bool)
    masks = [RLE(data.masks[k], data.hw(i)) for k, i in enumerate(data.image_index)]
    for k in range(data.n_instances):
        alone = select(data, np.array([k]))
        kept[k] = not any(count_traits(alone)[t] for t in traits & {Trait.HOLES, Trait.SEVERAL_PARTS, Trait.CROWD})
        if Trait.OVERLAPS in traits:
            others = [masks[o] for o in range(k) if kept[o] and data.image_index[o] == data.image_index[k]]
            kept[k] &= are_disjoint([*others, masks[k]])
    data = select(data, np.flatnonzero(kept))
    if Trait.EMPTY_IMAGES in traits:
        data = data.take(np.flatnonzero(data.counts))
    if Trait.UNUSED_CLASSES in traits:
        n = int(data.labels.max())  # the sample's last class is the one without objects
        data = replace(data, class_ids=data.class_ids[:n], class_names=data.class_names[:n])
    return replace(data, **{column: None for trait, column in COLUMNS.items() if trait in traits})


def select(data, instances):
    """The data set with some of its instances, and all images."""
    columns = {c: getattr(data, c) for c in ("image_index", "labels", "rows", "attributes", "crowd", "scores")}
    columns = {c: None if values is None else values[instances] for c, values in columns.items()}
    return replace(data, masks=data.masks.take(instances), **columns)


def content(data, traits):
    """Pictures, and what is known of each of their instances as far as `traits` go, in an order of its own."""
    parts = data.parts if Trait.DIVISION in traits and data.parts else [""] * len(data)
    key_of_image = [read_image(file).tobytes() for file in data.files]
    looked_for = [(set(), set())] * len(data)
    if Trait.FEDERATED in traits and data.federated is not None:
        looked_for = list(zip(data.federated.absent, data.federated.incomplete, strict=True))
    known = [[sorted(data.class_names[j - 1] for j in labels) for labels in pair] for pair in looked_for]
    rows = []
    for k, i in enumerate(data.image_index):
        label = data.labels[k] - 1
        row = [key_of_image[i], data.hw(i), data.masks[k].tolist()]
        row.append(data.class_names[label] if Trait.CLASSES in traits else "")
        row.append(data.class_ids[label] if Trait.CLASS_IDS in traits else "")
        row.append(data.attributes[k] if Trait.ATTRIBUTES in traits and data.attributes is not None else "")
        row.append(str(data.scores[k]) if Trait.SCORES in traits and data.scores is not None else "nan")
        row.append(bool(data.crowd[k]) if Trait.CROWD in traits and data.crowd is not None else False)
        rows.append(row)
    names = data.attribute_names if Trait.ATTRIBUTE_NAMES in traits else None
    return sorted(zip(key_of_image, parts, data.counts.tolist(), known, strict=True)), sorted(rows), names


def converted(data, folder, name):
    """Convert with pictures, open what was written without any option, and return both."""
    suffix = (*format_module(name).SUFFIXES, "")[0]
    conversion = convert(data, folder / name / f"data{suffix}", name, pictures="copy")
    assert recognized(Source(conversion.target)) == name
    return conversion, open_dataset(conversion.target, say=lambda _: None)


@pytest.mark.parametrize("second", FORMATS)
@pytest.mark.parametrize("first", FORMATS)
def test_what_both_formats_hold_comes_back_as_it_was(tmp_path, sample, first, second):
    held = format_module(first).HOLDS & format_module(second).HOLDS
    data = without(sample, set(Trait) - held)
    assert data.n_instances >= 8
    _, between = converted(data, tmp_path / "1", first)
    conversion, again = converted(between, tmp_path / "2", second)
    assert content(again, held) == content(data, held)
    assert [p for p in again.problems if p.is_problem and p.kind != "mask of the whole image"] == []
    assert not conversion.lost.keys() & held
    if {Trait.CLASSES, Trait.UNUSED_CLASSES} <= held:
        assert set(again.class_names) == set(data.class_names)
    counts, counts_again = count_traits(data), count_traits(again)
    assert {t: counts_again[t] for t in held} == {t: counts[t] for t in held}


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_format_cannot_hold_is_counted(tmp_path, sample, name):
    holds = format_module(name).HOLDS
    conversion, again = converted(sample, tmp_path, name)
    assert conversion.lost == {t: n for t, n in count_traits(sample).items() if t not in holds}
    if Trait.EMPTY_IMAGES in holds:
        assert len(again) == len(sample)
    counts = count_traits(again)
    for trait in {Trait.UNUSED_CLASSES, *COLUMNS} - holds:
        assert counts[trait] == 0, "the format holds more than it says"
