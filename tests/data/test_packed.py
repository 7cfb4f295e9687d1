"""Packed tables: every packing, archives that are no table, and files that claim to be far larger than they are."""

import bz2
import gzip
import importlib
import io
import lzma
import sys
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from maskrcnn import UserError, open_dataset
from maskrcnn.data.formats import packed

TABLE = b"ImageId,EncodedPixels\na.png,1 3\na.png,20 4\n"
ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"


def zstandard(content):
    return pytest.importorskip(ZSTD).compress(content)


def zipped(content, name="data/train.csv", method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def tarred(content):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("train.csv")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


PACK = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard, "zip": zipped}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((8, 10), np.uint8)).save(tmp_path / "images" / "a.png")
    return tmp_path


def opened(folder, content, name):
    (folder / name).write_bytes(content)
    return open_dataset(folder / name, say=lambda _: None)


@pytest.mark.parametrize("suffix", PACK)
def test_packed_tables_are_read(folder, suffix):
    assert opened(folder, PACK[suffix](TABLE), f"train.csv.{suffix}").n_instances == 2
    assert opened(folder, PACK[suffix](TABLE), "train.csv").n_instances == 2  # the first bytes decide


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zst"])
def test_a_file_of_several_streams_is_read_to_its_end(folder, suffix):
    content = PACK[suffix](TABLE[:30]) + PACK[suffix](TABLE[30:])
    assert opened(folder, content, f"train.{suffix}").n_instances == 2


@pytest.mark.parametrize("suffix", PACK)
def test_a_damaged_archive_is_named(folder, suffix):
    rng = np.random.default_rng(3)
    numbers = " ".join(map(str, rng.integers(1, 10**9, 4000).tolist()))
    content = PACK[suffix](TABLE + b"a.png," + numbers.encode() + b"\n")
    damaged = bytearray(content)
    middle = len(damaged) // 2
    damaged[middle : middle + 40] = bytes(40)
    for broken in (content[:middle], bytes(damaged), content[:12]):
        with pytest.raises(UserError, match=rf"train\.csv\.{suffix} cannot be read: \w"):
            opened(folder, broken, f"train.csv.{suffix}")


