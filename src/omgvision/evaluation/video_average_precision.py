"""Video instance segmentation: AP and AR of tracks, equal to YouTube-VIS' `YTVOSeval` (Yang et al. 2019).

The IoU of two tracks is the sum of their intersections over the sum of their unions in all frames. The rest is COCO's:
the best free true track for each detection in descending order of score, precision at 101 recalls, means over ten IoU
thresholds and the categories that occur. Sizes are mean areas over the frames where a track is to be seen: small up to
128² pixels, large from 256².

Letters: D detections, G true tracks, A ranges of area, S thresholds of IoU, K categories, R recalls.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from omgvision.evaluation.metric import PerSample
from omgvision.evaluation.run_lengths import mask_areas

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREAS = np.array([[0, 1e5**2], [0, 128**2], [128**2, 256**2], [256**2, 1e5**2]])
MOST = (1, 10, 100)
"""Detections of a video and category that count, for AR1, AR10 and everything else."""


@dataclass(frozen=True)
class Track:
    """An object in a video.

    Attributes:
        category: Category id.
        masks: Of each frame, pycocotools' run lengths ({"size", "counts"}, all of one size) or None where it is hidden.
        score: Of a detection.
        is_crowd: Ground truth only: finding it is neither right nor wrong.
        areas: Ground truth only: pixels in each frame as the json says, which YTVOSeval believes; None = of the masks.
    """

    category: int
    masks: Sequence[dict[str, Any] | None]
    score: float = 0.0
    is_crowd: bool = False
    areas: Sequence[float | None] | None = None


@dataclass(frozen=True)
class VideoTracks:
    """What is kept of a video, detections by category in ascending order, then as they came.

    Attributes:
        scores, categories, areas: Of the detections [D].
        true_categories, true_areas, crowds: Of the true tracks [G].
        ious: [D, G]; zero for different categories, if categories are compared.
    """

    scores: np.ndarray
    categories: np.ndarray
    areas: np.ndarray
    true_categories: np.ndarray
    true_areas: np.ndarray
    crowds: np.ndarray
    ious: np.ndarray


class VideoAveragePrecision(PerSample[VideoTracks]):
    """AP and AR over videos.

    Equal scores are ordered by video as in YTVOSeval: by ascending id, which is a number there.

    Args:
        categories: Ids of the categories; tracks of others are left out.
        by_category: False takes all categories for one.
    """

    def __init__(self, categories: Iterable[int], *, by_category: bool = True) -> None:
        super().__init__()
        self.categories, self.by_category = sorted(set(categories)), by_category

    def update(self, video_id: str, detections: Iterable[Track], truth: Iterable[Track]) -> None:
        """Adds a video: its detected and its true tracks.

        Raises:
            ValueError: A score that is no number, or tracks of different lengths or sizes.
        """
        if video_id in self.records:
            return
        found, true = self._known(detections), self._known(truth)
        lengths = sorted({len(track.masks) for track in (*found, *true)})
        if len(lengths) > 1:
            raise ValueError(f"{video_id}: expected tracks over {lengths[-1]} frames, got one over {lengths[0]}")
        sizes = {tuple(mask["size"]) for track in (*found, *true) for mask in track.masks if mask}
        if len(sizes) > 1:
            raise ValueError(f"{video_id}: expected masks of one size, got {' and '.join(map(str, sorted(sizes)))}")
        scores = np.array([track.score for track in found], dtype=np.float64)
        if np.isnan(scores).any():
            raise ValueError(f"{video_id}: expected scores, got NaN")
        areas, true_areas = _areas(found), _areas(true)
        record = VideoTracks(
            scores,
            np.array([track.category for track in found], np.int64),
            np.array([_mean_area(row) for row in areas]),
            np.array([track.category for track in true], np.int64),
            np.array(
                [
                    _mean_area(row if track.areas is None else track.areas)
                    for track, row in zip(true, true_areas, strict=True)
                ]
            ),
            np.array([track.is_crowd for track in true], dtype=bool),
            self._ious(found, areas, true, true_areas),
        )
        self.add(video_id, record)

    def _known(self, tracks: Iterable[Track]) -> list[Track]:
        """Of our categories, in their order: so the official tool has them when it does without categories."""
        return sorted(
            (track for track in tracks if track.category in self.categories), key=lambda track: track.category
        )

    def _ious(
        self, found: Sequence[Track], areas: np.ndarray, true: Sequence[Track], true_areas: np.ndarray
    ) -> np.ndarray:
        """[D, G]."""
        shared = np.zeros((len(found), len(true)))
        for category in self.categories if self.by_category else [None]:
            rows = [row for row, track in enumerate(found) if category in (None, track.category)]
            columns = [column for column, track in enumerate(true) if category in (None, track.category)]
            if not rows or not columns:
                continue
            for frame in range(len(found[rows[0]].masks)):
                seen = [row for row in rows if areas[row, frame]]
                there = [column for column in columns if true_areas[column, frame]]
                if not seen or not there:
                    continue
                masks: Any = [found[row].masks[frame] for row in seen]
                true_masks: Any = [true[column].masks[frame] for column in there]
                iou: Any = coco_mask.iou(masks, true_masks, [0] * len(there))
                both = areas[seen, frame][:, None] + true_areas[there, frame]
                # i / (a + b - i) solved for i, which is whole.
                shared[np.ix_(seen, there)] += np.round(iou * both / (1 + iou))
        union = areas.sum(1)[:, None] + true_areas.sum(1) - shared
        return np.divide(shared, union, out=np.zeros_like(union), where=union > 0)

    def compute(self) -> dict[str, float]:
        """COCO's twelve numbers; NaN where there is no true track (YTVOSeval says -1).

        `AP` over thresholds of 0.5 to 0.95, `AP50`, `AP75`, `APs`, `APm`, `APl`; recalls `AR1`, `AR10`, `AR100` with so
        many detections a video and category, `ARs`, `ARm`, `ARl`.
        """
        precision, recall = self._accumulate()
        numbers = {"AP": precision[:, 0], "AP50": precision[:, 0, 0], "AP75": precision[:, 0, 5]}
        numbers |= {f"AP{size}": precision[:, index] for index, size in enumerate("sml", start=1)}
        numbers |= {f"AR{most}": recall[:, 0, :, index] for index, most in enumerate(MOST)}
        numbers |= {f"AR{size}": recall[:, index, :, -1] for index, size in enumerate("sml", start=1)}
        return {name: _mean(values) for name, values in numbers.items()}

    def per_category(self) -> dict[int, float]:
        """Category id → AP; NaN for a category without a true track. Empty if categories are not compared."""
        if not self.by_category:
            return {}
        precision, _ = self._accumulate()
        return {category: _mean(row[0]) for category, row in zip(self.categories, precision, strict=True)}

    def _accumulate(self) -> tuple[np.ndarray, np.ndarray]:
        """Precision [K, A, S, R] and recall [K, A, S, 3 limits]; NaN without a true track."""
        records = [self.records[name] for name in sorted(self.records, key=_in_numbers)]
        groups = self.categories if self.by_category else [None]
        precision = np.full((len(groups), len(AREAS), len(THRESHOLDS), len(RECALLS)), np.nan)
        recall = np.full((len(groups), len(AREAS), len(THRESHOLDS), len(MOST)), np.nan)
        for index, category in enumerate(groups):
            matches = [_match(record, category) for record in records]
            matches = [match for match in matches if match is not None]
            if matches:
                precision[index], recall[index] = _curves(matches)
        return precision, recall


@dataclass(frozen=True)
class _Match:
    """Detections of one video and category, by descending score: hit and ignored [A, S, D]; true tracks counted [A]."""

    scores: np.ndarray
    hits: np.ndarray
    ignored: np.ndarray
    true: np.ndarray


def _match(record: VideoTracks, category: int | None) -> _Match | None:
    rows = np.arange(len(record.scores)) if category is None else np.flatnonzero(record.categories == category)
    columns = np.arange(len(record.crowds)) if category is None else np.flatnonzero(record.true_categories == category)
    if not rows.size and not columns.size:
        return None
    rows = rows[np.argsort(-record.scores[rows], kind="stable")][: MOST[-1]]
    ious, crowds = record.ious[np.ix_(rows, columns)], record.crowds[columns]
    small, large = AREAS[:, :1], AREAS[:, 1:]
    areas, true_areas = record.areas[rows], record.true_areas[columns]
    unwanted = crowds | (true_areas < small) | (true_areas > large)
    free = np.ones((len(AREAS), len(THRESHOLDS), len(columns)), dtype=bool)
    hits = np.zeros((len(AREAS), len(THRESHOLDS), len(rows)), dtype=bool)
    ignored = np.zeros_like(hits)
    least = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
    for row in np.flatnonzero((ious >= THRESHOLDS[0]).any(1)):
        possible = free & (ious[row] >= least)
        wanted = possible & ~unwanted[:, None]
        # A true track that does not count is only taken when no other will do.
        possible = np.where(wanted.any(-1, keepdims=True), wanted, possible)
        hit = possible.any(-1)
        # The last of equally good ones.
        best = len(columns) - 1 - np.argmax(np.where(possible, ious[row], -1)[..., ::-1], axis=-1)
        area, threshold = np.nonzero(hit)
        taken = best[area, threshold]
        hits[..., row] = hit
        ignored[area, threshold, row] = unwanted[area, taken]
        free[area, threshold, taken] = crowds[taken]
    outside = (areas < small) | (areas > large)
    ignored |= ~hits & outside[:, None]
    return _Match(record.scores[rows], hits, ignored, np.count_nonzero(~unwanted, axis=1))


def _curves(matches: Sequence[_Match]) -> tuple[np.ndarray, np.ndarray]:
    """Precision [A, S, R] and recall [A, S, 3 limits] of one category."""
    precision = np.full((len(AREAS), len(THRESHOLDS), len(RECALLS)), np.nan)
    recall = np.full((len(AREAS), len(THRESHOLDS), len(MOST)), np.nan)
    true = np.sum([match.true for match in matches], axis=0)
    for limit, most in enumerate(MOST):
        scores = np.concatenate([match.scores[:most] for match in matches])
        order = np.argsort(-scores, kind="stable")
        counted = ~np.concatenate([match.ignored[..., :most] for match in matches], axis=-1)[..., order]
        hits = np.concatenate([match.hits[..., :most] for match in matches], axis=-1)[..., order]
        right = np.cumsum(hits & counted, axis=-1).astype(np.float64)
        wrong = np.cumsum(~hits & counted, axis=-1)
        for area in np.flatnonzero(true):
            reached = right[area] / true[area]
            recall[area, :, limit] = reached[:, -1] if len(scores) else 0
            if most != MOST[-1]:
                continue
            exact = right[area] / (right[area] + wrong[area] + np.spacing(1))
            # The best precision at this recall or a higher one; 0 for recalls that are never reached.
            exact = np.maximum.accumulate(exact[:, ::-1], axis=-1)[:, ::-1]
            padded = np.pad(exact, ((0, 0), (0, 1)))
            for row, (values, recalls) in enumerate(zip(padded, reached, strict=True)):
                precision[area, row] = values[np.searchsorted(recalls, RECALLS, side="left")]
    return precision, recall


def _areas(tracks: Sequence[Track]) -> np.ndarray:
    """Pixels [tracks, frames]; 0 where hidden."""
    frames = max((len(track.masks) for track in tracks), default=0)
    pixels = np.zeros((len(tracks), frames))
    for row, track in zip(pixels, tracks, strict=True):
        seen = [frame for frame, mask in enumerate(track.masks) if mask]
        row[seen] = mask_areas([track.masks[frame] for frame in seen])
    return pixels


def _mean_area(areas: Iterable[float | None]) -> float:
    seen = [area for area in areas if area]
    return float(np.mean(seen)) if seen else 0.0


def _mean(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _in_numbers(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (-1, name)
