"""Class names: a mapping, a list in the order of the sorted ids, or a file of either."""

import json

import numpy as np
import pytest
from PIL import Image

from maskrcnn import UserError, open_dataset
from maskrcnn.cli import main
from maskrcnn.cli.common import DataOptions
from maskrcnn.config import validated

IDS = {"numbers": [12, 3, 5], "words": ["b7", "a", "c"]}
SORTED = {"numbers": [3, 5, 12], "words": ["a", "b7", "c"]}
NAMES = ["scratch", "dent", "Beule ü"]


@pytest.fixture
def csv(tmp_path):
    return written(tmp_path, IDS["numbers"])


def written(folder, ids):
    (folder / "images").mkdir(exist_ok=True)
    Image.fromarray(np.zeros((8, 10), np.uint8)).save(folder / "images" / "a.png")
    rows = "".join(f"a.png,{class_id},{1 + 10 * k} 3\n" for k, class_id in enumerate(ids))
    (folder / "train.csv").write_text("ImageId,ClassId,EncodedPixels\n" + rows)
    return folder / "train.csv"


def opened(csv, names):
    notes = []
    return open_dataset(csv, class_names=names, say=notes.append), "\n".join(notes)


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("make", [list, tuple])
def test_a_list_names_the_sorted_ids_and_says_so(tmp_path, kind, make):
    data, said = opened(written(tmp_path, IDS[kind]), make(NAMES))
    assert data.class_ids == SORTED[kind]
    assert data.class_names == NAMES
    pairs = ", ".join(f"{class_id} = {name}" for class_id, name in zip(SORTED[kind], NAMES, strict=True))
    assert f"class names stand for the class ids in sorted order: {pairs}" in said


FILES = {
    "names.json": json.dumps(dict(zip(["3", "5", "12"], NAMES, strict=True))),
    "coco.json": json.dumps({"categories": [{"id": i, "name": n} for i, n in zip([3, 5, 12], NAMES, strict=True)]}),
    "categories.json": json.dumps([{"id": i, "name": n} for i, n in zip([3, 5, 12], NAMES, strict=True)]),
    "list.json": json.dumps(NAMES),
    "names.txt": "\n".join(NAMES) + "\n",
    "windows.txt": "\ufeff" + "\r\n".join(NAMES) + "\r\n\r\n",
    "names": "\n".join(NAMES),
    "json.txt": json.dumps(NAMES),
}


@pytest.mark.parametrize("file", FILES)
def test_names_come_from_a_file(csv, tmp_path, file):
    (tmp_path / file).write_text(FILES[file], "utf-8", newline="")
    for path in (tmp_path / file, str(tmp_path / file)):
        assert opened(csv, path)[0].class_names == NAMES


@pytest.mark.parametrize(("names", "message"), [
    (NAMES[:2], r"class names given: 2 \(scratch, dent\), class ids: 3 \(3, 5, 12\)\. Give a name for each id"),
    ([*NAMES, "x"], "class names given: 4"),
    ([], "class names given: 0"),
    (["a", "b", "a"], "the class name 'a' is given more than once"),
    ({3: "a"}, "no class name for the id 5"),
])  # fmt: skip
def test_a_wrong_number_of_names_is_an_error(csv, names, message):
    with pytest.raises(UserError, match=message):
        opened(csv, names)


@pytest.mark.parametrize("content", [b"[1, 2, 3]", b"{", b"\xff\xfe\xfa", b"[" * 100_000, b"[{}, {}, {}]"])
def test_a_damaged_file_is_named(csv, tmp_path, content):
    (tmp_path / "names.json").write_bytes(content)
    with pytest.raises(UserError, match=r"names\.json"):
        opened(csv, tmp_path / "names.json")


def checked(csv, capsys, *words):
    with pytest.raises(SystemExit):
        main(["check", str(csv), "--json", "--class-names", *map(str, words)])
    printed = capsys.readouterr()
    return [entry["name"] for entry in json.loads(printed.out)["classes"]] if printed.out else printed.err


def test_the_command_line_takes_names_or_a_file(csv, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("\n".join(NAMES), "utf-8")
    (tmp_path / "names.json").write_text(FILES["names.json"], "utf-8")
    for words in (NAMES, [tmp_path / "names.txt"], [tmp_path / "names.json"]):
        assert checked(csv, capsys, *words) == NAMES
    assert "class names given: 1 (scratch), class ids: 3" in checked(csv, capsys, "scratch")
    assert "cannot read the class names absent.json" in checked(csv, capsys, "absent.json")


def test_one_class_takes_one_name(tmp_path, capsys):
    csv = written(tmp_path, [7])
    assert checked(csv, capsys, "crack") == ["crack"]


def test_several_columns_are_named_at_once(tmp_path, capsys):
    csv = written(tmp_path, [7])
    csv.write_text(csv.read_text().replace("ImageId", "A").replace("EncodedPixels", "B").replace("ClassId", "C"))
    with pytest.raises(SystemExit):
        main(["check", str(csv), "--json", "--column", "image=A", "rle=B", "class=C"])
    assert [entry["id"] for entry in json.loads(capsys.readouterr().out)["classes"]] == [7]


def test_a_run_keeps_its_names(tmp_path, monkeypatch):
    """Runs of older versions kept a path or null."""
    monkeypatch.chdir(tmp_path)
    assert DataOptions(class_names=("a", "b")).absolute().class_names == ("a", "b")
    assert DataOptions(class_names=("names.json",)).absolute().class_names == (str(tmp_path / "names.json"),)
    for stored, words in ((None, ()), ("/x/names.json", ("/x/names.json",)), (["a", "b"], ("a", "b"))):
        assert validated(DataOptions, {"class_names": stored}, "data.json").class_names == words
