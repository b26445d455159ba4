"""mIoU from folders of label PNG files, as ADE20K's benchmark of 150 classes has them."""

from collections.abc import Collection
from functools import partial
from pathlib import Path

import numpy as np

from omgvision.evaluation.mean_iou import MeanIoU
from omgvision.evaluation.scores.files import complete, read, read_labels
from omgvision.evaluation.scores.gather import gather

ADE20K_CLASSES = 150


def score_ade20k(
    ground_truth: Path, predictions: Path, *, only: Collection[str] | None = None, workers: int = 1
) -> dict[str, float]:
    """mIoU, pixel accuracy and relatives over labels 1 to 150; ground-truth pixels of label 0 do not count.

    Args:
        ground_truth, predictions: Folders of PNG files of the same names (`annotations/validation`).
        only: Stems of the files that count; None = all.
        workers: Processes.

    Returns:
        What `MeanIoU.compute` says, but `mIoU` over all classes as the official script has it and `mIoU_present` over
        those that occur in the ground truth; `IoU/1` … of every label.

    Raises:
        ValueError: No ground truth, an image without prediction, a broken file, another size, labels over 150.
    """
    found = (path for path in ground_truth.rglob("*.png") if only is None or path.stem in only)
    names = sorted(path.relative_to(ground_truth) for path in found)
    if not names:
        raise ValueError(f"{ground_truth}: expected PNG files below it, got none")
    metric = MeanIoU(ADE20K_CLASSES, ignore=-1)
    gather(metric, partial(_update, ground_truth, predictions), names, workers=workers, title="images")
    numbers = metric.compute()
    numbers = {"mIoU": numbers.pop("mIoU_all"), "mIoU_present": numbers.pop("mIoU"), **numbers}
    return numbers | {f"IoU/{label}": float(iou) for label, iou in enumerate(metric.per_class(), start=1)}


def score_labels(
    ground_truth: Path,
    predictions: Path,
    *,
    num_classes: int,
    void: int | None,
    only: Collection[str] | None = None,
    workers: int = 1,
) -> dict[str, float]:
    """`MeanIoU` over folders whose values are class indices.

    Args:
        ground_truth, predictions: Folders of PNG files of the same names.
        num_classes: How many there are.
        void: True value of pixels that do not count.
        only: Stems of the files that count; None = all.
        workers: Processes.

    Returns:
        What `MeanIoU.compute` says, and `IoU/0` … of every class.

    Raises:
        ValueError: No ground truth, an image without prediction, a broken file, another size, labels that are none.
    """
    names = sorted(path.name for path in ground_truth.glob("*.png") if only is None or path.stem in only)
    if not names:
        raise ValueError(f"{ground_truth}: expected PNG files in it, got none")
    metric = MeanIoU(num_classes, ignore=void)
    gather(metric, partial(_update_labels, ground_truth, predictions), names, workers=workers, title="images")
    return metric.compute() | {f"IoU/{label}": float(iou) for label, iou in enumerate(metric.per_class())}


def _update_labels(ground_truth: Path, predictions: Path, metric: MeanIoU, name: str) -> None:
    prediction, target = read(read_labels, predictions / name), read(read_labels, ground_truth / name)
    with complete(predictions / name):
        metric.update(name, prediction, target)


def _update(ground_truth: Path, predictions: Path, metric: MeanIoU, name: Path) -> None:
    prediction, target = read(read_labels, predictions / name), read(read_labels, ground_truth / name)
    if target.max(initial=0) > ADE20K_CLASSES:
        raise ValueError(f"{ground_truth / name}: expected labels 0 to {ADE20K_CLASSES}, got {target.max()}")
    with complete(predictions / name):
        metric.update(name.as_posix(), prediction.astype(np.int32) - 1, target.astype(np.int32) - 1)