BOMBS = {
    **{suffix: (pack, suffix) for suffix, pack in PACK.items()},
    "zip of bzip2": (lambda content: zipped(content, method=zipfile.ZIP_BZIP2), "zip"),
    "zip of xz": (lambda content: zipped(content, method=zipfile.ZIP_LZMA), "zip"),
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("letter", [b"\0", b"1 1\n"])
def test_a_small_file_cannot_fill_the_memory(folder, monkeypatch, bomb, letter):
    monkeypatch.setattr(packed, "UNPACKED_BYTES", 2**20)
    pack, suffix = BOMBS[bomb]
    content = pack(letter * (2**24 // len(letter)))
    assert packed.MAX_RATIO * len(content) < 2**23
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=rf"train\.{suffix} has [\d,]+ bytes and unpacks to more than [\d,]+: "):
            opened(folder, content, f"train.{suffix}")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if "of" not in bomb:  # zipfile unpacks other methods in steps of packed bytes
        assert peak < 2**24


def test_a_table_that_packs_well_is_no_bomb(folder, monkeypatch):
    """The allowance holds for small files, the ratio for large ones."""
    rows = TABLE + b"".join(b"b%06d.png,\n" % k for k in range(20_000))
    content = lzma.compress(rows)
    ratio = len(rows) // len(content)
    assert ratio > 30
    assert packed.read_content(_written(folder, content)) == rows
    monkeypatch.setattr(packed, "UNPACKED_BYTES", 0)
    monkeypatch.setattr(packed, "MAX_RATIO", ratio + 1)
    assert packed.read_content(_written(folder, content)) == rows
    monkeypatch.setattr(packed, "MAX_RATIO", ratio)
    with pytest.raises(UserError, match="unpacks to more than"):
        packed.read_content(_written(folder, content))
    monkeypatch.setattr(packed, "UNPACKED_BYTES", len(rows))
    assert packed.read_content(_written(folder, content)) == rows
    monkeypatch.setattr(packed, "MAX_BYTES", len(rows) - 1)
    with pytest.raises(UserError, match="unpacks to more than"):
        packed.read_content(_written(folder, content))


def _written(folder, content):
    (folder / "train.xz").write_bytes(content)
    return folder / "train.xz"


@pytest.mark.parametrize("name", ["../train.csv", "/etc/train.csv", "data/../../train.csv", "..\\train.csv"])
def test_a_member_that_lies_outside_is_an_error(folder, name):
    with pytest.raises(UserError, match=r"train\.zip holds '.*train\.csv', a place outside of the archive"):
        opened(folder, zipped(TABLE, name), "train.zip")


@pytest.mark.parametrize("outer", PACK)
@pytest.mark.parametrize(("inner", "kind"), [
    (gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz"), (zipped, "zip"), (tarred, "tar"),
])  # fmt: skip
def test_an_archive_in_an_archive_is_an_error(folder, outer, inner, kind):
    with pytest.raises(UserError, match=rf"train\.{outer} holds a {kind} archive, not a table or JSON; unpack it"):
        opened(folder, PACK[outer](inner(TABLE)), f"train.{outer}")


def test_a_tar_archive_is_an_error(folder):
    with pytest.raises(UserError, match=r"train\.csv is a tar archive; unpack it"):
        opened(folder, tarred(TABLE), "train.csv")


def test_an_encrypted_member_is_an_error(folder):
    content = bytearray(zipped(TABLE))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + place] |= 1
    with pytest.raises(UserError, match=r"train\.zip is encrypted; unpack it with its password"):
        opened(folder, bytes(content), "train.zip")


def test_a_wrong_checksum_is_an_error(folder):
    content = bytearray(zipped(TABLE, method=zipfile.ZIP_STORED))
    content[content.index(b"20 4")] = ord("3")
    with pytest.raises(UserError, match=r"train\.zip cannot be read: Bad CRC-32"):
        opened(folder, bytes(content), "train.zip")
    content = bytearray(gzip.compress(TABLE))
    content[-6] ^= 1
    with pytest.raises(UserError, match=r"train\.gz cannot be read: CRC check failed"):
        opened(folder, bytes(content), "train.gz")


def test_an_empty_zip_holds_no_table(folder):
    file = io.BytesIO()
    zipfile.ZipFile(file, "w").close()
    with pytest.raises(UserError, match=r"train\.zip holds 0 files"):
        opened(folder, file.getvalue(), "train.zip")


def test_a_missing_library_is_said(folder, monkeypatch):
    content = zstandard(TABLE)
    module = importlib.import_module(ZSTD.partition(".")[0])
    monkeypatch.delattr(module, "zstd", raising=False)
    monkeypatch.setitem(sys.modules, ZSTD, None)
    with pytest.raises(UserError, match=r"train\.zst needs backports\.zstd: pip install 'maskrcnn\[data\]'"):
        opened(folder, content, "train.zst")


def test_a_packed_data_set_is_to_be_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("data.yaml", "names: [a]")
        archive.writestr("train/a.jpg", b"x")
    with pytest.raises(UserError, match="unpack it and give the folder"):
        open_dataset(tmp_path / "set.zip")


@pytest.mark.parametrize(("content", "name"), [(b'{"images": []}', "a.json"), (b'<?xml version="1.0"?>', "a.xml")])
def test_packed_json_and_xml_are_no_tables(folder, content, name):
    """As CVAT packs its exports without pictures."""
    with pytest.raises(UserError, match="holds JSON or XML, not a table; unpack it and give the file in it"):
        opened(folder, zipped(content, name), "task.zip")
    with pytest.raises(UserError, match="give the file a name that ends in"):
        opened(folder, content, "train.csv")
