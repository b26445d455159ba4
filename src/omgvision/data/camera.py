"""A camera that looks at a part of a larger picture, the canvas, and moves smoothly: a view is a formula of time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Swing:
    """Forth and back around a middle, smoothly: `middle + amplitude · sin(pace · time + phase)`."""

    middle: float
    amplitude: float
    pace: float
    phase: float

    def at(self, time: int) -> float:
        return self.middle + self.amplitude * np.sin(self.pace * time + self.phase)


def draw_swing(middle: float, amplitude: float, *, speed: float, generator: np.random.Generator) -> Swing:
    """A swing that passes its middle at `speed` a frame, beginning anywhere on its way."""
    return Swing(middle, amplitude, speed / amplitude if amplitude else 0.0, generator.uniform(0, 2 * np.pi))


@dataclass(frozen=True)
class Camera:
    """What is seen of the canvas in each frame.

    Attributes:
        size: (height, width) of the view in pixels.
        x, y: the middle of the view, in pixels of the canvas.
        zoom: canvas pixels per pixel of the view.
        roll: how far the view is turned, in radians.
    """

    size: tuple[int, int]
    x: Swing
    y: Swing
    zoom: Swing
    roll: Swing

    def pixels(self, canvas: Image.Image, time: int) -> np.ndarray:
        """The view of an RGB canvas, uint8 [h, w, 3]; bilinear."""
        return self._view(canvas, time, Image.Resampling.BILINEAR)

    def labels(self, canvas: Image.Image, time: int) -> np.ndarray:
        """The view of a canvas of labels (mode L or I), [h, w]; nearest."""
        return self._view(canvas, time, Image.Resampling.NEAREST)

    def find(self, x: float, y: float, time: int) -> tuple[float, float]:
        """Where in the view a point of the canvas is."""
        turn, zoom = self.roll.at(time), self.zoom.at(time)
        across, down = (x - self.x.at(time)) / zoom, (y - self.y.at(time)) / zoom
        cosine, sine = np.cos(turn), np.sin(turn)
        return self.size[1] / 2 + across * cosine + down * sine, self.size[0] / 2 - across * sine + down * cosine

    def _view(self, canvas: Image.Image, time: int, resampling: Image.Resampling) -> np.ndarray:
        turn, zoom = self.roll.at(time), self.zoom.at(time)
        height, width = self.size
        cosine, sine = zoom * np.cos(turn), zoom * np.sin(turn)
        # x' = a x + b y + c, y' = d x + e y + f from the view to the canvas.
        c = self.x.at(time) - cosine * width / 2 + sine * height / 2
        f = self.y.at(time) - sine * width / 2 - cosine * height / 2
        affine = (cosine, -sine, c, sine, cosine, f)
        return np.asarray(canvas.transform((width, height), Image.Transform.AFFINE, affine, resampling))


def draw_camera(
    size: tuple[int, int],
    canvas: tuple[int, int],
    generator: np.random.Generator,
    *,
    pan: float,
    speed: float,
    zoom: float,
    roll: float,
) -> Camera:
    """A camera around the middle of the canvas.

    It stays inside of the canvas if that is larger by more than 2 · `pan` + `roll` on each axis, as a share of `size`.

    Args:
        size, canvas: (height, width) of the view and of the canvas in pixels.
        generator: draws how much of each motion there is.
        pan: farthest from the middle on each axis, as a share of `size`.
        speed: of the pan, in pixels a frame.
        zoom: the most by which the view shrinks and grows, as a factor's distance from 1; it shows the canvas at its
            own size or larger.
        roll: the most it turns to either side in radians, if the view is square; a longer one turns less, so that its
            corners go no farther.
    """
    pan_y, pan_x = (generator.uniform(0.3, 1) * pan * extent for extent in size)
    turn = generator.uniform(0, roll) * min(size) / max(size)
    depth = generator.uniform(0, zoom) / 2
    return Camera(
        size=size,
        x=draw_swing(canvas[1] / 2, pan_x, speed=speed, generator=generator),
        y=draw_swing(canvas[0] / 2, pan_y, speed=speed, generator=generator),
        zoom=draw_swing(1 - depth, depth, speed=0.04 * depth, generator=generator),
        roll=draw_swing(0.0, turn, speed=0.03 * turn, generator=generator),
    )
