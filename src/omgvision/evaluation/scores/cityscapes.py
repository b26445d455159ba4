"""Cityscapes' three benchmarks from files in its layout."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from omgvision.evaluation.cityscapes_instances import CityscapesInstances
from omgvision.evaluation.cityscapes_semantic import CityscapesSemantic
from omgvision.evaluation.scores import panoptic_quality
from omgvision.evaluation.scores.files import complete, read, read_labels
from omgvision.evaluation.scores.gather import gather

PANOPTIC = "cityscapes_panoptic_val.json"


@dataclass(frozen=True)
class _Pair:
    truth: Path
    guess: Path
    root: Path
    """The folder of all predictions."""


def score_panoptic(
    ground_truth: Path, predictions: Path, *, unseen: Collection[str] | None = None, workers: int = 1
) -> dict[str, float]:
    """PQ, SQ, RQ; see `panoptic_quality.score`.

    Args:
        ground_truth, predictions: `cityscapes_panoptic_val.json` or a folder that has it (or whose `gtFine` has it).
    """
    return panoptic_quality.score(
        _panoptic_json(ground_truth), _panoptic_json(predictions), unseen=unseen, workers=workers
    )


def _panoptic_json(path: Path) -> Path:
    places = [path / PANOPTIC, path / "gtFine" / PANOPTIC]
    return next((place for place in places if place.is_file()), places[0]) if path.is_dir() else path


def score_semantic(
    ground_truth: Path, predictions: Path, *, only: Collection[str] | None = None, workers: int = 1
) -> dict[str, float]:
    """IoU and iIoU of classes and categories.

    Args:
        ground_truth: The Cityscapes folder, `gtFine`, or a folder of it: every `*_gtFine_labelIds.png` below, of
            `gtFine/val` alone if there is one, with its `*_gtFine_instanceIds.png`.
        predictions: A folder; anywhere below it one `<city>_<sequence>_<frame>*.png` with label ids for each.
        only: Names of the images that count, as `image_name` has them; None = all.
        workers: Processes.

    Raises:
        ValueError: No ground truth, no or several predictions of an image, a broken file, another size, unknown ids.
    """
    metric = CityscapesSemantic()
    pairs = _pairs(ground_truth, predictions, truths="*_gtFine_labelIds.png", suffix=".png", only=only)
    gather(metric, _update_semantic, pairs, workers=workers, title="images")
    return metric.compute() | metric.per_class()


def _update_semantic(metric: CityscapesSemantic, pair: _Pair) -> None:
    instances = pair.truth.with_name(pair.truth.name.replace("labelIds", "instanceIds"))
    prediction, target, objects = (read(read_labels, path) for path in (pair.guess, pair.truth, instances))
    with complete(pair.guess):
        metric.update(image_name(pair.truth), prediction, target, objects)


def score_instances(
    ground_truth: Path, predictions: Path, *, only: Collection[str] | None = None, workers: int = 1
) -> dict[str, float]:
    """AP and AP50, over all and of every class.

    Args:
        ground_truth: As in `score_semantic`, with `*_gtFine_instanceIds.png`.
        predictions: A folder; anywhere below it one `<city>_<sequence>_<frame>*.txt` for each, whose lines name a mask
            PNG (relative to the file), a label id and a confidence.
        only, workers: As in `score_semantic`.

    Raises:
        ValueError: As in `score_semantic`, and a line that does not read so.
    """
    metric = CityscapesInstances()
    pairs = _pairs(ground_truth, predictions, truths="*_gtFine_instanceIds.png", suffix=".txt", only=only)
    gather(metric, _update_instances, pairs, workers=workers, title="images")
    numbers = metric.compute()
    for name, precisions in metric.per_class().items():
        numbers |= {f"AP/{name}": float(precisions.mean()), f"AP50/{name}": float(precisions[0])}
    return numbers


def _update_instances(metric: CityscapesInstances, pair: _Pair) -> None:
    instances = read(read_labels, pair.truth)
    with complete(pair.guess):
        metric.update(image_name(pair.truth), instances, _predicted(pair))


def _predicted(pair: _Pair) -> Iterator[tuple[int, float, np.ndarray]]:
    found: dict[Path, tuple[int, float]] = {}
    for line in pair.guess.read_text(encoding="utf-8").splitlines():
        try:
            name, label, confidence = line.split(" ")
            mask = (pair.guess.parent / name).resolve()
            found[mask] = int(float(label)), float(confidence)
        except ValueError:
            raise ValueError(f"expected lines of mask, label id and confidence, got {line!r}") from None
        if Path(name).is_absolute() or not mask.is_relative_to(pair.root.resolve()):
            raise ValueError(f"expected a mask below {pair.root}, got {name}")
    for mask, (label, confidence) in found.items():
        yield label, confidence, read(_read_mask, mask)


def _pairs(
    ground_truth: Path, predictions: Path, *, truths: str, suffix: str, only: Collection[str] | None
) -> list[_Pair]:
    places = [ground_truth / "gtFine" / "val", ground_truth / "val", ground_truth]
    root = next(place for place in places if place.is_dir() or place == ground_truth)
    files = sorted(path for path in root.rglob(truths) if only is None or image_name(path) in only)
    if not files:
        raise ValueError(f"{root}: expected files {truths} below it, got none")
    by_image: dict[str, list[Path]] = {}
    for path in sorted(predictions.rglob(f"*{suffix}")):
        by_image.setdefault(image_name(path), []).append(path)
    for path in files:
        guesses = by_image.get(image_name(path), [])
        if len(guesses) != 1:
            many = " and ".join(guess.name for guess in guesses[:2]) or "none"
            raise ValueError(f"{predictions}: expected one {image_name(path)}*{suffix} below it, got {many}")
    return [_Pair(path, by_image[image_name(path)][0], predictions) for path in files]


def image_name(path: Path) -> str:
    """ "aachen_000000_000019_gtFine_labelIds.png" → "aachen_000000_000019"."""
    return "_".join(path.stem.split("_")[:3])


def _read_mask(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("L")) != 0
