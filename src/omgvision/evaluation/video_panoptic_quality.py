"""Video panoptic quality (Kim et al. 2020, "Video Panoptic Segmentation"), equal to VIPSeg's `eval_vpq_vspw.py`.

A segment of a window of frames is the tube of all its pixels there; tubes are matched as PQ matches segments. Windows
start at every frame. Pixels are counted once, frame by frame; windows of every size add up those small tables.

Letters: W window sizes, K categories, H×W pixels.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from omgvision.evaluation.metric import PerSample
from omgvision.evaluation.overlaps import overlaps
from omgvision.evaluation.panoptic_quality import SegmentLabel

VOID = 0
WINDOWS = (1, 2, 4, 6, 8)
"""Frames of VIPSeg's windows."""


@dataclass(frozen=True)
class PanopticFrame:
    """One frame of a video, as predicted or as it is.

    Attributes:
        ids: [H, W] segment ids, 0 to 2³¹ - 1, the same for a segment in all frames; 0 is void.
        segments: What each id of this frame is.
    """

    ids: np.ndarray
    segments: Mapping[int, SegmentLabel]


class Quality(NamedTuple):
    """Means over the categories that occur, and their number."""

    pq: float
    sq: float
    rq: float
    categories: int


class VideoPanopticQuality(PerSample[np.ndarray]):
    """VPQ over videos. A video shorter than a window adds nothing to it.

    The record of a video is [W, K, 4]: of each window size and category the sum of the IoU of the matches, matches,
    surplus tubes and missed tubes.

    Args:
        things: Category id → whether it is countable, for all categories.
        windows: Window sizes in frames.
    """

    def __init__(self, things: Mapping[int, bool], *, windows: Sequence[int] = WINDOWS) -> None:
        super().__init__()
        self.things, self.windows = dict(things), tuple(windows)
        self._index = {category: index for index, category in enumerate(self.things)}

    def update(self, video_id: str, frames: Iterable[tuple[PanopticFrame, PanopticFrame]]) -> None:
        """Adds a video.

        Args:
            frames: Prediction and target of each frame, in order; read one by one.

        Raises:
            ValueError: Different sizes, an unknown category, a predicted id that is not described or without a pixel.
        """
        if video_id in self.records:
            return
        pairs, targets, predictions = _Columns(4), _Columns(5), _Columns(5)
        length = 0
        for frame, (prediction, target) in enumerate(frames):
            where = f"frame {frame} of {video_id}"
            truths, guesses, pixels = overlaps(target.ids, prediction.ids)
            pairs.append(np.full_like(truths, frame), truths, guesses, pixels)
            areas = _areas(truths, pixels)
            labels = target.segments
            given = [areas.get(one, 0) if label.area is None else label.area for one, label in labels.items()]
            targets.append(*self._rows(frame, labels, given, f"target: {where}"))
            areas = _areas(guesses, pixels)
            labels = prediction.segments
            _check_described(areas, labels, f"prediction: {where}")
            predictions.append(*self._rows(frame, labels, [areas[one] for one in labels], f"prediction: {where}"))
            length = frame + 1
        tables = pairs.table(), targets.table(), predictions.table()
        counts = [self._window(*tables, size=size, length=length) for size in self.windows]
        self.add(video_id, np.stack(counts))

    def _rows(
        self, frame: int, segments: Mapping[int, SegmentLabel], areas: Sequence[int], where: str
    ) -> tuple[np.ndarray, ...]:
        """Frame, id, category, crowd and area of each segment."""
        for identity, label in segments.items():
            if label.category not in self._index:
                raise ValueError(f"{where}: segment {identity} has the unknown category {label.category}")
        rows = [
            (frame, identity, self._index[label.category], int(label.is_crowd), area)
            for (identity, label), area in zip(segments.items(), areas, strict=True)
        ]
        return tuple(np.array(rows, np.int64).reshape(-1, 5).T)

    def _window(
        self, pairs: np.ndarray, targets: np.ndarray, predictions: np.ndarray, *, size: int, length: int
    ) -> np.ndarray:
        """Counts [K, 4] of all windows of one size together, from the tables of the frames."""
        counts = np.zeros((len(self._index), 4))
        if length < size:
            return counts
        truth = _Tubes(targets, size=size, length=length)
        guess = _Tubes(predictions, size=size, length=length)
        starts, rows = _windows(pairs[0], size=size, length=length)
        columns, known = guess.find(starts, pairs[2][rows])  # the others are void
        starts, rows, columns = starts[known], rows[known], columns[known]
        # A tube belongs to one window, so that it and the target's id say which pairs of the frames belong together.
        keys, where = np.unique(columns << 32 | pairs[1][rows], return_inverse=True)
        pixels = np.bincount(where, weights=pairs[3][rows], minlength=len(keys))
        columns, truths = keys >> 32, keys & 0xFFFFFFFF
        starts = guess.keys[columns] >> 32

        # What lies on void counts neither in the union nor, as the larger part, as surplus.
        is_void = truths == VOID
        forgiven = np.bincount(columns[is_void], weights=pixels[is_void], minlength=len(guess.areas))
        rows, known = truth.find(starts, truths)
        rows, columns, pixels = rows[known], columns[known], pixels[known]

        same = truth.categories[rows] == guess.categories[columns]
        union = guess.areas[columns] + truth.areas[rows] - pixels - forgiven[columns]
        iou = np.divide(pixels, union, out=np.zeros(len(pixels)), where=union > 0)
        hit = same & ~truth.crowds[rows] & (iou > 0.5)
        missed = ~truth.crowds
        missed[rows[hit]] = False
        surplus = np.ones(len(guess.areas), dtype=bool)
        surplus[columns[hit]] = False
        on_crowd = same & truth.last_crowds()[rows]
        forgiven += np.bincount(columns[on_crowd], weights=pixels[on_crowd], minlength=len(guess.areas))
        surplus &= forgiven <= 0.5 * guess.areas

        categories = len(self._index)
        found = truth.categories[rows[hit]]
        counts[:, 0] = np.bincount(found, weights=iou[hit], minlength=categories)
        counts[:, 1] = np.bincount(found, minlength=categories)
        counts[:, 2] = np.bincount(guess.categories[surplus], minlength=categories)
        counts[:, 3] = np.bincount(truth.categories[missed], minlength=categories)
        return counts

    def totals(self) -> np.ndarray:
        """[W, K, 4]: sum of IoU, matches, surplus and missed tubes of each window size and category."""
        empty = np.zeros((len(self.windows), len(self._index), 4))
        return np.sum(self.ordered(), axis=0) if self.records else empty

    def per_category(self) -> dict[int, dict[int, tuple[float, float, float]]]:
        """Window size → category id → PQ, SQ, RQ; zeros for a category that does not occur."""
        return {
            size: dict(zip(self._index, map(tuple, _qualities(counts)[0].tolist()), strict=True))
            for size, counts in zip(self.windows, self.totals(), strict=True)
        }

    def per_window(self) -> dict[int, dict[str, Quality]]:
        """Window size → "", "_things", "_stuff" → the means over the categories of that kind that occur."""
        is_thing = np.array(list(self.things.values()), dtype=bool)
        kinds = {"": np.ones_like(is_thing), "_things": is_thing, "_stuff": ~is_thing}
        result: dict[int, dict[str, Quality]] = {}
        for size, counts in zip(self.windows, self.totals(), strict=True):
            qualities, occurs = _qualities(counts)
            result[size] = {}
            for suffix, kind in kinds.items():
                rows = qualities[kind & occurs]
                pq, sq, rq = rows.mean(0).tolist() if len(rows) else [float("nan")] * 3
                result[size][suffix] = Quality(pq, sq, rq, len(rows))
        return result

    def compute(self) -> dict[str, float]:
        """`VPQ`, the mean over the window sizes, and `VPQ@1` … of each size; all also with `_things` and `_stuff`."""
        windows = self.per_window()
        numbers: dict[str, float] = {}
        for suffix in ("", "_things", "_stuff"):
            numbers[f"VPQ{suffix}"] = float(np.mean([quality[suffix].pq for quality in windows.values()]))
        for size, quality in windows.items():
            numbers |= {f"VPQ@{size}{suffix}": quality[suffix].pq for suffix in quality}
        return numbers


