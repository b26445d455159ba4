"""Mask and box AP from COCO's files: an instances json and a list of detections."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from omgvision.evaluation.average_precision import AveragePrecision
from omgvision.evaluation.scores.files import complete, read_json


def score(
    ground_truth: Path,
    predictions: Path,
    *,
    kind: Literal["segm", "bbox"] = "segm",
    by_category: bool = True,
    only: Collection[str] | None = None,
) -> dict[str, float]:
    """COCOeval's twelve numbers. One process: pycocotools' evaluation has to see all images at once.

    Args:
        ground_truth: COCO instances json.
        predictions: Json list of detections; images without any count as missed.
        kind: Masks or boxes.
        by_category: False compares without categories.
        only: Ids of the images that count, as text; None = all.

    Returns:
        What `AveragePrecision.compute` says, and `AP/person` of every category.

    Raises:
        ValueError: A file that is missing or broken, or what `AveragePrecision` refuses.
    """
    truth = read_json(ground_truth, keys={"images": list, "annotations": list, "categories": list})
    if not truth["images"]:
        raise ValueError(f"{ground_truth}: expected images, got none")
    detections = read_json(predictions)
    if not isinstance(detections, list):
        raise ValueError(f"{predictions}: expected a list of detections, got a {type(detections).__name__}")
    with complete(ground_truth):
        images = None if only is None else [one["id"] for one in truth["images"] if str(one["id"]) in only]
        metric = AveragePrecision(truth, kind=kind, by_category=by_category, images=images)
        names = {entry["id"]: entry["name"] for entry in truth["categories"]}
    by_image: dict[Any, list[dict[str, Any]]] = {}
    with complete(predictions):
        for one in detections:
            by_image.setdefault(one["image_id"], []).append(one)
        for image, of_image in by_image.items():
            metric.update(str(image), of_image)
    numbers = metric.compute()
    return numbers | {f"AP/{names[category]}": value for category, value in metric.per_category.items()}
