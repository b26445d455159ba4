"""Rendered videos with exact ground truth: the objects of rendered scenes move, under a camera that moves a little.

Objects glide, turn, grow and shrink, pass behind one another, leave the picture and come back. Every place is a closed
formula of time: any frame can be rendered at once, none needs the ones before, and a video has no end.

Canvas: the surfaces, larger than the picture by a margin. View: the part of it that the camera sees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from .camera import Swing, draw_camera, draw_swing
from .sample import Clip, Sample
from .synthetic import (
    MIN_VISIBLE_PART,
    MIN_VISIBLE_PIXELS,
    NAMES,
    THINGS,
    add_sensor_noise,
    blur,
    draw_light,
    to_bytes,
)
from .synthetic_objects import OBJECTS, Look, Pose, draw_object, paint
from .synthetic_surfaces import render_surfaces

# Parts of the picture's side. The canvas reaches beyond the picture by the margin; pan and roll stay inside of it.
_MARGIN = 0.15
_PAN = 0.1
_ZOOM = 0.16
_ROLL = 0.04
_SPEED = (0.002, 0.04)
"""Slowest and fastest an object passes its middle, in shorter sides of the picture a frame."""
_DURATION = 10_000
"""Frames from which clips are drawn."""
_FIXED, _FRAMES = range(2)
"""Streams of randomness: what holds for the whole video, and the noise of its frames."""


@dataclass(frozen=True)
class _Moving:
    """An object and its way over the canvas, in pixels and radians a frame; the size is the radius' logarithm."""

    look: Look
    x: Swing
    y: Swing
    size: Swing
    angle: float
    spin: float

    def pose(self, time: int) -> Pose:
        return Pose(self.x.at(time), self.y.at(time), np.exp(self.size.at(time)), self.angle + self.spin * time)


