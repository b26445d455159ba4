"""Mask and box AP from COCO's files: an instances json and a list of detections."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from omgvision.evaluation.average_precision import AveragePrecision
from omgvision.evaluation.run_lengths import check_form
from omgvision.evaluation.scores.files import complete, identity, integer, number, read_json


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
        _check_truth(truth, kind)
        metric = AveragePrecision(truth, kind=kind, by_category=by_category, images=images)
        names = {entry["id"]: str(entry["name"]) for entry in truth["categories"]}
    by_image: dict[Any, list[dict[str, Any]]] = {}
    with complete(predictions):
        for one in detections:
            by_image.setdefault(identity(one, "image_id"), []).append(one)
        for image, of_image in by_image.items():
            metric.update(str(image), of_image)
    numbers = metric.compute()
    return numbers | {f"AP/{names[category]}": value for category, value in metric.per_category.items()}


def _check_truth(truth: Mapping[str, Any], kind: Literal["segm", "bbox"]) -> None:
    """What pycocotools would stumble over.

    Raises:
        ValueError, KeyError, TypeError: An entry of another form.
    """
    sizes = {identity(one, "id"): (integer(one, "height"), integer(one, "width")) for one in truth["images"]}
    for one in truth["categories"]:
        integer(one, "id")
    for one in truth["annotations"]:
        for key in ("id", "category_id"):
            integer(one, key)
        number(one, "area")
        if one["iscrowd"] not in (0, 1):
            raise ValueError(f"iscrowd: expected 0 or 1, got {one['iscrowd']!r}")
        image = identity(one, "image_id")
        if kind == "segm" and image in sizes:
            check_form(one["segmentation"], size=sizes[image])
        if kind == "bbox":
            box = one["bbox"]
            if not isinstance(box, list) or len(box) != 4 or not all(isinstance(side, int | float) for side in box):
                raise ValueError(f"bbox: expected x, y, width, height, got {box!r}")
