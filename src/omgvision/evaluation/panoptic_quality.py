"""Panoptic quality (Kirillov et al. 2019, "Panoptic Segmentation") of COCO, ADE20K, Cityscapes: equal to panopticapi's.

Letters: H×W pixels.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from omgvision.evaluation.metric import PerSample
from omgvision.evaluation.overlaps import overlaps as pairs_of


@dataclass(frozen=True)
class SegmentLabel:
    """What a segment of a panoptic map is.

    Attributes:
        category: Category id.
        is_crowd: Ground truth only: a region of many objects, which can neither be found nor missed.
        area: Ground truth only: its pixels as the json says, which panopticapi believes; None = as the map says.
    """

    category: int
    is_crowd: bool = False
    area: int | None = None


@dataclass
class CategoryCounts:
    """Of one category: sum of the IoU of the matches, matches, surplus predictions, missed segments."""

    iou: float = 0.0
    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0

    @property
    def occurs(self) -> bool:
        return self.true_positives + self.false_positives + self.false_negatives > 0

    @property
    def quality(self) -> tuple[float, float, float]:
        """PQ, SQ, RQ; zeros for a category that does not occur."""
        if not self.occurs:
            return 0.0, 0.0, 0.0
        weight = self.true_positives + 0.5 * self.false_positives + 0.5 * self.false_negatives
        segmentation = self.iou / self.true_positives if self.true_positives else 0.0
        return self.iou / weight, segmentation, self.true_positives / weight

    def add(self, other: "CategoryCounts") -> None:
        self.iou += other.iou
        self.true_positives += other.true_positives
        self.false_positives += other.false_positives
        self.false_negatives += other.false_negatives


class PanopticQuality(PerSample[dict[int, CategoryCounts]]):
    """Keeps the counts of every image.

    Args:
        things: Category id → whether it is countable, for all categories.
        void: Segment id of pixels without a segment, in both maps.
        unseen: Ids of the categories that training never showed; then `compute` tells seen and unseen ones apart.
    """

    def __init__(self, things: Mapping[int, bool], *, void: int = 0, unseen: Collection[int] | None = None):
        super().__init__()
        self.things, self.void = dict(things), void
        self.unseen = None if unseen is None else frozenset(unseen)
        if self.unseen is not None and not self.unseen <= self.things.keys():
            raise ValueError(
                f"unseen: expected categories of the data set, got {min(self.unseen - self.things.keys())}"
            )

    def update(
        self,
        sample_id: str,
        prediction: np.ndarray,
        prediction_segments: Mapping[int, SegmentLabel],
        target: np.ndarray,
        target_segments: Mapping[int, SegmentLabel],
    ) -> None:
        """Adds an image.

        Args:
            prediction, target: [H, W] segment ids.
            prediction_segments, target_segments: What each id is. As in panopticapi, a prediction has to describe the
                ids of its map and no others; of the ground truth, a segment without pixels is missed, and pixels
                without segment are no void.

        Raises:
            ValueError: Different sizes, a predicted id without label or label without pixel, an unknown category.
        """
        truths, guesses, shared = (values.tolist() for values in pairs_of(target, prediction))
        overlaps = dict(zip(zip(truths, guesses, strict=True), shared, strict=True))
        predicted_areas = dict.fromkeys(guesses, 0)
        target_areas = dict.fromkeys(truths, 0)
        for (truth, guess), overlap in overlaps.items():
            predicted_areas[guess] += overlap
            target_areas[truth] += overlap
        self._check(predicted_areas, prediction_segments, target_segments)

        counts: dict[int, CategoryCounts] = {}
        matched_targets, matched_predictions = set(), set()
        for (truth, guess), overlap in overlaps.items():
            if truth not in target_segments or guess not in prediction_segments:
                continue
            label, category = target_segments[truth], prediction_segments[guess].category
            if label.is_crowd or label.category != category:
                continue
            area = target_areas[truth] if label.area is None else label.area
            # Void pixels under a prediction count for nothing.
            iou = overlap / (area + predicted_areas[guess] - overlap - overlaps.get((self.void, guess), 0))
            if iou > 0.5:
                of_category = counts.setdefault(category, CategoryCounts())
                of_category.true_positives += 1
                of_category.iou += iou
                matched_targets.add(truth)
                matched_predictions.add(guess)

        crowds: dict[int, int] = {}
        for truth, label in target_segments.items():
            if label.is_crowd:
                crowds[label.category] = truth
            elif truth not in matched_targets:
                counts.setdefault(label.category, CategoryCounts()).false_negatives += 1
        for guess, label in prediction_segments.items():
            if guess in matched_predictions:
                continue
            forgiven = overlaps.get((self.void, guess), 0)
            if label.category in crowds:
                forgiven += overlaps.get((crowds[label.category], guess), 0)
            # Mostly over void or over a crowd of its own category: neither right nor wrong.
            if forgiven / predicted_areas[guess] <= 0.5:
                counts.setdefault(label.category, CategoryCounts()).false_positives += 1
        self.add(sample_id, counts)

    def _check(
        self,
        predicted_areas: Mapping[int, int],
        prediction_segments: Mapping[int, SegmentLabel],
        target_segments: Mapping[int, SegmentLabel],
    ) -> None:
        for what, segments in (("prediction", prediction_segments), ("target", target_segments)):
            for identity, label in segments.items():
                if label.category not in self.things:
                    raise ValueError(f"{what}: segment {identity} has the unknown category {label.category}")
        for identity in predicted_areas:
            if identity not in prediction_segments and identity != self.void:
                raise ValueError(f"prediction: pixels with id {identity}, which is not described")
        for identity in prediction_segments:
            if identity not in predicted_areas:
                raise ValueError(f"prediction: segment {identity} is described, but no pixel has it")

    def totals(self) -> dict[int, CategoryCounts]:
        """Sums over the images, for every category."""
        totals = {category: CategoryCounts() for category in self.things}
        for record in self.ordered():
            for category, counts in record.items():
                totals[category].add(counts)
        return totals

    def compute(self) -> dict[str, float]:
        """`PQ`, `SQ`, `RQ` over the categories that occur; with `_things`, `_stuff`, `_seen`, `_unseen` over those."""
        totals = self.totals()
        groups = {
            "": list(self.things),
            "_things": [category for category, thing in self.things.items() if thing],
            "_stuff": [category for category, thing in self.things.items() if not thing],
        }
        if self.unseen is not None:
            groups["_seen"] = [category for category in self.things if category not in self.unseen]
            groups["_unseen"] = [category for category in self.things if category in self.unseen]
        numbers: dict[str, float] = {}
        for suffix, categories in groups.items():
            rows = [totals[category].quality for category in categories if totals[category].occurs]
            means = np.mean(rows, axis=0) if rows else np.full(3, np.nan)
            for name, mean in zip(("PQ", "SQ", "RQ"), means.tolist(), strict=True):
                numbers[f"{name}{suffix}"] = mean
        return numbers

    def per_category(self) -> dict[int, tuple[float, float, float]]:
        """Category id → PQ, SQ, RQ; zeros for a category that does not occur."""
        return {category: counts.quality for category, counts in self.totals().items()}
