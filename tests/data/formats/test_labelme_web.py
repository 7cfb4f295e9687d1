"""XML files of LabelMe's web tool: polygons, masks in PNGs, deleted objects, parts, and what is damaged."""

import numpy as np
import pytest
from PIL import Image

from labelled import opened
from maskrcnn import RLE, UserError
from maskrcnn.data.formats import recognized
from maskrcnn.data.formats.source import Source
from samples import disc

HW = (30, 44)
TRIANGLE = [(3, 2), (25.5, 4), (12, 22)]


def polygon(points):
    return (
        "<polygon><username>a</username>"
        + "".join(f"<pt>\n<x>{x}</x>\n<y>{y}</y></pt>" for x, y in points)
        + "</polygon>"
    )


def item(name="tree", content=None, *, deleted=0, attributes="", occluded="no", parent="", kind=""):
    return (
        f"<object><name>{name}</name><deleted>{deleted}</deleted><verified>0</verified><occluded>{occluded}</occluded>"
        f"<attributes>{attributes}</attributes><parts><hasparts/><ispartof>{parent}</ispartof></parts>{kind}"
        f"{polygon(TRIANGLE) if content is None else content}</object>"
    )


def web_tool(folder, objects, *, stem="größe 1", size=HW, subfolder="sub", head=""):
    """A picture and its XML file, as the tool lays them out."""
    for kind in ("Images", "Annotations", "Masks", "Scribbles"):
        (folder / kind / subfolder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", HW[::-1], (9, 80, 90)).save(folder / "Images" / subfolder / f"{stem}.jpg")
    file = folder / "Annotations" / subfolder / f"{stem}.xml"
    sides = f"<imagesize><nrows>{size[0]}</nrows><ncols>{size[1]}</ncols></imagesize>"
    text = f"{head}<annotation><filename>\n{stem}.jpg\n</filename><folder>{subfolder}</folder>{''.join(objects)}{sides}"
    file.write_text(f"{text}</annotation>", "utf-8")
    return file


def save_mask(path, mask):
    """The tool's masks are colours on a transparent picture."""
    Image.fromarray(np.dstack([np.full((*mask.shape, 3), 90), mask * 200]).astype(np.uint8), "RGBA").save(path)


def test_polygons_and_attributes_are_read(tmp_path):
    web_tool(tmp_path, [item(attributes="old, tall"), item("Ähre", occluded="yes")])
    web_tool(tmp_path, [], stem="empty", subfolder="other")
    data, said = opened(tmp_path)
    assert recognized(Source(tmp_path)) == "labelme-web"
    assert "2 images (1 without objects), 2 instances" in said
    assert data.class_names == ["tree", "Ähre"]
    assert data.attributes.tolist() == ["old, tall", "occluded=yes"]
    expected = RLE.from_polygons([np.ravel(TRIANGLE)], HW)
    assert all(np.array_equal(mask, expected.runs) for mask in data.masks)
    assert {file.relative_to(tmp_path).as_posix() for file in data.files} == {
        "Images/sub/größe 1.jpg",
        "Images/other/empty.jpg",
    }


def test_masks_in_files_are_read_and_are_no_pictures(tmp_path):
    mask, other = disc(HW, 12, 20, 8) & ~disc(HW, 12, 20, 3), disc(HW, 20, 30, 5)
    segments = [f"<segm><box/><mask>{name}_mask_0.png</mask><scribbles/></segm>" for name in "ab"]
    for name, subfolder, drawn in (("a", "sub", mask), ("b", "sub", other), ("a", "other", other)):
        (tmp_path / "Masks" / subfolder).mkdir(parents=True, exist_ok=True)
        save_mask(tmp_path / "Masks" / subfolder / f"{name}_mask_0.png", drawn)
    web_tool(tmp_path, [item("one", segments[0]), item("both", polygon(TRIANGLE) + segments[1])])
    save_mask(tmp_path / "Scribbles" / "sub" / "a.png", other)
    data, said = opened(tmp_path)
    assert np.array_equal(data.rles(0)[0].to_mask(), mask)
    assert np.array_equal(
        data.rles(0)[1].to_mask(), RLE.from_polygons([np.ravel(TRIANGLE)], HW).union(RLE.from_mask(other)).to_mask()
    )
    assert "do not list" not in said


def test_deleted_objects_parts_and_boxes_are_said(tmp_path):
    box = "<type>bounding_box</type>"
    web_tool(tmp_path, [item(deleted=1), item(parent=3), item(kind=box), item("point", "")])
    data, said = opened(tmp_path)
    assert data.rows.tolist() == [2, 3]
    assert "objects that were deleted (1) are left out" in said
    assert "objects that are parts of others (1) are objects of their own" in said
    assert "boxes (1) become masks of their whole area" in said
    assert "objects without an outline (1)" in said


@pytest.mark.parametrize(
    ("objects", "fault"),
    [
        ([item(content=polygon([(1, 2), (3, "x"), (4, 5)]))], "object 2: .*no pair of numbers"),
        ([item(content=polygon([(1, 2), (3, 4)]))], "object 2: .*2 points"),
        ([item(content=polygon([(1, 2), ("inf", 4), (5, 5)]))], "object 2: .*x coordinate inf"),
        ([item(content="<segm><mask>no.png</mask></segm>")], "object 2: the mask file 'no.png' is in no folder Masks"),
        ([item(content="<segm><mask>../../x.png</mask></segm>")], "object 2: the mask file '../../x.png'"),
        ([item(content="<segm></segm>")], "object 2: the mask file ''"),
    ],
)
def test_a_malformed_object_is_named_and_not_the_end(tmp_path, objects, fault):
    save_mask(tmp_path / "x.png", np.ones(HW, bool))
    web_tool(tmp_path, [item(), *objects])
    with pytest.raises(UserError, match=fault):
        opened(tmp_path)
    data, _ = opened(tmp_path, bad="skip")
    assert data.n_instances == 1


def test_damaged_files_and_sizes_are_named(tmp_path):
    web_tool(tmp_path, [item()])
    web_tool(tmp_path, [item()], stem="other", size=(31, 44))
    web_tool(tmp_path, [item("&evil;")], stem="entity", head='<!DOCTYPE a [<!ENTITY evil "x">]>')
    cut = web_tool(tmp_path, [item()], stem="cut")
    cut.write_bytes(cut.read_bytes()[:-20])
    with pytest.raises(UserError) as caught:
        opened(tmp_path)
    for part in ("31, 44, but the image", "entity.xml: defines entities", "cut.xml: is not valid XML"):
        assert part in str(caught.value)
    assert opened(tmp_path, bad="skip")[0].n_instances == 1


def test_xml_of_pascal_voc_is_not_taken(tmp_path):
    corners = "<polygon><x1>1</x1><y1>2</y1></polygon>"
    (tmp_path / "a.xml").write_text(
        f"<annotation><object><bndbox><xmin>1</xmin></bndbox>{corners}</object></annotation>"
    )
    assert recognized(Source(tmp_path)) == "voc"


@pytest.mark.shared
def test_a_sample_of_the_tool(shared):
    data, said = opened(shared / "data" / "formats" / "datumaro" / "labelme_dataset")
    assert data.class_names == ["b1", "hg", "license plate", "m1", "o1", "q1", "window"]
    assert data.masks.areas[0] == 6, "a rectangle of 2 x 3 pixels"
    assert data.problems == []
    assert "objects that are parts of others (3)" in said
