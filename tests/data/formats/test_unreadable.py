"""Data sets of other kinds end in a sentence that says what they are; so does every sample of Datumaro's."""

import pytest
from PIL import Image

from labelled import opened
from maskrcnn import UserError

KINDS = {
    "x.tfrecord": (b"\0\1", "TensorFlow's records"),
    "_classes.csv": (b"filename, a, b\nx.jpg, 1, 0\n", "classes of whole pictures"),
    "c.json": (b'[{"image": "a", "annotations": [{"label": "b", "coordinates": {"x": 1}}]}]', "CreateML's JSON"),
    "d.json": (b'{"name": "t", "tags": [], "assets": {}}', "VoTT's JSON"),
    "seg.csv": (b"MaskPath,ImageID,LabelName\nm.png,a,/m/0\n", "Open Images"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_known_kind_is_called_by_name(tmp_path, name):
    content, message = KINDS[name]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=message) as caught:
        opened(tmp_path)
    assert str(tmp_path) in str(caught.value)


SAMPLES = {
    "coco_dataset/coco": 2,
    "coco_dataset/coco_instances": 2,
    "coco_dataset/coco_roboflow": 2,
    "coco_dataset/mmdet_coco": 2,
    "cvat_dataset/for_images/export_project": 3,
    "voc_dataset/voc_dataset1": 1,
    "cvat_dataset/for_images/export_task": "has no label",
    "voc_dataset/voc_dataset2": "boxes of Pascal VOC",
    "voc_dataset/voc_dataset3": "boxes of Pascal VOC",
    "yolo_dataset/labels": "boxes",
    "yolo_dataset/annotations": "boxes",
    "yolo_dataset/strict": "Darknet",
    "roboflow_dataset/yolo": "boxes",
    "roboflow_dataset/yolo_obb": "rotated boxes",
    "roboflow_dataset/voc": "boxes of Pascal VOC",
    "roboflow_dataset/createml": "CreateML",
    "roboflow_dataset/multiclass": "whole pictures",
    "roboflow_dataset/tfrecord": "TensorFlow",
    "vott_json_dataset/dataset": "VoTT",
    "vott_json_dataset/dataset/train-export.json": "VoTT",
    "vott_json_dataset/dataset_with_meta_file": "VoTT",
    "open_images_dataset/v5": "Open Images",
    "open_images_dataset/v6": "Open Images",
    "mots_dataset": "height, width are 1, 5, but the image .* is 5 high and 1 wide",
    "labelme_dataset": 7,
}
"""Instances of each sample, or what the sentence about it says."""


@pytest.mark.shared
@pytest.mark.parametrize("place", SAMPLES)
def test_datumaros_samples_open_or_end_in_a_sentence(shared, place):
    expected = SAMPLES[place]
    source = shared / "data" / "formats" / "datumaro" / place
    if isinstance(expected, int):
        assert opened(source)[0].n_instances == expected
    else:
        with pytest.raises(UserError, match=expected):
            opened(source)
