"""AP of tracks: rules on tiny videos, equality with YTVOSeval's procedure written out, merging."""

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from omgvision.evaluation import run_lengths
from omgvision.evaluation.scores.video_average_precision import packed
from omgvision.evaluation.video_average_precision import AREAS, THRESHOLDS, Track, VideoAveragePrecision

Masks = list[np.ndarray | None]


def track(category: int, masks: Masks, *, score: float = 0.0, crowd: bool = False) -> Track:
    runs: list[Any] = [
        None if mask is None else coco_mask.encode(np.asarray(mask, np.uint8, order="F")) for mask in masks
    ]
    return Track(category, runs, score=score, is_crowd=crowd)


def box(width: int) -> np.ndarray:
    mask = np.zeros((10, 20), bool)
    mask[:, :width] = True
    return mask


def measured(detections: list[Track], truth: list[Track], **settings: Any) -> VideoAveragePrecision:
    metric = VideoAveragePrecision([1, 2], **settings)
    metric.update("1", detections, truth)
    return metric


def test_iou_is_summed_over_frames_before_it_is_divided():
    truth = track(1, [box(10), box(10), None])
    found = track(1, [box(10), box(5), box(2)], score=0.5)
    metric = measured([found], [truth])
    assert metric.records["1"].ious.tolist() == [[150 / 220]]
    numbers = metric.compute()
    # Right up to a threshold of 0.65.
    assert (numbers["AP"], numbers["AR1"]) == pytest.approx((0.4, 0.4))
    assert numbers["AP50"] == pytest.approx(1)
    assert numbers["AP75"] == 0
    assert numbers["APs"] == numbers["AP"]
    assert np.isnan(numbers["APl"])
    assert metric.per_category()[1] == numbers["AP"]
    assert np.isnan(metric.per_category()[2])


def test_categories_may_be_ignored():
    truth, found = [track(1, [box(10)])], [track(2, [box(10)], score=1)]
    assert measured(found, truth).compute()["AP"] == 0
    assert measured(found, truth, by_category=False).compute()["AP"] == pytest.approx(1)
    assert measured(found, truth, by_category=False).per_category() == {}
    assert measured([track(3, [box(10)], score=1)], truth).records["1"].scores.size == 0


def test_crowds_and_videos_without_truth():
    crowd = track(1, [box(10)], crowd=True)
    found = [track(1, [box(10)], score=score) for score in (0.9, 0.8)]
    assert np.isnan(measured(found, [crowd]).compute()["AP"])
    # Both detections fall on the crowd; the true track is found by the third.
    truth = [crowd, track(1, [box(20) & ~box(10)])]
    numbers = measured([*found, track(1, [box(20) & ~box(10)], score=0.1)], truth).compute()
    assert numbers["AP"] == pytest.approx(1)
    metric = measured([], [track(1, [box(10)])])
    assert metric.compute()["AP"] == 0
    metric.update("2", found, [])
    assert metric.compute()["AP"] == 0


def test_areas_of_the_json_count():
    truth = Track(1, track(1, [box(10)]).masks, areas=[300.0**2])
    numbers = measured([track(1, [box(10)], score=1)], [truth]).compute()
    assert numbers["APl"] == pytest.approx(1)
    assert np.isnan(numbers["APs"])


def test_faults_are_named():
    good = track(1, [box(10)])
    for found, message in (
        (track(1, [box(10)], score=float("nan")), "1: expected scores, got NaN"),
        (track(1, [box(10), None]), "expected tracks over 2 frames, got one over 1"),
        (track(1, [box(10)[1:]]), "expected masks of one size"),
    ):
        with pytest.raises(ValueError, match=message):
            measured([found], [good])


def random_video(seed: int) -> tuple[list[Track], list[Track]]:
    """Boxes that move: true ones, and detections near them or anywhere, with equal scores among them."""
    generator = np.random.default_rng(seed)

    def moving(start: np.ndarray, size: np.ndarray, frames: int = 4) -> Masks:
        masks: Masks = []
        for _ in range(frames):
            start = start + generator.integers(-3, 4, 2)
            mask = np.zeros((300, 320), bool)
            top, left = np.maximum(start, 0)
            mask[top : top + size[0], left : left + size[1]] = True
            masks.append(None if generator.random() < 0.2 else mask)
        return masks

    truth, found = [], []
    for _ in range(generator.integers(0, 5)):
        start, size = generator.integers(0, 60, 2), generator.integers(20, 300, 2)
        category = int(generator.integers(1, 3))
        truth.append(track(category, moving(start, size), crowd=bool(generator.random() < 0.2)))
        for _ in range(generator.integers(0, 4)):
            shift = generator.integers(-8, 9, 2)
            masks = moving(start + shift, size + generator.integers(-5, 6, 2))
            found.append(track(category, masks, score=round(float(generator.random()), 1)))
    for _ in range(3):
        masks = moving(generator.integers(0, 200, 2), generator.integers(5, 200, 2))
        found.append(track(int(generator.integers(1, 3)), masks, score=round(float(generator.random()), 1)))
    return found, truth


