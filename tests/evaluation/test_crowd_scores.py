"""Crowd regions and federated classes: what matches no object there is not false, in every score."""

import dataclasses

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster

from guesses import guesses
from maskrcnn import RLE, Detections
from maskrcnn.data.federated import Federated
from maskrcnn.evaluation import score
from maskrcnn.evaluation.coco import LVIS_MAX_DETECTIONS, _results, coco_scores
from maskrcnn.evaluation.crowds import shares_in_crowds
from maskrcnn.evaluation.kaggle import image_scores
from maskrcnn.evaluation.tide import KINDS, judge
from maskrcnn.inspection.gallery import best_and_worst, picture
from pycocotools_scores import reference

HW = (40, 60)
A, B = 1, 2


def block(x1, x2, y1=0, y2=10):
    mask = np.zeros(HW, bool)
    mask[y1:y2, x1:x2] = True
    return RLE.from_mask(mask)


def found(*items):
    """Detections of one image, each (mask, class id, score)."""
    return Detections(
        boxes=np.array([rle.box for rle, _, _ in items], np.float32).reshape(-1, 4),
        scores=np.array([score for _, _, score in items], np.float32),
        class_ids=np.array([class_id for _, class_id, _ in items], np.int64),
        class_names=[f"class {class_id}" for _, class_id, _ in items],
        rles=[rle for rle, _, _ in items],
        hw=HW,
    )


@pytest.fixture
def one_image(shapes, tmp_path):
    """Builds data of one image from (mask, label, is_crowd)."""
    from PIL import Image

    from maskrcnn.rle import RunTable

    Image.new("RGB", HW[::-1]).save(tmp_path / "a.png")

    def build(*instances, federated=None):
        return dataclasses.replace(
            shapes.take([0]),
            files=[tmp_path / "a.png"],
            sizes=np.array([HW]),
            image_index=np.zeros(len(instances), np.int64),
            labels=np.array([label for _, label, _ in instances], np.int64),
            masks=RunTable.of(rle.runs for rle, _, _ in instances),
            rows=np.arange(len(instances)) + 2,
            crowd=np.array([is_crowd for _, _, is_crowd in instances], bool),
            class_ids=[A, B],
            class_names=["one", "two"],
            federated=federated,
        )

    return build


@pytest.mark.parametrize("seed", range(4))
def test_coco_scores_with_crowds_equal_pycocotools(shapes, seed):
    rng = np.random.default_rng(seed)
    crowd = rng.random(len(shapes.labels)) < 0.4
    data = dataclasses.replace(shapes, crowd=crowd)
    detections = guesses(shapes, rng, 3)  # crowds are found several times and in part
    scores = score(data, detections)
    for key, kind in (("box", "bbox"), ("mask", "segm")):
        for name, value in reference(data, detections, kind, scores["max_detections"]).items():
            assert scores[key][name] == pytest.approx(value, abs=1e-6), (key, name)
    without = score(dataclasses.replace(shapes, crowd=None), detections)
    assert scores["mask"]["AP"] != pytest.approx(without["mask"]["AP"], abs=1e-3), "crowds matter in this data"


def test_detections_in_a_crowd_are_neither_true_nor_false(one_image):
    data = one_image((block(0, 10), A, False), (block(20, 60), A, True))
    inside = [(block(x, x + 8), A, 0.9 - x / 1000) for x in (22, 32, 42)]
    clean, crowded = found((block(0, 10), A, 0.5)), found(*inside, (block(0, 10), A, 0.5))
    assert score(data, [crowded])["kaggle"]["mean"] == score(data, [clean])["kaggle"]["mean"] == 1
    assert score(data, [crowded])["mask"]["AP"] == 1
    judgement = judge(data, [crowded])
    assert [KINDS[k] for k in judgement.kinds] == ["correct"]
    assert judgement.missed().tolist() == [False]
    assert score(data, [crowded])["instances"] == 1
    other_class = found(*((rle, B, s) for rle, _, s in inside), (block(0, 10), A, 0.5))
    assert score(data, [other_class])["kaggle"]["mean"] == 1 / 4
    assert len(judge(data, [other_class]).kinds) == 4


