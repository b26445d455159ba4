"""Clips: which frames of a video make one, and photographs in the place of videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .sample import Clip, SampleDataset, portrait_of


@dataclass(frozen=True)
class FrameSampling:
    """Frames at equal distances from a random start. The defaults are the original's.

    Attributes:
        frames: how many make a clip.
        interval: distance of neighbouring frames; 1 takes consecutive ones.
    """

    frames: int = 2
    interval: int = 2

    def __post_init__(self) -> None:
        if self.frames < 1 or self.interval < 1:
            raise ValueError(f"frame sampling: expected 1 or more, got {self.frames} frames every {self.interval}")

    @property
    def span(self) -> int:
        """Frames from the first of a clip to its last, both included; a reader leaves out shorter videos."""
        return 1 + (self.frames - 1) * self.interval

    def draw(self, length: int, generator: np.random.Generator) -> list[int]:
        """Numbers of the frames of one clip.

        Args:
            length: frames of the video.
            generator: draws the start, each possible one equally likely.
        Raises:
            ValueError: the video is shorter than `span`.
        """
        if length < self.span:
            raise ValueError(f"video: expected at least {self.span} frames, got {length}; leave it out of the dataset")
        start = int(generator.integers(length - self.span + 1))
        return list(range(start, start + self.span, self.interval))


class PseudoClips:
    """Photographs as clips that stand still: what moves is the crop, see `Augmentation.crops`.

    A photograph's copies share its memory.
    """

    def __init__(self, dataset: SampleDataset, *, frames: int = 2) -> None:
        if frames < 1:
            raise ValueError(f"frames: expected 1 or more, got {frames}")
        self._dataset, self._frames = dataset, frames

    def __len__(self) -> int:
        return len(self._dataset)

    @property
    def portrait(self) -> Sequence[bool] | None:
        return portrait_of(self._dataset)

    def clip(self, index: int, generator: np.random.Generator) -> Clip:
        return Clip((self._dataset[index],) * self._frames)