class SyntheticVideo:
    """A rendered video without end, frame by frame, in constant memory.

    Attributes:
        names, things: the vocabulary of `SyntheticScenes`.
        labels: int64 [N], of the objects, then of the surfaces; the same in all frames.
    """

    def __init__(
        self,
        *,
        seed: int | tuple[int, ...] = 0,
        size: tuple[int, int] = (240, 320),
        objects: int = 6,
        staying: int = 0,
        name: str = "synthetic-clips",
    ) -> None:
        """Args:
            seed: videos of different seeds have nothing in common.
            size: (height, width) in pixels.
            objects: how many there are, seen or not.
            staying: how many of them, the last ones, never leave the picture nor pass behind another.
            name: the dataset's short name.
        Raises:
            ValueError: a size under 32; fewer than no objects, or fewer than stay.
        """
        if min(size) < 32:
            raise ValueError(f"size: expected at least 32 pixels a side, got {size}")
        if not 0 <= staying <= objects:
            raise ValueError(f"staying: expected 0 to {objects} (objects), got {staying}")
        self.name, self.names, self.things = name, NAMES, THINGS
        self._seed = (seed,) if isinstance(seed, int) else seed
        self._size = size
        generator = np.random.default_rng((*self._seed, _FIXED))
        canvas = (round(size[0] * (1 + 2 * _MARGIN)), round(size[1] * (1 + 2 * _MARGIN)))
        pixels, parts, surfaces = render_surfaces(canvas, generator)
        self._surfaces = Image.fromarray(to_bytes(pixels))
        self._surface_numbers = Image.fromarray((parts + objects).astype(np.uint8))
        moves = float(generator.random() < 0.75)
        self._camera = draw_camera(
            size,
            canvas,
            generator,
            pan=_PAN * moves,
            speed=min(size) * _log_uniform(0.001, 0.01, generator),
            zoom=_ZOOM * moves,
            roll=_ROLL * moves,
        )
        self._objects: list[_Moving] = []
        for number in range(objects):
            kind = int(generator.integers(len(OBJECTS)))
            if self._objects and generator.random() < 0.25:
                # What looks alike is what a tracker confuses.
                kind = self._objects[generator.integers(number)].look.kind
            place = number - (objects - staying)
            self._objects.append(
                _draw_roaming(kind, size, canvas, generator)
                if place < 0
                else _draw_staying(kind, size, canvas, generator, place=place, places=staying)
            )
        kinds = [one.look.kind for one in self._objects] + [NAMES.index(surface) for surface in surfaces]
        self.labels = torch.tensor(kinds, dtype=torch.int64)
        self._light = draw_light(size, generator)
        self._noise = generator.uniform(2, 18) if generator.random() < 0.7 else 0.0
        self._blur = generator.uniform(0.3, 1.0) if generator.random() < 0.7 else 0.0

    def frame(self, index: int) -> Sample:
        """Frame `index` (0, 1, …): segment n is the same object or surface in every frame, empty where not seen.

        Raises:
            IndexError: a negative index.
        """
        return self.view(index)[0]

    def view(self, index: int) -> tuple[Sample, torch.Tensor]:
        """The frame, and how many pixels of the picture each object would fill if it were in front: int64 [N].

        Raises:
            IndexError: a negative index.
        """
        if index < 0:
            raise IndexError(f"frame: expected 0 or more, got {index}")
        pixels = self._camera.pixels(self._surfaces, index).astype(np.float32)
        segments = self._camera.labels(self._surface_numbers, index).astype(np.int16)
        full = torch.bincount(torch.from_numpy(segments).flatten().long(), minlength=len(self.labels) + 1)[1:]
        for number, one in enumerate(self._objects):
            full[number] = paint(
                one.look, self._see(one.pose(index), index), pixels=pixels, segments=segments, number=number + 1
            )
        pixels *= self._light
        if self._noise:
            add_sensor_noise(pixels, self._noise, np.random.default_rng((*self._seed, _FRAMES, index)))
        image = to_bytes(pixels)
        if self._blur:
            image = blur(image, self._blur)
        sample = Sample(
            image=torch.from_numpy(image).permute(2, 0, 1),
            segment_layers=torch.from_numpy(segments[None]),
            labels=self.labels,
            names=self.names,
            things=self.things,
            sample_id="-".join(map(str, (*self._seed, index))),
            dataset=self.name,
        )
        return sample, full

    def _see(self, pose: Pose, time: int) -> Pose:
        """A pose on the canvas as one in the picture."""
        x, y = self._camera.find(pose.x, pose.y, time)
        return Pose(x, y, pose.radius / self._camera.zoom.at(time), pose.angle - self._camera.roll.at(time))


