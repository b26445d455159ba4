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

from omgvision.evaluation.coco_evaluation import Judged, SparseEvaluation
from omgvision.evaluation.metric import PerSample
from omgvision.evaluation.run_lengths import compressed_all, mask_areas

logger = logging.getLogger(__name__)

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


class AveragePrecision(PerSample[dict[tuple[int, int], Judged]]):
    """Keeps what COCOeval makes of every image, by category and range of area.

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
        self.kind, self.by_category, self.images = kind, by_category, images
        self.per_category: dict[int, float] = {}
        self.categories = ground_truth["categories"]
        self._images = {str(entry["id"]): entry for entry in ground_truth["images"]}
        self._objects: dict[str, list[Mapping[str, Any]]] = {name: [] for name in self._images}
        for one in ground_truth["annotations"]:
            if str(one["image_id"]) in self._objects:
                self._objects[str(one["image_id"])].append(one)

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
        if sample_id not in self._images:
            raise ValueError(f"image_id: expected an image of the ground truth, got {sample_id}")
        self.add(sample_id, self._judge(sample_id, self._checked(sample_id, detections)))

    def compute(self) -> dict[str, float]:
        """COCOeval's twelve numbers; NaN where it says -1, which is where there is no ground truth."""
        evaluation = SparseEvaluation(iouType=self.kind)
        evaluation.params.useCats = int(self.by_category)
        evaluation.params.catIds = sorted({entry["id"] for entry in self.categories})
        evaluation.judged = {}
        for identity in sorted(entry["id"] for entry in self._images.values()):
            if self.images is None or identity in self.images:
                name = str(identity)
                record = self.records[name] if name in self.records else self._judge(name, [])
                for key, judged in record.items():
                    evaluation.judged.setdefault(key, []).append(judged)
        with _quietly():
            evaluation.accumulate()
            evaluation.summarize()
        if self.by_category:
            # [thresholds, recalls, categories, areas, numbers of detections]: all areas, 100 detections
            precisions = evaluation.eval["precision"][:, :, :, 0, -1]
            means = np.where(precisions > -1, precisions, np.nan).mean((0, 1))
            self.per_category = dict(zip(evaluation.params.catIds, means.tolist(), strict=True))
        values = (float(value) for value in evaluation.stats)
        return {name: math.nan if value == -1 else value for name, value in zip(NAMES, values, strict=True)}

    def _judge(self, sample_id: str, detections: list[dict[str, Any]]) -> dict[tuple[int, int], Judged]:
        """COCOeval of one image."""
        image = self._images[sample_id]
        # COCO's own conversions write into the annotations.
        objects = [dict(one) for one in self._objects[sample_id]]
        truth, found = (
            _index({"images": [image], "categories": self.categories, "annotations": annotations})
            for annotations in (objects, _filled(detections, image=image["id"]))
        )
        evaluation = SparseEvaluation(truth, found, iouType=self.kind)
        evaluation.params.useCats = int(self.by_category)
        evaluation.evaluate()
        return {key: judged for key, (judged,) in evaluation.judged.items()}

    def _checked(self, sample_id: str, detections: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What is needed of the detections, masks as pycocotools has them.

        Raises:
            ValueError: A mask that is none, a score that is no number.
        """
        size = (self._images[sample_id]["height"], self._images[sample_id]["width"])
        record, segmentations = [], []
        for one in detections:
            if not isinstance(one["category_id"], int):
                got = one["category_id"]
                raise ValueError(f"category_id: expected a whole number, got {got!r} in image {sample_id}")
            if not _is_number(one["score"]):
                raise ValueError(f"score: expected a number, got {one['score']} in image {sample_id}")
            kept: dict[str, Any] = {"category_id": one["category_id"], "score": float(one["score"])}
            box = one.get("bbox")
            if box:
                if len(box) != 4 or not all(map(_is_number, box)):
                    raise ValueError(f"bbox: expected x, y, width, height, got {box} in image {sample_id}")
                kept["bbox"] = list(box)
            if self.kind == "segm" or not box:
                if "segmentation" not in one:
                    lacking = "segmentation" if self.kind == "segm" else "bbox"
                    raise ValueError(f"{lacking}: expected one in every detection, got none in image {sample_id}")
                segmentations.append(one["segmentation"])
                kept["segmentation"] = None
            record.append(kept)
        try:
            masks = iter(compressed_all(segmentations, size=size))
        except ValueError as error:
            raise ValueError(f"{error} (image {sample_id})") from None
        for kept in record:
            if "segmentation" in kept:
                kept["segmentation"] = next(masks)
        return record


def _filled(detections: Sequence[dict[str, Any]], *, image: Any) -> list[dict[str, Any]]:
    """The detections of an image as COCO's `loadRes` would leave them."""
    tools: Any = coco_mask
    masks = [one["segmentation"] for one in detections if "segmentation" in one]
    pixels, boxes = (iter(mask_areas(masks)), iter(tools.toBbox(masks))) if masks else (iter(()), iter(()))
    filled = []
    for number, one in enumerate(detections, start=1):
        entry = {**one, "id": number, "image_id": image, "iscrowd": 0}
        if "segmentation" in one:
            entry["area"], box = next(pixels), next(boxes)
            entry.setdefault("bbox", box)
        if "bbox" in one:
            entry["area"] = one["bbox"][2] * one["bbox"][3]
        filled.append(entry)
    return filled


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