class _Columns:
    """Rows of integers that arrive frame by frame."""

    def __init__(self, count: int) -> None:
        self.parts: list[list[np.ndarray]] = [[] for _ in range(count)]

    def append(self, *columns: np.ndarray) -> None:
        for part, column in zip(self.parts, columns, strict=True):
            part.append(column)

    def table(self) -> np.ndarray:
        """[columns, rows]."""
        return np.stack([np.concatenate([np.zeros(0, np.int64), *part]) for part in self.parts])


class _Tubes:
    """The tubes of all windows of one size, ordered by window and id.

    Args:
        table: Frame, id, category, crowd and area [5, rows], by frame, within a frame as described.
    """

    def __init__(self, table: np.ndarray, *, size: int, length: int) -> None:
        starts, rows = _windows(table[0], size=size, length=length)
        _, ids, categories, crowds, areas = table[:, rows]
        keys = starts << 32 | ids
        # A tube is what its first frame in the window says: rows are ordered by frame.
        self.keys, self.first, where = np.unique(keys, return_index=True, return_inverse=True)
        self.areas = np.bincount(where, weights=areas, minlength=len(self.keys))
        self.categories, self.crowds = categories[self.first], crowds[self.first].astype(bool)

    def find(self, starts: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position of the tubes of `ids` in the windows at `starts`, and whether there is one."""
        keys = starts << 32 | ids
        position = np.searchsorted(self.keys, keys)
        position[position == len(self.keys)] = 0
        return position, self.keys[position] == keys if len(self.keys) else np.zeros(len(keys), dtype=bool)

    def last_crowds(self) -> np.ndarray:
        """Of each window and category the last crowd, as the official tool keeps only that."""
        chosen: dict[tuple[int, int], int] = {}
        for row in sorted(np.flatnonzero(self.crowds).tolist(), key=lambda row: self.first[row]):
            chosen[int(self.keys[row] >> 32), int(self.categories[row])] = row
        last = np.zeros_like(self.crowds)
        last[list(chosen.values())] = True
        return last


def _windows(frames: np.ndarray, *, size: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The windows that each row's frame belongs to: starts and row numbers, by the place of the frame in the window."""
    starts = frames[None] - np.arange(size)[:, None]
    inside = (starts >= 0) & (starts <= length - size)
    return starts[inside], np.broadcast_to(np.arange(len(frames)), starts.shape)[inside]


def _areas(values: np.ndarray, pixels: np.ndarray) -> dict[int, int]:
    """Pixels of each value of one side of the pairs."""
    ids, where = np.unique(values, return_inverse=True)
    return dict(zip(ids.tolist(), np.bincount(where, weights=pixels).astype(int).tolist(), strict=True))


def _check_described(areas: Mapping[int, int], segments: Mapping[int, SegmentLabel], where: str) -> None:
    """The official tool stops at these as well."""
    for identity in areas:
        if identity != VOID and identity not in segments:
            raise ValueError(f"{where}: pixels with id {identity}, which is not described")
    for identity in segments:
        if identity not in areas:
            raise ValueError(f"{where}: segment {identity} is described, but no pixel has it")


def _qualities(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """PQ, SQ, RQ [K, 3], zeros where there is nothing, and which categories occur [K], from counts [K, 4]."""
    iou, matches, surplus, missed = counts.T
    weight = matches + 0.5 * surplus + 0.5 * missed
    empty = np.zeros_like(iou)
    ratios = [(iou, weight), (iou, matches), (matches, weight)]
    rows = [np.divide(above, below, out=empty.copy(), where=below > 0) for above, below in ratios]
    return np.stack(rows, axis=1), weight > 0
