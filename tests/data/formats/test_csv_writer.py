"""A table that is written reads back as the same data set, whatever its names, classes and attributes are."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from maskrcnn import Dataset, open_dataset
from maskrcnn.data.formats import encoded_pixels
from maskrcnn.rle import RLE, RunTable
from samples import write_sample


def rewritten(data, folder):
    """Write `data` as a table beside its pictures and read it."""
    encoded_pixels.write(data, folder / "again.csv")
    return open_dataset(folder / "again.csv", images=folder, say=lambda _: None)


def content(data):
    """Everything that a table holds, with classes by id and name."""
    classes = list(zip(data.class_ids, data.class_names, strict=True))
    attributes = [""] * data.n_instances if data.attributes is None else data.attributes.tolist()
    images = [(name, data.hw(i), int(data.counts[i])) for i, name in enumerate(data.names)]
    masks = [data.masks[k].tolist() for k in range(data.n_instances)]
    return images, masks, [classes[label - 1] for label in data.labels], attributes, sorted(classes)


def with_classes(folder, ids, names, n=4):
    """A data set of `n` instances of the given classes, in one picture."""
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (9, 7)).save(folder / "a.png")
    masks = [RLE.from_mask(np.arange(63).reshape(7, 9) == k).runs for k in range(n)]
    return Dataset(
        source=folder,
        names=["a.png"],
        files=[folder / "a.png"],
        sizes=np.array([[7, 9]]),
        image_index=np.zeros(n, int),
        labels=np.arange(n) % len(ids) + 1,
        masks=RunTable.of(masks),
        rows=np.arange(n),
        class_ids=ids,
        class_names=names,
    )


def test_a_data_set_with_all_traits_keeps_what_a_table_holds(tmp_path):
    data = write_sample(tmp_path)
    again = rewritten(data, tmp_path)
    assert content(again) == content(data)
    assert again.problems == []


CLASSES = {
    "one without a name": ([1], ["object"]),
    "one with a name": ([1], ["cell"]),
    "one with another id": ([5], ["object"]),
    "ids alone": ([0, 3, 12], ["0", "3", "12"]),
    "names alone": (["cat", "dog"], ["cat", "dog"]),
    "names to quote": ([3, 1], ['a,b;c\t"d"', "two\nlines"]),
    "two of one name": ([1, 2], ["cell", "cell"]),
    "names that mean no object": ([1, 2, 3], ["nan", "-1", "None"]),
    "a name with blanks": ([1, 2], [" cell ", "cell"]),
}


@pytest.mark.parametrize("kind", CLASSES)
def test_classes_are_kept(tmp_path, kind):
    data = with_classes(tmp_path, *CLASSES[kind])
    assert content(rewritten(data, tmp_path)) == content(data)


@pytest.mark.parametrize(
    "ids", [["nan", "cat"], ["-1", "x"], ["1.0", "b"], ["6_20", "a"], ["01", "1"], [1, "cat"], [" a", "b"], [-1, 4]]
)
def test_ids_that_a_table_cannot_hold_are_numbered_and_their_names_stay(tmp_path, ids):
    data = with_classes(tmp_path, ids, [f"class {i}" for i in ids])
    again = rewritten(data, tmp_path)
    assert again.class_ids == [1, 2]
    assert again.class_names == data.class_names
    assert again.labels.tolist() == data.labels.tolist()


def test_a_class_without_objects_stays(tmp_path):
    data = with_classes(tmp_path, [1, 4, 9], ["a", "b", "c"], n=2)
    assert content(rewritten(data, tmp_path)) == content(data)


def test_images_without_objects_stay_also_if_no_image_has_any(tmp_path):
    data = with_classes(tmp_path, [1], ["object"], n=0)
    again = rewritten(data, tmp_path)
    assert again.names == ["a.png"]
    assert again.n_instances == 0


@pytest.mark.parametrize("name", ["a,b.png", 'a "b".png', "ä;é.png", "sub/a'b.png", "1.png"])
def test_names_of_images_are_quoted(tmp_path, name):
    data = with_classes(tmp_path, [1], ["object"])
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / "a.png").rename(tmp_path / name)
    data = replace(data, names=[name], files=[tmp_path / name])
    assert content(rewritten(data, tmp_path)) == content(data)


def test_attributes_are_kept_as_they_are(tmp_path):
    texts = ["20 44", "", "colour=red, light", "7"]
    data = replace(with_classes(tmp_path, [1], ["object"]), attributes=np.array(texts, object))
    assert rewritten(data, tmp_path).attributes.tolist() == texts


def test_the_size_of_another_picture_is_a_problem(tmp_path):
    data = with_classes(tmp_path, [1], ["object"])
    encoded_pixels.write(data, tmp_path / "again.csv")
    Image.new("RGB", (7, 9)).save(tmp_path / "a.png")
    with pytest.raises(Exception, match="swapped"):
        open_dataset(tmp_path / "again.csv")


def test_a_column_of_names_that_disagrees_with_the_ids_is_left_out_aloud(tmp_path):
    with_classes(tmp_path, [1], ["object"])
    csv = tmp_path / "t.csv"
    csv.write_text("ImageId,EncodedPixels,ClassId,ClassName\na.png,1 2,1,cat\na.png,5 2,1,dog\na.png,9 2,2,dog\n")
    lines = []
    data = open_dataset(csv, say=lines.append)
    assert data.class_names == ["1", "2"]
    assert any("ClassName has several names for one class" in line for line in lines)
