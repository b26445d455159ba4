"""PQ from files in COCO's panoptic format: a json and its PNG folder of the same stem (COCO, ADE20K, Cityscapes)."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from omgvision.evaluation.panoptic_files import read_ids
from omgvision.evaluation.panoptic_quality import PanopticQuality, SegmentLabel
from omgvision.evaluation.scores.files import complete, identity, integer, number, read, read_json, warn_of_surplus
from omgvision.evaluation.scores.gather import gather


@dataclass(frozen=True)
class _Pair:
    truth: dict[str, Any]
    guess: dict[str, Any]
    truth_file: Path
    guess_file: Path


def score(
    ground_truth: Path,
    predictions: Path,
    *,
    unseen: Collection[str] | None = None,
    only: Collection[str] | None = None,
    workers: int = 1,
) -> dict[str, float]:
    """PQ, SQ, RQ of a prediction file against a ground-truth file.

    Predictions of images that the ground truth lacks are left out with a warning, and of two predictions of one image
    the last counts, as in panopticapi.

    Args:
        ground_truth, predictions: `X.json` with the PNG files in `X/`.
        unseen: Names of the categories that training never showed, for the open-vocabulary split.
        only: Ids of the images that count, as text; None = all.
        workers: Processes.

    Returns:
        What `PanopticQuality.compute` says, and `PQ/person`, `SQ/person`, `RQ/person` of every category.

    Raises:
        ValueError: A file that is missing or broken, an image without prediction, or what `PanopticQuality` refuses.
    """
    truth = read_json(ground_truth, keys={"annotations": list, "categories": list})
    guesses = read_json(predictions, keys={"annotations": list})
    if not truth["annotations"]:
        raise ValueError(f"{ground_truth}: expected annotated images, got none")
    with complete(predictions):
        by_image = {identity(entry, "image_id"): entry for entry in guesses["annotations"]}
        guess_files = {image: predictions.with_suffix("") / entry["file_name"] for image, entry in by_image.items()}
    with complete(ground_truth):
        things = {integer(entry, "id"): bool(entry["isthing"]) for entry in truth["categories"]}
        names = {entry["id"]: entry["name"] for entry in truth["categories"]}
        entries = [entry for entry in truth["annotations"] if only is None or str(identity(entry, "image_id")) in only]
        truth_files = [ground_truth.with_suffix("") / entry["file_name"] for entry in entries]
        images = [identity(entry, "image_id") for entry in entries]
    lacking = [image for image in images if image not in by_image]
    if lacking:
        raise ValueError(f"{predictions}: expected a prediction for every image, got none for {lacking[0]}")
    warn_of_surplus(predictions, by_image.keys() - set(images), "images", ground_truth)

    metric = PanopticQuality(things, unseen=None if unseen is None else _ids_of(unseen, names))
    pairs = [
        _Pair(entry, by_image[image], file, guess_files[image])
        for entry, image, file in zip(entries, images, truth_files, strict=True)
    ]
    update = partial(_update, ground_truth=ground_truth, predictions=predictions)
    gather(metric, update, pairs, workers=workers, title="images")
    numbers = metric.compute()
    for category, qualities in metric.per_category().items():
        for name, quality in zip(("PQ", "SQ", "RQ"), qualities, strict=True):
            numbers[f"{name}/{names[category]}"] = quality
    return numbers


def _ids_of(unseen: Collection[str], names: dict[int, str]) -> list[int]:
    unknown = sorted(set(unseen) - set(names.values()))
    if unknown:
        raise ValueError(f"unseen: expected category names of the ground truth, got {unknown[0]!r}")
    return [category for category, name in names.items() if name in unseen]


def _update(metric: PanopticQuality, pair: _Pair, *, ground_truth: Path, predictions: Path) -> None:
    prediction, target = read(read_ids, pair.guess_file), read(read_ids, pair.truth_file)
    with complete(ground_truth):
        true_labels = _labels(pair.truth, metric.things)
    with complete(predictions):
        labels = _labels(pair.guess, metric.things)
    with complete(pair.guess_file):
        metric.update(str(pair.truth["image_id"]), prediction, labels, target, true_labels)


def _labels(entry: Mapping[str, Any], things: Collection[int]) -> dict[int, SegmentLabel]:
    """What each segment of an image is, for the inside of `complete`; crowds and areas are the ground truth's."""
    labels = {}
    for segment in entry["segments_info"]:
        label, category, area = integer(segment, "id"), integer(segment, "category_id"), segment.get("area")
        if category not in things:
            raise ValueError(f"image {entry['image_id']}: segment {label} has the unknown category {category}")
        if area is not None:
            number(segment, "area")
        labels[label] = SegmentLabel(category, bool(segment.get("iscrowd", 0)), area)
    return labels
