"""Headers that a run keeps: read once, again where a file changed."""

import pytest
from PIL import Image

import maskrcnn.data.headers as headers_module
from maskrcnn.data.formats import open_dataset
from maskrcnn.data.headers import save_headers
from maskrcnn.data.images import read_header
from maskrcnn.errors import ImageError


@pytest.fixture
def reads(monkeypatch):
    """The names of the files whose headers are read."""
    names = []

    def read(path):
        names.append(path.name)
        return read_header(path)

    monkeypatch.setattr(headers_module, "read_header", read)
    return names


@pytest.fixture
def source(tmp_path):
    (tmp_path / "images").mkdir()
    rows = ["ImageId,EncodedPixels"]
    for i, size in enumerate([(20, 10), (8, 8), (5, 30)]):
        Image.new("RGB", size).save(tmp_path / "images" / f"{i}.png")
        rows.append(f"{i}.png,1 3")
    path = tmp_path / "train.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def opened(source, cache=None):
    return open_dataset(source, known_headers=cache, say=lambda line: None)


def test_unchanged_files_are_not_read_again(tmp_path, source, reads):
    data = opened(source)
    assert sorted(reads) == ["0.png", "1.png", "2.png"]
    save_headers([data.take([0, 2]), data.take([1])], tmp_path / "headers.json")
    reads.clear()
    again = opened(source, tmp_path / "headers.json")
    assert reads == []
    assert again.sizes.tolist() == data.sizes.tolist() == [[10, 20], [8, 8], [30, 5]]
    assert again.headers == data.headers


def test_a_changed_file_is_read_again(tmp_path, source, reads):
    save_headers([opened(source)], tmp_path / "headers.json")
    reads.clear()
    Image.new("RGB", (40, 50)).save(tmp_path / "images" / "1.png")
    assert opened(source, tmp_path / "headers.json").hw(1) == (50, 40)
    assert reads == ["1.png"]


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"a": 1}', b"[" * 100_000])
def test_a_missing_or_damaged_file_of_headers_costs_only_time(tmp_path, source, content):
    cache = tmp_path / "headers.json"
    if content is not None:
        cache.write_bytes(content)
    assert len(opened(source, cache)) == 3


@pytest.mark.parametrize("latency", [0.0, 0.004])
def test_files_far_away_are_read_by_many_threads(tmp_path, monkeypatch, latency):
    """The result is the same and in order, wherever the files are."""
    from threading import get_ident
    from time import sleep

    threads = set()

    def read(path):
        threads.add(get_ident())
        sleep(latency)
        if path.name == "210":
            raise ImageError("broken")
        return path.name

    monkeypatch.setattr(headers_module, "read_header", read)
    paths = [tmp_path / str(i) for i in range(300)]
    result = headers_module.read_headers(paths, {})
    assert str(result.pop(210)) == "broken"
    assert result == [path.name for path in paths if path.name != "210"]
    assert len(threads) > 1 or latency == 0
