"""Semantic segmentation: mean intersection over union and pixel accuracy.

Letters: K classes, H×W pixels.
"""

import numpy as np


class MeanIoU:
    """Sums a confusion matrix over images.

    Args:
        num_classes: K.
        ignore: Ground-truth value of pixels that do not count; they count nowhere, whatever is predicted there.
    """

    def __init__(self, num_classes: int, *, ignore: int | None = None):
        self.num_classes, self.ignore = num_classes, ignore
        # The last column takes predictions that are no class.
        self.confusion = np.zeros((num_classes, num_classes + 1), dtype=np.int64)

    def update(self, prediction: np.ndarray, target: np.ndarray) -> None:
        """Adds an image.

        Args:
            prediction: [H, W] class indices; anything outside of 0…K-1 is a miss.
            target: [H, W] class indices or `ignore`.

        Raises:
            ValueError: Different sizes, or a target that is neither a class nor `ignore`.
        """
        if prediction.shape != target.shape:
            raise ValueError(f"prediction: expected the size of the target {target.shape}, got {prediction.shape}")
        counted = np.ones(target.shape, dtype=bool) if self.ignore is None else target != self.ignore
        truth, guess = target[counted].astype(np.int64), prediction[counted].astype(np.int64)
        if truth.size and not (truth.min() >= 0 and truth.max() < self.num_classes):
            wrong = truth.max() if truth.max() >= self.num_classes else truth.min()
            raise ValueError(f"target: expected 0 to {self.num_classes - 1} or {self.ignore}, got {wrong}")
        guess[(guess < 0) | (guess >= self.num_classes)] = self.num_classes
        columns = self.num_classes + 1
        counts = np.bincount(truth * columns + guess, minlength=self.num_classes * columns)
        self.confusion += counts.reshape(self.num_classes, columns)

    def per_class(self) -> np.ndarray:
        """IoU of each class [K]; NaN for a class without a ground-truth pixel."""
        hits = np.diagonal(self.confusion).astype(np.float64)
        truth = self.confusion.sum(1)
        union = truth + self.confusion[:, : self.num_classes].sum(0) - hits
        return np.divide(hits, union, out=np.full(self.num_classes, np.nan), where=truth > 0)

    def compute(self) -> dict[str, float]:
        """`mIoU` over the classes that occur in the ground truth, and `pixel_accuracy`; NaN before the first pixel."""
        ious = self.per_class()
        total = self.confusion.sum()
        if not total:
            return {"mIoU": float("nan"), "pixel_accuracy": float("nan")}
        accuracy = np.diagonal(self.confusion).sum() / total
        return {"mIoU": float(np.nanmean(ious)), "pixel_accuracy": float(accuracy)}
