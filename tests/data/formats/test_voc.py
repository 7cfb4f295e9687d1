"""Pascal VOC: palettes and colours, classes of objects, parts, boxes without masks, and round trips without overlaps."""

import dataclasses
import re

import numpy as np
import pytest
from PIL import Image

from labelled import by_picture, hard_dataset, opened, written
from maskrcnn import RLE, UserError, open_dataset
from maskrcnn.data.formats import voc
from maskrcnn.data.formats.attributes import split_attributes
from maskrcnn.data.formats.source import Source
from maskrcnn.data.formats.voc_classes import palette
from maskrcnn.rle import RunTable, remove_overlaps

HW = (20, 30)


def numbered() -> tuple[np.ndarray, np.ndarray]:
    """Numbers of objects and of classes: 1 a bird with a border, 2 a cat that some pixels call a dog."""
    objects, classes = np.zeros(HW, np.uint8), np.zeros(HW, np.uint8)
    objects[2:8, 3:9], classes[2:8, 3:9] = 1, 3
    objects[2:8, 9], classes[2:8, 9] = 255, 255
    objects[10:18, 12:25], classes[10:18, 12:25], classes[10, 12:25] = 2, 8, 12
    return objects, classes


def save(path, numbers, how="palette"):
    path.parent.mkdir(parents=True, exist_ok=True)
    if how == "colours":
        Image.fromarray(palette()[numbers]).save(path)
    else:
        picture = Image.fromarray(numbers)
        if how == "palette":
            picture.putpalette(palette().tobytes())
        picture.save(path)


def box(name, extra=""):
    bounds = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>4</ymax></bndbox>"
    return f"<object><name>{name}</name>{extra}{bounds}</object>"


def layout(folder, how="palette", names=("bird", "cat"), classes=True, xml=None):
    (folder / "JPEGImages").mkdir(parents=True)
    Image.new("RGB", HW[::-1]).save(folder / "JPEGImages" / "2007_1.jpg")
    save(folder / "SegmentationObject" / "2007_1.png", numbered()[0], how)
    if classes:
        save(folder / "SegmentationClass" / "2007_1.png", numbered()[1], how)
    if names:
        (folder / "Annotations").mkdir()
        flags = "<pose>Left</pose><truncated>1</truncated><difficult>0</difficult>"
        text = xml or f"<annotation><segmented>1</segmented>{''.join(box(n, flags) for n in names)}</annotation>"
        (folder / "Annotations" / "2007_1.xml").write_text(text)
    return folder


def without_overlaps(data):
    """The data set as a palette holds it: a pixel belongs to the smallest mask; hidden masks are lost."""
    runs, kept = [], []
    for i in range(len(data)):
        masks = remove_overlaps(data.rles(i), np.argsort([mask.area for mask in data.rles(i)], kind="stable"))
        for k, mask in enumerate(masks, data.instances(i).start):
            if mask.area:
                runs.append(mask.runs.tobytes())
                kept.append(k)
    return kept, runs


@pytest.mark.parametrize("parts", [None, ["train", "val", "", "test", "../x y"]])
def test_a_written_data_set_reads_back_as_far_as_a_palette_goes(tmp_path, rng, parts):
    attributes = np.array(["truncated=1; pose=left; note=a <b>", "", "20 44"] * 11, object)[:32]
    data = hard_dataset(tmp_path / "in", rng, parts=parts, attributes=attributes)
    target = written(data, tmp_path / "out", "voc")
    read, said = opened(target)
    kept, runs = without_overlaps(data)
    assert sorted(mask for masks in by_picture(read).values() for _, mask in masks) == sorted(runs)
    assert read.n_instances == len(kept)
    names = {file.read_bytes(): name for file, name in zip(data.files, data.names, strict=True)}
    order = [data.names.index(names[file.read_bytes()]) for file in read.files]
    assert (read.parts or [""] * 5) == [(parts or [""] * 5)[i] for i in order]
    assert read.class_names == data.class_names
    texts = [split_attributes(attributes[k]) for i in order for k in kept if data.image_index[k] == i]
    assert [split_attributes(text) for text in read.attributes] == texts
    assert "Pascal VOC" in said


