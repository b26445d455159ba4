"""Whoever segments videos, as `video_benchmarks` measures it: the tracker, and the baseline that it has to beat."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from scipy.optimize import linear_sum_assignment

from omgvision.predictor import Predictor
from omgvision.results import FrameStamp, Result, SegmentLabel
from omgvision.run_lengths import RunLengthMask

VideoTask = Literal["panoptic", "instance", "semantic"]


@dataclass(frozen=True)
class Words:
    """The vocabulary of a benchmark; arguments of `Predictor.segment` and `Predictor.track`."""

    classes: Sequence[str] | str
    things: Sequence[str] | None = None


class VideoSegmenter(Protocol):
    """Whoever is measured."""

    def segment(self, frames: Iterable[Image.Image], *, task: VideoTask, words: Words) -> Iterator[Result]:
        """A result for each frame of a video, in order; the ids of its segments are tracks."""
        ...

    def follow(self, frames: Iterable[Image.Image], *, first: np.ndarray) -> Iterator[np.ndarray]:
        """Objects 1 to n [H, W] of each frame, from those of the first frame."""
        ...


class TrackingSegmenter:
    """`Predictor.track`, frame by frame as it comes or in small clips."""

    def __init__(self, predictor: Predictor, *, clip_frames: int = 1) -> None:
        self.predictor, self.clip_frames = predictor, clip_frames

    def segment(self, frames: Iterable[Image.Image], *, task: VideoTask, words: Words) -> Iterator[Result]:
        return self.predictor.track(
            frames, task=task, classes=words.classes, things=words.things, clip_frames=self.clip_frames
        )

    def follow(self, frames: Iterable[Image.Image], *, first: np.ndarray) -> Iterator[np.ndarray]:
        masks = [first == number for number in range(1, int(first.max(initial=0)) + 1)]
        for result in self.predictor.track(frames, task="objects", masks=masks):
            yield result.label_map


class PerFrameSegmenter:
    """The baseline: every frame by itself; segments of neighbouring frames with enough overlap are one track.

    Args:
        predictor: of pictures.
        threshold: IoU from which a segment is that of the frame before; 0.3 is best on the train parts, a little
            better than 0.5.
    """

    def __init__(self, predictor: Predictor, *, threshold: float = 0.3) -> None:
        self.predictor, self.threshold = predictor, threshold

    def segment(self, frames: Iterable[Image.Image], *, task: VideoTask, words: Words) -> Iterator[Result]:
        linker = FrameLinker(self.threshold)
        for index, frame in enumerate(frames):
            result = self.predictor.segment(frame, task=task, classes=words.classes, things=words.things)
            yield result if task == "semantic" else linker.link(result, index)

    def follow(self, frames: Iterable[Image.Image], *, first: np.ndarray) -> Iterator[np.ndarray]:
        """Each object becomes the proposal that overlaps it best; without one it stays where it was."""
        masks = [first == number for number in range(1, int(first.max(initial=0)) + 1)]
        for index, frame in enumerate(frames):
            if index:
                found = [segment.mask for segment in self.predictor.segment(frame, task="everything").segments]
                for old, new in _pairs(overlap_shares(masks, found), self.threshold):
                    masks[old] = found[new]
            labels = np.zeros(first.shape, dtype=np.int64)
            for number, mask in enumerate(masks, start=1):
                labels[mask & (labels == 0)] = number
            yield labels


class FrameLinker:
    """Gives the segments of a frame the ids of those of the frame before.

    Countable segments of one class are paired so that the sum of their IoU is greatest.
    Stuff of one class is one track.

    Args:
        threshold: Least IoU of a pair.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._ids = 0
        self._stuff: dict[int | None, int] = {}
        self._before: list[tuple[int, int | None, np.ndarray]] = []

    def link(self, result: Result, index: int) -> Result:
        """The result of frame `index` with tracks for ids."""
        masks = [segment.mask for segment in result.segments]
        labels = [segment.label_id for segment in result.segments]
        shares = overlap_shares([mask for _, _, mask in self._before], masks)
        for row, (_, before, _) in enumerate(self._before):
            for column, (label, segment) in enumerate(zip(labels, result.segments, strict=True)):
                if label != before or not segment.is_thing:
                    shares[row, column] = 0
        ids = [0] * len(masks)
        for old, new in _pairs(shares, self.threshold):
            ids[new] = self._before[old][0]
        for place, segment in enumerate(result.segments):
            if not segment.is_thing and segment.label_id in self._stuff:
                ids[place] = self._stuff[segment.label_id]
            elif not ids[place]:
                self._ids += 1
                ids[place] = self._ids
                if not segment.is_thing:
                    self._stuff[segment.label_id] = self._ids
        self._before = list(zip(ids, labels, masks, strict=True))
        return Result.from_masks(
            masks,
            [SegmentLabel(segment.label_id, segment.score) for segment in result.segments],
            task=result.task,
            image=result.image,
            categories=result.categories,
            name=result.name,
            model_name=result.model_name,
            ids=ids,
            frame=FrameStamp(index, float(index)),
        )


def overlap_shares(old: Sequence[np.ndarray], new: Sequence[np.ndarray]) -> np.ndarray:
    """IoU [old, new] of masks bool [H, W]."""
    if not old or not new:
        return np.zeros((len(old), len(new)))
    first, second = ([RunLengthMask.encode(mask).to_coco() for mask in masks] for masks in (old, new))
    tools: Any = coco_mask  # its type stubs know only some of the inputs that it takes
    return np.asarray(tools.iou(first, second, [0] * len(second)))


def _pairs(shares: np.ndarray, threshold: float) -> Iterator[tuple[int, int]]:
    for old, new in zip(*linear_sum_assignment(-shares), strict=True):
        if shares[old, new] >= max(threshold, 1e-9):
            yield int(old), int(new)
