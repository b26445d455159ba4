"""pycocotools' `COCOeval` without its idle work: most pairs of image and category have neither object nor detection.

What a pair with either of them gives (IoU, matches) is computed by pycocotools itself. What is made of the matches is
the same arithmetic on arrays instead of numbers, for images that were judged together or each by itself.

Letters: S thresholds of IoU, R recalls, K categories, A ranges of area, M numbers of detections, D detections.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

_Official: Any = COCOeval  # its types leave out what it says to its heirs


@dataclass(frozen=True)
class Judged:
    """Detections of one image, category and range of area.

    Attributes:
        scores: Of the detections, the highest first [D].
        hits: Which of them have found an object, at each threshold [S, D].
        ignored: Which of them do not count [S, D].
        true: How many objects there are that count.
    """

    scores: np.ndarray
    hits: np.ndarray
    ignored: np.ndarray
    true: int


class SparseEvaluation(_Official):
    """`evaluate`, `accumulate`, `summarize` as of COCOeval, with the same `stats` and `eval`, but that precision is
    only there for the largest number of detections (as is all that `summarize` reads).

    Attributes:
        judged: By category and number of the range of area, what the images give that have anything, in their order.
            Made by `evaluate`; may also be put together from parts.
    """

    judged: dict[tuple[int, int], list[Judged]]

    def evaluate(self) -> None:
        params = self.params
        params.imgIds, params.maxDets = np.unique(params.imgIds).tolist(), sorted(params.maxDets)
        if params.useCats:
            params.catIds = np.unique(params.catIds).tolist()
        self._prepare()
        occurring = {key for side in (self._gts, self._dts) for key, entries in side.items() if entries}
        categories = params.catIds if params.useCats else [-1]
        if not params.useCats:
            occurring = {(image, -1) for image, _ in occurring}
        pairs = [pair for pair in product(params.imgIds, categories) if pair in occurring]
        self.ious = {pair: self.computeIoU(*pair) for pair in pairs}
        self.judged = {}
        for (image, category), (index, area) in product(pairs, enumerate(params.areaRng)):
            judged = self.evaluateImg(image, category, area, params.maxDets[-1])
            hits, ignored = (judged[key].astype(bool) for key in ("dtMatches", "dtIgnore"))
            true = int(np.count_nonzero(judged["gtIgnore"] == 0))
            self.judged.setdefault((category, index), []).append(
                Judged(np.array(judged["dtScores"]), hits, ignored, true)
            )

    def accumulate(self, p: Any = None) -> None:
        params = self.params if p is None else p
        categories = params.catIds if params.useCats else [-1]
        shape = (len(params.iouThrs), len(params.recThrs), len(categories), len(params.areaRng), len(params.maxDets))
        precision, recall = -np.ones(shape), -np.ones((shape[0], *shape[2:]))
        for (place, category), area in product(enumerate(categories), range(shape[3])):
            judged = self.judged.get((category, area), [])
            true = sum(one.true for one in judged)
            if not true:
                continue
            hits = [one.hits & ~one.ignored for one in judged]
            for number, most in enumerate(params.maxDets):
                found = sum(one[:, :most].sum(1) for one in hits)
                recall[:, place, area, number] = found / true
            precision[:, :, place, area, -1] = _precisions(judged, hits, true, params)
        self.eval = {"params": params, "counts": list(shape), "precision": precision, "recall": recall}


def _precisions(judged: list[Judged], hits: list[np.ndarray], true: int, params: Any) -> np.ndarray:
    """[S, R]: the highest precision at each recall or above it; 0 where it is never reached."""
    scores = np.concatenate([one.scores for one in judged])
    order = np.argsort(-scores, kind="mergesort")
    right = np.concatenate(hits, axis=1)[:, order]
    wrong = np.concatenate([~(one.hits | one.ignored) for one in judged], axis=1)
    right, wrong = right.cumsum(1).astype(float), wrong[:, order].cumsum(1).astype(float)
    best = np.maximum.accumulate((right / (wrong + right + np.spacing(1)))[:, ::-1], axis=1)[:, ::-1]
    recalls = right / true
    rows = np.zeros((len(right), len(params.recThrs)))
    for row, precisions, reached in zip(rows, best, recalls, strict=True):
        places = np.searchsorted(reached, params.recThrs, side="left")
        inside = places < len(precisions)
        row[inside] = precisions[places[inside]]
    return rows