@pytest.mark.parametrize("how", ["palette", "gray", "colours"])
def test_palettes_and_colours_are_the_same_numbers(tmp_path, how):
    data, _ = opened(layout(tmp_path, how))
    objects, _ = numbered()
    assert data.rles(0) == [RLE.from_mask(objects == 1), RLE.from_mask(objects == 2)]
    assert [data.class_names[label - 1] for label in data.labels] == ["bird", "cat"]
    assert data.class_ids == [3, 8]
    assert data.attributes.tolist() == ["truncated=1; pose=Left"] * 2
    assert data.place(1) == f"{tmp_path / 'SegmentationObject' / '2007_1.png'}, object 2"


def test_the_class_of_an_object_is_that_of_most_pixels_else_that_of_the_xml(tmp_path):
    data, _ = opened(layout(tmp_path / "a", names=("cow", "horse")))
    assert data.class_names == ["bird", "cat"]
    assert data.attributes is None  # the XML is about other objects
    data, _ = opened(layout(tmp_path / "b", names=("cow", "zebra"), classes=False))
    assert data.class_names == ["cow", "zebra"]
    with pytest.raises(UserError, match=r"2007_1\.png, object 2: .* has a class for the object 2"):
        opened(layout(tmp_path / "c", names=("cow",), classes=False))


def test_colours_of_a_label_map_name_the_classes(tmp_path):
    folder = layout(tmp_path, "colours")
    entries = [
        "background:0,0,0::",
        "a:b:10,20,30::",
        f"c:{','.join(map(str, palette()[3]))}:part,x:run",
        "ignored:224,224,192::",
    ]
    (folder / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "\r\n".join(entries) + "\r\n")
    classes = palette()[numbered()[1]]
    classes[np.isin(numbered()[1], (8, 12))] = (10, 20, 30)
    Image.fromarray(classes).save(folder / "SegmentationClass" / "2007_1.png")
    data, _ = opened(folder)
    assert dict(zip(data.class_ids, data.class_names, strict=True)) == {1: "a:b", 2: "c"}
    assert data.labels.tolist() == [2, 1]


@pytest.mark.parametrize(
    "lines",
    [
        ["bird:64,0,128::", "cat:10,20,30::"],
        ["bird:64,0,128::", "cat:10,20,30::", "background:0,0,0::"],
        ["bird:64,0,128::", "nothing:0,0,0::", "cat:10,20,30::"],
    ],
    ids=["absent", "last", "by its colour"],
)
def test_background_of_a_label_map_is_where_its_name_or_colour_is(tmp_path, lines):
    folder = layout(tmp_path, "colours", names=())
    (folder / "labelmap.txt").write_text("\n".join(["# label:color_rgb:parts:actions", *lines]))
    colors = np.zeros((*HW, 3), np.uint8)
    colors[numbered()[0] == 1], colors[numbered()[0] == 2] = (64, 0, 128), (10, 20, 30)
    Image.fromarray(colors).save(folder / "SegmentationClass" / "2007_1.png")
    data, _ = opened(folder)
    assert dict(zip(data.class_ids, data.class_names, strict=True)) == {1: "bird", 2: "cat"}
    assert data.labels.tolist() == [1, 2]


def test_labelmes_list_of_classes_names_them(tmp_path):
    folder = layout(tmp_path, names=())
    (folder / "class_names.txt").write_text("__ignore__\n_background_\n" + "".join(f"k{i}\n" for i in range(1, 13)))
    data, _ = opened(folder)
    assert [data.class_names[label - 1] for label in data.labels] == ["k3", "k8"]


def test_parts_and_what_has_no_mask(tmp_path):
    folder = layout(tmp_path)
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("2007_1\n")
    (lists / "trainval.txt").write_text("2007_1\n2007_9\n")
    (folder / "Annotations" / "2008_2.xml").write_text(f"<annotation>{box('dog')}</annotation>")
    data, said = opened(folder)
    assert data.parts == ["val"]
    assert "images of ImageSets without a picture in SegmentationObject (1), such as 2007_9, are left out" in said
    assert "images with boxes in Annotations and no masks (1) are left out" in said


