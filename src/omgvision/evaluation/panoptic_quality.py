"""Panoptic quality of COCO (Kirillov et al. 2019, "Panoptic Segmentation"), equal to panopticapi's.

Letters: H×W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SegmentLabel:
    """What a segment of a panoptic map is.

    Attributes:
        category: Category id.
        is_crowd: Ground truth only: a region of many objects, which can neither be found nor missed.
    """

    category: int
    is_crowd: bool = False


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


class PanopticQuality:
    """Sums over images.

    Args:
        things: Category id → whether it is countable, for all categories.
        void: Segment id of pixels without a segment, in both maps.
    """

    def __init__(self, things: Mapping[int, bool], *, void: int = 0):
        self.things, self.void = dict(things), void
        self.counts = {category: CategoryCounts() for category in self.things}

    def update(
        self,
        prediction: np.ndarray,
        prediction_segments: Mapping[int, SegmentLabel],
        target: np.ndarray,
        target_segments: Mapping[int, SegmentLabel],
    ) -> None:
        """Adds an image.

        Args:
            prediction, target: [H, W] segment ids.
            prediction_segments, target_segments: What each id is.

        Raises:
            ValueError: Different sizes, an id without label, an unknown category.
        """
        if prediction.shape != target.shape:
            raise ValueError(f"prediction: expected the size of the target {target.shape}, got {prediction.shape}")
        predicted_areas = self._areas(prediction, prediction_segments, what="prediction")
        target_areas = self._areas(target, target_segments, what="target")
        overlaps = self._overlaps(prediction, target)

        matched_targets, matched_predictions = set(), set()
        for (truth, guess), overlap in overlaps.items():
            if truth not in target_areas or guess not in predicted_areas:
                continue
            label, guessed = target_segments[truth], prediction_segments[guess]
            if label.is_crowd or label.category != guessed.category:
                continue
            # Void pixels under a prediction count for nothing.
            union = target_areas[truth] + predicted_areas[guess] - overlap - overlaps.get((self.void, guess), 0)
            iou = overlap / union
            if iou > 0.5:
                counts = self.counts[label.category]
                counts.true_positives += 1
                counts.iou += iou
                matched_targets.add(truth)
                matched_predictions.add(guess)

        crowds: dict[int, int] = {}
        for truth, label in target_segments.items():
            if truth in matched_targets:
                continue
            if label.is_crowd:
                crowds[label.category] = truth
            else:
                self.counts[label.category].false_negatives += 1
        for guess, label in prediction_segments.items():
            if guess in matched_predictions:
                continue
            forgiven = overlaps.get((self.void, guess), 0)
            if label.category in crowds:
                forgiven += overlaps.get((crowds[label.category], guess), 0)
            # Mostly over void or over a crowd of its own category: neither right nor wrong.
            if forgiven / predicted_areas[guess] <= 0.5:
                self.counts[label.category].false_positives += 1

    def _areas(self, ids: np.ndarray, segments: Mapping[int, SegmentLabel], *, what: str) -> dict[int, int]:
        found, areas = np.unique(ids, return_counts=True)
        present = dict(zip(found.tolist(), areas.tolist(), strict=True))
        for identity, label in segments.items():
            if identity not in present:
                raise ValueError(f"{what}: segment {identity} is described, but no pixel has it")
            if label.category not in self.counts:
                raise ValueError(f"{what}: segment {identity} has the unknown category {label.category}")
        unknown = [identity for identity in present if identity != self.void and identity not in segments]
        if unknown:
            raise ValueError(f"{what}: pixels with id {unknown[0]}, which is not described")
        return {identity: present[identity] for identity in segments}

    @staticmethod
    def _overlaps(prediction: np.ndarray, target: np.ndarray) -> dict[tuple[int, int], int]:
        """(target id, prediction id) → common pixels."""
        base = int(prediction.max()) + 1
        pairs, counts = np.unique(target.astype(np.int64) * base + prediction, return_counts=True)
        return {(pair // base, pair % base): count for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True)}

    def compute(self) -> dict[str, float]:
        """`PQ`, `SQ`, `RQ` over the categories that occur, and with `_things` and `_stuff` over those of a kind."""
        every = list(self.things)
        groups: dict[str, Sequence[int]] = {
            "": every,
            "_things": [category for category in every if self.things[category]],
            "_stuff": [category for category in every if not self.things[category]],
        }
        numbers: dict[str, float] = {}
        for suffix, categories in groups.items():
            rows = [self.counts[category].quality for category in categories if self.counts[category].occurs]
            means = np.mean(rows, axis=0) if rows else np.full(3, np.nan)
            for name, mean in zip(("PQ", "SQ", "RQ"), means.tolist(), strict=True):
                numbers[f"{name}{suffix}"] = mean
        return numbers

    def per_category(self) -> dict[int, tuple[float, float, float]]:
        """Category id → PQ, SQ, RQ."""
        return {category: counts.quality for category, counts in self.counts.items()}
