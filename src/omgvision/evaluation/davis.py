"""Video object segmentation of DAVIS (Perazzi et al. 2016, Pont-Tuset et al. 2017), equal to davis2017-evaluation.

J is the IoU of an object's mask in a frame. F is the F-measure of its boundary. Precision is the share of the predicted
boundary's pixels that are at most r from the true boundary, recall is the reverse; r is 0.8 % of the diagonal. All
objects of a frame are measured at once: object k is bit k - 1 of one map, so that boundaries and their neighbourhoods
are a few bit operations on that map.

Letters: H×W pixels, G true objects, P predicted objects, T frames that count, N pixels of boundaries.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from omgvision.evaluation.metric import PerSample
from omgvision.evaluation.overlaps import overlaps

VOID = 255
"""True label of pixels that do not count."""
MAX_PROPOSALS = 20
"""Of the unsupervised protocol."""
MAX_OBJECTS = 64
"""As many as there are bits."""
BOUNDARY_SHARE = 0.008

Protocol = Literal["semi-supervised", "unsupervised"]


@dataclass(frozen=True)
class ObjectScores:
    """What is kept of a video: `region` (J) and `boundary` (F) of each object in each frame that counts, [G, T]."""

    region: np.ndarray
    boundary: np.ndarray


class ObjectQuality(PerSample[ObjectScores]):
    """J and F over the objects of videos.

    Args:
        protocol: "semi-supervised" compares equal labels and leaves out the first frame, which is given, and the last.
            "unsupervised" takes up to 20 proposals and pairs them with the objects so that J&F is best (Caelles et al.
            2019, "The 2019 DAVIS Challenge on VOS"); objects are then numbered by their proposals, as the official
            tool does it.
    """

    def __init__(self, protocol: Protocol = "semi-supervised") -> None:
        super().__init__()
        self.protocol: Protocol = protocol

    def update(self, video_id: str, frames: Iterable[tuple[np.ndarray | None, np.ndarray]]) -> None:
        """Adds a video.

        Args:
            frames: Predicted and true labels [H, W] of every frame, in order, read one by one: 0 background, 1 to n
                objects, 255 void in the truth. As many objects count as the first frame's largest label says. The
                prediction may be None in frames that do not count.

        Raises:
            ValueError: Different sizes, no prediction, or more labels than the protocol allows.
        """
        if video_id in self.records:
            return
        frames = iter(frames)
        first = next(frames, None)
        if first is None:
            raise ValueError(f"{video_id}: expected frames, got none")
        objects = int(np.max(first[1], where=first[1] != VOID, initial=0))
        if objects > MAX_OBJECTS:
            raise ValueError(f"target: {video_id}: expected at most {MAX_OBJECTS} objects, got {objects}")
        semi = self.protocol == "semi-supervised"
        limit = objects if semi else MAX_PROPOSALS
        counted = (frame for frame, _ in pairwise(frames)) if semi else chain([first], frames)
        proposals = 0
        tables: list[tuple[np.ndarray, np.ndarray]] = []
        for number, (prediction, target) in enumerate(counted, start=int(semi)):
            where = f"frame {number} of {video_id}"
            if prediction is None:
                raise ValueError(f"prediction: {where}: expected one, got none")
            largest = int(prediction.max(initial=0))
            if largest > limit:
                raise ValueError(f"prediction: {where}: expected labels up to {limit}, got {largest}")
            proposals = max(proposals, largest)
            tables.append(_compare(prediction, target, objects=objects, proposals=max(objects, limit)))
        if not tables:
            raise ValueError(f"{video_id}: expected three frames or more, got fewer")
        region, boundary = (np.stack(part, axis=-1) for part in zip(*tables, strict=True))
        if semi:
            chosen = np.arange(objects), np.arange(objects)
        else:
            # Without a proposal an object may still do well where it is not to be seen, so their number matters.
            means = (region.mean(-1) + boundary.mean(-1)) / 2
            chosen = linear_sum_assignment(-means[: max(proposals, objects)])
        self.add(video_id, ObjectScores(region[chosen], boundary[chosen]))

    def per_object(self) -> dict[str, dict[str, float]]:
        """ "video_1" → `J`, `J-Recall`, `J-Decay`, `F`, `F-Recall`, `F-Decay` of that object."""
        return {
            f"{video}_{number}": _statistics("J", region) | _statistics("F", boundary)
            for video in sorted(self.records)
            for number, (region, boundary) in enumerate(
                zip(self.records[video].region, self.records[video].boundary, strict=True), start=1
            )
        }

    def compute(self) -> dict[str, float]:
        """`J&F`, and means over the objects of all videos of what `per_object` says; NaN without objects."""
        objects = list(self.per_object().values())
        names = [f"{letter}{what}" for letter in "JF" for what in ("", "-Recall", "-Decay")]
        means = {name: float(np.mean([one[name] for one in objects])) if objects else math.nan for name in names}
        return {"J&F": (means["J"] + means["F"]) / 2} | means


def _statistics(letter: str, values: np.ndarray) -> dict[str, float]:
    """Mean, share of frames over one half, and mean of the first quarter minus that of the last, of values [T]."""
    bounds = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    first, last = values[: bounds[1] + 1], values[bounds[3] : bounds[4] + 1]
    return {
        letter: float(values.mean()),
        f"{letter}-Recall": float((values > 0.5).mean()),
        f"{letter}-Decay": float(first.mean() - last.mean()),
    }


def _compare(
    prediction: np.ndarray, target: np.ndarray, *, objects: int, proposals: int
) -> tuple[np.ndarray, np.ndarray]:
    """J and F of each predicted with each true object of a frame, [P, G] each."""
    truths, guesses, pixels = overlaps(target, prediction)
    counted = truths != VOID
    # Objects that the first frame does not show are background.
    truths = np.where(truths <= objects, truths, 0)
    table = np.zeros((proposals + 1, objects + 1))
    np.add.at(table, (guesses[counted], truths[counted]), pixels[counted])
    shared = table[1:, 1:]
    union = table.sum(1)[1:, None] + table.sum(0)[None, 1:] - shared
    region = np.divide(shared, union, out=np.ones_like(union), where=union > 0)

    if not counted.all():
        prediction, target = (np.where(target == VOID, 0, labels) for labels in (prediction, target))
    dtype = np.min_scalar_type((1 << max(objects, proposals, 1)) - 1)
    guess, truth = _find_boundaries(prediction, proposals, dtype), _find_boundaries(target, objects, dtype)
    radius = math.ceil(BOUNDARY_SHARE * np.linalg.norm(target.shape))
    guessed, true = _unpack(guess.bits, proposals), _unpack(truth.bits, objects)
    near_truth = guessed.T @ _unpack(_near(guess, truth, radius), objects)
    near_guess = true.T @ _unpack(_near(truth, guess, radius), proposals)
    return region, _f_measure(near_truth, guessed.sum(0)[:, None], near_guess.T, true.sum(0)[None])


@dataclass(frozen=True)
class _Boundaries:
    """Of all objects of a frame: where there are any, and a bit for each object there; [N] each."""

    rows: np.ndarray
    columns: np.ndarray
    bits: np.ndarray


def _find_boundaries(labels: np.ndarray, count: int, dtype: np.dtype) -> _Boundaries:
    """Where an object (1 to `count`) differs from its right, lower or lower right neighbour, as in `_seg2bmap`."""
    changes = np.zeros(labels.shape, dtype=bool)
    changes[:, :-1] = labels[:, :-1] != labels[:, 1:]
    changes[:-1] |= labels[:-1] != labels[1:]
    changes[:-1, :-1] |= labels[:-1, :-1] != labels[1:, 1:]
    rows, columns = np.divmod(np.flatnonzero(changes), labels.shape[1])
    bits = np.zeros(max(int(labels.max(initial=0)), count) + 1, dtype)
    bits[1 : count + 1] = np.left_shift(np.ones(count, dtype), np.arange(count, dtype=dtype))
    lower, right = (np.minimum(place + 1, size - 1) for place, size in zip((rows, columns), labels.shape, strict=True))
    own, *others = (
        bits.take(labels[place]) for place in ((rows, columns), (rows, right), (lower, columns), (lower, right))
    )
    edges = (own ^ others[0]) | (own ^ others[1]) | (own ^ others[2])
    kept = edges != 0
    return _Boundaries(rows[kept], columns[kept], edges[kept])


def _near(points: _Boundaries, others: _Boundaries, radius: int) -> np.ndarray:
    """The bits of all `others` that are at most `radius` from each of the points [N]."""
    if not points.bits.size or not others.bits.size:
        return np.zeros_like(points.bits)
    # Nothing is asked outside of where the points are.
    top, left = points.rows.min() - radius, points.columns.min() - radius
    height, width = points.rows.max() + radius + 1 - top, points.columns.max() + radius + 1 - left
    planes = np.zeros((height, width), points.bits.dtype)
    rows, columns = others.rows - top, others.columns - left
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    planes[rows[inside], columns[inside]] = others.bits[inside]
    return dilate(planes, radius)[points.rows - top, points.columns - left]


def dilate(planes: np.ndarray, radius: int) -> np.ndarray:
    """Every bit of [H, W] spread over a disk of `radius` pixels (Euclidean, including its edge).

    A disk is a stack of rows. A row of any length is two overlapping rows of a power of two, and those double.
    """
    height, width = planes.shape
    doubled = [np.pad(planes, ((0, 0), (radius, radius)))]
    while 2 ** len(doubled) <= 2 * radius + 1:
        last, half = doubled[-1], 2 ** (len(doubled) - 1)
        longer = last.copy()
        longer[:, :-half] |= last[:, half:]
        doubled.append(longer)
    spread = np.zeros_like(planes)
    for offset in range(min(radius, height - 1) + 1):
        reach = math.isqrt(radius**2 - offset**2)
        power = (2 * reach + 1).bit_length() - 1
        left, right = radius - reach, radius + reach + 1 - 2**power
        row = doubled[power][:, left : left + width] | doubled[power][:, right : right + width]
        spread[offset:] |= row[: height - offset]
        if offset:
            spread[:-offset] |= row[offset:]
    return spread


def _unpack(values: np.ndarray, count: int) -> np.ndarray:
    """Bits of [N] as float32 [N, count]: sums are exact up to 2²⁴ pixels."""
    return (values[:, None] >> np.arange(count, dtype=values.dtype) & 1).astype(np.float32)


def _f_measure(near_truth: np.ndarray, guessed: np.ndarray, near_guess: np.ndarray, true: np.ndarray) -> np.ndarray:
    """2 p r / (p + r), [P, G]; 1 where there is neither boundary."""
    guessed, true = np.broadcast_arrays(guessed.astype(np.float64), true.astype(np.float64))
    precision = np.divide(near_truth, guessed, out=np.zeros_like(guessed), where=guessed > 0)
    recall = np.divide(near_guess, true, out=np.zeros_like(true), where=true > 0)
    total = precision + recall
    measure = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    measure[(guessed == 0) & (true == 0)] = 1
    return measure
