"""CVAT for images: shapes, groups, labels, subsets, hostile XML, and exact round trips."""

import re

import numpy as np
import pytest
from PIL import Image

from labelled import by_picture, hard_dataset, opened, written
from maskrcnn import RLE, UserError
from maskrcnn.data.formats import cvat
from maskrcnn.data.formats.attributes import join_attributes, split_attributes
from maskrcnn.data.formats.source import Source

HW = (30, 40)
LABELS = "".join(f"<label><name>{name}</name></label>" for name in ("dog", "cat"))
POLYGON = '<polygon label="cat" points="2.5,3;30,4;20.25,25" occluded="0" z_order="0"/>'


def export(folder, shapes=POLYGON, labels=LABELS, images=None, name="annotations.xml", root="annotations", meta="task"):
    """Write a task of one image with `shapes`, or with the text of all `images`."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", HW[::-1]).save(folder / "images" / "a.png")
    images = images or f'<image id="0" name="a.png" width="40" height="30">{shapes}</image>'
    text = f"<version>1.1</version><meta><{meta}><labels>{labels}</labels></{meta}></meta>{images}"
    (folder / name).write_bytes(f'<?xml version="1.0" encoding="utf-8"?>\r\n<{root}>{text}</{root}>'.encode())
    return folder


def dense(rle: str, left: int, top: int, width: int, height: int) -> np.ndarray:
    """Decode CVAT's mask one pixel at a time."""
    mask, position = np.zeros(HW, bool), 0
    for k, count in enumerate(int(word) for word in rle.split(",")):
        for n in range(position, position + count):
            mask[top + n // width, left + n % width] = k % 2
        position += count
    return mask


@pytest.mark.parametrize("attributes", [None, "pose=left; text=a%3Bb <&\">'; occluded=1", "20 44"])
def test_a_written_data_set_reads_back_the_same(tmp_path, rng, attributes):
    data = hard_dataset(tmp_path / "in", rng, parts=["train", "val", "val", "", "other one"])
    if attributes:
        texts = np.array([attributes if k % 3 else "" for k in range(data.n_instances)], object)
        data = hard_dataset(tmp_path / "in", rng, parts=data.parts, attributes=texts)
    target = written(data, tmp_path / "out" / "annotations.xml", "cvat")
    read, said = opened(target)
    assert by_picture(read) == by_picture(data)
    assert read.class_ids == data.class_ids
    assert read.parts == ["train", "val", "val", "", "other one"]
    if attributes:
        assert [split_attributes(text) for text in read.attributes] == [split_attributes(text) for text in texts]
    assert "CVAT for images 1.1" in said


@pytest.mark.parametrize("meta", ["task", "project", "job"])
def test_shapes_of_all_kinds(tmp_path, meta):
    mask = {"rle": "3, 4, 2, 6, 1", "left": 5, "top": 7, "width": 4, "height": 4}
    text = " ".join(f'{key}="{value}"' for key, value in mask.items())
    shapes = (
        POLYGON
        + f'<mask label="dog" source="manual" occluded="1" {text} z_order="0"><attribute name="age">7</attribute></mask>'
        + '<ellipse label="dog" cx="20" cy="15" rx="9" ry="4" rotation="30"/>'
        + '<box label="cat" xtl="1" ytl="1" xbr="9" ybr="9" rotation="12"/><box label="cat" xtl="1" ytl="1" xbr="9" ybr="9"/>'
        + '<polyline label="cat" points="1,1;2,2"/><points label="cat" points="1,1"/><cuboid label="cat" xtl1="1"/>'
        + '<skeleton label="body"><points label="head" points="1,1"/></skeleton><tag label="cat"/>'
    )
    labels = LABELS + (
        "<label><name>body</name><type>skeleton</type></label>"
        "<label><name>head</name><type>points</type><parent>body</parent></label>"
        "<label><name>horse</name><type>polygon</type></label>"
    )
    data, said = opened(export(tmp_path, shapes, labels, meta=meta))
    assert data.class_names == ["dog", "cat", "horse"]
    polygon, decoded, ellipse = data.rles(0)
    assert polygon == RLE.from_polygons([[2.5, 3, 30, 4, 20.25, 25]], HW)
    np.testing.assert_array_equal(decoded.to_mask(), dense(**mask))
    assert ellipse.area == pytest.approx(np.pi * 9 * 4, rel=0.03)
    assert ellipse.to_mask()[15 + 3, 20 + 5]  # the long axis points down to the right: degrees are clockwise
    assert data.attributes.tolist() == ["", "age=7; occluded=1", ""]
    for text in ("boxes (2)", "lines (1)", "points (1)", "cuboids (1)", "skeletons (1)", "tags (1)"):
        assert text in said
    assert data.place(1) == f"{tmp_path / 'annotations.xml'}, shape 2"


def test_shapes_of_a_group_and_label_are_one_object(tmp_path):
    other = '<polygon label="{}" points="30,20;38,20;38,28" {}/>'
    grouped = POLYGON.replace("/>", ' group_id="4"/>')
    shapes = (
        grouped
        + other.format("cat", 'group_id="4"')
        + other.format("dog", 'group_id="4"')
        + other.format("cat", 'group_id="0"') * 2
    )
    data, said = opened(export(tmp_path, shapes))
    assert data.n_instances == 4
    expected = RLE.from_polygons([[2.5, 3, 30, 4, 20.25, 25], [30, 20, 38, 20, 38, 28]], HW)
    assert data.rles(0)[0] == expected
    assert "1 shape is a further part of an object" in said


def test_a_project_may_have_one_name_in_several_subsets(tmp_path):
    for subset in ("Train", "Validation", "Night"):
        (tmp_path / "images" / subset).mkdir(parents=True)
        Image.new("RGB", HW[::-1]).save(tmp_path / "images" / subset / "a.png")
    images = "".join(
        f'<image id="0" name="a.png" subset="{subset}" width="40" height="30">{POLYGON * n}</image>'
        for n, subset in enumerate(("Train", "Validation", "Night"), 1)
    )
    export(tmp_path, images=images)
    (tmp_path / "images" / "a.png").unlink()
    data, _ = opened(tmp_path)
    assert dict(zip(data.parts, data.counts.tolist(), strict=True)) == {"train": 1, "val": 2, "Night": 3}
    assert [file.parent.name for file in data.files] == ["Train", "Validation", "Night"]


def test_tasks_of_a_folder_are_read_together(tmp_path):
    export(tmp_path / "one")
    export(tmp_path / "two", labels="<label><name>ox</name></label>", shapes=POLYGON.replace("cat", "ox"))
    (tmp_path / "two" / "images" / "a.png").rename(tmp_path / "two" / "images" / "b.png")
    xml = tmp_path / "two" / "annotations.xml"
    xml.write_text(xml.read_text().replace("a.png", "b.png"))
    data, _ = opened(tmp_path)
    assert data.class_names == ["dog", "cat", "ox"]
    assert data.counts.tolist() == [1, 1]
    assert data.place(1) == f"{xml}, shape 1"


def test_a_file_of_a_part_and_no_labels(tmp_path):
    data, _ = opened(export(tmp_path, labels="", name="valid.xml") / "valid.xml")
    assert data.parts == ["val"]
    assert data.class_names == ["cat"]


def test_data_without_masks_is_refused_by_what_it_has(tmp_path):
    box = '<box label="cat" xtl="1" ytl="1" xbr="9" ybr="9"/>'
    with pytest.raises(UserError, match=r"has no masks: all it has is boxes \(3\)\. A mask cannot be made"):
        opened(export(tmp_path, box * 3))


def test_videos_are_refused_with_the_way_out(tmp_path):
    track = '<track id="0" label="cat"><box frame="0" outside="0" xtl="1" ytl="1" xbr="3" ybr="3"/></track>'
    with pytest.raises(UserError, match=r'1 tracks .* Export the job again as "CVAT for images 1.1"'):
        opened(export(tmp_path, images=track))


BAD_SHAPES = {
    "a point without y": ('<polygon label="cat" points="1,2;3;4,5"/>', "expected points such as"),
    "words": ('<polygon label="cat" points="a,b;c,d;e,f"/>', "expected points such as"),
    "no points": ('<polygon label="cat"/>', "expected points such as"),
    "two points": ('<polygon label="cat" points="1,2;3,4"/>', "2 points"),
    "not finite": ('<polygon label="cat" points="1,2;inf,4;5,6"/>', "coordinate inf"),
    "counts that miss the box": (
        '<mask label="cat" rle="1, 2" left="0" top="0" width="5" height="5"/>', "CVAT mask",
    ),
    "a box beside the picture": (
        '<mask label="cat" rle="0, 25" left="38" top="0" width="5" height="5"/>', "leave the 30x40",
    ),
    "a box of words": ('<mask label="cat" rle="0, 25" left="x" top="0" width="5" height="5"/>', "left is 'x', not a number"),
    "a box of nothing": ('<mask label="cat" rle="0, 25" left="1" top="0" width="5"/>', "height is missing"),
    "an endless box": ('<mask label="cat" rle="0, 25" left="1" top="0" width="1e400" height="5"/>', "width is '1e400'"),
    "counts of words": ('<mask label="cat" rle="0, x" left="1" top="0" width="5" height="5"/>', "expected counts"),
    "a negative radius": ('<ellipse label="cat" cx="3" cy="3" rx="-1" ry="3"/>', "radii"),
    "an unknown label": ('<polygon label="cow" points="1,2;3,4;5,1"/>', "the class 'cow' is not among"),
    "no label": ('<polygon points="1,2;3,4;5,1"/>', "the shape has no label"),
    "an unknown shape": ('<blob label="cat"/>', "there is no shape <blob>"),
}  # fmt: skip


@pytest.mark.parametrize("shape", BAD_SHAPES)
def test_a_bad_shape_is_named(tmp_path, shape):
    text, message = BAD_SHAPES[shape]
    folder = export(tmp_path, POLYGON + text)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        opened(folder)
    assert "annotations.xml, shape 2: image a.png: " in str(caught.value)
    assert opened(folder, bad="skip")[0].n_instances == 1


BOMB = '<!DOCTYPE b [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;"><!ENTITY c "&b;&b;&b;">]>'
HOSTILE = {
    "a bomb": (BOMB + "<annotations><meta/><image name='&c;'/></annotations>", "defines entities"),
    "another file": (
        '<!DOCTYPE b [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotations><meta/><image name="&a;"/></annotations>',
        "defines entities",
    ),
    "a parameter entity": (
        '<!DOCTYPE b [<!ENTITY % a SYSTEM "http://example.org/x"> %a;]><annotations><meta/></annotations>',
        "defines entities",
    ),
    "cut": ("<annotations><meta/><image name='a.png'><polygon", "is not valid XML"),
    "text behind": ("<annotations><meta/></annotations>x", "is not valid XML"),
    "an unknown encoding": (
        '<?xml version="1.0" encoding="x-no"?><annotations><meta/></annotations>',
        "annotations.xml",
    ),
    "no images": ("<annotations><meta/></annotations>", "lists no images"),
    "two attributes of a name": ("<annotations><meta/><image name='a' name='b'/></annotations>", "is not valid XML"),
}


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_xml_ends_in_a_sentence(tmp_path, text):
    content, message = HOSTILE[text]
    folder = export(tmp_path)
    (folder / "annotations.xml").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        opened(folder)
    assert "annotations.xml" in str(caught.value) or message == "lists no images"


def test_deep_nesting_ends_in_a_sentence(tmp_path):
    folder = export(tmp_path, "<a>" * 50_000 + "</a>" * 50_000)
    with pytest.raises(UserError, match="there is no shape <a>"):
        opened(folder)


def test_encodings_of_other_programs(tmp_path):
    folder = export(tmp_path)
    text = (folder / "annotations.xml").read_text().replace("utf-8", "utf-16").replace("cat", "Käse")
    (folder / "annotations.xml").write_bytes(text.encode("utf-16"))
    assert opened(folder)[0].class_names == ["dog", "Käse"]


def test_characters_that_xml_cannot_hold_are_replaced(tmp_path, rng):
    data = hard_dataset(tmp_path / "in", rng, class_names=["a\x01b", "c"], class_ids=[1, 2])
    read, _ = opened(written(data, tmp_path / "out" / "annotations.xml", "cvat"))
    assert read.class_names == ["a\ufffdb", "c"]


@pytest.mark.parametrize("attributes", [{}, {"a": "b"}, {"a=b;": "c; d=e%", "f": "", "g h": "ü=%3B"}])
def test_attributes_come_back(attributes):
    assert split_attributes(join_attributes(attributes)) == attributes


@pytest.mark.shared
def test_datumaros_samples(shared):
    samples = shared / "data" / "formats" / "datumaro" / "cvat_dataset" / "for_images"
    data, said = opened(samples / "export_project")
    assert sorted(data.parts) == ["test", "test", "train", "train", "val", "val"]
    assert data.n_instances == 3
    assert data.class_names == ["label1", "label2"]
    assert "boxes (3), lines (3), points (3)" in said
    with pytest.raises(UserError, match=r"shape 3: image img1\.jpg: the shape has no label"):
        opened(samples / "export_task")


def test_no_other_format_is_taken(tmp_path):
    (tmp_path / "voc.xml").write_text("<annotation><filename>a.png</filename></annotation>")
    (tmp_path / "page.xml").write_text("<annotations><p/></annotations>")
    (tmp_path / "text.xml").write_text("no XML")
    assert not cvat.recognizes(Source(tmp_path))
