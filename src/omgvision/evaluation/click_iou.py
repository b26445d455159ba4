"""Interactive segmentation: how good a mask is after one, two, three simulated clicks."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from omgvision.evaluation.metric import PerSample


def mask_iou(prediction: np.ndarray, target: np.ndarray, *, ignore: np.ndarray | None = None) -> float:
    """Intersection over union of two bool [H, W]; 1 when both are empty. Pixels of `ignore` do not count."""
    if ignore is not None:
        prediction, target = prediction & ~ignore, target & ~ignore
    union = np.count_nonzero(prediction | target)
    return np.count_nonzero(prediction & target) / union if union else 1.0


def next_click(
    target: np.ndarray,
    prediction: np.ndarray,
    *,
    taken: Sequence[tuple[int, int]] = (),
    ignore: np.ndarray | None = None,
) -> tuple[int, int, bool]:
    """The click of a patient user: the middle of the larger error, as RITM's evaluation chooses it.

    The distance of every missed pixel to the border of the missed region, and of every leaked pixel to that of the
    leaked region (chamfer-free Euclidean, the image border counts as border); the largest distance wins, missed pixels
    need strictly more. Pixels clicked before are out of question (Sofiiuk et al. 2021, `isegm/inference/clicker.py`).

    Args:
        target, prediction: bool [H, W].
        taken: (row, column) of earlier clicks.
        ignore: bool [H, W], pixels that belong to neither.

    Returns:
        Row, column and whether the click is positive.
    """
    counted = np.ones(target.shape, dtype=bool) if ignore is None else ~ignore
    missed = distance_inside(target & ~prediction & counted)
    leaked = distance_inside(~target & prediction & counted)
    for row, column in taken:
        missed[row, column] = leaked[row, column] = 0
    positive = bool(missed.max() > leaked.max())
    distance = missed if positive else leaked
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    return int(row), int(column), positive


def distance_inside(mask: np.ndarray) -> np.ndarray:
    """Euclidean distance of every pixel of a bool [H, W] to the nearest pixel outside; the border is outside."""
    return np.asarray(ndimage.distance_transform_edt(np.pad(mask, 1)))[1:-1, 1:-1]


class ClickIoU(PerSample[list[float]]):
    """Keeps, of every object, its IoU after the first, second, … click.

    Args:
        clicks: Most that an object gets.
    """

    def __init__(self, clicks: int):
        super().__init__()
        self.clicks = clicks

    def update(self, sample_id: str, ious: Sequence[float]) -> None:
        """Adds an object: its IoU after each click. With fewer than `clicks` it was done, and keeps the last.

        Raises:
            ValueError: No value, too many, or one that is no IoU.
        """
        if not 1 <= len(ious) <= self.clicks:
            raise ValueError(f"ious: expected 1 to {self.clicks}, one a click, got {len(ious)} ({sample_id})")
        wrong = [iou for iou in ious if not 0 <= iou <= 1]
        if wrong:
            raise ValueError(f"ious: expected 0 to 1, got {wrong[0]} ({sample_id})")
        self.add(sample_id, list(ious))

    def compute(self) -> dict[str, float]:
        """`IoU@1` … `IoU@k`; NaN without objects."""
        rows = [ious + ious[-1:] * (self.clicks - len(ious)) for ious in self.ordered()]
        means = np.mean(rows, axis=0).tolist() if rows else [float("nan")] * self.clicks
        return {f"IoU@{count}": mean for count, mean in enumerate(means, start=1)}

    def clicks_needed(self, iou: float) -> list[int]:
        """Clicks of each object until `iou` is reached; `clicks` for one that never reaches it, as in RITM."""
        return [
            next((count for count, value in enumerate(ious, start=1) if value >= iou), self.clicks)
            for ious in self.ordered()
        ]

    def number_of_clicks(self, iou: float) -> float:
        """NoC: mean of `clicks_needed`; NaN without objects."""
        needed = self.clicks_needed(iou)
        return sum(needed) / len(needed) if needed else float("nan")
