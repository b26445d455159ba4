"""IoU at k clicks and number of clicks, from masks or IoU values after each click.

There is no official file format. This one is `{"samples": [{"id": …, …}, …]}` on both sides: ground truth with a
run-length mask `gt` and perhaps `ignore`; predictions with run-length `masks`, one after each click, or `ious` if who
clicked has measured them already. Sequences may end early, when the object was good enough.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from omgvision.evaluation.click_iou import ClickIoU, mask_iou
from omgvision.evaluation.run_lengths import compressed, size_of
from omgvision.evaluation.scores.files import complete, identity, read_json, warn_of_surplus
from omgvision.evaluation.scores.gather import gather

OBJECTS_A_PROCESS = 100
"""Fewer are done before a process has started: an object has a mask for each click."""

THRESHOLDS = (80, 85, 90)
"""Per cent of IoU at which clicks are counted, as is usual."""


def score(ground_truth: Path, predictions: Path, *, clicks: int = 20, workers: int = 1) -> dict[str, float]:
    """`IoU@1` … `IoU@20`, `NoC@80`, `NoC@85`, `NoC@90`, and `over_max@80` …: objects that used all clicks up.

    Args:
        clicks: Most that an object may get.
        workers: Processes.

    Raises:
        ValueError: A file that is missing or broken, an object without prediction, a mask of another size.
    """
    objects, guesses = (read_json(path, keys={"samples": list})["samples"] for path in (ground_truth, predictions))
    if not objects:
        raise ValueError(f"{ground_truth}: expected samples, got none")
    with complete(predictions):
        by_id = {identity(entry, "id"): entry for entry in guesses}
    items = []
    for entry in objects:
        with complete(ground_truth):
            sample_id = identity(entry, "id")
        if sample_id not in by_id:
            raise ValueError(f"{predictions}: expected a prediction for every sample, got none for {sample_id}")
        items.append((entry, by_id[sample_id]))
    metric = ClickIoU(clicks)
    update = partial(_update, ground_truth=ground_truth, predictions=predictions)
    gather(metric, update, items, workers=workers, title="objects", items_a_process=OBJECTS_A_PROCESS)
    warn_of_surplus(predictions, by_id.keys() - {entry["id"] for entry in objects}, "samples", ground_truth)
    numbers = metric.compute()
    for threshold in THRESHOLDS:
        needed = metric.clicks_needed(threshold / 100)
        numbers[f"NoC@{threshold}"] = metric.number_of_clicks(threshold / 100)
        numbers[f"over_max@{threshold}"] = float(needed.count(clicks))
    return numbers


def _update(
    metric: ClickIoU, item: tuple[dict[str, Any], dict[str, Any]], *, ground_truth: Path, predictions: Path
) -> None:
    entry, guess = item
    with complete(ground_truth):
        size = size_of(entry["gt"])
        target = _decode(entry["gt"], size)
        ignored = entry.get("ignore")
        ignore = None if ignored is None else _decode(ignored, size)
    with complete(predictions):
        if "masks" in guess:
            ious = [mask_iou(_decode(mask, size), target, ignore=ignore) for mask in guess["masks"]]
        else:
            ious = guess["ious"]
        metric.update(str(entry["id"]), ious)


def _decode(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    tools: Any = coco_mask
    return tools.decode(compressed(segmentation, size=size)).astype(bool)
