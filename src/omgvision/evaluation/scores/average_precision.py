"""Mask and box AP from COCO's files: an instances json and a list of detections."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from omgvision.evaluation.average_precision import AveragePrecision
from omgvision.evaluation.coco_evaluation import Judged
from omgvision.evaluation.run_lengths import compressed_all
from omgvision.evaluation.scores.files import complete, identity, integer, number, read_json
from omgvision.evaluation.scores.gather import spread


@dataclass(frozen=True)
class _Image:
    entry: Mapping[str, Any]
    size: tuple[int, int]
    objects: list[dict[str, Any]]
    detections: list[dict[str, Any]]


def score(
    ground_truth: Path,
    predictions: Path,
    *,
    kind: Literal["segm", "bbox"] = "segm",
    by_category: bool = True,
    only: Collection[str] | None = None,
    workers: int = 1,
) -> dict[str, float]:
    """COCOeval's twelve numbers.

    Args:
        ground_truth: COCO instances json.
        predictions: Json list of detections; images without any count as missed.
        kind: Masks or boxes.
        by_category: False compares without categories.
        only: Ids of the images that count, as text; None = all.
        workers: Processes.

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
        images = {
            str(identity(one, "id")): _Image(one, (integer(one, "height"), integer(one, "width")), [], [])
            for one in truth["images"]
        }
        _check_truth(truth, kind)
        ids = None if only is None else [one["id"] for one in truth["images"] if str(one["id"]) in only]
        metric = AveragePrecision(truth, kind=kind, by_category=by_category, images=ids)
        names = {entry["id"]: str(entry["name"]) for entry in truth["categories"]}
        for one in truth["annotations"]:
            if (name := str(one["image_id"])) in images:
                images[name].objects.append(one)
    with complete(predictions):
        for one in detections:
            if (name := str(identity(one, "image_id"))) not in images:
                raise ValueError(f"image_id: expected an image of the ground truth, got {name}")
            images[name].detections.append(one)
    judge = partial(
        _judge,
        kind=kind,
        by_category=by_category,
        categories=truth["categories"],
        ground_truth=ground_truth,
        predictions=predictions,
    )
    counted = {name: image for name, image in images.items() if only is None or name in only}
    records = spread(judge, list(counted.values()), workers=workers, title="images")
    for name, record in zip(counted, records, strict=True):
        metric.add(name, record)
    numbers = metric.compute()
    return numbers | {f"AP/{names[category]}": value for category, value in metric.per_category.items()}


def _judge(
    image: _Image,
    *,
    kind: Literal["segm", "bbox"],
    by_category: bool,
    categories: Sequence[Mapping[str, Any]],
    ground_truth: Path,
    predictions: Path,
) -> dict[tuple[int, int], Judged]:
    """The image's record. True masks that do not decode are refused: to pycocotools they would be some others."""
    name, objects = str(image.entry["id"]), image.objects
    if kind == "segm":
        with complete(ground_truth):
            try:
                masks = compressed_all([one["segmentation"] for one in objects], size=image.size)
            except ValueError as error:
                raise ValueError(f"{error} (image {name})") from None
        objects = [{**one, "segmentation": mask} for one, mask in zip(objects, masks, strict=True)]
    truth = {"images": [image.entry], "annotations": objects, "categories": categories}
    metric = AveragePrecision(truth, kind=kind, by_category=by_category)
    with complete(predictions):
        metric.update(name, image.detections)
    return metric.records[name]


def _check_truth(truth: Mapping[str, Any], kind: Literal["segm", "bbox"]) -> None:
    """What pycocotools would stumble over, but for the masks themselves.

    Raises:
        ValueError, KeyError, TypeError: An entry of another form.
    """
    for one in truth["categories"]:
        integer(one, "id")
    for one in truth["annotations"]:
        for key in ("id", "category_id"):
            integer(one, key)
        number(one, "area")
        if one["iscrowd"] not in (0, 1):
            raise ValueError(f"iscrowd: expected 0 or 1, got {one['iscrowd']!r}")
        identity(one, "image_id")
        if kind == "bbox":
            box = one["bbox"]
            if not isinstance(box, list) or len(box) != 4 or not all(isinstance(side, int | float) for side in box):
                raise ValueError(f"bbox: expected x, y, width, height, got {box!r}")
