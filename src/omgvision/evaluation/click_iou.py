"""Interactive segmentation: how good a mask is after one, two, three simulated clicks."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage


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


class ClickIoU:
    """Mean IoU after the first, second, … click, over objects.

    Args:
        clicks: Longest sequence that is kept.
    """

    def __init__(self, clicks: int):
        self.clicks = clicks
        self.ious: list[list[float]] = []

    def update(self, ious: Sequence[float]) -> None:
        """Adds an object: its IoU after each click.

        Raises:
            ValueError: Not one value a click.
        """
        if len(ious) != self.clicks:
            raise ValueError(f"ious: expected one for each of {self.clicks} clicks, got {len(ious)}")
        self.ious.append(list(ious))

    def compute(self) -> dict[str, float]:
        """`IoU@1` … `IoU@k`; NaN without objects."""
        if not self.ious:
            return {f"IoU@{count}": float("nan") for count in range(1, self.clicks + 1)}
        means = np.asarray(self.ious).mean(0)
        return {f"IoU@{count}": float(mean) for count, mean in enumerate(means, start=1)}

    def number_of_clicks(self, iou: float) -> float:
        """Mean number of clicks until `iou` is reached; an object that never reaches it counts `clicks` (NoC)."""
        needed = [
            next((count for count, value in enumerate(one, start=1) if value >= iou), self.clicks) for one in self.ious
        ]
        return float(np.mean(needed))