def test_the_devkit_may_be_given_from_above(tmp_path):
    layout(tmp_path / "VOCdevkit" / "VOC2012")
    assert opened(tmp_path)[0].n_instances == 2
    layout(tmp_path / "VOCdevkit" / "VOC2007")
    with pytest.raises(UserError, match=r"several data sets of Pascal VOC: .*VOC2007, .*VOC2012"):
        opened(tmp_path)


def test_boxes_alone_are_refused(tmp_path):
    (tmp_path / "a.xml").write_text(f"<annotation>{box('dog')}</annotation>")
    for source in (tmp_path, tmp_path / "a.xml"):
        with pytest.raises(UserError, match=r"boxes of Pascal VOC .* without masks"):
            opened(source)


def test_faults_are_named(tmp_path):
    folder = layout(tmp_path / "xml", xml="<annotation><object>")
    with pytest.raises(UserError, match=r"2007_1\.xml: is not valid XML"):
        opened(folder)
    folder = layout(
        tmp_path / "bomb",
        xml='<!DOCTYPE a [<!ENTITY b "c">]><annotation><object><name>&b;</name></object></annotation>',
    )
    with pytest.raises(UserError, match=r"2007_1\.xml: defines entities"):
        opened(folder)
    folder = layout(tmp_path / "size")
    save(folder / "SegmentationClass" / "2007_1.png", np.ones((5, 6), np.uint8))
    with pytest.raises(UserError, match=re.escape("have different sizes: 5 x 6 and 20 x 30 (h x w)")):
        opened(folder)
    folder = layout(tmp_path / "damaged")
    (folder / "SegmentationObject" / "2007_1.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"SegmentationObject/2007_1\.png"):
        opened(folder)
    folder = layout(tmp_path / "other size")
    Image.new("RGB", (31, 20)).save(folder / "JPEGImages" / "2007_1.jpg")
    with pytest.raises(UserError, match="is 20 high and 31 wide"):
        opened(folder)
    folder = layout(tmp_path / "no picture")
    (folder / "JPEGImages" / "2007_1.jpg").rename(folder / "JPEGImages" / "b.jpg")
    with pytest.raises(UserError, match="image '2007_1' is not in the folder"):
        opened(folder)


def test_more_objects_than_a_palette_has_are_refused(tmp_path, rng):
    data = hard_dataset(tmp_path / "in", rng)
    many = data.take([0] * 32)
    pixels = RunTable.of([np.array([[k, 1]]) for k in range(many.n_instances)])
    crowded = dataclasses.replace(many, image_index=np.zeros(many.n_instances, np.int64), masks=pixels)
    with pytest.raises(UserError, match=r"254 objects an image, and a\.png has 256"):
        written(crowded, tmp_path / "out", "voc")
    assert not (tmp_path / "out").exists()


def test_palette_is_vocs():
    colors = palette().tolist()
    assert colors[:4] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert colors[15] == [192, 128, 128]
    assert colors[255] == [224, 224, 192]


@pytest.mark.shared
def test_datumaros_samples(shared):
    samples = shared / "data" / "formats" / "datumaro"
    data, said = opened(samples / "voc_dataset" / "voc_dataset1")
    assert data.n_instances == 1
    assert data.parts == ["train"]
    assert "without a picture in SegmentationObject (1), such as 2007_000002" in said
    for place in ("voc_dataset/voc_dataset2", "voc_dataset/voc_dataset3", "roboflow_dataset/voc"):
        with pytest.raises(UserError, match="boxes of Pascal VOC"):
            opened(samples / place)


def test_no_other_format_is_taken(tmp_path):
    (tmp_path / "labelme.xml").write_text(
        "<annotation><filename>a.png</filename><object><polygon></polygon></object></annotation>"
    )
    (tmp_path / "cvat.xml").write_text("<annotations><meta/></annotations>")
    assert not voc.recognizes(Source(tmp_path))


def test_a_folder_without_voc_is_no_voc(tmp_path):
    with pytest.raises(UserError, match="there is no data set of Pascal VOC"):
        open_dataset(tmp_path, format="voc", say=lambda _: None)
