"""Semantic segmentation of videos as VSPW's scripts measure it: mean IoU, and whether labels stay as they should.

Video consistency VC_n (Miao et al. 2021, "VSPW: A Large-scale Dataset for Video Scene Parsing in the Wild") is here
what `VC_perclip.py` computes, which made the published numbers: over every clip of n frames, the share of the pixels
with a constant true label whose predicted label is constant. It never compares prediction and truth, takes 255 for a
label and leaves out the last clip of every video.

Letters: K classes, H×W pixels, N pairs of classes that occur.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from omgvision.evaluation.metric import PerSample
from omgvision.evaluation.overlaps import overlaps

CLIPS = (8, 16)
"""Frames of VSPW's clips."""


@dataclass(frozen=True)
class VideoLabels:
    """What is kept of a video.

    Attributes:
        pairs: True class, predicted class and pixels [3, N].
        clips: Of each clip length the consistency of every clip; NaN where no true label is constant.
    """

    pairs: np.ndarray
    clips: tuple[np.ndarray, ...]


class VideoConsistency(PerSample[VideoLabels]):
    """mIoU, frequency-weighted IoU and video consistency over videos.

    Args:
        num_classes: K; true values of K and more are void.
        clips: Clip lengths in frames.
    """

    def __init__(self, num_classes: int, *, clips: Sequence[int] = CLIPS) -> None:
        super().__init__()
        self.num_classes, self.clips = num_classes, tuple(clips)

    def update(self, video_id: str, frames: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        """Adds a video.

        Args:
            frames: Predicted and true classes [H, W] of each frame, in order; read one by one.

        Raises:
            ValueError: Different sizes, or a prediction that is no class where the target is one.
        """
        if video_id in self.records:
            return
        steadiness = _Steadiness(self.clips)
        parts: list[np.ndarray] = [np.zeros((3, 0), np.int64)]
        for frame, (prediction, target) in enumerate(frames):
            classes, guesses, pixels = table = np.stack(overlaps(target, prediction))
            table = table[:, classes < self.num_classes]
            if table.size and table[1].max() >= self.num_classes:
                raise ValueError(
                    f"prediction: frame {frame} of {video_id}: expected classes 0 to {self.num_classes - 1}, "
                    f"got {table[1].max()}"
                )
            parts.append(table)
            steadiness.add(prediction, target)
        classes, guesses, pixels = np.concatenate(parts, axis=1)
        pairs, where = np.unique(classes << 32 | guesses, return_inverse=True)
        counts = np.bincount(where, weights=pixels, minlength=len(pairs)).astype(np.int64)
        # The official script takes one start too few.
        clips = tuple(np.array(values[:-1]) for values in steadiness.values)
        self.add(video_id, VideoLabels(np.stack([pairs >> 32, pairs & 0xFFFFFFFF, counts]), clips))

    def confusion(self, records: Iterable[VideoLabels] | None = None) -> np.ndarray:
        """Pixels [K, K] by true and predicted class, of all videos or of some."""
        total = np.zeros((self.num_classes, self.num_classes))
        for record in self.ordered() if records is None else records:
            classes, guesses, pixels = record.pairs
            total[classes, guesses] += pixels
        return total

    def per_class(self) -> np.ndarray:
        """IoU of each class [K]; NaN for a class without a true pixel."""
        return _ious(self.confusion())

    def per_video(self) -> dict[str, float]:
        """Video id → mIoU of it alone."""
        return {name: _mean(_ious(self.confusion([self.records[name]]))) for name in sorted(self.records)}

    def compute(self) -> dict[str, float]:
        """`mIoU` over the classes that occur, `FWIoU` weighted by their pixels, `pixel_accuracy`, `VC8`, `VC16`."""
        confusion = self.confusion()
        ious, total = _ious(confusion), confusion.sum()
        share = confusion.sum(1) / total if total else np.full(self.num_classes, np.nan)
        numbers = {
            "mIoU": _mean(ious),
            "FWIoU": float(np.sum(np.where(share > 0, share * ious, 0))) if total else float("nan"),
            "pixel_accuracy": float(np.diagonal(confusion).sum() / total) if total else float("nan"),
        }
        for index, length in enumerate(self.clips):
            values = [record.clips[index] for record in self.ordered()]
            numbers[f"VC{length}"] = _mean(np.concatenate([np.zeros(0), *values]))
        return numbers


class _Steadiness:
    """For how many frames each pixel has kept its label, frame by frame.

    Attributes:
        values: Of each clip length the consistency of every clip so far.
    """

    def __init__(self, clips: Sequence[int]) -> None:
        self.clips, self.values = clips, [[] for _ in clips]
        self._previous: list[np.ndarray] = []
        self._kept: list[np.ndarray] = []
        self._frame = 0

    def add(self, prediction: np.ndarray, target: np.ndarray) -> None:
        frames = [prediction, target]
        # More than the longest clip need not be told apart.
        limit = max(self.clips) - 1
        dtype = np.min_scalar_type(limit)
        if not self._previous:
            self._kept = [np.zeros(frame.shape, dtype) for frame in frames]
        for kept, now, before in zip(self._kept, frames, self._previous, strict=False):
            np.minimum(kept, limit - 1, out=kept)
            kept += 1
            kept *= (now == before).view(np.uint8)
        self._previous = frames
        guess, truth = self._kept
        both = np.minimum(guess, truth)
        for values, length in zip(self.values, self.clips, strict=True):
            if self._frame >= length - 1:
                constant = np.count_nonzero(truth >= length - 1)
                values.append(np.count_nonzero(both >= length - 1) / constant if constant else np.nan)
        self._frame += 1


def _ious(confusion: np.ndarray) -> np.ndarray:
    hits, truth = np.diagonal(confusion), confusion.sum(1)
    union = truth + confusion.sum(0) - hits
    return np.divide(hits, union, out=np.full(len(confusion), np.nan), where=truth > 0)


def _mean(values: np.ndarray) -> float:
    """Of those that are defined."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
