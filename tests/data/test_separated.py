"""Tables whose columns commas, semicolons, tabs or vertical bars separate, in any encoding, packed or not."""

import gzip
import io
import re
import zipfile

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


def opened(folder, text, name="train.csv", encoding="utf-8", picture="a.png", **options):
    (folder / "images").mkdir(exist_ok=True)
    Image.fromarray(np.zeros((8, 10), np.uint8)).save(folder / "images" / picture)
    content = text.encode(encoding)
    (folder / name).write_bytes(PACK.get(name.rpartition(".")[2], bytes)(content))
    notes = []
    return open_dataset(folder / name, say=notes.append, **options), "\n".join(notes)


def zipped(content, *others):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("data/train.csv", *others):
            archive.writestr(name, content)
    return file.getvalue()


PACK = {"gz": gzip.compress, "zip": zipped}
ENCODINGS = {  # Python's name: what is said
    "utf-8": None,
    "utf-8-sig": None,
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16-LE",
    "utf-16-be": "UTF-16-BE",
    "utf-32": "UTF-32",
    "cp1252": "Windows-1252",
}


@pytest.mark.parametrize("name", ["train.csv", "train.csv.gz", "train.csv.zip"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings_are_recognised_and_said(tmp_path, encoding, name):
    text = "ImageId;ClassId;EncodedPixels\nÄpfel.png;größe;1 3\nÄpfel.png;élan;20 4\n"
    data, notes = opened(tmp_path, text, name, encoding, "Äpfel.png")
    assert data.class_ids == ["größe", "élan"]
    assert data.files[0].name == "Äpfel.png"
    said = ENCODINGS[encoding]
    assert ("not UTF-8" in notes) == (said is not None)
    assert said is None or f"read as {said} because it is not UTF-8" in notes


def test_bytes_that_the_code_page_leaves_out_are_latin_1(tmp_path):
    data, notes = opened(tmp_path, "ImageId,ClassId,EncodedPixels\na.png,\x81é,1 3\n", encoding="latin-1")
    assert data.class_ids == ["\x81é"]
    assert "read as Latin-1" in notes


@pytest.mark.parametrize("letter", ["é", "名", "😀"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_utf_8_table_cut_inside_its_last_letter_is_utf_8(tmp_path, letter, encoding):
    text = f"ImageId,EncodedPixels,note\n{letter}.png,1 3,\n{letter}.png,20 4,{letter}"
    _, notes = opened(tmp_path, text, encoding=encoding, picture=f"{letter}.png")
    path, content = tmp_path / "train.csv", text.encode(encoding)
    for n_lost in range(1, len(letter.encode())):
        path.write_bytes(content[:-n_lost])
        data = open_dataset(path, say=lambda _: None)
        assert data.files[0].name == f"{letter}.png"
        assert data.n_instances == 2
    assert "not UTF-8" not in notes


@pytest.mark.parametrize("names", [["déjà", "vélé"], ["cafe", "café"]])
def test_a_table_in_windows_1252_may_end_in_an_accented_letter(tmp_path, names):
    text = f"ImageId,EncodedPixels,ClassId\na.png,1 3,{names[0]}\na.png,20 4,{names[1]}"
    data, notes = opened(tmp_path, text, encoding="cp1252")
    assert data.class_ids == names
    assert "read as Windows-1252" in notes


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_archive_is_an_error_and_no_traceback(tmp_path, method, rng):
    path = tmp_path / "train.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("train.csv", "ImageId,EncodedPixels\n" + "a.png,1 3\n" * 1000)
    content = np.frombuffer(path.read_bytes(), np.uint8)
    for start in (43, 45, 50, 60):
        damaged = content.copy()
        damaged[start : start + 20] ^= 0xFF
        path.write_bytes(damaged.tobytes())
        with pytest.raises(UserError, match=r"train\.zip cannot be read: "):
            open_dataset(path, say=lambda _: None)


def test_a_cut_table_in_utf_16_is_read_up_to_the_cut(tmp_path):
    opened(tmp_path, TABLES["plain"].replace("{s}", ","), encoding="utf-16")
    path = tmp_path / "train.csv"
    path.write_bytes(path.read_bytes()[:-13])
    with pytest.raises(UserError, match=r"has 1 problem:\n.*row 3: image 'a\.pn\ufffd' is not in the folder"):
        open_dataset(path, say=lambda _: None)


def test_an_archive_holds_one_table_beside_what_systems_add(tmp_path):
    content = TABLES["plain"].replace("{s}", ",").encode()
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((8, 10), np.uint8)).save(tmp_path / "images" / "a.png")
    archive = tmp_path / "train.zip"
    archive.write_bytes(zipped(content, "__MACOSX/data/._train.csv", ".DS_Store"))
    assert open_dataset(archive, say=lambda _: None).n_instances == 2
    archive.write_bytes(zipped(content, "other.csv"))
    with pytest.raises(UserError, match=r"holds 2 files \(data/train\.csv, other\.csv\), not one table"):
        open_dataset(archive, say=lambda _: None)


@pytest.mark.parametrize("suffix", ["gz", "zip"])
def test_a_damaged_archive_is_named(tmp_path, suffix):
    packed = PACK[suffix](TABLES["plain"].replace("{s}", ",").encode() * 50)
    for content in (packed[: len(packed) // 2], packed[:20] + b"\xff" * 20 + packed[40:]):
        path = tmp_path / f"train.csv.{suffix}"
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"train\.csv.* cannot be read: \w"):
            open_dataset(path, say=lambda _: None)


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
