"""The best predictions that need no look at the picture: what a measured number has to beat.

Everything is fitted on training masks and boxes; the pixels of a picture are never used, its size is.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from omgvision.evaluation.click_iou import mask_iou, next_click

Point = tuple[float, float, bool]


class MajorityMap:
    """The most frequent class of each cell of a grid laid over the training label maps.

    Args:
        num_classes: Label values 0 … num_classes - 1 count, others do not.
        grid: Rows and columns.
    """

    def __init__(self, num_classes: int, *, grid: tuple[int, int] = (90, 120)):
        self.grid = grid
        self.counts = np.zeros((num_classes, *grid), dtype=np.int64)

    def add(self, labels: np.ndarray) -> None:
        """Counts a label map [H, W]."""
        small = resize_nearest(labels, self.grid)
        for label in range(len(self.counts)):
            self.counts[label] += small == label

    def predict(self, size: tuple[int, int]) -> np.ndarray:
        """Labels at (height, width)."""
        return resize_nearest(self.counts.argmax(0), size)


def resize_nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W] → `size`, the value at each new pixel's centre."""
    rows = ((np.arange(size[0]) + 0.5) * values.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * values.shape[1] / size[1]).astype(int)
    return values[rows[:, None], columns[None]]


def disk(size: tuple[int, int], x: float, y: float, radius: float) -> np.ndarray:
    """Bool [H, W]: pixels whose centre is at most `radius` from (x, y)."""
    rows, columns = np.ogrid[: size[0], : size[1]]
    return (rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2 <= radius**2


class Disks:
    """A disk around the first click; later clicks add or remove smaller disks.

    Args:
        first, later: Radii as shares of √(H·W); `later` may be 0.
    """

    def __init__(self, first: float, later: float = 0.0):
        self.first, self.later = first, later

    def predict(self, size: tuple[int, int], points: Sequence[Point]) -> np.ndarray:
        """Bool [H, W] after the clicks (x, y, positive)."""
        unit = float(np.sqrt(size[0] * size[1]))
        mask = np.zeros(size, dtype=bool)
        for number, (x, y, positive) in enumerate(points):
            mask[disk(size, x, y, unit * (self.later if number else self.first))] = positive
        return mask

    @classmethod
    def fit(cls, masks: Iterable[np.ndarray], *, clicks: int) -> "Disks":
        """The radii with the best mean IoU after the first and after the last click on training masks."""
        targets = [resize_nearest(mask, (max(8, mask.shape[0] // 4), max(8, mask.shape[1] // 4))) for mask in masks]
        targets = [target for target in targets if target.any()]
        radii = (*np.geomspace(0.02, 0.6, 16).tolist(), 2.0)
        first = max(radii, key=lambda radius: np.mean([simulate(cls(radius), target, 1)[-1] for target in targets]))
        some = targets[:: max(1, len(targets) // 100)]
        later = max(
            (0.0, *np.geomspace(0.01, 0.2, 6).tolist()),
            key=lambda radius: np.mean([simulate(cls(first, radius), target, clicks)[-1] for target in some]),
        )
        return cls(first, later)


def simulate(disks: Disks, target: np.ndarray, clicks: int) -> list[float]:
    """IoU after each of `clicks` simulated clicks."""
    points: list[Point] = []
    taken: list[tuple[int, int]] = []
    mask = np.zeros_like(target)
    ious = []
    for _ in range(clicks):
        row, column, positive = next_click(target, mask, taken=taken)
        taken.append((row, column))
        points.append((column + 0.5, row + 0.5, positive))
        mask = disks.predict(target.shape, points)
        ious.append(mask_iou(mask, target))
    return ious


def fill_box(size: tuple[int, int], box: Sequence[float], *, ellipse: bool) -> np.ndarray:
    """Bool [H, W]: the box x0, y0, x1, y1, or the ellipse that touches its sides."""
    x0, y0, x1, y1 = box
    rows, columns = np.ogrid[: size[0], : size[1]]
    across = (columns + 0.5 - (x0 + x1) / 2) / max((x1 - x0) / 2, 0.5)
    down = (rows + 0.5 - (y0 + y1) / 2) / max((y1 - y0) / 2, 0.5)
    return across**2 + down**2 <= 1 if ellipse else (abs(across) <= 1) & (abs(down) <= 1)


def ellipse_is_better(masks: Iterable[np.ndarray]) -> bool:
    """Whether, on training masks, the ellipse in the box has a better mean IoU than the box."""
    differences = [
        mask_iou(fill_box(mask.shape, box_of(mask), ellipse=True), mask)
        - mask_iou(fill_box(mask.shape, box_of(mask), ellipse=False), mask)
        for mask in masks
    ]
    return float(np.mean(differences)) > 0


def box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 around a bool [H, W] with at least one pixel; the far sides exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


class BoxPrior:
    """For every category one box: the median of its training boxes, as confident as the category is frequent."""

    def __init__(self) -> None:
        self.boxes: dict[int, list[tuple[float, float, float, float]]] = {}

    def add(self, category: int, box: Sequence[float], *, size: tuple[int, int]) -> None:
        """Counts a box x, y, width, height of an image of (height, width)."""
        x, y, width, height = box
        share = (x / size[1], y / size[0], (x + width) / size[1], (y + height) / size[0])
        self.boxes.setdefault(category, []).append(share)

    def predict(self, size: tuple[int, int]) -> list[tuple[int, float, np.ndarray]]:
        """Category, score and bool [H, W] of every category."""
        total = sum(map(len, self.boxes.values()))
        found = []
        for category, boxes in self.boxes.items():
            x0, y0, x1, y1 = np.median(boxes, axis=0)
            box = (x0 * size[1], y0 * size[0], x1 * size[1], y1 * size[0])
            found.append((category, len(boxes) / total, fill_box(size, box, ellipse=False)))
        return found


__all__ = [
    "BoxPrior",
    "Disks",
    "MajorityMap",
    "box_of",
    "disk",
    "ellipse_is_better",
    "fill_box",
    "resize_nearest",
]
