"""The held-out numbers of weights on videos, beside the same weights on every frame by itself.

    python -m omgvision.evaluation.video_benchmarks --data shared/data --weights FOLDER --out docs/results/video.json

One command makes the file from which docs take their table. A video is gone through once a task, frame by frame.
"""

import argparse
import itertools
import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from omgvision.data import CocoPanoptic, FrameSampling, MaskFolder, PannedVideos, SyntheticVideo, YouTubeVis
from omgvision.data.sample import Sample
from omgvision.data.synthetic import NAMES, THINGS
from omgvision.evaluation.card_numbers import evenly
from omgvision.evaluation.davis import ObjectQuality
from omgvision.evaluation.evaluate import picture
from omgvision.evaluation.identity_switches import IdentitySwitches
from omgvision.evaluation.machine import machine
from omgvision.evaluation.panoptic_quality import SegmentLabel
from omgvision.evaluation.segmentation_tracking_quality import SegmentationTrackingQuality
from omgvision.evaluation.video_average_precision import Track, VideoAveragePrecision
from omgvision.evaluation.video_consistency import VideoConsistency
from omgvision.evaluation.video_panoptic_quality import PanopticFrame, VideoPanopticQuality
from omgvision.evaluation.video_segmenters import PerFrameSegmenter, TrackingSegmenter, VideoSegmenter, Words
from omgvision.hub import load
from omgvision.output_files import write_json
from omgvision.results import Result
from omgvision.run_lengths import RunLengthMask

logger = logging.getLogger(__name__)

CLIP_FRAMES = 4
"""Of the small clips whose quality is measured."""
PHOTOGRAPH_FRAMES = 16
RENDERED_VIDEOS, RENDERED_FRAMES = 24, 32
RENDERED_SEED = 1_000_000
"""Rendered videos of training have smaller seeds."""
MIN_SHARE = 0.002
"""Objects that fill less of the first frame are not followed."""
VOID = 255


@dataclass(frozen=True)
class AnnotatedVideo:
    """A video that can be gone through more than once.

    Attributes:
        frames: goes through it; all samples have the same labels, so that segment n is one object throughout.
    """

    name: str
    frames: Callable[[], Iterator[Sample]]


@dataclass(frozen=True)
class VideoSet:
    """Videos of one vocabulary.

    Attributes:
        names, things: what the labels of the samples mean.
        words: how a segmenter is asked for them, in the same order.
    """

    title: str
    videos: Sequence[AnnotatedVideo]
    names: tuple[str, ...]
    things: tuple[bool, ...]
    words: Words

    def part(self, limit: int | None) -> "VideoSet":
        """At most `limit` of the videos, spread evenly."""
        return VideoSet(self.title, evenly(self.videos, limit), self.names, self.things, self.words)


Measure = Callable[[VideoSegmenter, VideoSet], dict[str, float]]
"""Numbers of one task, with `videos` and `frames` they were measured on."""


# -------------------------------------------------------------------------------------------------- the sets of videos


def photographs(data: Path) -> VideoSet:
    """A camera over the val photographs of COCO panoptic."""
    coco = CocoPanoptic(data / "coco_mini" / "panoptic_val.json", images=data / "coco_mini" / "images")
    panned = PannedVideos(coco, frames=PHOTOGRAPH_FRAMES)
    videos = [AnnotatedVideo(f"{index:03d}", partial(panned.whole, index)) for index in range(len(panned))]
    return VideoSet("camera over COCO val photographs", videos, coco.names, coco.things, Words("coco"))


def rendered() -> VideoSet:
    """Moving objects that cover one another, leave and return."""
    videos = [AnnotatedVideo(f"{index:03d}", partial(_render, index)) for index in range(RENDERED_VIDEOS)]
    words = Words(NAMES, [name for name, thing in zip(NAMES, THINGS, strict=True) if thing])
    return VideoSet("rendered videos", videos, NAMES, THINGS, words)


def _render(index: int) -> Iterator[Sample]:
    video = SyntheticVideo(seed=RENDERED_SEED + index)
    return (video.frame(time) for time in range(0, 2 * RENDERED_FRAMES, 2))