class SyntheticClips:
    """A dataset of rendered videos, of which each item draws a clip.

    Attributes:
        names, things: the vocabulary of `SyntheticScenes`.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        size: tuple[int, int] = (240, 320),
        length: int = 10_000,
        frames: int = 2,
        interval: tuple[int, int] = (1, 10),
        objects: tuple[int, int] = (3, 9),
        name: str = "synthetic-clips",
    ) -> None:
        """Args:
            seed: videos of different seeds have nothing in common.
            size: (height, width) in pixels.
            length: number of videos.
            frames: how many make a clip.
            interval: nearest and farthest that neighbouring frames are apart; in one clip all are equally far.
            objects: fewest and most objects of a video; those hardly seen in any frame of a clip are left out of it.
            name: the dataset's short name.
        Raises:
            ValueError: a size under 32, a negative length, no frames, an empty range.
        """
        if min(size) < 32:
            raise ValueError(f"size: expected at least 32 pixels a side, got {size}")
        if length < 0:
            raise ValueError(f"length: expected 0 or more, got {length}")
        if frames < 1:
            raise ValueError(f"frames: expected 1 or more, got {frames}")
        if not 1 <= interval[0] <= interval[1]:
            raise ValueError(f"interval: expected 1 <= nearest <= farthest, got {interval}")
        if not 0 <= objects[0] <= objects[1]:
            raise ValueError(f"objects: expected 0 <= fewest <= most, got {objects}")
        self.name, self.names, self.things = name, NAMES, THINGS
        self._seed, self._size, self._length = seed, size, length
        self._frames, self._interval, self._objects = frames, interval, objects

    def __len__(self) -> int:
        return self._length

    def clip(self, index: int, generator: np.random.Generator) -> Clip:
        """Frames of video `index`; their times are drawn by `generator`, all else depends on (seed, index) only."""
        if not 0 <= index < self._length:
            raise IndexError(f"video {index} of {self._length}")
        objects = int(np.random.default_rng((self._seed, index)).integers(self._objects[0], self._objects[1] + 1))
        video = SyntheticVideo(seed=(self._seed, index), size=self._size, objects=objects, name=self.name)
        start = int(generator.integers(_DURATION))
        interval = int(generator.integers(self._interval[0], self._interval[1] + 1))
        views = [video.view(start + number * interval) for number in range(self._frames)]
        visible = torch.stack([frame.areas() for frame, _ in views])
        full = torch.stack([areas for _, areas in views])
        seen = ((visible >= MIN_VISIBLE_PIXELS) & (visible >= MIN_VISIBLE_PART * full)).any(0)
        # A surface is cut into pieces by what stands before it, not hidden.
        seen[objects:] = (visible[:, objects:] >= MIN_VISIBLE_PIXELS).any(0)
        return Clip(tuple(frame.keeping(seen) for frame, _ in views))


def _log_uniform(low: float, high: float, generator: np.random.Generator) -> float:
    return float(np.exp(generator.uniform(np.log(low), np.log(high))))


def _draw_roaming(kind: int, size: tuple[int, int], canvas: tuple[int, int], generator: np.random.Generator) -> _Moving:
    """An object whose way may lead out of the picture; one in five stands still on the canvas."""
    look, pose = draw_object(kind, canvas, generator)
    moves = float(generator.random() < 0.8)
    return _moving(look, pose, size, generator, reach=(0.7 * size[0] * moves, 0.7 * size[1] * moves), sway=0.3 * moves)


def _draw_staying(
    kind: int,
    size: tuple[int, int],
    canvas: tuple[int, int],
    generator: np.random.Generator,
    *,
    place: int,
    places: int,
) -> _Moving:
    """An object that keeps to its own column of the picture's inner part, wherever the camera looks."""
    look, pose = draw_object(kind, size, generator)
    column = size[1] * 0.7 / places
    radius = min(pose.radius, 0.3 * column, 0.2 * size[0])
    x = canvas[1] / 2 + (place + 0.5 - places / 2) * column
    home = Pose(x, canvas[0] / 2, radius, pose.angle)
    return _moving(look, home, size, generator, reach=(0.12 * size[0], 0.15 * column), sway=0.1)


def _moving(
    look: Look,
    home: Pose,
    size: tuple[int, int],
    generator: np.random.Generator,
    *,
    reach: tuple[float, float],
    sway: float,
) -> _Moving:
    """`reach`: (down, across), how far it goes in pixels; `sway`: of its size's logarithm; 0 keeps either."""
    speed = min(size) * _log_uniform(*_SPEED, generator)
    spin = generator.uniform(-0.08, 0.08) if sway and generator.random() < 0.6 else 0.0

    def way(middle: float, reach: float) -> Swing:
        amplitude, pace = generator.uniform(0.2, 1) * reach, speed * generator.uniform(0.3, 1)
        return draw_swing(middle, amplitude, speed=pace, generator=generator)

    return _Moving(
        look=look,
        x=way(home.x, reach[1]),
        y=way(home.y, reach[0]),
        size=draw_swing(float(np.log(home.radius)), sway, speed=0.02 * sway, generator=generator),
        angle=home.angle,
        spin=spin,
    )
