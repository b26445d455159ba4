"""Photographs as videos: a camera pans, zooms and rolls over each, so that real pixels get exact tracks.

What moves is the camera: objects leave the picture and come back, but none passes before another. Every time the same,
for evaluation; training draws its clips of photographs with `PseudoClips`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from .camera import draw_camera
from .sample import Sample, SampleDataset

# Shares of the photograph's sides for the view, and of the view's for its ways: 0.6 · (1 + 2 · 0.3 + 0.04) < 1.
_VIEW = 0.6
_PAN = 0.3
_ZOOM = 0.3
_ROLL = 0.04
_SPEED = (0.01, 0.04)
"""Slowest and fastest pan, in shorter sides of the view a frame."""


class PannedVideos:
    """A video of every picture of a dataset; video n depends on the seed, n and the picture only."""

    def __init__(self, dataset: SampleDataset, *, frames: int = 16, seed: int = 0) -> None:
        """Args:
            dataset: pictures with segments.
            frames: of every video.
            seed: videos of different seeds take other ways.
        Raises:
            ValueError: no frames.
        """
        if frames < 1:
            raise ValueError(f"frames: expected 1 or more, got {frames}")
        self._dataset, self._frames, self._seed = dataset, frames, seed

    def __len__(self) -> int:
        return len(self._dataset)

    def whole(self, index: int) -> Iterator[Sample]:
        """All frames of a video, one in memory at a time, with the segments that are seen in at least one of them.

        All have the same labels, so segment n is the same object throughout. Frames have 0.6 of the picture's sides.
        """
        sample = self._dataset[index]
        generator = np.random.default_rng((self._seed, index))
        height, width = sample.size
        size = (max(1, round(height * _VIEW)), max(1, round(width * _VIEW)))
        speed = min(size) * float(np.exp(generator.uniform(*np.log(_SPEED))))
        camera = draw_camera(size, sample.size, generator, pan=_PAN, speed=speed, zoom=_ZOOM, roll=_ROLL)
        picture = Image.fromarray(sample.image.permute(1, 2, 0).numpy())
        layers = [Image.fromarray(layer.numpy().astype(np.int32)) for layer in sample.segment_layers]

        def numbers(time: int) -> torch.Tensor:
            views = [camera.labels(layer, time).astype(np.int16) for layer in layers]
            return torch.from_numpy(np.stack(views))

        seen = torch.zeros(len(sample.labels), dtype=torch.bool)
        for time in range(self._frames):
            seen |= torch.bincount(numbers(time).flatten().long(), minlength=len(seen) + 1)[1:] > 0
        for time in range(self._frames):
            image = torch.from_numpy(camera.pixels(picture, time).copy()).permute(2, 0, 1)
            name = f"{sample.sample_id}-{time:03d}"
            yield replace(sample, image=image, segment_layers=numbers(time), sample_id=name).keeping(seen)
