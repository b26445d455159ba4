"""Cityscapes' pixel-level numbers: IoU and instance-weighted IoU of classes and categories, as in cityscapesScripts.

Letters: H×W pixels.
"""

from dataclasses import dataclass

import numpy as np

from omgvision.evaluation.cityscapes_labels import CITYSCAPES_LABELS, MAX_ID, label_of
from omgvision.evaluation.metric import PerSample
from omgvision.evaluation.overlaps import overlaps

AVERAGE_SIZES = {
    "person": 3462.4756337644,
    "rider": 3930.4788056518,
    "car": 12794.0202738185,
    "truck": 27855.1264367816,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "motorcycle": 6298.7200839748,
    "bicycle": 4672.3249222261,
}
"""Mean pixels of an object of each class (`evalPixelLevelSemanticLabeling.py`, `avgClassSize`)."""
CATEGORIES = tuple(dict.fromkeys(label.category for label in CITYSCAPES_LABELS if label.evaluated))
_THING_CATEGORIES = tuple(dict.fromkeys(label.category for label in CITYSCAPES_LABELS if label.is_thing))


@dataclass(frozen=True)
class _Counts:
    """Pixels of each pair (ground-truth id, predicted id); weighted found and missed pixels of objects, by name."""

    pixels: dict[tuple[int, int], int]
    classes: dict[str, np.ndarray]
    categories: dict[str, np.ndarray]


class CityscapesSemantic(PerSample[_Counts]):
    """Keeps the counts of every image. Ids are those of `labelIds`, not train ids."""

    def update(self, sample_id: str, prediction: np.ndarray, target: np.ndarray, instances: np.ndarray) -> None:
        """Adds an image.

        Args:
            prediction, target: [H, W] ids of labels, 0 to 33.
            instances: [H, W], the `instanceIds` of the ground truth.

        Raises:
            ValueError: Different sizes, or ids that are none.
        """
        truths, guesses, pixels = (values.tolist() for values in overlaps(target, prediction))
        for what, ids in (("prediction", guesses), ("target", truths)):
            if max(ids, default=0) > MAX_ID:
                raise ValueError(f"{what}: expected ids 0 to {MAX_ID} (no train ids), got {max(ids)}")
        counts = _Counts(dict(zip(zip(truths, guesses, strict=True), pixels, strict=True)), {}, {})
        things, guesses, pixels = overlaps(instances, prediction)
        for thing in np.unique(things[things > 1000]).tolist():
            label = label_of(thing)
            if not label.evaluated:
                continue
            mine = things == thing
            size = pixels[mine].sum()
            weight = AVERAGE_SIZES[label.name] / size
            of_category = [other.id for other in CITYSCAPES_LABELS if other.category == label.category]
            found = pixels[mine & (guesses == label.id)].sum()
            roughly = pixels[mine & np.isin(guesses, of_category)].sum()
            for sums, name, hits in ((counts.classes, label.name, found), (counts.categories, label.category, roughly)):
                sums[name] = sums.get(name, np.zeros(2)) + weight * np.array([hits, size - hits])
        self.add(sample_id, counts)

    def per_class(self) -> dict[str, float]:
        """`IoU/road` …, `iIoU/car` …, `IoU_categories/flat` …, `iIoU_categories/human` …; NaN where nothing is."""
        confusion = np.zeros((MAX_ID + 1, MAX_ID + 1), dtype=np.int64)
        classes = {label.name: np.zeros(2) for label in CITYSCAPES_LABELS if label.is_thing and label.evaluated}
        categories = {category: np.zeros(2) for category in _THING_CATEGORIES}
        for record in self.ordered():
            for pair, pixels in record.pixels.items():
                confusion[pair] += pixels
            for sums, more in ((classes, record.classes), (categories, record.categories)):
                for name, found_and_missed in more.items():
                    sums[name] += found_and_missed

        evaluated = [label for label in CITYSCAPES_LABELS if label.evaluated]
        numbers: dict[str, float] = {}
        for label in evaluated:
            others = [other.id for other in evaluated if other is not label]
            surplus = confusion[others, label.id].sum()
            hits = confusion[label.id, label.id]
            numbers[f"IoU/{label.name}"] = _ratio(hits, confusion[label.id].sum() + surplus)
            if label.is_thing:
                found, missed = classes[label.name]
                numbers[f"iIoU/{label.name}"] = _ratio(found, found + surplus + missed)
        for category in CATEGORIES:
            ids = [label.id for label in evaluated if label.category == category]
            others = [label.id for label in evaluated if label.category != category]
            hits, truth = confusion[np.ix_(ids, ids)].sum(), confusion[ids].sum()
            numbers[f"IoU_categories/{category}"] = _ratio(hits, truth + confusion[np.ix_(others, ids)].sum())
            if category in categories:
                # Here, and not above, predictions of labels that are not evaluated (caravan) belong to the category.
                ids = [label.id for label in CITYSCAPES_LABELS if label.category == category]
                found, missed = categories[category]
                surplus = confusion[np.ix_(others, ids)].sum()
                numbers[f"iIoU_categories/{category}"] = _ratio(found, found + surplus + missed)
        return numbers

    def compute(self) -> dict[str, float]:
        """`mIoU`, `iIoU` over the classes that have a value; with `_categories` over the categories that have one."""
        numbers = self.per_class()
        means = {"mIoU": "IoU/", "iIoU": "iIoU/", "mIoU_categories": "IoU_categories/"}
        means["iIoU_categories"] = "iIoU_categories/"
        return {
            name: _mean([value for key, value in numbers.items() if key.startswith(prefix)])
            for name, prefix in means.items()
        }


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _mean(values: list[float]) -> float:
    defined = [value for value in values if value == value]
    return sum(defined) / len(defined) if defined else float("nan")