def davis(data: Path, part: str = "val") -> VideoSet:
    """DAVIS 2016, the classes read off the names of its videos."""
    folder = data / "davis2016_mini"
    reader = YouTubeVis(
        folder / f"instances_{part}.json", images=folder / "JPEGImages", sampling=FrameSampling(1), strict=True
    )
    videos = [AnnotatedVideo(video.name, partial(reader.whole, index)) for index, video in enumerate(reader.videos)]
    return VideoSet(f"DAVIS 2016 {part}", videos, reader.names, reader.things, Words(reader.names, reader.names))


def camvid(data: Path) -> VideoSet:
    """The val drive of CamVid, a frame a second, as one video."""
    folder = data / "camvid"
    classes = json.loads((folder / "classes.json").read_text(encoding="utf-8"))
    frames = MaskFolder(
        folder / "images" / "val",
        masks=folder / "labels" / "val",
        classes=classes["classes"],
        things=classes["things"],
        void=classes["void"],
        name="camvid",
    )
    drive = AnnotatedVideo("0016E5", lambda: (frames[index] for index in range(len(frames))))
    return VideoSet("CamVid val, one frame a second", [drive], frames.names, frames.things, Words("camvid"))


# ------------------------------------------------------------------------------------------------------------ measures


def panoptic(segmenter: VideoSegmenter, given: VideoSet) -> dict[str, float]:
    """VPQ, STQ and identity switches."""
    things = dict(enumerate(given.things))
    metrics = (VideoPanopticQuality(things), SegmentationTrackingQuality(things), IdentitySwitches(things))
    frames = 0
    for video in given.videos:
        results = partial(segmenter.segment, task="panoptic", words=given.words)
        pairs = [(predicted_frame(result), true_frame(sample)) for sample, result in _side_by_side(video, results)]
        for metric in metrics:
            metric.update(video.name, pairs)
        frames += len(pairs)
    numbers: dict[str, float] = {"videos": len(given.videos), "frames": frames}
    for metric in metrics:
        numbers |= metric.compute()
    return numbers


def instances(segmenter: VideoSegmenter, given: VideoSet) -> dict[str, float]:
    """AP of tracks."""
    things = [label for label, thing in enumerate(given.things) if thing]
    metric = VideoAveragePrecision(things)
    frames = 0
    for number, video in enumerate(given.videos):
        results, samples = [], []
        for sample, result in _side_by_side(video, partial(segmenter.segment, task="instance", words=given.words)):
            # Of both only what tracks are made of: pixels of many frames would fill the memory.
            results.append([(one.id, one.label_id, one.score, RunLengthMask.encode(one.mask)) for one in result])
            samples.append((sample.labels.tolist(), [RunLengthMask.encode(mask) for mask in sample.masks.numpy()]))
        metric.update(str(number), predicted_tracks(results), true_tracks(samples))
        frames += len(results)
    return {"videos": len(given.videos), "frames": frames, **metric.compute()}


def semantic(segmenter: VideoSegmenter, given: VideoSet) -> dict[str, float]:
    """mIoU and video consistency."""
    metric = VideoConsistency(len(given.names))
    frames = 0
    for video in given.videos:
        results = partial(segmenter.segment, task="semantic", words=given.words)
        pairs = [(result.semantic_map(), true_classes(sample)) for sample, result in _side_by_side(video, results)]
        metric.update(video.name, pairs)
        frames += len(pairs)
    return {"videos": len(given.videos), "frames": frames, **metric.compute()}


def objects(segmenter: VideoSegmenter, given: VideoSet) -> dict[str, float]:
    """J and F of the countable objects of the first frame, whose masks are given."""
    metric = ObjectQuality("semi-supervised")
    videos = frames = followed = 0
    for video in given.videos:
        first = next(video.frames())
        thing = np.array([given.things[label] for label in first.labels.tolist()], dtype=bool)
        chosen = np.flatnonzero(thing & (first.areas().numpy() >= MIN_SHARE * math.prod(first.size)))
        if not chosen.size:
            continue
        numbers = np.zeros(len(thing) + 1, dtype=np.int64)
        numbers[chosen + 1] = np.arange(1, len(chosen) + 1)
        targets = (numbers[_only_layer(sample)] for sample in video.frames())
        results = segmenter.follow(map(picture, video.frames()), first=numbers[_only_layer(first)])
        pairs = list(zip(results, targets, strict=True))
        metric.update(video.name, pairs)
        videos, frames, followed = videos + 1, frames + len(pairs), followed + len(chosen)
    return {"videos": videos, "frames": frames, "objects": followed, **metric.compute()}


