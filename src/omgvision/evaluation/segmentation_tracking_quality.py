"""Segmentation and tracking quality (Weber et al. 2021, "STEP: Segmenting and Tracking Every Pixel"), as in deeplab2.

Association quality weighs how well the tubes of things overlap over the whole video; segmentation quality is the mean
IoU of the classes. STQ is their geometric mean.

Letters: K categories, N pairs of categories that occur.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from omgvision.evaluation.metric import PerSample
from omgvision.evaluation.overlaps import overlaps
from omgvision.evaluation.panoptic_quality import SegmentLabel
from omgvision.evaluation.video_panoptic_quality import PanopticFrame


@dataclass(frozen=True)
class VideoAssociation:
    """What is kept of a video.

    Attributes:
        association: Sum over the true tubes of things of how well they are associated, each 0 to 1.
        tubes: Their number.
        pairs: True category index, predicted category index and pixels [3, N]; index K is void, never in the first.
        frames: Length of the video.
    """

    association: float
    tubes: int
    pairs: np.ndarray
    frames: int


class SegmentationTrackingQuality(PerSample[VideoAssociation]):
    """STQ over videos.

    Args:
        things: Category id → whether it is countable, for all categories.
    """

    def __init__(self, things: Mapping[int, bool]) -> None:
        super().__init__()
        self.things = dict(things)
        self._index = {category: index for index, category in enumerate(self.things)}

    def update(self, video_id: str, frames: Iterable[tuple[PanopticFrame, PanopticFrame]]) -> None:
        """Adds a video.

        A tube is all pixels of one id and category. Crowds of things count for segmentation, not for association.
        Pixels whose id is not described are void: they do not count in the target and are wrong in the prediction.

        Args:
            frames: Prediction and target of each frame, in order; read one by one.

        Raises:
            ValueError: Different sizes or an unknown category.
        """
        if video_id in self.records:
            return
        length = 0
        parts: list[np.ndarray] = [np.zeros((6, 0), np.int64)]
        for frame, (prediction, target) in enumerate(frames):
            where = f"frame {frame} of {video_id}"
            truths, guesses, pixels = overlaps(target.ids, prediction.ids)
            classes, crowds = self._labels(truths, target.segments, f"target: {where}")
            guessed, _ = self._labels(guesses, prediction.segments, f"prediction: {where}")
            parts.append(np.stack([classes, truths, crowds, guessed, guesses, pixels]))
            length = frame + 1
        self.add(video_id, self._reduce(np.concatenate(parts, axis=1), length))

    def _labels(
        self, ids: np.ndarray, segments: Mapping[int, SegmentLabel], where: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Category index, K for void, and whether it is a crowd, of each id."""
        for identity, label in segments.items():
            if label.category not in self._index:
                raise ValueError(f"{where}: segment {identity} has the unknown category {label.category}")
        labels = [segments.get(identity) for identity in ids.tolist()]
        classes = [len(self._index) if label is None else self._index[label.category] for label in labels]
        return np.array(classes, np.int64), np.array([label is not None and label.is_crowd for label in labels])

    def _reduce(self, table: np.ndarray, length: int) -> VideoAssociation:
        classes, truths, crowds, guessed, guesses, pixels = table
        is_thing = np.array([*self.things.values(), False], dtype=bool)
        crowd = is_thing[classes] & crowds.astype(bool)
        of_truth = is_thing[classes] & ~crowd
        of_guess = is_thing[guessed] & ~crowd  # a track may do on a crowd what it likes
        both = of_truth & of_guess

        truth, areas = _tubes(classes, truths, pixels, of_truth)
        guess, guessed_areas = _tubes(guessed, guesses, pixels, of_guess)
        shared, where = np.unique(truth[both] << 32 | guess[both], return_inverse=True)
        overlap = np.bincount(where, weights=pixels[both], minlength=len(shared))
        area, guessed_area = areas[shared >> 32], guessed_areas[shared & 0xFFFFFFFF]
        association = np.sum(overlap * (overlap / (area + guessed_area - overlap)) / area)

        counted = classes < len(self._index)
        pairs, where = np.unique(classes[counted] << 32 | guessed[counted], return_inverse=True)
        counts = np.bincount(where, weights=pixels[counted], minlength=len(pairs)).astype(np.int64)
        pairs = np.stack([pairs >> 32, pairs & 0xFFFFFFFF, counts])
        return VideoAssociation(float(association), len(areas), pairs, length)

    def _segmentation(self, records: Iterable[VideoAssociation]) -> float:
        """Mean IoU of the categories with a union; void counts as one of them where it is predicted, as in deeplab2."""
        size = len(self._index) + 1
        confusion = np.zeros((size, size))
        for record in records:
            classes, guessed, pixels = record.pairs
            confusion[classes, guessed] += pixels
        hits = np.diagonal(confusion)
        union = confusion.sum(0) + confusion.sum(1) - hits
        return float(np.mean(hits[union > 0] / union[union > 0])) if union.any() else float("nan")

    def per_video(self) -> dict[str, dict[str, float]]:
        """Video id → `STQ`, `AQ`, `SQ` of it alone."""
        return {name: self._numbers([self.records[name]]) for name in sorted(self.records)}

    def compute(self) -> dict[str, float]:
        """`STQ`, `AQ` (association; 0 without any true thing) and `SQ` (segmentation, deeplab2's `IoU`)."""
        return self._numbers(self.ordered())

    def _numbers(self, records: list[VideoAssociation]) -> dict[str, float]:
        tubes = sum(record.tubes for record in records)
        association = sum(record.association for record in records) / tubes if tubes else 0.0
        segmentation = self._segmentation(records)
        return {"STQ": float(np.sqrt(association * segmentation)), "AQ": association, "SQ": segmentation}


def _tubes(
    classes: np.ndarray, ids: np.ndarray, pixels: np.ndarray, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Number of the tube of each row (any where not chosen), and the area of each tube of the chosen rows."""
    number = np.zeros(len(ids), np.int64)
    tubes, number[chosen] = np.unique(classes[chosen] << 32 | ids[chosen], return_inverse=True)
    return number, np.bincount(number[chosen], weights=pixels[chosen], minlength=len(tubes))
