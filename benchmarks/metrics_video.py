"""How long the metrics of videos take, beside the procedures of the official tools.

Of those tools the package index has TrackEval alone, which holds the code of davis2017-evaluation (J&F) and YTVOSeval
(IoU of tracks). The others' procedures are written out below, plainly: a pass over the pixels for every window, clip,
pair of tracks or object; so are those two, for where there is no TrackEval. It wants packages that ours do without, so
it is put beside them:

    pip install --no-deps --target OFFICIAL trackeval opencv-python-headless scikit-image lazy-loader
    PYTHONPATH=OFFICIAL python -m benchmarks.metrics video            # 100 frames of 720p; the others: --plain-frames
    PYTHONPATH=OFFICIAL python -m benchmarks.metrics video --quick    # tiny: shows that it runs, measures nothing

Both sides get the same label maps in memory, so nothing is read or decoded, and must find the same numbers. The maps
are regions with straight borders (nearest of some points) that move by a few pixels each frame; predictions have
borders that are off by some pixels, and some identities wrong. Seconds are those of the process, not of the wall, so
that other work on the machine counts little; both sides alternate.
"""

import argparse
import importlib
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from scipy import ndimage
from scipy.spatial import KDTree

from benchmarks.segment import machine
from omgvision.evaluation.davis import ObjectQuality
from omgvision.evaluation.panoptic_quality import SegmentLabel
from omgvision.evaluation.segmentation_tracking_quality import SegmentationTrackingQuality
from omgvision.evaluation.video_average_precision import Track, VideoAveragePrecision
from omgvision.evaluation.video_consistency import VideoConsistency
from omgvision.evaluation.video_panoptic_quality import WINDOWS, PanopticFrame, VideoPanopticQuality
from omgvision.output_files import write_json

try:
    official: Any = importlib.import_module("trackeval.metrics")
except ImportError:
    official = None

HERE = Path(__file__).parent
CATEGORIES = 20
CLIPS = (8, 16)
OBJECTS = 5


@dataclass(frozen=True)
class Videos:
    """Predicted and true segment ids [T, H, W], 1 to `segments`; category of an id: id mod 20, the first ten things."""

    guess: np.ndarray
    truth: np.ndarray
    segments: int

    def first(self, frames: int) -> "Videos":
        return Videos(self.guess[:frames], self.truth[:frames], self.segments)


def make_videos(frames: int, size: tuple[int, int], *, segments: int) -> Videos:
    generator = np.random.default_rng(0)
    pixels = np.stack([axis.ravel() for axis in np.indices(size)], axis=-1)
    points = generator.random((segments, 2)) * size
    truth, guess = (
        (KDTree(points + shift).query(pixels)[1] + 1).reshape(size).astype(np.uint32)
        for shift in (0, generator.normal(0, size[0] / 60, points.shape))
    )
    wrong = generator.random(segments + 1) < 0.1
    guess = np.where(wrong, np.roll(np.arange(segments + 1), 3), np.arange(segments + 1)).astype(np.uint32)[guess]
    guess[guess == 0] = 1
    moves = [(2 * frame, 3 * frame) for frame in range(frames)]
    guesses, truths = (np.stack([np.roll(one, move, (0, 1)) for move in moves]) for one in (guess, truth))
    return Videos(guesses, truths, segments)


