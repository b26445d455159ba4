"""Masks that answer prompts: mean IoU over objects, how often the class is right (OMG-Seg's `InsClsIoUMetric`).

Letters: N objects of an image, H×W pixels.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from omgvision.evaluation.metric import PerSample


@dataclass(frozen=True)
class _Objects:
    ious: list[float]
    labels: list[int] | None
    right: list[bool] | None


class PromptedIoU(PerSample[_Objects]):
    """Keeps the IoU of every object; which mask answers which object is known, nothing is matched.

    Args:
        unseen: Labels that training never showed; then `compute` tells objects of seen and unseen classes apart.
    """

    def __init__(self, *, unseen: Collection[int] | None = None):
        super().__init__()
        self.unseen = None if unseen is None else frozenset(unseen)

    def update(
        self,
        sample_id: str,
        predictions: np.ndarray,
        targets: np.ndarray,
        *,
        labels: np.ndarray | None = None,
        predicted_labels: np.ndarray | None = None,
    ) -> None:
        """Adds an image.

        Args:
            predictions, targets: Bool [N, H, W]; the IoU of two empty masks is 0.
            labels: [N], class of each object; None = without classes.
            predicted_labels: [N], class that each mask was given; None = masks alone.

        Raises:
            ValueError: Different sizes, no `labels` although `unseen` needs them.
        """
        if predictions.shape != targets.shape:
            raise ValueError(f"predictions: expected the shape of the targets {targets.shape}, got {predictions.shape}")
        for what, given in (("labels", labels), ("predicted_labels", predicted_labels)):
            if given is not None and len(given) != len(targets):
                raise ValueError(f"{what}: expected one for each of {len(targets)} objects, got {len(given)}")
        if labels is None and (self.unseen is not None or predicted_labels is not None):
            raise ValueError("labels: expected the class of each object, got none")
        shared = np.count_nonzero(predictions & targets, axis=(1, 2))
        union = np.count_nonzero(predictions | targets, axis=(1, 2))
        known = labels is not None and predicted_labels is not None
        record = _Objects(
            ious=(shared / np.maximum(union, 1)).tolist(),
            labels=None if labels is None else labels.tolist(),
            right=(predicted_labels == labels).tolist() if known else None,
        )
        self.add(sample_id, record)

    def compute(self) -> dict[str, float]:
        """`mIoU` and, where classes were predicted, `accuracy`; with `_seen` and `_unseen`. NaN without objects."""
        records = self.ordered()
        ious = [iou for record in records for iou in record.ious]
        right = [hit for record in records for hit in record.right or []]
        columns = {"mIoU": ious} | ({"accuracy": right} if right else {})
        numbers = {name: _mean(values) for name, values in columns.items()}
        if self.unseen is not None:
            unseen = [label in self.unseen for record in records for label in record.labels or []]
            for name, values in columns.items():
                pairs = list(zip(values, unseen, strict=True))
                numbers[f"{name}_seen"] = _mean([value for value, is_unseen in pairs if not is_unseen])
                numbers[f"{name}_unseen"] = _mean([value for value, is_unseen in pairs if is_unseen])
        return numbers


def _mean(values: list[float] | list[bool]) -> float:
    return sum(values) / len(values) if values else float("nan")
