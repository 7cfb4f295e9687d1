"""Options that a format has no use for are said, whatever the format."""

import shutil

import pytest
from PIL import Image

from labelled import hard_dataset, opened
from maskrcnn import UserError
from maskrcnn.data.convert import written_formats
from maskrcnn.data.formats import format_module

NUMBERING = {"order": "row", "origin": 0, "relative": True}
SAID = "--order row and --origin 0 and --relative"


def written(data, folder, name):
    suffix = (*format_module(name).SUFFIXES, "")[0]
    return data.save(folder / name / f"data{suffix}", name, pictures="copy").target


@pytest.mark.parametrize("name", [name for name in written_formats() if name != "csv"])
def test_what_a_format_has_no_use_for_is_said(tmp_path, rng, name):
    source = written(hard_dataset(tmp_path / "pictures", rng), tmp_path, name)
    assert "has no use for" not in opened(source)[1]
    roles = getattr(format_module(name), "ROLES", ())
    unused = {"image", "class", "height"} - set(roles)
    data, said = opened(source, **NUMBERING, columns={role: "x" for role in unused})
    [line] = [line for line in said.splitlines() if "has no use for" in line]
    assert f"{format_module(name).NAME} has no use for --column" in line
    assert line.endswith(SAID)
    assert all(f"--column {role}=x" in line for role in unused)
    assert line in data.notes


def test_a_table_uses_every_option_unless_its_masks_are_not_numbered(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "runs.csv").write_text("picture,m\na.png,3 4\n")
    columns = {"image": "picture", "rle": "m"}
    assert "has no use for" not in opened(tmp_path / "runs.csv", columns=columns, **NUMBERING)[1]
    (tmp_path / "polygons.csv").write_text('picture,m\na.png,"[[1, 1, 5, 1, 5, 5]]"\n')
    assert f"has no use for {SAID}" in opened(tmp_path / "polygons.csv", columns=columns, **NUMBERING)[1]


@pytest.mark.parametrize("name", ["csv", "coco"])
def test_a_role_that_nothing_has_is_an_error(tmp_path, rng, name):
    source = written(hard_dataset(tmp_path / "pictures", rng), tmp_path, name)
    with pytest.raises(UserError, match="unknown role 'clas'; the roles are image, rle, class"):
        opened(source, columns={"clas": "x"})


@pytest.mark.parametrize("name", [name for name in written_formats() if hasattr(format_module(name), "picture_path")])
def test_a_folder_of_images_counts_or_is_said_not_to(tmp_path, rng, name):
    source = written(hard_dataset(tmp_path / "pictures", rng), tmp_path, name)
    assert "--images" not in opened(source)[1]
    other = shutil.copytree(source, tmp_path / "other")
    data, said = opened(source, images=other)
    used = {file.is_relative_to(other) for file in data.files}
    assert used == {False} if "--images is not used for them" in said else used == {True}
    assert "do not list" not in said
