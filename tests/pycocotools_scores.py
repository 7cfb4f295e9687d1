"""The scores of detections, computed by pycocotools."""

import contextlib
import io

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskrcnn import Detections
from maskrcnn.data.table import Dataset
from maskrcnn.evaluation.coco import _results, _truth


def reference(data: Dataset, detections: list[Detections], kind: str, max_detections: int) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = _truth(data, detections)
        truth.createIndex()
        entries = [
            {k: v for k, v in r.items() if k != ("bbox" if kind == "segm" else "segmentation")}
            for r in _results(data, detections)
        ]
        evaluation = COCOeval(truth, truth.loadRes(entries), kind)
        evaluation.params.maxDets = [1, 10, max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"][..., -1], evaluation.eval["recall"][..., -1]

    def mean(values):
        return float(values[values > -1].mean()) if (values > -1).any() else None

    return {
        "AP": mean(precision[..., 0]),
        "AP50": mean(precision[0, ..., 0]),
        "AP75": mean(precision[5, ..., 0]),
        "APs": mean(precision[..., 1]),
        "APm": mean(precision[..., 2]),
        "APl": mean(precision[..., 3]),
        "AR": mean(recall[..., 0]),
    }