def pixels(tracks: list[Track]) -> list[np.ndarray]:
    empty = coco_mask.encode(np.zeros((300, 320), np.uint8, order="F"))
    decode: Any = coco_mask.decode
    return [decode([mask or empty for mask in one.masks]).astype(bool) for one in tracks]


def mean_area(masks: np.ndarray) -> float:
    areas = masks.sum((0, 1))
    return float(areas[areas > 0].mean()) if areas.any() else 0.0


def by_the_book(videos: list[tuple[list[Track], list[Track]]], area: np.ndarray) -> tuple[float, float]:
    """AP and AR100 over one range of areas: every threshold, detection and true track one after the other."""
    precisions, recalls = [], []
    prepared = []
    for found, truth in videos:
        masks, true_masks = pixels(found), pixels(truth)
        ious = [[(one & other).sum() / max((one | other).sum(), 1) for other in true_masks] for one in masks]
        prepared.append((found, list(map(mean_area, masks)), truth, list(map(mean_area, true_masks)), ious))
    for category in (1, 2):
        for threshold in THRESHOLDS:
            scores, hits, ignored, total = [], [], [], 0
            for found, areas, truth, true_areas, ious in prepared:
                rows = [row for row, one in enumerate(found) if one.category == category]
                rows.sort(key=lambda row: -found[row].score)
                columns = [column for column, one in enumerate(truth) if one.category == category]
                unwanted = {
                    column: truth[column].is_crowd or not area[0] <= true_areas[column] <= area[1] for column in columns
                }
                columns.sort(key=lambda column: unwanted[column])
                total += sum(not unwanted[column] for column in columns)
                taken: set[int] = set()
                for row in rows:
                    best, limit = None, threshold
                    for column in columns:
                        if column in taken and not truth[column].is_crowd:
                            continue
                        if best is not None and not unwanted[best] and unwanted[column]:
                            break
                        if ious[row][column] >= limit:
                            best, limit = column, ious[row][column]
                    if best is not None:
                        taken.add(best)
                    scores.append(found[row].score)
                    hits.append(best is not None)
                    outside = not area[0] <= areas[row] <= area[1]
                    ignored.append(unwanted[best] if best is not None else outside)
            if not total:
                continue
            order = np.argsort(-np.array(scores), kind="stable")
            counted = ~np.array(ignored, dtype=bool)[order]
            right = np.cumsum(np.array(hits, dtype=bool)[order] & counted)
            wrong = np.cumsum(~np.array(hits, dtype=bool)[order] & counted)
            recall, precision = right / total, right / np.maximum(right + wrong, 1)
            for level in np.linspace(0, 1, 101):
                precisions.append(max(precision[recall >= level], default=0.0))
            recalls.append(recall[-1] if len(recall) else 0.0)
    return (float(np.mean(precisions)), float(np.mean(recalls))) if recalls else (np.nan, np.nan)


def test_equal_to_the_procedure_written_out():
    videos = [random_video(seed) for seed in range(12)]
    metric = VideoAveragePrecision([1, 2])
    for number, (found, truth) in enumerate(videos):
        metric.update(str(number), found, truth)  # ten comes after nine
    numbers = metric.compute()
    for suffix, area in zip(("", "s", "m", "l"), AREAS, strict=True):
        expected = by_the_book(videos, area)
        assert (numbers[f"AP{suffix}"], numbers[f"AR{suffix or 100}"]) == pytest.approx(
            expected, abs=1e-12, nan_ok=True
        )


def test_shares_repeats_and_order_do_not_matter():
    videos = {str(seed): random_video(seed) for seed in range(4)}

    def of(names: str) -> VideoAveragePrecision:
        metric = VideoAveragePrecision([1, 2])
        for name in names:
            metric.update(name, *videos[name])
        return metric

    shares = of("313")
    shares.merge(of("201"))
    assert {key: repr(value) for key, value in shares.compute().items()} == {
        key: repr(value) for key, value in of("0123").compute().items()
    }


def test_masks_of_a_track_are_decoded_together(monkeypatch: pytest.MonkeyPatch):
    runs = {"size": [10, 20], "counts": track(1, [box(7)]).masks[0]["counts"].decode()}  # type: ignore[index]
    calls, original = [], run_lengths.decode_counts
    monkeypatch.setattr(run_lengths, "decode_counts", lambda texts: calls.append(len(texts)) or original(texts))
    masks = packed([runs, None, runs, runs], size=(10, 20))
    assert masks[1] is None
    assert [mask["counts"] for mask in masks if mask] == [runs["counts"].encode()] * 3
    assert calls == [3]