THINGS = {category: category < CATEGORIES // 2 for category in range(CATEGORIES)}


def panoptic(videos: Videos) -> list[tuple[PanopticFrame, PanopticFrame]]:
    def frame(ids: np.ndarray) -> PanopticFrame:
        return PanopticFrame(ids, {one: SegmentLabel(one % CATEGORIES) for one in np.unique(ids).tolist()})

    return [(frame(guess), frame(truth)) for guess, truth in zip(videos.guess, videos.truth, strict=True)]


def objects(labels: np.ndarray) -> np.ndarray:
    """Five of the segments as objects."""
    return np.where(labels % 4 == 1, labels // 4 % OBJECTS + 1, 0).astype(np.uint8)


def tracks(ids: np.ndarray, *, score: bool) -> list[Track]:
    """Every segment over all frames."""
    found = []
    for identity in np.unique(ids).tolist():
        masks = [frame == identity for frame in ids]
        runs = [encoded(mask) if mask.any() else None for mask in masks]
        found.append(Track(identity % CATEGORIES, runs, score=1 / identity if score else 0.0))
    return found


def encoded(mask: np.ndarray) -> Any:
    return coco_mask.encode(np.asfortranarray(mask).view(np.uint8))


# The procedures of the official tools.


def plain_vpq(frames: list[tuple[PanopticFrame, PanopticFrame]]) -> dict[str, float]:
    """eval_vpq_vspw.py: every window's pixels are stacked and sorted. There is no void and no crowd here."""
    numbers = {}
    for size in WINDOWS:
        counts = np.zeros((CATEGORIES, 4))
        for start in range(len(frames) - size + 1):
            window = frames[start : start + size]
            guess, truth = (np.stack([pair[side].ids for pair in window]).astype(np.uint64) for side in range(2))
            areas: list[dict[int, int]] = []
            for maps in (guess, truth):
                ids, pixels = np.unique(maps, return_counts=True)
                areas.append(dict(zip(ids.tolist(), pixels.tolist(), strict=True)))
            pairs, pixels = np.unique(truth << np.uint64(24) | guess, return_counts=True)
            matched: tuple[set[int], set[int]] = (set(), set())
            for pair, shared in zip(pairs.tolist(), pixels.tolist(), strict=True):
                true, found = pair >> 24, pair % 2**24
                iou = shared / (areas[0][found] + areas[1][true] - shared)
                if true % CATEGORIES == found % CATEGORIES and iou > 0.5:
                    counts[true % CATEGORIES, :2] += iou, 1
                    matched[0].add(found)
                    matched[1].add(true)
            for side in range(2):
                for identity in areas[side].keys() - matched[side]:
                    counts[identity % CATEGORIES, 2 + side] += 1
        occurs = counts[:, 1:].any(1)
        iou, hits, surplus, missed = counts[occurs].T
        numbers[f"VPQ@{size}"] = float(np.mean(iou / (hits + 0.5 * surplus + 0.5 * missed)))
    return numbers


def plain_stq(frames: list[tuple[PanopticFrame, PanopticFrame]]) -> dict[str, float]:
    """deeplab2's: maps of classes and instances, then three sorted sets of pixels a frame. No void, no crowd."""
    confusion = np.zeros((CATEGORIES, CATEGORIES), np.int64)
    tubes: list[dict[int, int]] = [{}, {}, {}]
    things = [category for category, is_thing in THINGS.items() if is_thing]
    for pair in frames:
        classes, codes = [], []
        for frame in pair:
            category = np.zeros(frame.ids.shape, np.int64)
            for identity, label in frame.segments.items():
                category[frame.ids == identity] = label.category
            classes.append(category)
            codes.append(category << 16 | frame.ids)
        np.add.at(confusion, (classes[1].ravel(), classes[0].ravel()), 1)
        guess, truth = (np.isin(one, things) for one in classes)
        both = guess & truth
        for table, chosen in zip(
            tubes, (codes[0][guess], codes[1][truth], codes[1][both] << 24 | codes[0][both]), strict=True
        ):
            for code, pixels in zip(*(part.tolist() for part in np.unique(chosen, return_counts=True)), strict=True):
                table[code] = table.get(code, 0) + pixels
    guessed, true, shared = tubes
    association = 0.0
    for truth, area in true.items():
        for guess, guessed_area in guessed.items():
            overlap = shared.get(truth << 24 | guess, 0)
            association += overlap / area * overlap / (area + guessed_area - overlap)
    hits, union = np.diagonal(confusion), confusion.sum(0) + confusion.sum(1) - np.diagonal(confusion)
    return {"AQ": association / len(true), "SQ": float(np.mean(hits[union > 0] / union[union > 0]))}


def plain_vspw(frames: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """VC_perclip.py: every clip's frames are compared with its first; a confusion matrix of every frame's pixels."""
    confusion = np.zeros((CATEGORIES, CATEGORIES))
    for guess, truth in frames:
        codes = CATEGORIES * truth.astype(int) + guess
        confusion += np.bincount(codes.ravel(), minlength=CATEGORIES**2).reshape(CATEGORIES, CATEGORIES)
    hits = np.diagonal(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hits
    numbers = {"mIoU": float(np.mean((hits / np.maximum(union, 1))[confusion.sum(1) > 0]))}
    for length in CLIPS:
        values = []
        for start in range(len(frames) - length):
            steady = [np.ones(frames[0][0].shape, bool) for _ in range(2)]
            for offset in range(1, length):
                for side in range(2):
                    steady[side] &= frames[start][side] == frames[start + offset][side]
            values.append((steady[0] & steady[1]).sum() / (steady[1].sum() or np.nan))
        numbers[f"VC{length}"] = float(np.nanmean(values))
    return numbers


def plain_ious(detections: list[Track], truth: list[Track]) -> list[list[float]]:
    """YTVOSeval's: two merges for every frame of every pair of one category, which is most of its time."""
    tools: Any = coco_mask
    rows = []
    for found in sorted(detections, key=lambda track: track.category):
        row = []
        for true in sorted(truth, key=lambda track: track.category):
            shared = union = 0.0
            if found.category == true.category:
                for one, other in zip(found.masks, true.masks, strict=True):
                    if one and other:
                        shared += tools.area(tools.merge([one, other], True))
                        union += tools.area(tools.merge([one, other], False))
                    elif one or other:
                        union += tools.area(one or other)
            row.append(float(shared / union) if union else 0.0)
        rows.append(row)
    return rows


def plain_davis(frames: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """davis2017-evaluation: object by object, on full masks."""
    region, boundary = [], []
    for number in range(1, OBJECTS + 1):
        for guess, truth in frames[1:-1]:
            one, other = guess == number, truth == number
            union = (one | other).sum()
            region.append((one & other).sum() / union if union else 1.0)
            boundary.append(plain_f(one, other))
    return {"J": float(np.mean(region)), "F": float(np.mean(boundary))}


def plain_f(guess: np.ndarray, truth: np.ndarray) -> float:
    radius = math.ceil(0.008 * np.linalg.norm(guess.shape))
    edges = []
    for mask in (guess, truth):
        padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
        edges.append((mask ^ padded[:-1, 1:]) | (mask ^ padded[1:, :-1]) | (mask ^ padded[1:, 1:]))
    lengths = [edge.sum() for edge in edges]
    if not all(lengths):
        return float(not any(lengths))
    near = [np.asarray(ndimage.distance_transform_edt(~edge)) <= radius for edge in edges]
    precision, recall = (edges[0] & near[1]).sum() / lengths[0], (edges[1] & near[0]).sum() / lengths[1]
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def official_ious(detections: list[Track], truth: list[Track]) -> list[list[float]]:
    """TrackEval's IoU, of pairs of one category."""
    iou = official.TrackMAP._compute_mask_track_iou
    found, true = (
        [(track.category, dict(enumerate(track.masks))) for track in sorted(tracks, key=lambda track: track.category)]
        for tracks in (detections, truth)
    )
    return [
        [float(iou(masks, others)) if category == other else 0.0 for other, others in true] for category, masks in found
    ]


def official_davis(frames: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """TrackEval's J and F, which take run lengths."""
    numbers, counted = range(OBJECTS), frames[1:-1]
    guess, truth = ([[encoded(pair[side] == one + 1) for one in numbers] for pair in counted] for side in range(2))
    ids = [list(numbers)] * len(counted)
    data = {"num_timesteps": len(counted), "num_tracker_ids": OBJECTS, "num_gt_ids": OBJECTS}
    data |= {"tracker_dets": guess, "gt_dets": truth, "tracker_ids": ids, "gt_ids": ids}
    found = official.JAndF().eval_sequence(data)
    return {"J": float(found["J-Mean"]), "F": float(found["F-Mean"])}


def our_vpq(frames: list[tuple[PanopticFrame, PanopticFrame]]) -> dict[str, float]:
    metric = VideoPanopticQuality(THINGS)
    metric.update("video", frames)
    return metric.compute()


def our_stq(frames: list[tuple[PanopticFrame, PanopticFrame]]) -> dict[str, float]:
    metric = SegmentationTrackingQuality(THINGS)
    metric.update("video", frames)
    return metric.compute()


def our_vspw(frames: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    metric = VideoConsistency(CATEGORIES, clips=CLIPS)
    metric.update("video", frames)
    return metric.compute()


def our_ious(detections: list[Track], truth: list[Track]) -> list[list[float]]:
    metric = VideoAveragePrecision(THINGS)
    metric.update("video", detections, truth)
    metric.compute()
    return metric.records["video"].ious.tolist()


def our_davis(frames: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    metric = ObjectQuality()
    metric.update("video", frames)
    return metric.compute()


@dataclass(frozen=True)
class Case:
    """A metric: what it is given, made from videos, and the ways; `official` is TrackEval's, if it has one."""

    prepare: Callable[[Videos], tuple[Any, ...]]
    ours: Callable[..., Any]
    plain: Callable[..., Any]
    official: Callable[..., Any] | None = None


def _pairs(of: Callable[[np.ndarray], np.ndarray]) -> Callable[[Videos], tuple[Any, ...]]:
    return lambda videos: (list(zip(of(videos.guess), of(videos.truth), strict=True)),)


CASES = {
    "VPQ": Case(lambda videos: (panoptic(videos),), our_vpq, plain_vpq),
    "STQ": Case(lambda videos: (panoptic(videos),), our_stq, plain_stq),
    "VSPW": Case(_pairs(lambda ids: (ids % CATEGORIES).astype(np.uint8)), our_vspw, plain_vspw),
    "YouTube-VIS": Case(
        lambda videos: (tracks(videos.guess, score=True), tracks(videos.truth, score=False)),
        our_ious,
        plain_ious,
        official_ious,
    ),
    "J&F": Case(_pairs(objects), our_davis, plain_davis, official_davis),
}


def seconds(function: Callable[..., Any], given: tuple[Any, ...]) -> tuple[float, Any]:
    begin = time.process_time()
    result = function(*given)
    return time.process_time() - begin, result


def check(ours: Any, plain: Any) -> None:
    """Both find the same."""
    if isinstance(plain, dict):
        ours, plain = [ours[name] for name in plain], list(plain.values())
    np.testing.assert_allclose(ours, plain, atol=1e-9, rtol=0)


def measure(videos: Videos, *, plain_frames: int, repeats: int) -> dict[str, Any]:
    """{metric: seconds a frame of both, of ours also over the whole video, and their ratio}; "plain" is the other."""
    report: dict[str, Any] = {}
    frames = len(videos.truth)
    for name, case in CASES.items():
        whole, some = case.prepare(videos), case.prepare(videos.first(plain_frames))
        other = case.plain if official is None or case.official is None else case.official
        runs: dict[str, list[float]] = {"ours": [], "plain": [], "whole": []}
        for _ in range(repeats):
            elapsed, ours = seconds(case.ours, some)
            runs["ours"].append(elapsed / plain_frames)
            elapsed, plain = seconds(other, some)
            runs["plain"].append(elapsed / plain_frames)
            runs["whole"].append(seconds(case.ours, whole)[0] / frames)
            check(ours, plain)
        medians = {key: statistics.median(values) for key, values in runs.items()}
        by = "written out" if other is case.plain else "TrackEval"
        report[name] = {**medians, "ratio": medians["plain"] / medians["ours"], "plain is": by, "runs": runs}
        ours, plain = (1e3 * medians[key] for key in ("ours", "plain"))
        print(f"{name:12s} ours {ours:7.2f} ms a frame, plain {plain:8.2f} ({by})", flush=True)
    return report


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Seconds a frame of the metrics of videos, beside the plain way.")
    parser.add_argument("--quick", action="store_true", help="tiny: shows that everything runs")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--plain-frames", type=int, default=20, help="frames on which both are timed")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="JSON file; benchmarks/results/metrics_video.json unless --quick")
    options = parser.parse_args(arguments)
    if options.quick:
        frames, plain_frames, size, repeats = 20, 18, (72, 128), 1
    else:
        frames, plain_frames, size, repeats = options.frames, options.plain_frames, (720, 1280), options.repeats
    report = {
        "command": "python -m benchmarks.metrics video" + (" --quick" if options.quick else ""),
        "machine": machine(),
        "size": list(size),
        "frames": frames,
        "plain_frames": plain_frames,
        "repeats": repeats,
        "seconds_a_frame": measure(
            make_videos(frames, size, segments=60), plain_frames=min(plain_frames, frames), repeats=repeats
        ),
    }
    output = options.output or (None if options.quick else HERE / "results" / "metrics_video.json")
    if output is not None:
        write_json(output, report)
        print(f"wrote {output}")


if __name__ == "__main__":
    main()
