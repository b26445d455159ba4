"""Instance segmentation and detection: COCO's average precision and recall, by pycocotools' own COCOeval."""

import contextlib
import io
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from omgvision.evaluation.coco_evaluation import SparseEvaluation
from omgvision.evaluation.metric import PerSample
from omgvision.evaluation.run_lengths import compressed_all, mask_areas

logger = logging.getLogger(__name__)

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


class AveragePrecision(PerSample[list[dict[str, Any]]]):
    """Keeps the detections of every image, masks as run lengths, and evaluates them with COCOeval.

    COCOeval ranks detections of equal score by their order within the image (here as in the prediction file), and
    images by their ids: the order of samples and processes changes nothing.

    Args:
        ground_truth: Content of a COCO instances json (`images`, `annotations`, `categories`).
        kind: `segm` compares masks, `bbox` boxes.
        by_category: False treats all categories as one (class-agnostic proposals).
        images: Ids of the images to evaluate; None = all, those without detections too.

    Attributes:
        per_category: Category id → AP, NaN without ground truth; empty before `compute` and without categories.
    """

    def __init__(
        self,
        ground_truth: Mapping[str, Any],
        *,
        kind: Literal["segm", "bbox"] = "segm",
        by_category: bool = True,
        images: Collection[int] | None = None,
    ):
        super().__init__()
        self.kind: Literal["segm", "bbox"] = kind
        self.by_category, self.images = by_category, images
        self.per_category: dict[int, float] = {}
        # COCO's own conversions write into the annotations.
        self.truth = _index({**ground_truth, "annotations": [dict(one) for one in ground_truth["annotations"]]})
        self._ids = {str(entry["id"]): entry["id"] for entry in ground_truth["images"]}

    def update(self, sample_id: str, detections: Sequence[Mapping[str, Any]]) -> None:
        """Adds an image.

        Args:
            sample_id: Its id in the ground truth.
            detections: In COCO's result format: `category_id`, `score`, and `segmentation` or `bbox` (x, y, width,
                height). As in COCO's `loadRes`, a box that is given decides the area of its detection; boxes of masks
                are found when boxes are compared.

        Raises:
            ValueError: An image or a mask that is none, a score that is no number.
        """
        if sample_id not in self._ids:
            raise ValueError(f"image_id: expected an image of the ground truth, got {sample_id}")
        image = self.truth.imgs[self._ids[sample_id]]
        size = (image["height"], image["width"])
        self.add(sample_id, checked(detections, kind=self.kind, image=sample_id, size=size))

    def compute(self) -> dict[str, float]:
        """COCOeval's twelve numbers; NaN where it says -1, which is where there is no ground truth."""
        found = _index(
            {
                "images": self.truth.dataset["images"],
                "categories": self.truth.dataset["categories"],
                "annotations": self._detections(),
            }
        )
        kind: Any = self.kind
        evaluation = SparseEvaluation(self.truth, found, iouType=kind)
        evaluation.params.useCats = int(self.by_category)
        if self.images is not None:
            evaluation.params.imgIds = sorted(self.images)
        with _quietly():
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        if self.by_category:
            # [thresholds, recalls, categories, areas, numbers of detections]: all areas, 100 detections
            precisions = evaluation.eval["precision"][:, :, :, 0, -1]
            means = np.where(precisions > -1, precisions, np.nan).mean((0, 1))
            self.per_category = dict(zip(evaluation.params.catIds, means.tolist(), strict=True))
        values = (float(value) for value in evaluation.stats)
        return {name: math.nan if value == -1 else value for name, value in zip(NAMES, values, strict=True)}

    def _detections(self) -> list[dict[str, Any]]:
        """All detections as COCO's `loadRes` would leave them."""
        tools: Any = coco_mask
        detections: list[dict[str, Any]] = []
        for sample_id in sorted(self.records):
            record = self.records[sample_id]
            masks = [one["segmentation"] for one in record if "segmentation" in one]
            pixels, boxes = (iter(mask_areas(masks)), iter(tools.toBbox(masks))) if masks else (iter(()), iter(()))
            for one in record:
                filled = {**one, "id": len(detections) + 1, "image_id": self._ids[sample_id], "iscrowd": 0}
                if "segmentation" in one:
                    filled["area"], box = next(pixels), next(boxes)
                    filled.setdefault("bbox", box)
                if "bbox" in one:
                    filled["area"] = one["bbox"][2] * one["bbox"][3]
                detections.append(filled)
        return detections


def checked(
    detections: Sequence[Mapping[str, Any]], *, kind: Literal["segm", "bbox"], image: str, size: tuple[int, int]
) -> list[dict[str, Any]]:
    """What `AveragePrecision` keeps of an image.

    Args:
        detections: See `AveragePrecision.update`.
        kind: What is compared.
        image: Its id, for messages.
        size: Height and width.

    Raises:
        ValueError: A mask that is none, a score that is no number.
    """
    record, segmentations = [], []
    for one in detections:
        if not isinstance(one["category_id"], int):
            got = one["category_id"]
            raise ValueError(f"category_id: expected a whole number, got {got!r} in image {image}")
        if not _is_number(one["score"]):
            raise ValueError(f"score: expected a number, got {one['score']} in image {image}")
        kept: dict[str, Any] = {"category_id": one["category_id"], "score": float(one["score"])}
        box = one.get("bbox")
        if box:
            if len(box) != 4 or not all(map(_is_number, box)):
                raise ValueError(f"bbox: expected x, y, width, height, got {box} in image {image}")
            kept["bbox"] = list(box)
        if kind == "segm" or not box:
            if "segmentation" not in one:
                lacking = "segmentation" if kind == "segm" else "bbox"
                raise ValueError(f"{lacking}: expected one in every detection, got none in image {image}")
            segmentations.append(one["segmentation"])
            kept["segmentation"] = None
        record.append(kept)
    try:
        masks = iter(compressed_all(segmentations, size=size))
    except ValueError as error:
        raise ValueError(f"{error} (image {image})") from None
    for kept in record:
        if "segmentation" in kept:
            kept["segmentation"] = next(masks)
    return record


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)


def _index(content: dict[str, Any]) -> Any:
    """A COCO object, which pycocotools only makes from files."""
    coco: Any = COCO()
    with _quietly():
        coco.dataset = content
        coco.createIndex()
    return coco


@contextlib.contextmanager
def _quietly():
    """pycocotools prints; the log keeps it."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        yield
    logger.debug("%s", text.getvalue())