def test_the_share_in_a_crowd_meets_the_threshold(one_image):
    """A detection by 70 % in a crowd is false at IoU 0.7 and above, as far as it matches nothing."""
    data = one_image((block(0, 10), A, False), (block(20, 60), A, True))
    dets = found((block(0, 10), A, 0.9), (block(13, 23), A, 0.8), (block(17, 27), A, 0.7))
    assert shares_in_crowds(data, 0, dets).tolist() == pytest.approx([0, 0.3, 0.7])
    per_threshold = image_scores([block(0, 10)], [A], dets, shares_in_crowds(data, 0, dets))
    assert per_threshold.tolist() == pytest.approx([1 / 2] * 4 + [1 / 3] * 6)


def test_an_image_of_crowds_alone_has_nothing_to_score(one_image):
    data = one_image((block(0, 60), A, True))
    assert score(data, [found((block(5, 10), A, 0.9))])["kaggle"]["mean"] == 1
    assert score(data, [found((block(5, 10), A, 0.9))])["mask"]["AP"] is None


def test_the_gallery_counts_objects_alone(one_image):
    from maskrcnn.evaluation import Evaluation

    data = one_image((block(0, 10), A, True), (block(20, 30), A, False), (block(40, 50), B, False))
    detections = [found((block(40, 50), B, 0.9))]
    scores = score(data, detections)
    evaluation = Evaluation(scores, data, detections, np.array([scores["kaggle"]["mean"]]))
    shown = picture(evaluation, judge(data, detections), 0)
    assert (shown.n_truth, shown.n_missed, shown.kinds) == (2, 1, {"correct": 1})
    assert best_and_worst(evaluation) == ([], [0])


def federated(absent=(), incomplete=()):
    return Federated([frozenset(absent)], [frozenset(incomplete)], ["f", "r"])


@pytest.mark.parametrize(
    ("absent", "incomplete", "ap_of_one", "ap_of_two"),
    [
        ((), (), 0.5, None),  # B: unknown in this image, so it has no score at all
        ((B,), (), 0.5, None),  # B: searched for and absent; false, but without an object its AP is undefined
        ((), (A,), 1.0, None),  # A: the better detection may be an object that nobody annotated
    ],
)
def test_federated_scores_worked_by_hand(one_image, absent, incomplete, ap_of_one, ap_of_two):
    """One object of A. A false detection of A scores higher: precision is 1/2 at every recall unless it is ignored."""
    data = one_image((block(0, 10), A, False), federated=federated(absent, incomplete))
    dets = found((block(20, 30), A, 0.9), (block(0, 10), A, 0.8), (block(30, 40), B, 0.7))
    scores = coco_scores(data, [dets])
    for kind in ("box", "mask"):
        per_class = scores[kind]["per_class"]
        assert (per_class["one"]["AP"], per_class["two"]["AP"]) == (pytest.approx(ap_of_one), ap_of_two)
        assert (scores[kind]["APf"], scores[kind]["APr"], scores[kind]["APc"]) == (pytest.approx(ap_of_one), None, None)
    assert scores["max_detections"] == LVIS_MAX_DETECTIONS == 300


def test_unknown_classes_are_false_in_no_score(one_image):
    dets = found((block(0, 10), A, 0.9), (block(30, 40), B, 0.8))
    unknown, absent = (one_image((block(0, 10), A, False), federated=federated(labels)) for labels in ((), (B,)))
    assert [score(data, [dets])["kaggle"]["mean"] for data in (unknown, absent)] == [1, 1 / 2]
    assert [len(judge(data, [dets]).kinds) for data in (unknown, absent)] == [1, 2]