def _side_by_side(
    video: AnnotatedVideo, results: Callable[[Iterable[Image.Image]], Iterator[Result]]
) -> Iterator[tuple[Sample, Result]]:
    """Each frame's truth and result; the segmenter is given the pictures one by one."""
    samples, seen = itertools.tee(video.frames())
    return zip(samples, results(map(picture, seen)), strict=True)


# --------------------------------------------------------------------------------- results and samples as metrics want


def predicted_frame(result: Result) -> PanopticFrame:
    """A panoptic result; its label ids are the categories."""
    found = np.unique(result.label_map)
    labels = {one.id: SegmentLabel(one.label_id) for one in result if one.label_id is not None and one.id in found}
    return PanopticFrame(result.label_map, labels)


def true_frame(sample: Sample) -> PanopticFrame:
    """Segment n is id n + 1; pixels of none are void."""
    labels = sample.labels.tolist()
    seen = torch.nonzero(sample.areas()).flatten().tolist()
    return PanopticFrame(_only_layer(sample), {number + 1: SegmentLabel(labels[number]) for number in seen})


def true_classes(sample: Sample) -> np.ndarray:
    """Label of each pixel [H, W], `VOID` where there is none."""
    return np.append(VOID, sample.labels.numpy())[_only_layer(sample)]


def predicted_tracks(
    frames: Sequence[Sequence[tuple[int, int | None, float | None, RunLengthMask]]],
) -> Iterator[Track]:
    """Tracks from the id, label, score and mask of every segment of every frame.

    A track has the class that the sum of its scores favours, and for a score their mean over the frames where it is.
    """
    seen: dict[int, dict[int, tuple[int, float, RunLengthMask]]] = {}
    for time, segments in enumerate(frames):
        for identity, label, score, mask in segments:
            assert label is not None
            seen.setdefault(identity, {})[time] = (label, score or 0.0, mask)
    for track in seen.values():
        votes: Counter[int] = Counter()
        for label, score, _ in track.values():
            votes[label] += score  # pyright: ignore[reportArgumentType]
        masks = [track[time][2].to_coco() if time in track else None for time in range(len(frames))]
        yield Track(votes.most_common(1)[0][0], masks, score=sum(score for _, score, _ in track.values()) / len(track))


def true_tracks(frames: Sequence[tuple[Sequence[int], Sequence[RunLengthMask]]]) -> Iterator[Track]:
    """Tracks from the labels, the same in every frame, and the masks."""
    for number, label in enumerate(frames[0][0]):
        masks = [masks[number] for _, masks in frames]
        if label >= 0 and any(mask.area for mask in masks):
            yield Track(label, [mask.to_coco() if mask.area else None for mask in masks])


def _only_layer(sample: Sample) -> np.ndarray:
    assert len(sample.segment_layers) == 1, f"{sample.sample_id}: segments overlap"
    return sample.segment_layers[0].numpy()


# ---------------------------------------------------------------------------------------------------------- the report


@dataclass(frozen=True)
class Step:
    """One measure on one set.

    Attributes:
        rows: that it gives: what to call a number, its name, whether it is a count.
        in_clips: whether small clips are measured, too.
    """

    given: VideoSet
    measure: Measure
    rows: Sequence[tuple[str, str, bool]]
    in_clips: bool = False


