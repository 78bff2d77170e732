"""Average precision by pycocotools: the reference that ours must equal."""

import contextlib
import io
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def coco_average_precision(
    kind: str,
    references: list[list[dict[str, Any]]],
    results: list[list[dict[str, Any]]],
    thresholds: list[float],
    size: int = 200,
) -> float:
    """AP (mean over classes present in the references and over `thresholds`) of annotations per frame."""
    annotations = [
        {"id": number, "image_id": frame, "iscrowd": 0, **entry}
        for number, (frame, entry) in enumerate(
            ((frame, entry) for frame, entries in enumerate(references) for entry in entries), start=1
        )
    ]
    classes = sorted({entry["category_id"] for entries in references for entry in entries})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": i, "width": size, "height": size} for i in range(len(references))],
            "annotations": annotations,
            "categories": [{"id": i, "name": str(i)} for i in range(20)],
        }
        truth.createIndex()
        detected = truth.loadRes(
            [{"image_id": frame, **entry} for frame, entries in enumerate(results) for entry in entries]
        )
        evaluation = COCOeval(truth, detected, kind)
        evaluation.params.maxDets = [1000]
        evaluation.params.iouThrs = np.asarray(thresholds)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.catIds = classes
        evaluation.evaluate()
        evaluation.accumulate()
    return float(evaluation.eval["precision"][:, :, :, 0, 0].mean())
