"""What readers of videos share: clips of a few frames, whole videos frame by frame, and frames as images.

Letters: L layers, H, W height and width.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..clips import FrameSampling
from ..sample import Clip, Sample
from .reading import Findings, read_rgb

PAIRS = FrameSampling()
"""Two frames with one between them: what the original was trained on, and readers draw unless told otherwise."""


@dataclass(frozen=True)
class Video(ABC):
    """One video: where its frames are, which objects it has, and how to read the annotation of a frame.

    Attributes:
        name: unique within the dataset.
        images: the folder that `files` are relative to.
        files: the frames that are there and annotated, in order of time.
        size: (height, width) of every frame in pixels.
        labels: of all objects, index into the dataset's names or -1. Object n is number n + 1 in every frame.
    """

    name: str
    images: Path
    files: Sequence[str]
    size: tuple[int, int]
    labels: Sequence[int]

    @abstractmethod
    def layers(self, frame: int) -> Tensor:
        """Int16 [L, H, W], see `Sample.segment_layers`; an object that is not seen in the frame has no pixels.

        Raises:
            ValueError: the annotation cannot be read, or does not fit the frame.
        """

    def occupied(self, frame: int) -> bool:
        """Whether the frame has an object, where the annotations tell without opening a file; else true."""
        return True


class VideoReader:
    """Annotated videos, one item a video, with clips drawn from them. Videos shorter than a clip are left out.

    `FrameSampling(1)` keeps all of them, which is what evaluation and `VideoFrames` want.

    Attributes:
        names, things, category_ids: the vocabulary; empty for class-agnostic data, whose labels are -1.
        videos: what the items are made of, in order.
        findings: what was left out, and why.
        portrait: for each video, whether it is higher than wide.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        *,
        name: str,
        names: tuple[str, ...],
        things: tuple[bool, ...],
        category_ids: tuple[int, ...],
        sampling: FrameSampling,
        findings: Findings,
        strict: bool,
    ) -> None:
        """Keeps the videos that are long enough and says what was left out.

        Raises:
            ValueError: nothing is left, or there is a fault and `strict`.
        """
        self.name, self.names, self.things, self.category_ids = name, names, things, category_ids
        self.sampling = sampling
        self.findings = findings
        self.videos = tuple(video for video in videos if len(video.files) >= sampling.span)
        for video in videos:
            if len(video.files) < sampling.span:
                told = f"{video.name} with {len(video.files)} of {sampling.span} frames"
                findings.note("videos that are shorter than a clip", told)
        findings.close(samples=len(self.videos), strict=strict)
        self.portrait = tuple(video.size[0] > video.size[1] for video in self.videos)

    def __len__(self) -> int:
        return len(self.videos)

    def subset(self, numbers: Sequence[int]) -> VideoReader:
        """The same reader with some of its videos."""
        part = copy.copy(self)
        part.videos = tuple(self.videos[number] for number in numbers)
        part.portrait = tuple(self.portrait[number] for number in numbers)
        return part

    def clip(self, index: int, generator: np.random.Generator) -> Clip:
        """Some frames of a video, as `sampling` draws them, with the objects that are seen in at least one of them.

        Raises:
            ValueError: a file cannot be read, or frames differ in size.
        """
        video = self.videos[index]
        drawn = self.sampling.draw(len(video.files), generator)
        return Clip(tuple(self._frame(video, frame) for frame in drawn)).with_areas_of_at_least(1)

    def whole(self, index: int) -> Iterator[Sample]:
        """All frames of a video, one in memory at a time, with the objects that are seen in at least one of them.

        All have the same labels, so segment n is the same object throughout. Annotations are read twice: which
        objects have pixels is known only at the end.

        Raises:
            ValueError: a file cannot be read, or frames differ in size.
        """
        video = self.videos[index]
        seen = torch.zeros(len(video.labels), dtype=torch.bool)
        for frame in range(len(video.files)):
            seen |= torch.bincount(video.layers(frame).flatten().long(), minlength=len(seen) + 1)[1:] > 0
        for frame in range(len(video.files)):
            yield self._frame(video, frame).keeping(seen)

    def frame(self, index: int, frame: int) -> Sample:
        """One frame of a video as an image, with what is seen in it.

        Raises:
            ValueError: a file cannot be read, or the frame is not of its video's size.
        """
        return self._frame(self.videos[index], frame).with_areas_of_at_least(1)

    def _frame(self, video: Video, frame: int) -> Sample:
        """With all objects of the video, seen or not."""
        file = video.files[frame]
        return Sample(
            image=read_rgb(video.images / file, size=video.size),
            segment_layers=video.layers(frame),
            labels=torch.tensor(video.labels, dtype=torch.int64),
            names=self.names,
            things=self.things,
            sample_id=str(Path(file).with_suffix("")),
            dataset=self.name,
        )


class VideoFrames:
    """The frames of videos, each an image of its own; frames that are known to have no object are left out.

    Its attributes are those of the `reader`, `portrait` is for each frame.
    """

    def __init__(self, reader: VideoReader, *, every: int = 1) -> None:
        """Args:
            reader: with `FrameSampling(1)`, or short videos are missing.
            every: take only every n-th frame of a video.
        Raises:
            ValueError: `every` is less than 1.
        """
        if every < 1:
            raise ValueError(f"every: expected 1 or more, got {every}")
        self.name, self.names, self.things = reader.name, reader.names, reader.things
        self.category_ids = reader.category_ids
        self.findings = reader.findings
        self._reader = reader
        self._items = [
            (index, frame)
            for index, video in enumerate(reader.videos)
            for frame in range(0, len(video.files), every)
            if video.occupied(frame)
        ]
        self.portrait = tuple(reader.portrait[index] for index, _ in self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Sample:
        return self._reader.frame(*self._items[index])