def test_the_best_300_detections_of_all_classes_are_scored(one_image):
    data = one_image((block(0, 10), A, False), (block(20, 30), B, False), federated=federated())
    many = [(block(40, 50, y, y + 5), B, 0.9) for y in range(30)] * 10
    scores = coco_scores(data, [found(*many, (block(0, 10), A, 0.5))])
    assert scores["mask"]["per_class"]["one"]["AP"] == 0
    scores = coco_scores(data, [found(*many[:299], (block(0, 10), A, 0.5))])
    assert scores["mask"]["per_class"]["one"]["AP"] == 1


@pytest.mark.parametrize("seed", range(3))
def test_federated_scores_equal_another_program(shapes, seed):
    """faster-coco-eval has LVIS's rules for its own ground truth format."""
    rng = np.random.default_rng(seed)
    n_classes = len(shapes.class_ids)
    labels = [set(shapes.labels[shapes.instances(i)].tolist()) for i in range(len(shapes))]
    others = [set(range(1, n_classes + 1)) - present for present in labels]
    absent = [frozenset(label for label in sorted(rest) if rng.random() < 0.5) for rest in others]
    incomplete = [frozenset(label for label in sorted(present) if rng.random() < 0.4) for present in labels]
    frequencies = (["r", "c", "f"] * n_classes)[:n_classes]
    data = dataclasses.replace(shapes, federated=Federated(absent, incomplete, frequencies))
    detections = guesses(shapes, rng, 3)
    scores = coco_scores(data, detections)
    for key, kind in (("box", "bbox"), ("mask", "segm")):
        expected = other_program(data, detections, kind)
        for name, value in expected.items():
            assert scores[key][name] == pytest.approx(value, abs=1e-6), (key, name)
    plain = coco_scores(shapes, detections)
    assert plain["mask"]["AP"] != pytest.approx(scores["mask"]["AP"], abs=1e-3), "the rules matter in this data"


def other_program(data, detections, kind):
    boxes = data.boxes.tolist()
    truth = COCO(
        {
            "info": {},
            "images": [
                {
                    "id": i,
                    "height": data.hw(i)[0],
                    "width": data.hw(i)[1],
                    "neg_category_ids": sorted(data.federated.absent[i]),
                    "not_exhaustive_category_ids": sorted(data.federated.incomplete[i]),
                }
                for i in range(len(data))
            ],
            "categories": [
                {"id": k, "name": name, "frequency": frequency}
                for k, (name, frequency) in enumerate(zip(data.class_names, data.federated.frequencies, strict=True), 1)
            ],
            "annotations": [
                {
                    "id": k + 1,
                    "image_id": int(i),
                    "category_id": int(data.labels[k]),
                    "bbox": [boxes[k][0], boxes[k][1], boxes[k][2] - boxes[k][0], boxes[k][3] - boxes[k][1]],
                    "area": int(data.masks.areas[k]),
                    "iscrowd": 0,
                    "segmentation": RLE(data.masks[k], data.hw(int(i))).to_coco(),
                }
                for k, i in enumerate(data.image_index)
            ],
        }
    )
    left_out = "bbox" if kind == "segm" else "segmentation"
    entries = [
        {k: v for k, v in r.items() if k != left_out}
        for r in _results(data, detections)
        # faster-coco-eval fails where it drops all detections of an image without objects.
        if data.counts[r["image_id"]] or r["category_id"] in data.federated.absent[r["image_id"]]
    ]
    evaluation = COCOeval_faster(truth, truth.loadRes(entries), kind, lvis_style=True)
    evaluation.params.maxDets = [300]
    evaluation.evaluate()
    evaluation.accumulate()
    precision, recall = evaluation.eval["precision"][..., -1], evaluation.eval["recall"][..., -1]
    groups = np.array(data.federated.frequencies)

    def mean(values):
        return float(values[values > -1].mean()) if (values > -1).any() else None

    by_group = {f"AP{group}": mean(precision[:, :, groups == group, 0]) for group in "rcf"}
    return {"AP": mean(precision[..., 0]), "APs": mean(precision[..., 1]), **by_group, "AR": mean(recall[..., 0])}
