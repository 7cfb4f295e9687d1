"""Tables whose columns commas, semicolons, tabs or vertical bars separate."""

import gzip
import re

import numpy as np
import pytest
from PIL import Image

from maskrcnn import UserError, open_dataset
from maskrcnn.data.formats.separated import SEPARATORS

TABLES = {
    "plain": "ImageId{s}EncodedPixels\na.png{s}1 3\na.png{s}20 4\n",
    "windows line ends": "ImageId{s}EncodedPixels\r\na.png{s}1 3\r\na.png{s}20 4\r\n",
    "quoted fields": '"ImageId"{s}"EncodedPixels"{s}"note"\n"a.png"{s}"1 3"{s}"x, y; z|t\tu"\na.png{s}"20 4"{s}""\n',
    "a quoted field of two lines": 'ImageId{s}note{s}EncodedPixels\na.png{s}"one;;;\ntwo,,,"{s}1 3\na.png{s}{s}20 4\n',
    "sizes": "ImageId{s}Height{s}Width{s}EncodedPixels\na.png{s}8{s}10{s}1 3\na.png{s}8{s}10{s}20 4\n",
    "attributes with other separators": "ImageId{s}EncodedPixels{s}AttributesIds\na.png{s}1 3{s}\na.png{s}20 4{s}\n",
    "mark of UTF-8": "\ufeffImageId{s}EncodedPixels\na.png{s}1 3\na.png{s}20 4\n",
}


def opened(folder, text, name="train.csv", **options):
    (folder / "images").mkdir(exist_ok=True)
    Image.fromarray(np.zeros((8, 10), np.uint8)).save(folder / "images" / "a.png")
    content = text.encode()
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    notes = []
    return open_dataset(folder / name, say=notes.append, **options), "\n".join(notes)


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("table", TABLES)
def test_separators_are_recognised_and_said(tmp_path, table, separator):
    data, notes = opened(tmp_path, TABLES[table].replace("{s}", separator))
    assert [data.runs(0)[k].tolist() for k in range(2)] == [[[0, 3]], [[19, 4]]]
    assert ("columns separated by" in notes) == (separator != ",")
    if separator != ",":
        assert f"columns separated by {SEPARATORS[separator]}" in notes


@pytest.mark.parametrize("name", ["train.tsv", "train.txt", "train.csv.gz"])
def test_the_suffix_decides_nothing(tmp_path, name):
    for separator in SEPARATORS:
        assert opened(tmp_path, TABLES["plain"].replace("{s}", separator), name)[0].n_instances == 2


def test_decimal_commas_do_not_count(tmp_path):
    text = "ImageId;Height;Width;ClassId;EncodedPixels\na.png;8,0;10,0;3,0;1 3\na.png;8,0;10,0;12,0;20 4\n"
    assert opened(tmp_path, text)[0].class_ids == [3, 12]


def test_columns_that_the_user_names_count(tmp_path):
    text = "key, the first;where\na.png;1 3\na.png;20 4\n"
    data, _ = opened(tmp_path, text, columns={"image": "key, the first", "rle": "where"})
    assert data.n_instances == 2


def test_a_row_of_too_many_columns_is_named(tmp_path):
    with pytest.raises(UserError, match=r"row 3 has 5 columns, the header 2; a text that contains commas"):
        opened(tmp_path, "ImageId,EncodedPixels\na.png,1 3\na.png,1,3,10,2\n")
    with pytest.raises(UserError, match=r"row 2 has 4 columns, the header 2; a text that contains semicolons"):
        opened(tmp_path, "ImageId;EncodedPixels\na.png;1;3;10\n")


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_damaged_tables_are_named(tmp_path, suffix):
    """A first line longer than csv's limit of a field, and compressed bytes that do not unpack."""
    table = tmp_path / f"train{suffix}"
    packed = bytearray(gzip.compress(b"ImageId,EncodedPixels\n" + b"a.png,1 1\n" * 500))
    packed[40:60] = bytes(20)
    table.write_bytes(packed if suffix.endswith("gz") else b'{"annotations": [' + b"1 2, " * 60_000 + b"]}")
    with pytest.raises(UserError, match=f"train{re.escape(suffix)}"):
        open_dataset(table, tmp_path, say=lambda _: None)
