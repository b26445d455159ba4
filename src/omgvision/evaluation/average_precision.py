"""Instance segmentation: COCO's average precision, by pycocotools."""

import contextlib
import io
import logging
from collections.abc import Sequence
from typing import Any, Literal

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

logger = logging.getLogger(__name__)

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


class AveragePrecision:
    """Collects detections and evaluates them with COCOeval.

    Args:
        ground_truth: Content of a COCO instances json (`images`, `annotations`, `categories`).
        kind: `segm` compares masks, `bbox` boxes.
        by_category: False treats all categories as one (class-agnostic proposals).
        images: Ids of the images to evaluate; None = all.
    """

    def __init__(
        self,
        ground_truth: dict[str, Any],
        *,
        kind: Literal["segm", "bbox"] = "segm",
        by_category: bool = True,
        images: Sequence[int] | None = None,
    ):
        self.kind, self.by_category, self.images = kind, by_category, images
        self.detections: list[dict[str, Any]] = []
        self._per_category: dict[int, float] = {}
        # pycocotools declares its types more narrowly than it behaves.
        self.truth: Any = COCO()
        with self._quietly():
            # COCO's own conversions write into the annotations.
            self.truth.dataset = {**ground_truth, "annotations": [dict(one) for one in ground_truth["annotations"]]}
            self.truth.createIndex()

    def update(self, detections: Sequence[dict[str, Any]]) -> None:
        """Adds detections in COCO's result format: `image_id`, `category_id`, `score`, `segmentation` or `bbox`."""
        self.detections.extend(detections)

    def compute(self) -> dict[str, float]:
        """COCOeval's twelve numbers; -1 where it has none (as it says itself). All 0 without any detection."""
        if not self.detections:
            return dict.fromkeys(NAMES, 0.0)
        with self._quietly():
            found = self.truth.loadRes([dict(one) for one in self.detections])
            kind: Any = self.kind
            evaluation: Any = COCOeval(self.truth, found, iouType=kind)
            evaluation.params.useCats = int(self.by_category)
            if self.images is not None:
                evaluation.params.imgIds = sorted(self.images)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return {name: float(value) for name, value in zip(NAMES, evaluation.stats, strict=True)}

    @staticmethod
    @contextlib.contextmanager
    def _quietly():
        """pycocotools prints; the log keeps it."""
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            yield
        logger.debug("%s", text.getvalue())
