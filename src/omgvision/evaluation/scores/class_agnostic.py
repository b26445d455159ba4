"""IoU of masks that answer prompts, one for each object of a COCO instances json.

There is no official file format. Predictions are a json list as of COCO's detections, but each entry has the `id` of
the annotation that it answers: `{"id": 7, "segmentation": …}`, and `category_id` if classes were predicted as well.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from omgvision.evaluation.class_agnostic import PromptedIoU
from omgvision.evaluation.run_lengths import compressed_all
from omgvision.evaluation.scores.files import complete, entries, identity, integer, read_json
from omgvision.evaluation.scores.gather import gather


@dataclass(frozen=True)
class _Image:
    name: str
    size: tuple[int, int]
    objects: list[dict[str, Any]]
    answers: list[dict[str, Any]]


def score(
    ground_truth: Path, predictions: Path, *, unseen: Collection[str] | None = None, workers: int = 1
) -> dict[str, float]:
    """`mIoU`, and `accuracy` where classes were predicted.

    Args:
        ground_truth: COCO instances json; crowds do not count.
        predictions: See above.
        unseen: Names of the categories that training never showed; the others are told apart then.
        workers: Processes.

    Returns:
        What `PromptedIoU.compute` says.

    Raises:
        ValueError: A file that is missing or broken, an object without an answer, a mask of another size.
    """
    truth = read_json(ground_truth, keys={"images": list, "annotations": list, "categories": list})
    with complete(predictions):
        answers = {identity(one, "id"): one for one in entries({"predictions": read_json(predictions)}, "predictions")}
    with complete(ground_truth):
        sizes = {identity(one, "id"): (integer(one, "height"), integer(one, "width")) for one in truth["images"]}
        names = {str(entry["name"]): integer(entry, "id") for entry in truth["categories"]}
        images = {name: _Image(str(name), size, [], []) for name, size in sizes.items()}
        objects = [one for one in truth["annotations"] if not one.get("iscrowd", 0)]
        for one in objects:
            if identity(one, "image_id") not in images:
                raise ValueError(f"expected objects of its images, got one of {one['image_id']}")
            images[one["image_id"]].objects.append(one)
        ids = [identity(one, "id") for one in objects]
    if not objects:
        raise ValueError(f"{ground_truth}: expected objects, got none")
    for name, one in zip(ids, objects, strict=True):
        if name not in answers:
            raise ValueError(f"{predictions}: expected an answer for every object, got none for {name}")
        images[one["image_id"]].answers.append(answers[name])
    unknown = sorted(set(unseen or ()) - names.keys())
    if unknown:
        raise ValueError(f"unseen: expected category names of the ground truth, got {unknown[0]!r}")
    metric = PromptedIoU(unseen=None if unseen is None else [names[name] for name in unseen])
    update = partial(
        _update,
        ground_truth=ground_truth,
        predictions=predictions,
        with_classes=any("category_id" in one for one in answers.values()),
    )
    asked = [image for image in images.values() if image.objects]
    gather(metric, update, asked, workers=workers, title="images")
    return metric.compute()


def _update(metric: PromptedIoU, image: _Image, *, ground_truth: Path, predictions: Path, with_classes: bool) -> None:
    with complete(ground_truth):
        targets = _decode(image.objects, image.size)
        labels = np.array([integer(one, "category_id") for one in image.objects])
    with complete(predictions):
        guesses = np.array([integer(one, "category_id") for one in image.answers]) if with_classes else None
        masks = _decode(image.answers, image.size)
        metric.update(image.name, masks, targets, labels=labels, predicted_labels=guesses)


def _decode(objects: list[dict[str, Any]], size: tuple[int, int]) -> np.ndarray:
    """Bool [N, H, W]."""
    tools: Any = coco_mask
    runs = compressed_all([one["segmentation"] for one in objects], size=size)
    return tools.decode(runs).astype(bool).transpose(2, 0, 1)