def steps(data: Path) -> dict[str, Step]:
    """Everything that is measured."""
    on_photographs, on_davis = photographs(data), davis(data)
    tracks = [
        ("VPQ", "VPQ", False),
        ("VPQ, things", "VPQ_things", False),
        ("STQ", "STQ", False),
        ("identity switches", "switches", True),
        ("frames in which an object is followed", "followed", False),
        ("identity switches of objects seen throughout", "switches_throughout", True),
        ("frames in which those are followed", "followed_throughout", False),
    ]
    precision = [("track AP", "AP", False), ("track AP50", "AP50", False)]
    masks = [("J&F", "J&F", False), ("J", "J", False), ("F", "F", False)]
    labels = [("mIoU", "mIoU", False), ("mVC8", "VC8", False), ("mVC16", "VC16", False)]
    # The countable classes come first in both lists of COCO.
    countable = VideoSet(
        on_photographs.title, on_photographs.videos, on_photographs.names, on_photographs.things, Words("coco-things")
    )
    return {
        "photographs panoptic": Step(on_photographs, panoptic, tracks, in_clips=True),
        # Videos of 16 frames are too short for VC16.
        "photographs semantic": Step(on_photographs, semantic, labels[:2]),
        "photographs instances": Step(countable, instances, precision),
        "rendered panoptic": Step(rendered(), panoptic, tracks, in_clips=True),
        "rendered semantic": Step(rendered(), semantic, labels),
        "rendered objects": Step(rendered(), objects, masks),
        "davis instances": Step(on_davis, instances, precision, in_clips=True),
        "davis objects": Step(on_davis, objects, masks),
        "camvid semantic": Step(camvid(data), semantic, labels, in_clips=True),
    }


def measure(weights: str, chosen: Mapping[str, Step], *, limit: int | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name of each chosen step, and its numbers by who made them."""
    predictor = load(weights)
    segmenters: dict[str, VideoSegmenter] = {
        "tracked": TrackingSegmenter(predictor),
        "per_frame": PerFrameSegmenter(predictor),
        "clips": TrackingSegmenter(predictor, clip_frames=CLIP_FRAMES),
    }
    for name, step in chosen.items():
        found = {}
        for who, segmenter in segmenters.items():
            if who == "clips" and not step.in_clips:
                continue
            numbers = step.measure(segmenter, step.given.part(limit))
            found[who] = {key: _number(value) for key, value in numbers.items()}
            logger.info("%s, %s: %s", name, who, found[who])
        yield name, found


def report(numbers: Mapping[str, Mapping[str, Mapping[str, float]]], every: Mapping[str, Step]) -> dict[str, Any]:
    """What the table is made from: a row for each number that is shown.

    Args:
        numbers: By step and by who made them.
        every: The steps, in the order of the rows.
    """
    rows = [
        {
            "metric": metric,
            "data": step.given.title,
            "is_count": is_count,
            "videos": int(numbers[name]["tracked"]["videos"]),
            "frames": int(numbers[name]["tracked"]["frames"]),
            **{who: found[key] for who, found in numbers[name].items()},
        }
        for name, step in every.items()
        if name in numbers
        for metric, key, is_count in step.rows
    ]
    return {
        "rows": rows,
        "note": (
            "Val parts of the data sets, never trained on. Frame by frame: the same weights on every frame by itself, "
            "segments of neighbouring frames joined where they have one class and an IoU of 0.3 (best on the train "
            "parts); for J&F, of all proposals the one that overlaps the object of the frame before best. The masks of "
            "the first frame are given for J&F. An object is followed where a countable segment has an IoU of more "
            "than 0.5 with it, whatever word that has."
        ),
        "clip_frames": CLIP_FRAMES,
        "numbers": numbers,
        "machine": machine(),
    }


def _number(value: float) -> float:
    """Tables hold numbers; a mean over nothing is zero there."""
    return 0.0 if math.isnan(value) else round(value, 6)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--weights", default="omg-seg-nano", help="as omg.load takes them")
    parser.add_argument("--only", action="append", help="measure this step, keep the others of the file; repeatable")
    parser.add_argument("--limit", type=int, help="at most so many videos of each set")
    parser.add_argument("--out", type=Path, required=True, help="result file, written after every step")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    every = steps(options.data)
    unknown = sorted(set(options.only or ()) - set(every))
    if unknown:
        parser.error(f"--only: expected some of {', '.join(every)}; got {unknown[0]}")
    numbers: dict[str, dict[str, Any]] = {}
    if options.only and options.out.exists():
        numbers = json.loads(options.out.read_text(encoding="utf-8"))["numbers"]
    chosen = {name: step for name, step in every.items() if name in (options.only or every)}
    for name, found in measure(options.weights, chosen, limit=options.limit):
        numbers[name] = found
        write_json(options.out, report(numbers, every))


if __name__ == "__main__":
    main()
