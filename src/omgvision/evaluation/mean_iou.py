"""Semantic segmentation: mean intersection over union and its relatives.

Letters: K classes, H×W pixels.
"""

import numpy as np

from omgvision.evaluation.metric import PerSample
from omgvision.evaluation.overlaps import overlaps


class MeanIoU(PerSample[np.ndarray]):
    """Keeps, of every image, the pixels of each class in the ground truth, in the prediction, and in both: [3, K].

    Args:
        num_classes: K.
        ignore: Ground-truth value of pixels that do not count; they count nowhere, whatever is predicted there.
    """

    def __init__(self, num_classes: int, *, ignore: int | None = None):
        super().__init__()
        self.num_classes, self.ignore = num_classes, ignore

    def update(self, sample_id: str, prediction: np.ndarray, target: np.ndarray) -> None:
        """Adds an image.

        Args:
            prediction: [H, W] class indices; anything outside of 0…K-1 is a miss.
            target: [H, W] class indices or `ignore`.

        Raises:
            ValueError: Different sizes, or a target that is neither a class nor `ignore`.
        """
        if prediction.size and prediction.min() < 0:
            prediction = np.where(prediction < 0, self.num_classes, prediction)
        truth, guess, pixels = overlaps(target, prediction)
        if self.ignore is not None:
            counted = truth != self.ignore
            truth, guess, pixels = truth[counted], guess[counted], pixels[counted]
        wrong = truth[(truth < 0) | (truth >= self.num_classes)]
        if wrong.size:
            raise ValueError(f"target: expected 0 to {self.num_classes - 1} or {self.ignore}, got {wrong[-1]}")
        known, same = guess < self.num_classes, guess == truth
        rows = ((truth, pixels), (guess[known], pixels[known]), (truth[same], pixels[same]))
        record = [np.bincount(values, weights=counts, minlength=self.num_classes) for values, counts in rows]
        self.add(sample_id, np.asarray(record, dtype=np.int64))

    def totals(self) -> np.ndarray:
        """Sum over the images, int64 [3, K]: pixels in the ground truth, in the prediction, in both."""
        return sum(self.ordered(), np.zeros((3, self.num_classes), dtype=np.int64))

    def per_class(self) -> np.ndarray:
        """IoU of each class [K]; NaN for a class without a ground-truth pixel."""
        truth, guess, hits = self.totals()
        return np.divide(hits, truth + guess - hits, out=np.full(self.num_classes, np.nan), where=truth > 0)

    def compute(self) -> dict[str, float]:
        """All NaN before the first pixel.

        `mIoU` and `mean_accuracy` (recall) over the classes that occur in the ground truth, `mIoU_all` over all
        classes, where absent ones count 0 (as the script of ADE20K does), `pixel_accuracy`, and `FWIoU`, the IoU
        weighted by the share of ground-truth pixels.
        """
        truth, _, hits = self.totals()
        occurs = truth > 0
        if not occurs.any():
            return dict.fromkeys(("mIoU", "mIoU_all", "pixel_accuracy", "mean_accuracy", "FWIoU"), float("nan"))
        ious = self.per_class()[occurs]
        return {
            "mIoU": float(ious.mean()),
            "mIoU_all": float(ious.sum() / self.num_classes),
            "pixel_accuracy": float(hits.sum() / truth.sum()),
            "mean_accuracy": float((hits[occurs] / truth[occurs]).mean()),
            "FWIoU": float((truth[occurs] / truth.sum() * ious).sum()),
        }
